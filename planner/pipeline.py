"""The whole road, each step a plain value: read, resolve, calibrate, apply, verify. I/O happens here and below, not above."""

from __future__ import annotations

import functools
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.dtypes import DType, Precision, parse_dtype, parse_precision, precision_by_name
from planner.errors import RequestError
from planner.model.fuse import FUSED_OPERATORS
from planner.model.read import Model, read_model
from planner.model.write import save
from planner.profiles.load import load_profiles
from planner.profiles.schema import Profile
from planner.resolve.choose import Resolution, judge_stored, make_plan, resolve, resolve_auto, with_fallback
from planner.resolve.legality import takes
from planner.resolve.plan import Plan, Target

if TYPE_CHECKING:
    import onnx_ir as ir

    from planner.calibrate.inputs import Inputs
    from planner.calibrate.observe import Range
    from planner.search.report import SearchReport
    from planner.verification.floor import Floor
    from planner.verification.verify import Verification

Progress = Callable[[str, int, int], None]


def _silent(what: str, done: int, total: int) -> None:
    """No progress shown."""


@dataclass(frozen=True)
class Session:
    """A profile and the target within it: what every command starts from."""

    profile: Profile
    target: Target

    @classmethod
    def open(
        cls, ep: str, device: str | None = None, profiles: Sequence[Path] = (), evidence: Sequence[Path] = ()
    ) -> Session:
        """Find the EP's profile and the device in it.

        Args:
            ep: alias or full provider name. device: name from the profile; None for its default.
            profiles: files that add to or override the shipped profiles.
            evidence: files that `planner probe --from-model` wrote: what they saw stands above the profile's rules.

        Raises:
            RequestError: unknown EP or device, malformed profile.
        """
        profile = load_profiles(profiles).find(ep)
        if evidence:
            from planner.profiles.learned import with_learned

            for path in evidence:
                profile = with_learned(profile, path)
        name = device or profile.file.default_device
        profile.device(name)
        return cls(profile, Target(profile.ep, name, profile.options(name)))

    def on_processor(self, traits: Sequence[str]) -> Session:
        """The session, where the device is a processor, with what the profile's rules may ask of it: the traits that
        planner.runtime.processor.traits() finds on this machine. Elsewhere the session as it is."""
        if self.profile.device(self.target.device).kind != "cpu":
            return self
        return replace(self, profile=self.profile.with_traits(self.target.device, traits))

    def read(self, path: Path, shapes: Mapping[str, Sequence[int]] | None = None, *, stored: bool = False) -> Model:
        """Read a model in the form in which this target sees it: only operators that it takes are fused into.

        Args:
            stored: to judge the file as it is: its opset stays, which is otherwise raised to what is written.
        """
        fused = [op for op in sorted(FUSED_OPERATORS) if takes(self.profile, self.target.device, op, 21)]
        return read_model(path, shapes, fused=fused, as_stored=stored)

    def resolutions(self, model: Model, precision: Precision | None) -> Iterator[Resolution]:
        """What the precision resolves to; for None (auto) each candidate in the profile's order of preference.

        Raises:
            RequestError: the model is quantized already: its precision is what it stores.
        """
        _refuse_quantized(model)
        if precision is None:
            yield from resolve_auto(model, self.profile, self.target.device)
        else:
            yield resolve(model, self.profile, self.target.device, precision)

    def check(self, model: Model, precision: Precision | None, *, stored: bool = False) -> Resolution:
        """Judge a precision, or (``stored``) the model as it is."""
        if stored:
            return judge_stored(model, self.profile, self.target.device)
        return next(self.resolutions(model, precision))

    def plan(self, model: Model, resolution: Resolution, inputs: Inputs | None = None) -> Plan:
        """The plan of a legal resolution, calibrated by these inputs where it needs any."""
        plan = make_plan(model, self.profile, self.target, resolution)
        return replace(plan, inputs=inputs.to_json()) if inputs is not None and plan.is_quantized else plan


def _refuse_quantized(model: Model) -> None:
    stored = [n for n in model.nodes if n.stored.activation is not None and not n.stored.activation.is_float]
    if stored:
        first = stored[0]
        raise RequestError(
            f"{model.path} is quantized already: {len(stored)} nodes, first {first.op_type} {first.name!r} at {first.stored}",
            "give the float32 model it was made of; `planner check` without --precision judges this one as it is, and "
            "`planner verify` runs it",
        )


