"""From legal precisions to one verified model: plans are applied, verified and timed, and where that is not enough, searched for."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from planner.calibrate.inputs import Inputs
from planner.calibrate.ranges import Range
from planner.calibrate.run import Calibrations
from planner.codec import plain
from planner.dtypes import DType
from planner.estimation.estimate import Estimate
from planner.files import atomic, temporary_folder
from planner.model.read import Model
from planner.model.write import save
from planner.progress import Progress, silent
from planner.quantization.write import Artifact, with_data, write_quantized
from planner.resolve.choose import Resolution, make_plan, resolve_each, with_fallback
from planner.resolve.plan import Plan
from planner.resolve.revise import without_uncalibrated, without_unsafe_float16
from planner.resolve.target import Target
from planner.runtime.latency import Latency, measure_latency
from planner.runtime.processor import traits
from planner.runtime.registry import launcher
from planner.search.candidates import Assignment, Candidates, find_candidates, mixed_plan
from planner.search.evaluator import Evaluations, PlanEvaluator
from planner.search.finalists import Finalist, comparable, estimates, fastest, narrowest
from planner.search.report import Judgement, SearchReport, search_report
from planner.search.search import Found, Goal, search
from planner.verification.feed import cast_feed, input_dtypes, load
from planner.verification.fidelity import WORST
from planner.verification.floor import DEFAULT_FLOOR, Floor
from planner.verification.verify import Criteria, Verification, verify

# Searches until a plan is confirmed on more of the calibration samples, and the most dB that each next one adds to the floor.
# If held-out samples refute the plan, one more search adds as many.
_SEARCHES, _STEP_DB = 3, 2.0


@dataclass(frozen=True)
class Attempt:
    """One plan: applied, verified, and, on hardware, timed where it passed."""

    plan: Plan
    artifact: Artifact
    verification: Verification
    latency: Latency | None = None

    @property
    def passed(self) -> bool:
        """Whether it was verified."""
        return self.verification.passed

    @property
    def worst_db(self) -> float:
        """Least SQNR of any output or part of one; -200 where nothing ran."""
        return min((f.least_db for f in self.verification.fidelity), default=WORST)

    @property
    def estimate(self) -> Estimate | None:
        """What a run costs by the compiler's schedule; None where there is none."""
        return self.verification.estimate

    @property
    def speedup(self) -> float | None:
        """How many times as fast as float32 it is; None where it was not timed."""
        return None if self.latency is None else self.latency.speedup

    def to_json(self) -> dict[str, Any]:
        """A line of the contract's `attempts`: what was tried, and what came of it."""
        return {
            "precision": self.plan.precision,
            "passed": self.passed,
            "worst_sqnr_db": self.worst_db,
            "reasons": list(self.verification.reasons),
            "latency_ms": plain(self.latency),
            "speedup": self.speedup,
            "estimated_ms": None if self.estimate is None else plain(self.estimate.ms),
        }


@dataclass(frozen=True)
class Demands:
    """What the model must meet, and what it may do for that.

    Attributes:
        floor: what counts as faithful; None for 20 dB, and no search before a uniform precision failed.
        allow_fallback: nodes that the target does not take may run on the CPU EP.
        float16_io: the graph's inputs and outputs may be float16 where the plan is.
        estimated: whether plans are priced by the schedule of the chip's compiler, where the EP writes it down.
    """

    floor: Floor | None = None
    allow_fallback: bool = False
    float16_io: bool = False
    estimated: bool = True


@dataclass(frozen=True)
class Selection:
    """What was tried, and what was kept.

    Attributes:
        kept: the attempt whose model was written: on hardware the fastest that passed, else the first that passed or one
            that is estimated faster, else the most faithful one.
        attempts: all of them, in the order in which they were made.
        search: how the plan was searched for, where it was.
        finalists: plans that were compared by the schedule of the chip's compiler, where they were.
    """

    kept: Attempt
    attempts: tuple[Attempt, ...]
    search: SearchReport | None = None
    finalists: tuple[Finalist, ...] = ()


