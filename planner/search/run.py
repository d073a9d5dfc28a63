"""From legal precisions to one verified model: plans are applied, verified and timed, and where that is not enough, searched for."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from planner.calibrate.inputs import Inputs
from planner.calibrate.run import Calibrations
from planner.dtypes import DType
from planner.estimation.latency import Interval
from planner.files import atomic, temporary_folder, unchanged
from planner.limits import stoppable
from planner.model.read import Model
from planner.progress import Progress, silent
from planner.quantization.write import with_data
from planner.resolve.choose import Resolution
from planner.resolve.plan import Plan
from planner.resolve.target import Target
from planner.runtime.processor import traits
from planner.runtime.registry import launcher
from planner.search.attempt import Attempt, FailedAttempt
from planner.search.candidates import Assignment, Candidates, find_candidates, mixed_plan
from planner.search.evaluator import OutOfTime, PlanEvaluator
from planner.search.finalists import Estimator, Finalist, comparable, fastest
from planner.search.goal import Goal, Measured
from planner.search.ranker import BlockRanker
from planner.search.report import Judgement, SearchReport, Stopped, search_report
from planner.search.search import Found, search
from planner.search.sensitivity import NOISE_LIMIT
from planner.search.switched import Switched, make_switched
from planner.search.told import Teller, best_so_far
from planner.search.trials import Demands, Trials
from planner.verification.floor import Floor

# Searches until a plan is confirmed on more of the calibration samples, and the most dB that each next one adds to the floor.
# If held-out samples refute the plan, one more search adds as many.
_SEARCHES, _STEP_DB = 3, 2.0
# Of a time budget, the search may take this share, less what judging on the EP will take.
_SEARCHING = 0.8


@dataclass(frozen=True)
class Selection:
    """What was tried, and what was kept.

    Attributes:
        kept: the attempt whose model was written: on hardware the fastest that passed, else the first that passed or one
            that is estimated faster, else the most faithful one.
        attempts: all that ran, in the order in which they were made.
        search: how the plan was searched for, where it was.
        failed: those that did not run.
        finalists: plans that were compared by the schedule of the chip's compiler, where they were.
    """

    kept: Attempt
    attempts: tuple[Attempt, ...]
    search: SearchReport | None = None
    failed: tuple[FailedAttempt, ...] = ()
    finalists: tuple[Finalist, ...] = ()

    def tried(self) -> list[dict[str, Any]]:
        """The contract's `attempts`: those that ran, and those that did not."""
        return [*(made.to_json() for made in self.attempts), *(made.to_json() for made in self.failed)]


def select(
    target: Target,
    model: Model,
    resolutions: Iterator[Resolution],
    inputs: Inputs,
    output: Path,
    demands: Demands,
    *,
    auto: bool,
    overwrite: bool = True,
    calibrations: Calibrations | None = None,
    progress: Progress = silent,
) -> Selection:
    """Plan, quantize and verify, and write the best of what was tried.

    With auto and no floor, the precisions are tried in the profile's order of preference until one is verified at 20 dB; if
    none is, a mix is searched for. With a floor the search begins at once, and finds the cheapest legal plan that reaches
    it. On hardware every legal precision is timed instead, the search adds a mix where a faster precision falls short, and
    the fastest that passes is kept. Where nothing can be timed but the chip's compiler writes down its schedules, the plan that
    passed, or that the search found, is compared with other precisions by the schedules of their files: one that is
    estimated faster, and passes, is kept in its place.

    Args:
        target: where the model must run.
        model: float32, in the form in which the target sees it.
        resolutions: of the precision, best first; the first one is legal, or allowed nevertheless.
        inputs: calibrate and evaluator.
        output: where the kept model is written.
        demands: what it must meet.
        auto: whether no precision was named: then plans are compared and searched for.
        overwrite: whether what lies at ``output`` in the end may be replaced.
        calibrations: shared with other calls about the same model: it is calibrated once for all of them.
        progress: told of each step.

    With auto, a plan that cannot be applied or run is an attempt that failed: the next is made.

    Raises:
        RequestError: a node without a range that cannot stay float.
        EPError: the EP or its worker failed, at every attempt.
    """
    with temporary_folder(output.parent) as folder, contextlib.ExitStack() as stack:
        trials = Trials(
            target, model, inputs, Path(folder), demands, calibrations or Calibrations(), progress,
            timed=launcher(target.ep).availability(target.options).kind == "hardware", auto=auto,
        )  # fmt: skip
        if auto and demands.estimated and not demands.allow_fallback and comparable(target.identity):
            trials.estimator = stack.enter_context(Estimator(target.identity, trials.apply, trials.folder))
        with unchanged(model.sources):
            kept, report, finalists = _best(trials, resolutions)
        with atomic(output, overwrite=overwrite) as temporary:
            source = Path(kept.artifact.path)
            for file in with_data(source):
                file.replace(temporary.with_name(file.name.replace(source.name, output.name)))
        notes = (*kept.artifact.notes, *(_notes_on_processor(kept.plan) if trials.timed else ()))
        kept = replace(kept, artifact=replace(kept.artifact, path=str(output), notes=notes))
        return Selection(kept, tuple(trials.attempts), report, tuple(trials.failed), finalists)