def requested_precision(
    precision: str | None, weight_type: str | None, activation_type: str | None
) -> Precision | None:
    """The precision that the options ask for; None for auto.

    Raises:
        RequestError: unknown names, or options that contradict one another.
    """
    if weight_type is None and activation_type is None:
        return None if precision is None or precision.strip().lower() == "auto" else parse_precision(precision)
    if precision is not None:
        raise RequestError("--precision and --weight-type/--activation-type exclude one another", "give one of them")
    if weight_type is None or activation_type is None:
        raise RequestError(
            "--weight-type and --activation-type go together",
            "for example --weight-type uint8 --activation-type uint16",
        )
    return precision_by_name(parse_dtype(weight_type), parse_dtype(activation_type))


def calibrate(
    model: Model, samples: Sequence[Mapping[str, Any]], progress: Progress = _silent, method: str = "minmax"
) -> dict[str, Range]:
    """The range of each float tensor of the float32 model over the samples, observed on the CPU EP in a worker.

    One pass, whose memory does not grow with the number of samples.

    Args:
        method: minmax, average, percentile, entropy or mse: how ranges for 8-bit codes are cut.

    Raises:
        RequestError: an unknown method, or NaN somewhere in the model, with the name of the node.
    """
    from planner.calibrate.observe import Method, Run, collect
    from planner.runtime.client import Worker
    from planner.runtime.registry import CPU

    if method not in list(Method):
        raise RequestError(f"unknown calibration method {method!r}", f"known: {', '.join(Method)}")
    assert model.ir is not None
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress("calibrating", done, len(samples))

    with tempfile.TemporaryDirectory(prefix="planner-") as folder, Worker(CPU) as worker:

        def start(extended: ir.Model) -> Run:
            path = Path(folder) / "observed.onnx"
            save(extended, path, embed=False)
            worker.open(path, {}, lean=True, session_config=_FRUGAL)
            return lambda sample: worker.run(sample).outputs

        progress("calibrating", 0, len(samples))
        return collect(model.ir, start, samples, Method(method), step)


# Weights that are not packed stay in the file, mapped; packing would copy them all. Threads that wait in loops for the next
# node would burn as much processor time as the model itself, between its small reductions.
_FRUGAL = {"session.disable_prepacking": "1", "session.intra_op.allow_spinning": "0"}


class Calibrations:
    """What calibration saw, kept for every later plan of the same model in the same form, on the same inputs."""

    def __init__(self) -> None:
        self._known: dict[object, dict[str, Range]] = {}

    def of(self, model: Model, inputs: Inputs, progress: Progress = _silent) -> dict[str, Range]:
        """As `calibrate`, once."""
        # Targets see a model in different forms: which operators are fused hangs on what they take.
        form = tuple((node.name, node.op_type, node.outputs) for node in model.nodes)
        key = (model.sha256, tuple(model.shapes.items()), form, inputs.sha256, inputs.method)
        if key not in self._known:
            self._known[key] = calibrate(model, inputs.calibration, progress, inputs.method)
        return self._known[key]


@dataclass(frozen=True)
class Artifact:
    """A written model."""

    path: str
    sha256: str
    bytes: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "sha256": self.sha256, "bytes": self.bytes, "notes": list(self.notes)}


def quantize(
    model: Model, plan: Plan, ranges: Mapping[str, Range], output: Path, *, float16_io: bool = False
) -> Artifact:
    """Apply the plan and write the model to ``output``, whole or not at all.

    The same model, plan and inputs give the same bytes.
    """
    from planner.files import atomic
    from planner.quantization.walk import apply_plan
    from planner.resolve.float16_range import notes_on_float16
    from planner.resolve.uncalibrated import notes_on_unreached

    applied = apply_plan(model, plan, ranges, float16_io=float16_io)
    with atomic(output) as temporary:
        save(applied.model, temporary)
    return artifact(output, (*applied.notes, *notes_on_float16(plan), *notes_on_unreached(plan)))


def artifact(path: Path, notes: tuple[str, ...] = ()) -> Artifact:
    """Size and hash of a written model, its external data included."""
    digest, size = hashlib.sha256(), 0
    for file in (path, path.with_name(f"{path.name}.data")):
        if file.exists():
            size += file.stat().st_size
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return Artifact(str(path), digest.hexdigest(), size, notes)


