"""The plan: the whole decision, one line per node, as a value that can be written to a file and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from planner.dtypes import DType, Pair, parse_dtype
from planner.errors import RequestError
from planner.model.read import Model
from planner.resolve.replacements import REPLACEMENTS

SCHEMA = "planner/plan/1"


@dataclass(frozen=True)
class TargetIdentity:
    """Where the model must run.

    Attributes:
        ep: full provider name. device: name from the profile. options: provider options of the device.
    """

    ep: str
    device: str
    options: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"ep": self.ep, "device": self.device, "options": dict(self.options)}


@dataclass(frozen=True)
class PlanNode:
    """The decision for one node.

    Attributes:
        weight, activation: types to store; both None for a node that is left alone.
        per_channel: one scale per output channel of the weight.
        fixed: (scale, zero point) that the EP demands of the output, if it does.
        rule: the profile's rule that allows it. reason: why this pair, in words.
        origins: the user's own nodes that this node stands for.
        block_size: so many numbers of the weight share a scale; None: no blocks.
        dynamic: the activation is quantized in every run by its own range; it reaches and leaves the node as float32.
        replacement: operator that takes the node's place ("com.microsoft.MatMulNBits"); None: it keeps its own.
    """

    name: str
    op_type: str
    weight: DType | None
    activation: DType | None
    per_channel: bool = False
    fixed: tuple[float, int] | None = None
    rule: str | None = None
    reason: str = ""
    origins: tuple[str, ...] = ()
    block_size: int | None = None
    dynamic: bool = False
    replacement: str | None = None

    @property
    def pair(self) -> Pair:
        return Pair(self.weight, self.activation, self.block_size, self.dynamic)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "op_type": self.op_type,
            "weight": self.weight,
            "activation": self.activation,
            "per_channel": self.per_channel,
            "block_size": self.block_size,
            "dynamic": self.dynamic,
            "replacement": self.replacement,
            "fixed": None if self.fixed is None else {"scale": self.fixed[0], "zero_point": self.fixed[1]},
            "rule": self.rule,
            "reason": self.reason,
            "origins": list(self.origins),
        }


@dataclass(frozen=True)
class ModelIdentity:
    """What a plan says of its model: enough to refuse another one."""

    path: str
    sha256: str
    opset: int
    node_count: int

    @classmethod
    def of(cls, model: Model) -> ModelIdentity:
        """That of a model that was read."""
        return cls(model.path, model.sha256, model.opset, model.node_count)

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "sha256": self.sha256, "opset": self.opset, "node_count": self.node_count}


@dataclass(frozen=True)
class Plan:
    """A lock file: which pair each node gets, for which model, under which profile, calibrated on what.

    Attributes:
        precision: the shorthand that all quantized nodes share, or "mixed".
        opset: ai.onnx opset that the applied model will have.
        shapes: input shapes the model was bound to.
        inputs: what calibrates it, as a JSON object (source, samples, sha256, synthetic); None before calibrating.
        profile: name and sha256 of the profile.
    """

    model: ModelIdentity
    target: TargetIdentity
    precision: str
    opset: int
    nodes: tuple[PlanNode, ...]
    profile_name: str
    profile_sha256: str
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    inputs: Mapping[str, Any] | None = None

    @property
    def is_quantized(self) -> bool:
        """Whether any activation is stored as an integer, so that applying the plan needs calibration."""
        stored = (n.pair.stored_activation for n in self.nodes)
        return any(a is not None and not a.is_float for a in stored)

    @property
    def has_float16(self) -> bool:
        """Whether any node is float16, so that what calibration saw decides whether it can be."""
        return any(n.activation is DType.FLOAT16 for n in self.nodes)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "model": self.model.to_json(),
            "target": self.target.to_json(),
            "precision": self.precision,
            "opset": self.opset,
            "shapes": {name: list(dims) for name, dims in self.shapes.items()},
            "nodes": [n.to_json() for n in self.nodes],
            "inputs": None if self.inputs is None else dict(self.inputs),
            "profile": {"name": self.profile_name, "sha256": self.profile_sha256},
        }


def read_plan(path: Path) -> Plan:
    """Read a plan file.

    Raises:
        RequestError: missing, not JSON, another schema, or a field missing or of the wrong type (named by its path).
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(
            f"{path}: no such file", "write one with `planner plan MODEL --ep EP -o plan.json`"
        ) from None
    except (OSError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise RequestError(f"{path}: not a plan file: {str(error).splitlines()[0]}") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise RequestError(f"{path}: not a plan file: schema is {found!r}, expected {SCHEMA!r}")
    return _Reader(path).plan(data)


class _Reader:
    """Checks the fields of a plan file; errors name the dotted path of the field."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fail(self, where: str, expected: str) -> RequestError:
        return RequestError(f"{self.path}: {where}: expected {expected}")

    def get(self, data: Mapping[str, Any], where: str, key: str, kind: type | tuple[type, ...], name: str) -> Any:
        value = data.get(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.fail(f"{where}{key}", name)
        return value

    def dtype(self, data: Mapping[str, Any], where: str, key: str) -> DType | None:
        if data.get(key) is None:
            return None
        try:
            return parse_dtype(str(data[key]))
        except RequestError as error:
            raise self.fail(f"{where}{key}", f"a dtype ({error.hint})") from None

    def block_size(self, data: Mapping[str, Any], where: str) -> int | None:
        size = data.get("block_size")
        if size is not None and (type(size) is not int or size < 16 or size & (size - 1)):
            raise self.fail(f"{where}block_size", "a power of two from 16 on, or null")
        return size

    def replacement(self, data: Mapping[str, Any], where: str) -> str | None:
        name = data.get("replacement")
        if name is None:
            return None
        if name not in REPLACEMENTS:
            raise self.fail(f"{where}replacement", f"null or one of {', '.join(REPLACEMENTS)}")
        return str(name)

    def plan(self, data: Mapping[str, Any]) -> Plan:
        model = self.get(data, "", "model", dict, "an object")
        target = self.get(data, "", "target", dict, "an object")
        profile = self.get(data, "", "profile", dict, "an object")
        shapes = self.get(data, "", "shapes", dict, "an object")
        options = self.get(target, "target.", "options", dict, "an object")
        for name, dims in shapes.items():
            if not isinstance(dims, list) or not all(type(d) is int and d > 0 for d in dims):
                raise self.fail(f"shapes.{name}", "a list of positive integers")
        nodes = self.get(data, "", "nodes", list, "a list")
        inputs = data.get("inputs")
        if inputs is not None and not isinstance(inputs, dict):
            raise self.fail("inputs", "an object or null")
        return Plan(
            model=ModelIdentity(
                self.get(model, "model.", "path", str, "a string"),
                self.get(model, "model.", "sha256", str, "a string"),
                self.get(model, "model.", "opset", int, "an integer"),
                self.get(model, "model.", "node_count", int, "an integer"),
            ),
            target=TargetIdentity(
                self.get(target, "target.", "ep", str, "a string"),
                self.get(target, "target.", "device", str, "a string"),
                {str(k): str(v) for k, v in options.items()},
            ),
            precision=self.get(data, "", "precision", str, "a string"),
            opset=self.get(data, "", "opset", int, "an integer"),
            nodes=tuple(self.node(n, f"nodes[{i}].") for i, n in enumerate(nodes)),
            profile_name=self.get(profile, "profile.", "name", str, "a string"),
            profile_sha256=self.get(profile, "profile.", "sha256", str, "a string"),
            shapes={name: tuple(dims) for name, dims in shapes.items()},
            inputs=inputs,
        )

    def node(self, data: Any, where: str) -> PlanNode:
        if not isinstance(data, dict):
            raise self.fail(where.rstrip("."), "an object")
        fixed = data.get("fixed")
        if fixed is not None:
            if not isinstance(fixed, dict):
                raise self.fail(f"{where}fixed", "an object or null")
            scale = float(self.get(fixed, f"{where}fixed.", "scale", (int, float), "a number"))
            if not scale > 0:
                raise self.fail(f"{where}fixed.scale", "a number above 0")
            fixed = (scale, self.get(fixed, f"{where}fixed.", "zero_point", int, "an integer"))
        return PlanNode(
            name=self.get(data, where, "name", str, "a string"),
            op_type=self.get(data, where, "op_type", str, "a string"),
            weight=self.dtype(data, where, "weight"),
            activation=self.dtype(data, where, "activation"),
            per_channel=self.get({"per_channel": False, **data}, where, "per_channel", bool, "true or false"),
            block_size=self.block_size(data, where),
            dynamic=self.get({"dynamic": False, **data}, where, "dynamic", bool, "true or false"),
            replacement=self.replacement(data, where),
            fixed=fixed,
            rule=data.get("rule"),
            reason=str(data.get("reason", "")),
            origins=tuple(str(o) for o in self.get({"origins": [], **data}, where, "origins", list, "a list")),
        )