def _best(
    trials: Trials, resolutions: Iterator[Resolution]
) -> tuple[Attempt, SearchReport | None, tuple[Finalist, ...]]:
    """The attempt to keep, the report of the search, and what was compared by schedule."""
    report, finalists = _try(trials, resolutions)
    if not trials.attempts:
        raise trials.failed[0].error
    kept = trials.undercutting or _most_merit(trials.attempts, interrupted=trials.interrupted)
    if report is None and kept.passed:
        faster, finalists = _by_schedule(trials, kept.plan, kept)
        kept = faster or kept
    return trials.explained(kept), report, finalists if kept.passed else ()


def _try(trials: Trials, resolutions: Iterator[Resolution]) -> tuple[SearchReport | None, tuple[Finalist, ...]]:
    """Make the attempts that the request calls for; the report of the search, where there was one, and its finalists."""
    if not trials.auto:
        trials.attempt(trials.plan(next(resolutions)))
    elif trials.timed:
        trials.walk(resolutions, every=True)
        if not trials.interrupted and not all(attempt.passed for attempt in trials.attempts):
            return _search(trials)
    elif trials.demands.floor is not None:
        return _search(trials)
    else:
        trials.walk(resolutions, every=False)
        if trials.interrupted:
            return None, ()
        if not any(attempt.passed for attempt in trials.attempts) and _mixing_may_help(trials.attempts):
            return _search(trials)
        if any(attempt.passed for attempt in trials.attempts):
            trials.undercut(resolutions)
    return None, ()


def _by_schedule(
    trials: Trials, plan: Plan, passed: Attempt | None, excluded: Collection[str] = ()
) -> tuple[Attempt | None, tuple[Finalist, ...]]:
    """Compare a plan with each uniform precision that was not tried, by the schedule of its very file, and attempt those that
    are estimated faster until one passes.

    Args:
        trials: of the request.
        plan: that passed, or that is next to be attempted.
        passed: its attempt, where it was made.
        excluded: precisions that are known to fall short.

    Returns:
        The attempt that passed, where there is one, and all that were compared; nothing where plans cannot be compared, or no
        time is left for it.
    """
    if trials.estimator is None or trials.left == 0 or trials.interrupted:
        return None, ()
    tried = {attempt.plan.precision for attempt in trials.attempts}.union(excluded)
    plans = {rival.precision: rival for rival in trials.rivals(plan, tried | {plan.precision})}
    found: dict[str, Interval | None] = {}
    total = len(plans) + (passed is None)
    for done, (precision, rival) in enumerate(plans.items()):
        trials.progress("comparing schedules", done, total)
        found[precision] = trials.estimator.of(rival)
    ms = None
    if passed is not None:
        ms = None if passed.estimate is None else passed.estimate.ms
    elif plans:
        ms = trials.estimator.of(plan)
    trials.progress("comparing schedules", total, total)

    def passes(name: str) -> bool | None:
        if trials.interrupted:
            return None
        attempt = trials.attempt(trials.refined(plans[name]))
        return attempt is not None and attempt.passed and not trials.interrupted

    finalists = fastest((plan.precision, ms), found.items(), passes)
    faster = any(finalist.outcome == "kept" for finalist in finalists[1:])
    return (trials.attempts[-1] if faster else None), finalists


def _mixing_may_help(attempts: Sequence[Attempt]) -> bool:
    """Whether a mix of precisions can be better than what was tried: some plan is wholly on the EP, or no node was left by
    the EP at every precision.
    """
    left = [{f.name for f in attempt.verification.placement.fallback} for attempt in attempts if not attempt.passed]
    return bool(left) and not set.intersection(*left)