def select(
    target: Target,
    model: Model,
    resolutions: Iterator[Resolution],
    inputs: Inputs,
    output: Path,
    demands: Demands,
    *,
    auto: bool,
    calibrations: Calibrations | None = None,
    progress: Progress = silent,
) -> Selection:
    """Plan, quantize and verify, and write the best of what was tried.

    With auto and no floor, the precisions are tried in the profile's order of preference until one is verified at 20 dB; if
    none is, a mix is searched for. With a floor the search begins at once, and finds the cheapest legal plan that reaches
    it. On hardware every legal precision is timed instead, the search adds a mix where a faster precision falls short, and
    the fastest that passes is kept. Where nothing can be timed but the chip's compiler writes down its schedules, the plan that
    passed is compared with the precisions not tried, by the schedules of their files: one that is estimated faster,
    and passes, is kept in its place.

    Args:
        target: where the model must run.
        model: float32, in the form in which the target sees it.
        resolutions: of the precision, best first; the first one is legal, or allowed nevertheless.
        inputs: calibrate and evaluator.
        output: where the kept model is written.
        demands: what it must meet.
        auto: whether no precision was named: then plans are compared and searched for.
        calibrations: shared with other calls about the same model: it is calibrated once for all of them.
        progress: told of each step.

    Raises:
        RequestError: a node without a range that cannot stay float.
        EPError: the EP or its worker failed.
    """
    with temporary_folder(output.parent) as folder:
        trials = _Trials(
            target, model, inputs, Path(folder), demands, calibrations or Calibrations(), progress,
            timed=launcher(target.ep).availability().kind == "hardware", auto=auto,
        )  # fmt: skip
        report = _try(trials, resolutions)
        kept = max(trials.attempts, key=_merit)
        finalists: tuple[Finalist, ...] = ()
        if auto and kept.passed and demands.estimated and not demands.allow_fallback and comparable(target.identity):
            kept, finalists = _by_schedule(trials, kept, report)
        with atomic(output) as temporary:
            source = Path(kept.artifact.path)
            for file in with_data(source):
                file.replace(temporary.with_name(file.name.replace(source.name, output.name)))
        notes = (*kept.artifact.notes, *(_notes_on_processor(kept.plan) if trials.timed else ()))
        kept = replace(kept, artifact=replace(kept.artifact, path=str(output), notes=notes))
        return Selection(kept, tuple(trials.attempts), report, finalists)


def _try(trials: _Trials, resolutions: Iterator[Resolution]) -> SearchReport | None:
    """Make the attempts that the request calls for; the report of the search, where there was one."""
    if not trials.auto:
        trials.attempt(trials.plan(next(resolutions)))
    elif trials.timed:
        trials.walk(resolutions, every=True)
        if not all(attempt.passed for attempt in trials.attempts):
            return _search(trials)
    elif trials.demands.floor is not None:
        return _search(trials)
    else:
        trials.walk(resolutions, every=False)
        if not any(attempt.passed for attempt in trials.attempts):
            return _search(trials)
    return None


def _by_schedule(trials: _Trials, kept: Attempt, report: SearchReport | None) -> tuple[Attempt, tuple[Finalist, ...]]:
    """Compare the plan that passed with each uniform precision that was not tried, by the schedule of its very file.

    Returns:
        The attempt to keep, and all that were compared.
    """
    tried = {attempt.plan.precision for attempt in trials.attempts}
    if report is not None:
        # What the search measured below the floor is no finalist.
        tried |= {level.precision for level in report.levels if level.precision != kept.plan.precision}
    plans: dict[str, Plan] = {}
    for resolution in resolve_each(trials.target, trials.model, None):
        if resolution.legal and resolution.precision not in tried:
            plan = trials.plan(resolution)
            # Without a floor nobody said how much accuracy may go: no plan is chosen that spends more of it.
            if trials.demands.floor is not None or _narrowest(plan) >= _narrowest(kept.plan):
                plans.setdefault(plan.precision, plan)
    trials.progress("comparing schedules", 0, len(plans))
    found = estimates(trials.target.identity, plans.values(), trials.apply, trials.folder)
    trials.progress("comparing schedules", len(plans), len(plans))
    first = (kept.plan.precision, None if kept.estimate is None else kept.estimate.ms)
    finalists = fastest(first, found.items(), lambda name: trials.attempt(plans[name]).passed)
    best = next(finalist.precision for finalist in finalists if finalist.outcome == "kept")
    return (kept if best == first[0] else trials.attempts[-1]), finalists


