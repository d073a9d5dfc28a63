"""From legal precisions to one verified model: plans are applied, verified and timed, and where that is not enough, searched for."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from planner.calibrate.inputs import Inputs, Sample
from planner.calibrate.ranges import Range
from planner.calibrate.run import Calibrations
from planner.codec import plain
from planner.dtypes import DType
from planner.errors import EPError
from planner.files import atomic, temporary_folder
from planner.limits import stoppable
from planner.model.read import Model
from planner.model.write import save
from planner.progress import Progress, silent
from planner.quantization.walk import CORRECTS, apply_plan
from planner.quantization.write import Artifact, with_data, write_quantized
from planner.resolve.choose import Resolution, make_plan, with_fallback
from planner.resolve.plan import Plan
from planner.resolve.revise import without_uncalibrated, without_unsafe_float16
from planner.resolve.target import Target
from planner.runtime.latency import Latency, measure_latency
from planner.runtime.processor import traits
from planner.runtime.registry import launcher
from planner.search.candidates import Assignment, Candidates, find_candidates, mixed_plan
from planner.search.cost import plan_cost, work
from planner.search.evaluator import OutOfTime, PlanEvaluator
from planner.search.ranker import BlockRanker
from planner.search.report import Judgement, SearchReport, Stopped, search_report
from planner.search.search import Found, Goal, Measured, search
from planner.search.sensitivity import NOISE_LIMIT
from planner.search.switched import Switched, make_switched
from planner.search.told import Teller, best_so_far
from planner.verification.emulated import emulated_fidelity
from planner.verification.feed import cast_feed, input_dtypes, load
from planner.verification.fidelity import WORST
from planner.verification.floor import DEFAULT_FLOOR, Floor
from planner.verification.verify import Criteria, Verification, verify

# Searches until a plan is confirmed on more of the calibration samples, and the most dB that each next one adds to the floor.
# If held-out samples refute the plan, one more search adds as many.
_SEARCHES, _STEP_DB = 3, 2.0
# Of a time budget, the search may take this share, less what judging on the EP will take.
_SEARCHING = 0.8
# Calibration samples on which, by emulation, corrected biases and precisions are compared.
_CORRECTING, _COMPARING = 6, 12


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
        }


@dataclass(frozen=True)
class Demands:
    """What the model must meet, and what it may do for that.

    Attributes:
        floor: what counts as faithful; None for 20 dB, and no search before a uniform precision failed.
        allow_fallback: nodes that the target does not take may run on the CPU EP.
        float16_io: the graph's inputs and outputs may be float16 where the plan is.
        time_budget: seconds for all of it: the search stops in time to judge the best plan so far, and what is left is spent
            on judging more samples on the EP. None for as long as it takes.
    """

    floor: Floor | None = None
    allow_fallback: bool = False
    float16_io: bool = False
    time_budget: float | None = None


@dataclass(frozen=True)
class Selection:
    """What was tried, and what was kept.

    Attributes:
        kept: the attempt whose model was written: on hardware the fastest that passed, else the first that passed,
            else the most faithful one.
        attempts: all of them, in the order in which they were made.
        search: how the plan was searched for, where it was.
    """

    kept: Attempt
    attempts: tuple[Attempt, ...]
    search: SearchReport | None = None


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
    the fastest that passes is kept.

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
        kept = trials.undercutting or max(trials.attempts, key=_merit)
        with atomic(output) as temporary:
            source = Path(kept.artifact.path)
            for file in with_data(source):
                file.replace(temporary.with_name(file.name.replace(source.name, output.name)))
        notes = (*kept.artifact.notes, *(_notes_on_processor(kept.plan) if trials.timed else ()))
        kept = replace(kept, artifact=replace(kept.artifact, path=str(output), notes=notes))
        return Selection(kept, tuple(trials.attempts), report)


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
        trials.undercut(resolutions)
    return None


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
    # A cheaper attempt that is at least as faithful as the first that passed.
    undercutting: Attempt | None = None
    # By the least bits of an activation, whether taking the mean error of the weights off the biases gains.
    corrections: dict[int, bool] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

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
        if self.auto and plan.has_float16:
            safe = without_unsafe_float16(self.target, self.model, plan, self.ranges)
            plan = safe if safe is plan or not safe.is_quantized else replace(safe, inputs=self.inputs.to_json())
        return self.corrected(plan)

    def corrected(self, plan: Plan) -> Plan:
        """The plan, with the biases as they are where correcting them loses on the calibration samples, by emulation.

        Measured once for each width of activations, on the first such plan.
        """
        bits = min((n.activation.bits for n in plan.nodes if n.activation and not n.activation.is_float), default=0)
        if not bits or self.inputs.synthetic or not any(r.means for r in self.ranges.values()):
            return plan
        plain_biases = replace(plan, inputs={**(plan.inputs or {}), CORRECTS: False})
        if bits not in self.corrections:
            some = self.some(_CORRECTING)
            self.corrections[bits] = self.emulated(plan, some) >= self.emulated(plain_biases, some)
        return plan if self.corrections[bits] else plain_biases

    def some(self, count: int) -> list[Sample]:
        """So many calibration samples at even distances."""
        samples = self.inputs.calibration
        return [samples[i] for i in sorted({i * len(samples) // count for i in range(count)})]

    def emulated(self, plan: Plan, samples: Sequence[Sample]) -> float:
        """Least SQNR of any output over the samples, by emulation."""
        path = self.folder / "emulated.onnx"
        for old in with_data(path):
            old.unlink()
        self.apply(plan, path)
        try:
            return min((entry.least_db for entry in emulated_fidelity(path, self.reference, samples)), default=WORST)
        except EPError:
            return WORST  # the CPU EP does not have what the target may have

    @property
    def left(self) -> float | None:
        """Seconds of the time budget that are left; None where there is none."""
        budget = self.demands.time_budget
        return None if budget is None else max(0.0, self.started + budget - time.monotonic())

    def build(self, plan: Plan) -> ir.Model:
        """The model of a plan."""
        ranges = self.ranges if plan.is_quantized else {}
        return apply_plan(self.model, plan, ranges, float16_io=self.demands.float16_io).model

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
            # Synthetic samples are alike, and tell nothing of a user's own.
            more=() if self.inputs.synthetic or not self.inputs.held_apart else self.inputs.calibration,
            budget=self.left,
            normalized=self.reference,
            progress=lambda done, total: self.progress(what, done, total),
        )
        self.attempts.append(Attempt(plan, made, verification, self.time(plan, path) if verification.passed else None))
        return self.attempts[-1]

    def undercut(self, resolutions: Iterator[Resolution]) -> None:
        """Look for a precision that is cheaper than the one that passed and no less faithful: that one is dominated then.

        Emulation on calibration samples spares most of them the EP.
        """
        kept = self.attempts[-1]
        rates, done = self.target.profile.cost(self.target.device), [work(node) for node in self.model.nodes]
        some = self.some(_COMPARING)
        least: float | None = None
        for resolution in resolutions:
            if not resolution.legal:
                break
            plan = self.plan(resolution)
            if plan_cost(done, plan.nodes, rates) >= plan_cost(done, kept.plan.nodes, rates):
                continue
            least = self.emulated(kept.plan, some) if least is None else least
            if self.emulated(plan, some) < least:
                continue
            cheaper = self.attempt(plan)
            if cheaper.passed and cheaper.worst_db >= kept.worst_db:
                self.undercutting = kept = cheaper
                least = None

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

    def switched(levels: Sequence[int]) -> Switched | None:
        assert trials.model.ir is not None
        names = [[candidates.nodes[i].name for i in unit] for unit in candidates.units]
        made = {level: functools.partial(trials.build, plan_of(candidates.uniform(level))) for level in levels}
        return make_switched(trials.model.ir, names, made)

    deadline = None if trials.left is None else started + _SEARCHING * trials.left
    teller = Teller(candidates, floor.value, " dB" if floor.kind == "sqnr" else "", trials.progress, deadline)
    judgements: list[Judgement] = []
    stopped: Stopped | None = None
    with PlanEvaluator(
        trials.reference, target.identity, trials.inputs.calibration, floor, candidates.nodes,
        lambda assignment: trials.build(plan_of(assignment)), trials.folder,
        allow_fallback=trials.demands.allow_fallback, deadline=deadline, ranker=BlockRanker(candidates.units, switched, None),
        progress=lambda assignment, on_ep: teller.trying(assignment, on_ep, evaluator.known),
    ) as evaluator:  # fmt: skip
        asked = floor.value
        for last in (False, True):
            found, asked, stopped = _until_stopped(candidates, evaluator, floor, asked)
            attempt = trials.attempt(plan_of(found.assignment, _reasons(candidates, found, floor, evaluator)))
            metric = attempt.verification.metric
            score = floor.score(attempt.verification.fidelity, None if metric is None else metric.value)
            if attempt.verification.emulated and floor.kind != "metric":
                score = min(score, floor.score(attempt.verification.emulated))
            judgements.append(Judgement(score, attempt.passed))
            if attempt.passed or not found.passed or attempt.verification.session_error or last or stopped:
                break
            evaluator.refute(found.assignment, score)
            if floor.kind == "sqnr":
                asked += _STEP_DB
        seconds = time.monotonic() - started
        report = search_report(candidates, found, floor, evaluator.evaluations, tuple(judgements), seconds, stopped)
    trials.progress("searching", 1, 1)
    return report


def _until_stopped(
    candidates: Candidates, evaluator: PlanEvaluator, floor: Floor, asked: float
) -> tuple[Found, float, Stopped | None]:
    """What the search found, what was asked for in the end, and what stopped it before its end.

    Raises:
        KeyboardInterrupt: no plan was measured before it.
    """
    try:
        with stoppable():
            return *_confirmed(candidates, evaluator, floor, asked), None
    except OutOfTime:
        stopped: Stopped = "time budget"
    except KeyboardInterrupt as interrupt:
        if not evaluator.known:
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