@dataclass(frozen=True)
class Latency:
    """Measured on this machine: medians in milliseconds, float32 and candidate in turns."""

    float32_ms: float
    candidate_ms: float

    @property
    def speedup(self) -> float:
        return self.float32_ms / self.candidate_ms

    def to_json(self) -> dict[str, Any]:
        return {"float32": self.float32_ms, "candidate": self.candidate_ms}


@dataclass(frozen=True)
class Attempt:
    """One plan: applied, verified, and, on hardware, timed where it passed."""

    plan: Plan
    artifact: Artifact
    verification: Verification
    latency: Latency | None = None

    @property
    def passed(self) -> bool:
        return self.verification.passed

    @property
    def worst_db(self) -> float:
        """Least SQNR of any output; -200 where nothing ran."""
        return min((f.sqnr_db for f in self.verification.fidelity), default=-200.0)

    def to_json(self) -> dict[str, Any]:
        return {
            "precision": self.plan.precision,
            "passed": self.passed,
            "worst_sqnr_db": self.worst_db,
            "reasons": list(self.verification.reasons),
            "latency_ms": None if self.latency is None else self.latency.to_json(),
            "speedup": None if self.latency is None else self.latency.speedup,
        }


@dataclass(frozen=True)
class Outcome:
    """What the whole job came to.

    Attributes:
        resolution: the failed one, where nothing was legal; else the first that was legal.
        kept: the attempt whose model was written: on hardware the fastest that passed, else the first that passed,
            else the most faithful one; None where nothing was legal.
        attempts: all of them, in the order in which they were made.
        search: how the plan was searched for, where it was.
    """

    resolution: Resolution
    kept: Attempt | None
    attempts: tuple[Attempt, ...]
    search: SearchReport | None = None


def run_target(
    session: Session,
    model: Model,
    precision: Precision | None,
    inputs: Inputs,
    output: Path,
    *,
    floor: Floor | None = None,
    allow_fallback: bool = False,
    float16_io: bool = False,
    calibrations: Calibrations | None = None,
    progress: Progress = _silent,
) -> Outcome:
    """Plan, quantize and verify.

    With auto (``precision`` None) and no floor, the profile's precisions are tried in its order of preference until one
    is verified at 20 dB; only where none is does the search begin. With a floor the search begins at once, and finds the
    cheapest legal plan that reaches it. On hardware every legal precision is timed instead, the search adds a mixed one
    where a faster precision falls short, and the fastest that passes is kept.

    Args:
        calibrations: shared with other calls about the same model: it is calibrated once for all of them.
    """
    from planner.files import atomic
    from planner.runtime.registry import launcher
    from planner.verification.floor import DEFAULT_FLOOR

    real = launcher(session.target.ep).availability().kind
    report: SearchReport | None = None
    with tempfile.TemporaryDirectory(prefix=".planner-", dir=output.parent) as folder:
        job = _Job(
            session, model, inputs, Path(folder), floor or DEFAULT_FLOOR, allow_fallback, float16_io, progress,
            timed=real == "hardware", asked=precision is not None, calibrations=calibrations or Calibrations(),
        )  # fmt: skip
        first = next(job.resolutions(precision))
        if first.legal is False:
            return Outcome(first, None, ())
        if precision is not None:
            job.attempt(session.plan(model, first, inputs))
        elif job.timed:
            job.walk(every=True)
            report = job.search() if any(not a.passed for a in job.attempts) else None
        elif floor is not None:
            report = job.search()
        else:
            job.walk(every=False)
            report = None if any(a.passed for a in job.attempts) else job.search()
        kept = max(job.attempts, key=_merit)
        with atomic(output) as temporary:
            source = Path(kept.artifact.path)
            for file in (source, source.with_name(f"{source.name}.data")):
                if file.exists():
                    file.replace(temporary.with_name(file.name.replace(source.name, output.name)))
        notes = (*kept.artifact.notes, *(_notes_on_processor(kept.plan) if job.timed else ()))
        kept = replace(kept, artifact=replace(kept.artifact, path=str(output), notes=notes))
        return Outcome(first, kept, tuple(job.attempts), report)


