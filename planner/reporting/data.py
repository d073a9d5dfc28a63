"""The report as a value: rows of model x target x precision, written to JSON and read back without loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

from planner import codec
from planner.errors import RequestError
from planner.estimation.estimate import Estimate
from planner.resolve.plan import ModelIdentity, TargetIdentity
from planner.resolve.verdicts import NodeVerdict, Violation
from planner.verification.divergence import TensorDivergence
from planner.verification.fidelity import Fidelity
from planner.verification.placement import Fallback
from planner.verification.runs import Kind
from planner.verification.verify import Verification

SCHEMA = "planner/report/1"

Status = Literal["passed", "failed", "illegal", "unknown", "error", "skipped"]
Tier = Literal["declared", "emulated", "simulated", "measured"]

# From good to bad. "unknown" and "skipped" claim nothing, so they stand between a yes and a proven no.
STATUS_ORDER: tuple[Status, ...] = ("passed", "unknown", "skipped", "failed", "illegal", "error")


@dataclass(frozen=True)
class Model(ModelIdentity):
    """A model under report; ``name`` is what people see and what a baseline is matched by (see unique_names)."""

    name: str = field(kw_only=True)


@dataclass(frozen=True)
class Inputs:
    """What calibrated and judged the model: where it came from, how many samples, whether it was made up."""

    source: str
    samples: int
    synthetic: bool


@dataclass(frozen=True)
class Range:
    """What calibration saw of one tensor: lowest and highest value, and counts of equal-width bins between them."""

    tensor: str
    low: float | None
    high: float | None
    histogram: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Row:
    """One cell of the matrix: a model on a target at a precision.

    Attributes:
        precision: as asked for ("auto", "w8a16", ...). chosen: what the plan settled on; None where there is no plan.
        reason: why the status is not "passed", one sentence; may be empty. suggestions: what would change it.
        legal, placed, faithful: the three rungs of proof; None where a rung was not reached or cannot be told.
        tier: the strength of the evidence. kind: what ran, None where nothing did.
        floor_db: the SQNR (dB) below which the row counts as not faithful.
        latency_ms: per inference; a speed only where ``kind`` is "hardware".
        estimate: what a run costs by the schedule of the chip's compiler; None where it was not asked for.
        recommended: the precision to use for this model on this target.
        nodes: the decision for each node. violations: what the profile forbids.
        ranges: calibration ranges.
    """

    model: Model
    target: TargetIdentity
    precision: str
    status: Status
    chosen: str | None = None
    reason: str = ""
    suggestions: tuple[str, ...] = ()
    legal: bool | None = None
    placed: bool | None = None
    faithful: bool | None = None
    tier: Tier = "declared"
    kind: Kind | None = None
    recommended: bool = False
    floor_db: float | None = None
    size_bytes: int | None = None
    latency_ms: float | None = None
    estimate: Estimate | None = None
    inputs: Inputs | None = None
    verification: Verification | None = None
    nodes: tuple[NodeVerdict, ...] = ()
    violations: tuple[Violation, ...] = ()
    ranges: tuple[Range, ...] = ()

    @property
    def key(self) -> tuple[str, ...]:
        """What identifies the row in another report: model name, EP, device, precision asked for.

        Not the provider options: a profile that gains one must not hide what got worse.
        """
        return (self.model.name, self.target.ep, self.target.device, self.precision)

    @property
    def depth(self) -> tuple[TensorDivergence, ...]:
        """Error along the network, where it was bisected."""
        divergence = self.verification.divergence if self.verification is not None else None
        return () if divergence is None else divergence.tensors

    @property
    def fallback(self) -> tuple[Fallback, ...] | None:
        """Nodes that do not run on the target: as placed by the EP, else as planned; None where neither is known."""
        placement = self.verification.placement if self.verification is not None else None
        if placement is not None and placement.on_target is not None:
            return placement.fallback
        if not self.nodes or any(node.on_target is None for node in self.nodes):
            return None
        return tuple(Fallback(n.name, n.op_type, n.reason) for n in self.nodes if n.on_target is False)

    @property
    def worst(self) -> Fidelity | None:
        """The output with the lowest SQNR, None where nothing ran."""
        fidelity = self.verification.fidelity if self.verification is not None else ()
        return min(fidelity, key=lambda f: f.least_db, default=None)

    @property
    def judged(self) -> tuple[Fidelity, ...]:
        """What a floor is held against: each output on the samples that ran where the verdict says, and on all by emulation."""
        return () if self.verification is None else (*self.verification.fidelity, *self.verification.emulated)

    @property
    def speed_ms(self) -> float | None:
        """Latency in ms where it is a real speed: measured on hardware. A simulator's pace says nothing."""
        return self.latency_ms if self.kind == "hardware" else None


@dataclass(frozen=True)
class Cell:
    """All rows of one model on one target."""

    model: Model
    target: TargetIdentity
    rows: tuple[Row, ...]

    @property
    def best(self) -> Row:
        """The recommended row, else the first with the best status."""
        return min(self.rows, key=lambda row: (not row.recommended, STATUS_ORDER.index(row.status)))


@dataclass(frozen=True)
class Report:
    """The rows, and who made them when.

    Attributes:
        planner: version of planner. date: ISO 8601, given by the caller: nothing here reads a clock.

    Raises:
        RequestError: if two rows answer the same question.
    """

    planner: str
    date: str
    rows: tuple[Row, ...] = field(default=())

    def __post_init__(self) -> None:
        seen: set[tuple[str, ...]] = set()
        for index, row in enumerate(self.rows):
            if row.key in seen:
                raise RequestError(
                    f"rows[{index}] repeats {' / '.join(filter(None, row.key))}",
                    "give every model of a report its own name",
                )
            seen.add(row.key)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Rows grouped by model and target, in order of first appearance."""
        groups: dict[tuple[str, ...], list[Row]] = {}
        for row in self.rows:
            groups.setdefault(row.key[:3], []).append(row)
        return tuple(Cell(rows[0].model, rows[0].target, tuple(rows)) for rows in groups.values())

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object; an undefined number is null."""
        return {
            "schema": SCHEMA,
            "planner": self.planner,
            "date": self.date,
            "rows": [codec.to_json(row) for row in self.rows],
        }

    @classmethod
    def from_json(cls, value: object) -> Report:
        """The inverse of to_json; keys it does not know are passed over.

        Raises:
            RequestError: naming the place (rows[2].status) of what is missing or malformed.
        """
        if not isinstance(value, Mapping) or value.get("schema") != SCHEMA:
            found = value.get("schema") if isinstance(value, Mapping) else type(value).__name__
            raise RequestError(f"not a report: schema is {found!r}, expected {SCHEMA!r}")
        return codec.from_json(cls, value)


def unique_names(paths: Iterable[str]) -> list[str]:
    """A short display name per path: the file's stem, lengthened by parent folders until no two are the same."""
    parts = [(*PurePath(path).parent.parts, PurePath(path).stem) for path in paths]
    depths = [1] * len(parts)
    while True:
        names = ["/".join(p[-d:]) for p, d in zip(parts, depths, strict=True)]
        clashes = [i for i, name in enumerate(names) if names.count(name) > 1 and depths[i] < len(parts[i])]
        if not clashes:
            break
        for i in clashes:
            depths[i] += 1
    unique: list[str] = []
    for name in names:  # the same path twice, or a.onnx beside a.ort
        candidates = (name if i == 1 else f"{name} ({i})" for i in itertools.count(1))
        unique.append(next(c for c in candidates if c not in unique))
    return unique
