"""What the public functions return: one frozen value each, with the one JSON form that `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from planner import codec
from planner.errors import RequestError
from planner.model.read import Model
from planner.resolve.choose import Resolution
from planner.resolve.legality import STATIC_SHAPES
from planner.resolve.plan import ModelIdentity, Plan, TargetIdentity
from planner.resolve.target import Target
from planner.resolve.verdicts import NodeVerdict, Verdict, Violation

if TYPE_CHECKING:
    from planner.calibrate.inputs import Inputs
    from planner.estimation.estimate import Estimate
    from planner.quantization.write import Artifact
    from planner.reporting import Difference, Failure, Report
    from planner.runtime.compile import Compiled
    from planner.search.attempt import Attempt
    from planner.search.run import Selection
    from planner.verification.verify import Verification


@dataclass(frozen=True)
class CheckResult:
    """The verdict of the profile on a precision, or on the model as it is. Nothing ran.

    Attributes:
        model: what was judged.
        target: where it is to run.
        resolution: a verdict for each node.
        notes: what reading the model told, and known defects of the EP that it meets.
        open_inputs: inputs with open dimensions, as --shape takes them, where the target wants static shapes.
    """

    model: ModelIdentity
    target: TargetIdentity
    resolution: Resolution
    notes: tuple[str, ...] = ()
    open_inputs: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: Model, target: Target, resolution: Resolution) -> CheckResult:
        """The result for a model that was read and judged."""
        opened = model.dynamic_inputs if target.profile.limits.static_shapes else ()
        return cls(ModelIdentity.of(model), target.identity, resolution, (*model.notes, *resolution.notes), opened)

    @property
    def precision(self) -> str:
        """Name of the precision that was judged, or "as stored"."""
        return self.resolution.precision

    @property
    def legal(self) -> bool | None:
        """True, False, or None where something is unknown and nothing is illegal."""
        return self.resolution.legal

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One for each node."""
        return self.resolution.verdicts

    @property
    def violations(self) -> tuple[Verdict, ...]:
        """Those of the nodes that are illegal."""
        return self.resolution.violations

    @property
    def unknown(self) -> tuple[Verdict, ...]:
        """Those of the nodes of which the profile says nothing."""
        return self.resolution.unknown

    def sentence(self) -> str:
        """Why it is not legal, in one line."""
        at, all_ = f"{self.target.ep}, {self.target.device}", len(self.verdicts)
        if self.violations and self.open_inputs:
            return (
                f"{at} takes static shapes only, and {len(self.open_inputs)} inputs of the model have open dimensions"
            )
        if self.violations:
            first = self.violations[0]
            return (
                f"illegal on {at}: {len(self.violations)} of {all_} nodes; first {first.node.op_type} "
                f"{first.node.name!r}: {first.ruling.reason}"
            )
        first = self.unknown[0]
        return (
            f"cannot tell: no evidence for {len(self.unknown)} of {all_} nodes; first {first.node.op_type} "
            f"{first.node.name!r}"
        )

    def suggestion(self) -> str:
        """What would change that, in a line, or a line for each input with open dimensions; may be empty."""
        if self.violations and self.open_inputs:
            lines = [f"--shape {shape}" for shape in self.open_inputs]
            return "\n  ".join(["write numbers for the names:", *lines])
        if self.violations:
            return self.violations[0].ruling.suggestion or ""
        return "let the EP itself decide (`planner target --allow-unknown`), or accept it with --allow-unknown"

    def violations_json(self) -> list[dict[str, Any]]:
        """Each node that is illegal; where open dimensions are the cause, each input that has some, in the place of the nodes."""
        open_shapes = [v for v in self.violations if v.ruling.rule == STATIC_SHAPES]
        found: list[Violation] = []
        if open_shapes and self.open_inputs:
            reason = f"it has open dimensions, and {self.target.ep} takes static shapes only"
            for shape in self.open_inputs:
                name = shape.partition("=")[0]
                found.append(Violation(name, "", None, None, STATIC_SHAPES, reason, f"--shape {shape}"))
        else:
            open_shapes = []
        others = (v for v in self.violations if not open_shapes or v.ruling.rule != STATIC_SHAPES)
        found += [Violation.of(v) for v in others]
        return [codec.to_json(v) for v in found]

    def to_json(self) -> dict[str, Any]:
        """The document of `planner check --json`."""
        return {
            "schema": "planner/check/1",
            "model": codec.to_json(self.model),
            "target": codec.to_json(self.target),
            "precision": self.precision,
            "legal": self.legal,
            "nodes": [codec.to_json(NodeVerdict.of(v)) for v in self.verdicts],
            "violations": self.violations_json(),
            "notes": list(self.notes),
        }


class NotLegalError(RequestError):
    """There is no plan: the precision is illegal, or the profile has no evidence for some node.

    Attributes:
        check: the verdict; its JSON is what `planner plan --json` prints then.
        exit_status: 1 illegal, 4 no evidence.
    """

    def __init__(self, check: CheckResult) -> None:
        super().__init__(check.sentence(), check.suggestion())
        self.check = check
        self.exit_status = 1 if check.legal is False else 4