def _notes_on_processor(plan: Plan) -> Iterator[str]:
    """What a verification on this processor does not show of another: sums that saturate there."""
    from planner.runtime.processor import has_vnni

    saturating = sum((n.weight, n.activation) == (DType.INT8, DType.UINT8) for n in plan.nodes)
    if saturating and has_vnni() is not False:
        yield (
            f"{saturating} nodes multiply uint8 by int8: exact here; on an x86 processor without VNNI such sums can saturate: "
            "plan it there (planner then takes unsigned weights), or choose --weight-type uint8 --activation-type uint8"
        )


def _merit(attempt: Attempt) -> tuple[bool, bool, float, float]:
    """What makes an attempt better than another: passed; on the EP; faster, where timed; more faithful, where none passed.

    Faster is told by the speed-up over float32 timed in the same minute: the machine may be busier in another.
    """
    speed = 0.0 if attempt.latency is None else attempt.latency.speedup
    fidelity = 0.0 if attempt.passed else attempt.worst_db
    return attempt.passed, not attempt.verification.placement.fallback, speed, fidelity


# Searches until a plan is confirmed on more of the calibration samples, and how much more each next one asks for, at most; so
# much more is asked for as well, once, where the samples held apart refute what was found.
_SEARCHES, _STEP_DB = 3, 2.0
# Timing: rounds of float32 and candidate in turns, so that a busy machine slows both; runs a round, of which some warm up.
_ROUNDS, _RUNS, _WARMUP = 5, 5, 2