def _narrowest(plan: Plan) -> int:
    return narrowest(node.activation for node in plan.nodes)


def _notes_on_processor(plan: Plan) -> Iterator[str]:
    """What a verification on this processor does not show of another: sums that saturate there."""
    saturating = sum((n.weight, n.activation) == (DType.INT8, DType.UINT8) for n in plan.nodes)
    if saturating and "no-vnni" not in traits():
        yield (
            f"{saturating} nodes multiply uint8 by int8: exact here; on an x86 processor without VNNI such sums can saturate: "
            "plan it there (planner then takes unsigned weights), or choose --weight-type uint8 --activation-type uint8"
        )


def _merit(attempt: Attempt) -> tuple[bool, bool, float, float]:
    """What makes an attempt better than another: passed; on the EP; faster, where timed; more faithful, where none passed.

    Faster is told by the speed-up over float32 timed in the same minute: the machine may be busier in another.
    """
    fidelity = 0.0 if attempt.passed else attempt.worst_db
    return attempt.passed, not attempt.verification.placement.fallback, attempt.speedup or 0.0, fidelity


@dataclass
class _Trials:
    """The attempts of one call of `select`, and what they share."""

    target: Target
    model: Model
    inputs: Inputs
    folder: Path
    demands: Demands
    calibrations: Calibrations
    progress: Progress
    timed: bool
    auto: bool
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def floor(self) -> Floor:
        return self.demands.floor or DEFAULT_FLOOR

    @property
    def ranges(self) -> dict[str, Range]:
        """What calibration saw, once anything asks for it."""
        return self.calibrations.of(self.model, self.inputs, self.progress)

    @functools.cached_property
    def reference(self) -> Path:
        """The normalized float32 model as a file."""
        path = self.folder / "reference.onnx"
        assert self.model.ir is not None
        save(self.model.ir, path)
        return path

    def plan(self, resolution: Resolution) -> Plan:
        """The plan of a resolution."""
        resolution = with_fallback(resolution) if self.demands.allow_fallback else resolution
        return self.protect(make_plan(self.target, self.model, resolution, self.inputs))

    def protect(self, plan: Plan) -> Plan:
        """The plan, with float nodes where calibration saw nothing, and another type for those float16 nodes whose values
        float16 would not hold.

        Float16 that was asked for stays as it was asked for, and fails where it must.
        """
        if plan.is_quantized:
            plan = without_uncalibrated(
                self.target, self.model, plan, self.ranges, allow_fallback=self.demands.allow_fallback
            )
        if not self.auto or not plan.has_float16:
            return plan
        safe = without_unsafe_float16(self.target, self.model, plan, self.ranges)
        return safe if safe is plan or not safe.is_quantized else replace(safe, inputs=self.inputs.to_json())

    def apply(self, plan: Plan, path: Path) -> Artifact:
        """Write the model of a plan."""
        ranges = self.ranges if plan.is_quantized else {}
        # Whoever asks runs it next.
        return write_quantized(self.model, plan, ranges, path, float16_io=self.demands.float16_io, proven=False)

    def attempt(self, plan: Plan) -> Attempt:
        """Apply, verify, time."""
        path = self.folder / f"{len(self.attempts)}.onnx"
        self.progress(f"quantizing to {plan.precision}", 0, 1)
        made = self.apply(plan, path)
        self.progress(f"quantizing to {plan.precision}", 1, 1)
        what = f"verifying {plan.precision} on {self.target.ep}"
        predicted = {n.name: True for n in plan.nodes if n.on_target}
        verification = verify(
            path,
            Path(self.model.path),
            self.target.identity,
            self.inputs.evaluation,
            Criteria(self.floor, self.demands.allow_fallback, predicted),
            normalized=self.reference,
            estimate_as=plan.precision if self.demands.estimated else None,
            progress=lambda done, total: self.progress(what, done, total),
        )
        self.attempts.append(Attempt(plan, made, verification, self.time(plan, path) if verification.passed else None))
        return self.attempts[-1]

    def time(self, plan: Plan, path: Path) -> Latency | None:
        """The latency of a plan's model; None where the EP is not hardware."""
        if not self.timed:
            return None
        self.progress(f"timing {plan.precision}", 0, 1)
        one, other = (
            (file, cast_feed(self.inputs.evaluation[0], input_dtypes(load(file))))
            for file in (Path(self.model.path), path)
        )
        latency = measure_latency(one, other, self.target.ep, self.target.options)
        self.progress(f"timing {plan.precision}", 1, 1)
        return latency

    def walk(self, resolutions: Iterator[Resolution], *, every: bool) -> None:
        """The precisions in order, until one passes, or all of them."""
        for resolution in resolutions:
            if resolution.legal is False and not self.demands.allow_fallback:
                break
            if self.attempt(self.plan(resolution)).passed and not every:
                break


