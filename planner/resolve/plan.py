"""The plan: the whole decision, one line per node, as a value that can be written to a file and read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from planner import codec
from planner.codec import FLAT
from planner.dtypes import DType, QuantConfig
from planner.model.binding import BoundShape
from planner.model.read import Model
from planner.profiles.schema import FixedParameters
from planner.resolve.replacements import Replacement

SCHEMA = "planner/plan/1"


class Basis(StrEnum):
    """What kind of knowledge a decision about a node rests on.

    RULE: a rule of the profile. LEARNED: what the EP did with such a node of a model. FOLDED: the runtime computes the
    node while it loads the model. FALLBACK: it is left to the CPU EP, as --allow-fallback asks. UNCALIBRATED: it stays
    float since no calibration sample reached it. DEFECT: what the EP would get wrong otherwise. RANGE: float16 would not
    hold its values. REFERENCE: a float32 node that others are compared with. UNKNOWN: nothing is known of it.
    """

    RULE = "rule"
    LEARNED = "learned"
    FOLDED = "folded"
    FALLBACK = "fallback"
    UNCALIBRATED = "uncalibrated"
    RANGE = "range"
    DEFECT = "defect"
    REFERENCE = "reference"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class TargetIdentity:
    """What a document says of the target: where the model must run.

    Attributes:
        ep: full provider name.
        device: name from the profile.
        options: provider options of the device.
    """

    ep: str
    device: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PlanNode:
    """The decision for one node.

    Attributes:
        config: what to store; without types for a node that is left alone.
        replacement: operator that takes the node's place ("com.microsoft.MatMulNBits"); None: it keeps its own.
        float_bias: its bias stays float though it is quantized.
        symmetric: its integer activations have a zero point of 0.
        factor: type of its second factor, with a zero point of 0, where that is another than that of its activations.
        fixed: scale and zero point that the EP demands of the output, if it does.
        rule: the profile's rule that allows it.
        basis: what kind of knowledge decided.
        on_target: whether the target's EP is to run it; None where nothing is known.
        reason: why this config, in words.
        origins: the user's own nodes that this node stands for.
    """

    name: str
    op_type: str
    config: QuantConfig = field(metadata=FLAT)
    replacement: Replacement | None = None
    fixed: FixedParameters | None = None
    float_bias: bool = False
    symmetric: bool = False
    factor: DType | None = None
    rule: str | None = None
    basis: Basis = Basis.RULE
    on_target: bool | None = True
    reason: str = ""
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        config, fixed = self.config, self.fixed
        if fixed is not None:
            kind = config.activation
            if kind is None or kind.is_float or not math.isfinite(fixed.scale):
                raise ValueError("fixed: expected a finite scale, and an integer activation")
            least, most = kind.integer_range
            if not least <= fixed.zero_point <= most:
                raise ValueError(f"fixed.zero_point: expected {least} to {most}, not {str(fixed.zero_point)[:20]}")
        if self.factor is not None and (
            self.factor not in (DType.INT8, DType.INT16) or config.activation is None or config.activation.is_float
        ):
            raise ValueError("factor: expected int8 or int16, and an integer activation")
        if self.replacement is None:
            return
        if config.weight is None or config.weight.is_float:
            raise ValueError(f"{self.replacement} needs an integer weight")
        dynamic = self.replacement is Replacement.DYNAMIC_MATMUL
        if config.dynamic is not dynamic or (config.block_size is None) is not dynamic:
            raise ValueError(f"{self.replacement} needs {'a dynamic activation' if dynamic else 'a block_size'}")
        if not dynamic and (config.activation is None or not config.activation.is_float):
            raise ValueError(f"{self.replacement} needs a float activation")

    @property
    def weight(self) -> DType | None:
        """Type of the weight."""
        return self.config.weight

    @property
    def activation(self) -> DType | None:
        """Type that the node computes with."""
        return self.config.activation


@dataclass(frozen=True)
class ModelIdentity:
    """What a document says of its model: enough to refuse another one.

    Attributes:
        shapes: what its open dimensions were bound to, and what said so.
    """

    path: str
    sha256: str
    opset: int
    node_count: int
    shapes: Mapping[str, BoundShape] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model) -> ModelIdentity:
        """That of a model that was read."""
        return cls(model.path, model.sha256, model.opset, model.node_count, model.bound)


@dataclass(frozen=True)
class ProfileIdentity:
    """Name (the EP's) and hash of a profile."""

    name: str
    sha256: str


@dataclass(frozen=True)
class EvidenceIdentity:
    """A file of what a model taught: where it lay, and its hash."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Plan:
    """A lock file: which config each node gets, for which model, under which profile, calibrated on what.

    Attributes:
        precision: the shorthand that all quantized nodes share, or "mixed".
        opset: ai.onnx opset that the applied model will have.
        shapes: input shapes the model was bound to.
        inputs: what calibrates it, as a JSON object (source, samples, sha256, synthetic); None before calibrating.
        evidence: what stood above the profile's rules.
    """

    model: ModelIdentity
    target: TargetIdentity
    precision: str
    opset: int
    nodes: tuple[PlanNode, ...]
    profile: ProfileIdentity
    shapes: Mapping[str, tuple[Annotated[int, Meta(gt=0)], ...]] = field(default_factory=dict)
    inputs: Mapping[str, Any] | None = None
    evidence: tuple[EvidenceIdentity, ...] = ()

    @property
    def is_quantized(self) -> bool:
        """Whether any activation is stored as an integer, so that applying the plan needs calibration."""
        stored = (n.config.stored_activation for n in self.nodes)
        return any(a is not None and not a.is_float for a in stored)

    @property
    def weights_alone(self) -> bool:
        """Whether weights are integers, and nothing between nodes is (see `Precision.flows`)."""
        return not self.is_quantized and any(
            n.config.weight is not None and not n.config.weight.is_float for n in self.nodes
        )

    @property
    def has_float16(self) -> bool:
        """Whether any node is float16, so that what calibration saw decides whether it can be."""
        return any(n.activation is DType.FLOAT16 for n in self.nodes)

    def to_json(self) -> dict[str, Any]:
        """The plan file's document."""
        return {"schema": SCHEMA, **codec.to_json(self)}


def read_plan(path: Path) -> Plan:
    """Read a plan file.

    Args:
        path: as `planner plan` wrote it.

    Raises:
        RequestError: missing, not JSON, another schema, or a field missing or of the wrong type (named by its path).
    """
    hint = "write one with `planner plan MODEL --ep EP -o plan.json`"
    return codec.read_json(Plan, path, SCHEMA, "a plan file", hint)