@dataclass(frozen=True)
class QuantizeResult:
    """A plan that was applied.

    Attributes:
        model: the float32 model.
        target: where it is to run.
        plan: as it was applied: nodes that calibration did not reach are float.
        artifact: what was written.
    """

    model: ModelIdentity
    target: TargetIdentity
    plan: Plan
    artifact: Artifact

    @property
    def path(self) -> str:
        """Where the model was written."""
        return self.artifact.path

    def to_json(self) -> dict[str, Any]:
        """The document of `planner quantize --json`."""
        return {
            "schema": "planner/quantize/1",
            "model": codec.to_json(self.model),
            "target": codec.to_json(self.target),
            "plan": self.plan.to_json(),
            "artifact": codec.to_json(self.artifact),
        }


@dataclass(frozen=True)
class VerifyResult:
    """A candidate that was run beside its reference.

    Attributes:
        model: the float32 reference.
        target: where the candidate is to run.
        verification: what was found.
        inputs: what it was judged on.
    """

    model: ModelIdentity
    target: TargetIdentity
    verification: Verification
    inputs: Inputs

    @property
    def passed(self) -> bool:
        """Whether it is placed and faithful as demanded."""
        return self.verification.passed

    def to_json(self) -> dict[str, Any]:
        """The document of `planner verify --json`."""
        return {
            "schema": "planner/verify/1",
            "model": codec.to_json(self.model),
            "target": codec.to_json(self.target),
            "verification": codec.to_json(self.verification),
            "estimate": codec.plain(self.verification.estimate),
            "passed": self.passed,
            "inputs": self.inputs.to_json(),
        }


@dataclass(frozen=True)
class TargetResult:
    """What the whole job came to.

    Attributes:
        check: the profile's verdict on the precision; with auto, on the first candidate.
        selection: what was tried and kept; None where nothing was allowed to run.
        inputs: what calibrated and judged it; None where nothing ran.
        compiled: the model compiled for the chip, where that was asked for and succeeded.
        compile_error: why it was not compiled.
        report: files of the report, where one was asked for.
    """

    check: CheckResult
    selection: Selection | None = None
    inputs: Inputs | None = None
    compiled: Compiled | None = None
    compile_error: str | None = None
    report: tuple[str, ...] = ()

    @property
    def kept(self) -> Attempt | None:
        """The attempt whose model was written."""
        return None if self.selection is None else self.selection.kept

    @property
    def passed(self) -> bool:
        """Whether a verified model was written."""
        return self.kept is not None and self.kept.passed

    def to_json(self) -> dict[str, Any]:
        """The document of `planner target --json`."""
        kept, tried = self.kept, self.selection
        artifact: Mapping[str, Any] | None = None
        if kept is not None:
            artifact = {**codec.to_json(kept.artifact), "compiled": codec.plain(self.compiled)}
        return {
            "schema": "planner/target/1",
            "model": codec.to_json(self.check.model),
            "target": codec.to_json(self.check.target),
            "plan": None if kept is None else kept.plan.to_json(),
            "artifact": artifact,
            "verification": None if kept is None else codec.to_json(kept.verification),
            "estimate": None if kept is None else codec.plain(kept.estimate),
            "passed": self.passed,
            "violations": self.check.violations_json() if kept is None else [],
            "attempts": [] if tried is None else tried.tried(),
            "search": None if tried is None else codec.plain(tried.search),
            "finalists": [] if tried is None else codec.plain(tried.finalists),
            "latency_ms": None if kept is None else codec.plain(kept.latency),
            "speedup": None if kept is None else kept.speedup,
        }


@dataclass(frozen=True)
class ReportResult:
    """A compatibility matrix, and what it fails.

    Attributes:
        report: the rows.
        files: what was written.
        failures: what it does not meet: verdicts and the gate; with a baseline, only what that met.
        difference: what changed since the baseline; None where none was given.
    """

    report: Report
    files: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    difference: Difference | None = None

    @property
    def exit_status(self) -> int:
        """0 nothing fails; else a proven no, or what got worse (1), before an EP failure (3) before "cannot tell" (4)."""
        from planner.reporting.gate import exit_status

        worse = self.difference is not None and bool(self.difference.worse)
        return 1 if worse else exit_status(self.failures)

    def to_json(self) -> dict[str, Any]:
        """The document of `planner report --json`: that of report.json, and what it fails."""
        changes = None if self.difference is None else codec.plain(self.difference.changes)
        return {
            **self.report.to_json(),
            "files": list(self.files),
            "failures": codec.plain(self.failures),
            "changes": changes,
        }


@dataclass(frozen=True)
class EstimateResult:
    """What a model costs on chips, estimated from schedules. Nothing ran.

    Attributes:
        model: what was estimated.
        ep: full name of the EP whose compiler made the schedules.
        rows: one for each device and precision.
    """

    model: ModelIdentity
    ep: str
    rows: tuple[Estimate, ...]

    def to_json(self, *, by_node: bool = True) -> dict[str, Any]:
        """The document of `planner estimate --json`."""
        return {
            "schema": "planner/estimate/1",
            "model": codec.to_json(self.model),
            "ep": self.ep,
            "rows": [row.to_json(by_node=by_node) for row in self.rows],
        }