def _notes_on_processor(plan: Plan) -> Iterator[str]:
    """What a verification on this processor does not show of another: sums that saturate there."""
    saturating = sum((n.weight, n.activation) == (DType.INT8, DType.UINT8) for n in plan.nodes)
    if saturating and "no-vnni" not in traits():
        yield (
            f"{saturating} nodes multiply uint8 by int8: exact here; on an x86 processor without VNNI such sums can saturate: "
            "plan it there (planner then takes unsigned weights), or choose --weight-type uint8 --activation-type uint8"
        )


def _most_merit(attempts: Sequence[Attempt], *, interrupted: bool) -> Attempt:
    """The best; where the last was interrupted, of those that passed one that was judged on most samples, and of such the last."""
    if not interrupted:
        return max(attempts, key=_merit)
    return max(
        reversed(attempts),
        key=lambda made: (made.passed, made.verification.samples if made.passed else 0, _merit(made)),
    )


def _merit(attempt: Attempt) -> tuple[bool, bool, float, float]:
    """What makes an attempt better than another: passed; on the EP; faster, where timed; more faithful, where none passed.

    Faster is told by the speed-up over float32 timed in the same minute: the machine may be busier in another.
    """
    fidelity = 0.0 if attempt.passed else attempt.worst_db
    return attempt.passed, not attempt.verification.placement.fallback, attempt.speedup or 0.0, fidelity


def _search(trials: Trials) -> tuple[SearchReport | None, tuple[Finalist, ...]]:
    """Search for the cheapest plan that reaches the floor on the EP, and attempt it, unless one that is estimated faster passes;
    None where there is no choice.

    The search decides on calibration samples. Those held apart judge its plan. If they refute it, the search runs once more
    with 2 dB added, and they judge that plan as well; if they refute that too, the next dearer precisions, until one passes.
    The report has all judgements, and says so.
    """
    started = time.monotonic()
    target, floor = trials.target, trials.floor
    candidates = find_candidates(target, trials.model, allow_fallback=trials.demands.allow_fallback)
    if not candidates.levels:
        return None, ()

    def plan_of(assignment: Assignment, reasons: Mapping[int, str] | None = None) -> Plan:
        plan = mixed_plan(target, trials.model, candidates, assignment, reasons or {})
        plan = replace(plan, inputs=trials.inputs.to_json()) if plan.is_quantized else plan
        return trials.rounded(trials.corrected(trials.protect(plan)))

    @functools.cache
    def uniform(level: int) -> Plan:
        return plan_of(candidates.uniform(level))

    @functools.lru_cache(maxsize=2)  # built, judged, cross-validated and compared with another in a row
    def planned(assignment: Assignment) -> Plan:
        level = assignment[0]
        return uniform(level) if assignment == candidates.uniform(level) else plan_of(assignment)

    def switched(levels: Sequence[int]) -> Switched | None:
        assert trials.model.ir is not None
        names = [[candidates.nodes[i].name for i in unit] for unit in candidates.units]
        made = {level: functools.partial(trials.build, uniform(level)) for level in levels}
        return make_switched(trials.model.ir, names, made)

    def estimated(assignment: Assignment) -> Interval | None:
        return None if trials.estimator is None else trials.estimator.of(planned(assignment))

    def foresee(assignment: Assignment) -> None:
        """A level that may pass is compared with the cheaper ones, and in the end with all: they are compiled while others run."""
        if trials.estimator is not None:
            plans = [uniform(level) for level in range(assignment[0], -1, -1)]
            tried = {plan.precision for plan in plans}
            trials.estimator.foresee(lambda: [*plans, *trials.rivals(plans[0], tried)])

    deadline = None if trials.left is None else started + _SEARCHING * trials.left
    teller = Teller(candidates, floor.value, " dB" if floor.kind == "sqnr" else "", trials.progress, deadline)
    judgements: list[Judgement] = []
    finalists: tuple[Finalist, ...] = ()
    with PlanEvaluator(
        trials.reference, target.identity, trials.inputs.calibration, floor, candidates.nodes,
        lambda assignment: trials.build(planned(assignment)), trials.folder,
        allow_fallback=trials.demands.allow_fallback, deadline=deadline, ranker=BlockRanker(candidates.units, switched, None),
        flattered=lambda assignment: trials.flattered(planned(assignment)),
        folds=lambda assignment: trials.folds(planned(assignment)),
        estimated=estimated, foresee=foresee,
        progress=lambda assignment, on_ep: teller.trying(assignment, on_ep, evaluator.known),
    ) as evaluator:  # fmt: skip

        def judge(found: Found) -> Attempt | None:
            nonlocal finalists
            before, faster = len(trials.attempts), None
            plan = plan_of(found.assignment, _reasons(candidates, found, floor, evaluator))
            if found.passed:
                short = [u.level for u in found.uniform if u.real is None or u.real.score < floor.value]
                faster, finalists = _by_schedule(trials, plan, None, [candidates.levels[level].name for level in short])
            attempt = faster or trials.attempt(plan, doubted=not found.passed)
            judgements.extend(Judgement(_score(made, floor), made.passed) for made in trials.attempts[before:])
            return attempt

        found, stopped = _until_judged(candidates, evaluator, floor, trials, judge)
        refuted = bool(judgements) and not judgements[-1].passed and found.passed
        if refuted and not stopped and not trials.interrupted and trials.left != 0:
            found = _next_dearer(candidates, found, trials, judge)
        seconds = time.monotonic() - started
        report = search_report(candidates, found, floor, evaluator.evaluations, tuple(judgements), seconds, stopped)
    trials.progress("searching", 1, 1)
    return report, finalists