def _search(trials: _Trials) -> SearchReport | None:
    """Search for the cheapest plan that reaches the floor on the EP, and attempt it; None where there is no choice.

    The search decides on calibration samples. Those held apart judge its plan. If they refute it, the search runs once more
    with 2 dB added, and they judge that plan as well: the report has both judgements, and says so.
    """
    started = time.monotonic()
    target, floor = trials.target, trials.floor
    candidates = find_candidates(target, trials.model, allow_fallback=trials.demands.allow_fallback)
    if not candidates.levels:
        return None

    def plan_of(assignment: Assignment, reasons: Mapping[int, str] | None = None) -> Plan:
        plan = mixed_plan(target, trials.model, candidates, assignment, reasons or {})
        return trials.protect(replace(plan, inputs=trials.inputs.to_json()) if plan.is_quantized else plan)

    def tell(done: Evaluations) -> None:
        trials.progress("searching", done.emulated + done.real, done.emulated + done.real + 1)

    def write(plan: Plan, path: Path) -> None:
        trials.apply(plan, path)

    judgements: list[Judgement] = []
    with PlanEvaluator(
        trials.reference, target.identity, trials.inputs.calibration, floor, candidates.nodes, plan_of, write, trials.folder,
        allow_fallback=trials.demands.allow_fallback, progress=tell,
    ) as evaluator:  # fmt: skip
        asked = floor.value
        for last in (False, True):
            found, asked = _confirmed(candidates, evaluator, floor, asked)
            attempt = trials.attempt(plan_of(found.assignment, _reasons(candidates, found, floor, evaluator)))
            metric = attempt.verification.metric
            score = floor.score(attempt.verification.fidelity, None if metric is None else metric.value)
            judgements.append(Judgement(score, attempt.passed))
            if attempt.passed or not found.passed or attempt.verification.session_error or last:
                break
            evaluator.refute(found.assignment, score)
            if floor.kind == "sqnr":
                asked += _STEP_DB
        seconds = time.monotonic() - started
        report = search_report(candidates, found, floor, evaluator.evaluations, tuple(judgements), seconds)
    trials.progress("searching", 1, 1)
    return report


def _confirmed(candidates: Candidates, evaluator: PlanEvaluator, floor: Floor, asked: float) -> tuple[Found, float]:
    """Search until a plan is confirmed on more calibration samples; what was found, and what was asked for in the end."""
    for _ in range(_SEARCHES):
        found = search(candidates, evaluator, Goal.of(floor, asked))
        if not found.passed:
            break
        confirmed = evaluator.confirmed(found.assignment).score
        if confirmed >= floor.value:
            break
        if floor.kind == "sqnr":
            asked += min(floor.value - confirmed, _STEP_DB)
    return found, asked


def _reasons(candidates: Candidates, found: Found, floor: Floor, evaluator: PlanEvaluator) -> dict[int, str]:
    """By index of a node, why the search keeps it above the cheapest precision."""
    named = search_report(candidates, found, floor, evaluator.evaluations, (), 0.0).promoted
    return {i: entry.reason() for p, entry in zip(found.promoted, named, strict=True) for i in p.nodes}