@dataclass
class _Job:
    """One run of `run_target`: what its steps share."""

    session: Session
    model: Model
    inputs: Inputs
    folder: Path
    floor: Floor
    allow_fallback: bool
    float16_io: bool
    progress: Progress
    timed: bool
    asked: bool
    calibrations: Calibrations
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def ranges(self) -> dict[str, Range]:
        """What calibration saw, once anything asks for it."""
        return self.calibrations.of(self.model, self.inputs, self.progress)

    def protect(self, plan: Plan) -> Plan:
        """The plan, with float nodes where calibration saw nothing, and another type for those float16 nodes whose values
        float16 would not hold.

        Float16 that was asked for stays as it was asked for, and fails where it must.
        """
        from planner.resolve.float16_range import without_unsafe_float16
        from planner.resolve.uncalibrated import without_unreached

        if plan.is_quantized:
            plan = without_unreached(
                self.model, self.session.profile, plan, self.ranges, allow_fallback=self.allow_fallback
            )
        if self.asked or not plan.has_float16:
            return plan
        safe = without_unsafe_float16(self.model, self.session.profile, plan, self.ranges)
        return safe if safe is plan or not safe.is_quantized else replace(safe, inputs=self.inputs.to_json())

    @functools.cached_property
    def reference(self) -> Path:
        """The normalized float32 model as a file."""
        path = self.folder / "reference.onnx"
        assert self.model.ir is not None
        save(self.model.ir, path)
        return path

    def resolutions(self, precision: Precision | None) -> Iterator[Resolution]:
        for resolution in self.session.resolutions(self.model, precision):
            yield with_fallback(resolution) if self.allow_fallback else resolution

    def apply(self, plan: Plan, path: Path) -> Artifact:
        ranges = self.ranges if plan.is_quantized else {}
        return quantize(self.model, plan, ranges, path, float16_io=self.float16_io)

    def attempt(self, plan: Plan) -> Attempt:
        """Apply, verify, time."""
        from planner.verification.verify import verify

        plan = self.protect(plan)
        path = self.folder / f"{len(self.attempts)}.onnx"
        self.progress(f"quantizing to {plan.precision}", 0, 1)
        made = self.apply(plan, path)
        self.progress(f"quantizing to {plan.precision}", 1, 1)
        what = f"verifying {plan.precision} on {self.session.target.ep}"
        verification = verify(
            path,
            Path(self.model.path),
            self.session.target,
            self.inputs.evaluation,
            floor=self.floor,
            normalized=self.reference,
            allow_fallback=self.allow_fallback,
            predicted={n.name: True for n in plan.nodes if n.rule is not None},
            progress=lambda done, total: self.progress(what, done, total),
        )
        latency = None
        if self.timed and verification.passed:
            self.progress(f"timing {plan.precision}", 0, 1)
            latency = measure_latency(Path(self.model.path), path, self.session.target, self.inputs.evaluation[0])
            self.progress(f"timing {plan.precision}", 1, 1)
        self.attempts.append(Attempt(plan, made, verification, latency))
        return self.attempts[-1]

    def walk(self, *, every: bool) -> None:
        """The profile's precisions in its order of preference, until one passes, or all of them."""
        for resolution in self.resolutions(None):
            if resolution.legal is False:
                break
            attempt = self.attempt(self.session.plan(self.model, resolution, self.inputs))
            if attempt.passed and not every:
                break

    def search(self) -> SearchReport | None:
        """Search for the cheapest plan that reaches the floor on the EP, and attempt it; None where there is no choice.

        The search decides on calibration samples. Those held apart judge its plan; where they refute it, one more plan is
        looked for, that keeps more, and judged on them as well: the report has both judgements, and says so.
        """
        from planner.search.candidates import Assignment, make_ladder, mixed_plan
        from planner.search.evaluator import Evaluations, PlanJudge
        from planner.search.report import Judgement, search_report
        from planner.search.search import search

        started = time.monotonic()
        session, target = self.session, self.session.target
        ladder = make_ladder(self.model, session.profile, target.device, allow_fallback=self.allow_fallback)
        if not ladder.levels:
            return None

        def plan_of(assignment: Assignment, reasons: Mapping[int, str] | None = None) -> Plan:
            plan = mixed_plan(self.model, session.profile, target, ladder, assignment, reasons or {})
            return self.protect(replace(plan, inputs=self.inputs.to_json()) if plan.is_quantized else plan)

        def tell(done: Evaluations) -> None:
            self.progress("searching", done.emulated + done.real, done.emulated + done.real + 1)

        asked = self.floor.value
        judgements: list[Judgement] = []
        with PlanJudge(
            self.reference, target, self.inputs.calibration, self.floor, ladder.nodes, plan_of,
            lambda plan, path: void(self.apply(plan, path)), self.folder,
            allow_fallback=self.allow_fallback, progress=tell,
        ) as judge:  # fmt: skip
            for last in (False, True):
                for _ in range(_SEARCHES):
                    found = search(ladder, judge, self.floor.goal(asked))
                    if not found.passed:
                        break
                    confirmed = judge.confirmed(found.assignment).score
                    if confirmed >= self.floor.value:
                        break
                    if self.floor.kind == "sqnr":
                        asked += min(self.floor.value - confirmed, _STEP_DB)
                named = search_report(ladder, found, self.floor, judge.evaluations, (), 0.0).promoted
                reasons = {i: r.reason() for p, r in zip(found.promoted, named, strict=True) for i in p.nodes}
                attempt = self.attempt(plan_of(found.assignment, reasons))
                metric = attempt.verification.metric
                score = self.floor.score(attempt.verification.fidelity, None if metric is None else metric.value)
                judgements.append(Judgement(score, attempt.passed))
                if attempt.passed or not found.passed or attempt.verification.session_error or last:
                    break
                judge.refute(found.assignment, score)
                if self.floor.kind == "sqnr":
                    asked += _STEP_DB
            report = search_report(
                ladder, found, self.floor, judge.evaluations, tuple(judgements), time.monotonic() - started
            )
        self.progress("searching", 1, 1)
        return report


def void(_: object) -> None:
    """Throw a value away."""


def measure_latency(reference: Path, candidate: Path, target: Target, sample: Mapping[str, Any]) -> Latency:
    """Median milliseconds of one run of each on the target's EP, as users run them (all of onnxruntime's optimizations)."""
    from planner.runtime.client import Worker
    from planner.verification.feed import cast_feed, input_dtypes, load

    feeds = [cast_feed(sample, input_dtypes(load(path))) for path in (reference, candidate)]
    seconds: list[list[float]] = [[], []]
    with Worker(target.ep) as one, Worker(target.ep) as other:
        for worker, path in ((one, reference), (other, candidate)):
            worker.open(path, target.options)
        for _ in range(_ROUNDS):
            for i, worker in enumerate((one, other)):
                seconds[i] += worker.time(feeds[i], warmup=_WARMUP, runs=_RUNS)
    return Latency(*(1000 * statistics.median(s) for s in seconds))