def _score(attempt: Attempt, floor: Floor) -> float:
    """What the floor is compared with: the less of what the EP and the emulation of all samples come to."""
    seen = attempt.verification
    score = floor.score(seen.fidelity, None if seen.metric is None else seen.metric.value)
    return min(score, floor.score(seen.emulated)) if seen.emulated and floor.kind != "metric" else score


def _until_judged(
    candidates: Candidates,
    evaluator: PlanEvaluator,
    floor: Floor,
    trials: Trials,
    judge: Callable[[Found], Attempt | None],
) -> tuple[Found, Stopped | None]:
    """What was found, and what stopped the search: once more, with more asked for, where the samples held apart refute it."""
    asked = floor.value
    for last in (False, True):
        found, asked, stopped = _until_stopped(candidates, evaluator, floor, asked, keeps=trials.demands.keeps)
        attempt = judge(found)
        if last or stopped or attempt is None or attempt.passed or not found.passed:
            break
        if attempt.verification.session_error or trials.interrupted:
            break
        evaluator.refute(found.assignment, _score(attempt, floor))
        if floor.kind == "sqnr":
            asked += _STEP_DB
    return found, stopped


def _next_dearer(
    candidates: Candidates, refuted: Found, trials: Trials, judge: Callable[[Found], Attempt | None]
) -> Found:
    """The next dearer precision, throughout, that the samples held apart let pass; what they refuted, where none does.

    That one reached the floor on every sample that the search had seen: a mix of its kind would again.
    """
    floor = trials.floor
    short = {u.level for u in refuted.uniform if u.real is not None and u.real.score < floor.value}
    for level in sorted(range(len(candidates.levels)), key=lambda level: candidates.levels[level].cost):
        own = candidates.levels[level]
        if trials.interrupted:
            break
        if level in short or own.cost <= candidates.cost(refuted.assignment):
            continue
        if any(attempt.plan.precision == own.name for attempt in trials.attempts):
            continue
        found = replace(refuted, assignment=candidates.uniform(level), promoted=())
        attempt = judge(found)
        if attempt is not None and attempt.passed:
            return replace(found, measured=replace(refuted.measured, score=_score(attempt, floor)))
    return refuted


def _until_stopped(
    candidates: Candidates, evaluator: PlanEvaluator, floor: Floor, asked: float, *, keeps: bool
) -> tuple[Found, float, Stopped | None]:
    """What the search found, what was asked for in the end, and what stopped it before its end.

    Raises:
        KeyboardInterrupt: no plan was measured before it, or none is to be kept then.
    """
    try:
        with stoppable() if keeps else contextlib.nullcontext():
            return *_confirmed(candidates, evaluator, floor, asked), None
    except OutOfTime:
        stopped: Stopped = "time budget"
    except KeyboardInterrupt as interrupt:
        if not keeps or not evaluator.known:
            raise KeyboardInterrupt(*interrupt.args) from None
        stopped = "interrupted"
    # Some plan is needed: the first that the profile has, where time ran out before any was measured.
    best = best_so_far(candidates, evaluator.known, floor.value) or candidates.uniform(len(candidates.levels) - 1)
    measured = evaluator.known.get(best, Measured(-math.inf, NOISE_LIMIT, "not measured: the time was over"))
    return Found(best, measured, measured.score >= floor.value, ()), asked, stopped


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
