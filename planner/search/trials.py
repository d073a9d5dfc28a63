"""Attempts: plans that are applied, verified and timed, and what those of one request share."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir

from planner.calibrate.inputs import Inputs, Sample
from planner.calibrate.moments import teaching
from planner.calibrate.observe import FOLDS
from planner.calibrate.ranges import Range
from planner.calibrate.run import Calibrations
from planner.calibrate.spread import evenly
from planner.errors import EPError, RangeMissingError
from planner.limits import stopping
from planner.model.read import Model
from planner.model.write import save
from planner.progress import Progress
from planner.quantization.rounding import Rounding
from planner.quantization.walk import CORRECTS, LEARNS, apply_plan
from planner.quantization.write import Artifact, learned_rounding, write_quantized
from planner.resolve.choose import Resolution, make_plan, resolve_each, with_fallback
from planner.resolve.plan import Plan
from planner.resolve.revise import without_uncalibrated, without_unsafe_float16
from planner.resolve.target import Target
from planner.resolve.verdicts import Prediction
from planner.runtime.client import SessionFailed, asked_twice, prepare
from planner.runtime.latency import Latency, measure_latency
from planner.runtime.loads import prove_loads
from planner.search.attempt import Attempt, FailedAttempt
from planner.search.cost import plan_cost, work
from planner.search.finalists import Estimator, narrowest
from planner.verification.emulated import Emulation
from planner.verification.feed import cast_feed, input_dtypes, load, sample_at
from planner.verification.fidelity import WORST
from planner.verification.floor import DEFAULT_FLOOR, Floor
from planner.verification.verify import Criteria, verify, with_divergence

# Calibration samples on which, by emulation, corrected biases and precisions are compared: the few are some of the many.
_CORRECTING, _COMPARING = 6, 12
# On so many of them a plan is looked at first. It cannot come up to another, or to a floor, that is so much better: corrected biases
# have not cost more than 11 dB, learned rounding has not gained more than 8 (docs/choosing-a-precision.md).
_GLANCE, _MOST_DB = 2, 15.0
# Rounding is not learned where the plan has so many dB more than the floor without it, or is so far below that it would not help:
# it has not gained more than 8 dB (docs/choosing-a-precision.md).
_AMPLE_DB, _HOPELESS_DB = 3.0, 12.0
# So many samples are needed to judge each by ranges from others.
_FOLDED = 8
# What gains less on the samples that judge may gain nothing on others.
_GAIN_DB = 1.0


@dataclass(frozen=True)
class Demands:
    """What the model must meet, and what it may do for that.

    Attributes:
        floor: what counts as faithful; None for 20 dB, and no search before a uniform precision failed.
        allow_fallback: nodes that the target does not take may run on the CPU EP.
        float16_io: the graph's inputs and outputs may be float16 where the plan is.
        estimated: whether plans are priced by the schedule of the chip's compiler, where the EP writes it down.
        time_budget: seconds for all of it: the search stops in time to judge the best plan so far, and what is left is spent
            on judging more samples on the EP. None for as long as it takes.
        keeps: whether a first interrupt keeps the best plan so far; else it ends all.
    """

    floor: Floor | None = None
    allow_fallback: bool = False
    float16_io: bool = False
    estimated: bool = True
    time_budget: float | None = None
    keeps: bool = False


@dataclass
class Trials:
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
    # Where plans are compared by their schedules.
    estimator: Estimator | None = None
    attempts: list[Attempt] = field(default_factory=list)
    failed: list[FailedAttempt] = field(default_factory=list)
    # A cheaper attempt that is at least as faithful as the first that passed.
    undercutting: Attempt | None = None
    # By the bits that most activations have, whether taking the mean error of the weights off the biases gains.
    corrections: dict[int, bool] = field(default_factory=dict)
    # By the same, where learning how to round the weights gains: by how many dB more on samples that taught than on others.
    learning: dict[int, float | None] = field(default_factory=dict)
    # What the plans on which biases were measured came to, by precision.
    corrected_db: dict[str, float] = field(default_factory=dict)
    # The last plan that was measured and is beyond hope.
    _hopeless: Plan | None = None
    # Whether a first interrupt came while a plan was judged: that judgement is the last one.
    interrupted: bool = False
    # How weights are rounded, once a plan wants that learned.
    _rounding: Rounding | None = None
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
        """The plan of a resolution, with the biases and, where a floor asks for accuracy, the rounding that serve it best."""
        return self.refined(self.draft(resolution))

    def draft(self, resolution: Resolution) -> Plan:
        """The plan of a resolution, with corrected biases."""
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
        return plan

    def corrected(self, plan: Plan) -> Plan:
        """The plan, with the biases as they are where correcting them loses on the calibration samples, by emulation.

        Measured once for each width of activations, on the first such plan.
        """
        bits = _usual_bits(plan)
        if not bits or not plan.is_quantized or self.inputs.synthetic or not any(r.means for r in self.ranges.values()):
            return plan
        plain_biases = _with_biases(plan, corrects=False)
        if bits not in self.corrections:
            some = evenly(range(len(self.inputs.calibration)), _CORRECTING)
            corrected = self.emulated(plan, some)
            if self._is_hopeless(corrected):
                self._hopeless = plan
                return plan  # which biases its width has is left to one that needs to know
            as_they_are = self.emulated(plain_biases, some)
            self.corrections[bits] = corrected >= as_they_are
            self.corrected_db[plan.precision] = max(corrected, as_they_are)
        return plan if self.corrections[bits] else plain_biases

    def refined(self, plan: Plan) -> Plan:
        """The plan as it is attempted: `corrected`, and where a floor asks for accuracy `rounded`."""
        plan = self.corrected(plan)
        return plan if self.demands.floor is None else self.rounded(plan)

    def rounded(self, plan: Plan) -> Plan:
        """The plan, with weights of 8 bits and fewer whose rounding is learned, where the floor may need that and it gains.

        Measured by emulation once for each width of activations, on samples that taught nothing.
        """
        bits = _usual_bits(plan)
        teach, judge = teaching(len(self.inputs.calibration))
        narrow = any(n.weight and not n.weight.is_float and n.weight.bits <= 8 for n in plan.nodes)
        if not bits or not narrow or not teach or self.inputs.synthetic or plan is self._hopeless:
            return plan
        learned = replace(plan, inputs={**(plan.inputs or {}), LEARNS: True})
        if bits not in self.learning:
            self.learning[bits] = self._flattery(plan, learned, evenly(teach, len(judge)), judge)
        return plan if self.learning[bits] is None else learned

    def _is_hopeless(self, reached: float) -> bool:
        """Whether a plan is so far below the floor that was asked for that neither its biases nor its rounding bring it there."""
        floor = self.demands.floor
        return floor is not None and floor.kind == "sqnr" and reached + _MOST_DB < floor.value

    def _flattery(self, plan: Plan, learned: Plan, taught: Sequence[int], judge: Sequence[int]) -> float | None:
        """How many dB more learning gains on samples that taught than on others; None where it gains nothing, or is of no use."""
        before = self.emulated(plan, judge)
        short = self.floor.value - before if self.floor.kind == "sqnr" else 0.0
        if not -_AMPLE_DB < short < _HOPELESS_DB:
            return None
        after, after_teaching = self.emulated_each(learned, [judge, taught])
        if (gained := after - before) < _GAIN_DB:
            return None
        return max(0.0, after_teaching - self.emulated(plan, taught) - gained)

    def folds(self, plan: Plan) -> Iterator[tuple[ir.Model, Sequence[int]]]:
        """The plan's model with ranges from three samples in four, and the places of the others: a cross-validation.

        Nothing where there are too few samples.
        """
        calibration = self.inputs.calibration
        if not plan.is_quantized or self.inputs.synthetic or len(calibration) < _FOLDED:
            return
        for fold in range(FOLDS):
            ranges = self.calibrations.of(self.model, self.inputs, without=fold)
            yield self.build(plan, ranges), range(fold, len(calibration), FOLDS)

    def flattered(self, plan: Plan) -> float:
        """How many dB a plan loses on samples that taught nothing, against those that taught how to round."""
        return (self.learning.get(_usual_bits(plan)) or 0.0) if _learns(plan) else 0.0

    @functools.cached_property
    def emulation(self) -> Emulation:
        """Of the calibration samples."""
        return Emulation(self.reference, self.inputs.calibration)

    def emulated(self, plan: Plan, places: Sequence[int]) -> float:
        """Least SQNR of any output over the calibration samples at these places, by emulation."""
        return self.emulated_each(plan, [places])[0]

    def emulated_each(self, plan: Plan, groups: Sequence[Sequence[int]]) -> list[float]:
        """The same for each group of places by itself."""
        try:
            found = asked_twice(lambda: self.emulation.fidelity_of_each(self.build(plan), groups))
        except (EPError, RangeMissingError):
            return [WORST] * len(groups)  # the CPU EP does not have what the target may have
        return [min((entry.least_db for entry in fidelity), default=WORST) for fidelity in found]

    @property
    def left(self) -> float | None:
        """Seconds of the time budget that are left; None where there is none."""
        budget = self.demands.time_budget
        return None if budget is None else max(0.0, self.started + budget - time.monotonic())

    def build(self, plan: Plan, ranges: Mapping[str, Range] | None = None) -> ir.Model:
        """The model of a plan, with these ranges in the place of those that all calibration samples gave."""
        seen, rounding = self._seen_for(plan)
        seen = seen if ranges is None else ranges
        return apply_plan(self.model, plan, seen, rounding, float16_io=self.demands.float16_io).model

    def apply(self, plan: Plan, path: Path) -> Artifact:
        """Write the model of a plan."""
        ranges, rounding = self._seen_for(plan)
        # Whoever asks runs it next.
        return write_quantized(
            self.model, plan, ranges, path, rounding, float16_io=self.demands.float16_io, proven=False
        )

    def _seen_for(self, plan: Plan) -> tuple[Mapping[str, Range], Rounding | None]:
        """What calibration saw, as far as the plan needs it."""
        if not plan.is_quantized:
            return {}, None
        if self._rounding is None:
            self._rounding = learned_rounding(plan, self.model, self.inputs.calibration, self.folder, self.progress)
        return self.ranges, self._rounding if _learns(plan) else None

    def attempt(self, plan: Plan, *, doubted: bool = False) -> Attempt | None:
        """Apply, verify, time; None where that is not possible and other plans may be.

        Args:
            plan: what is attempted.
            doubted: it is expected to fall short.

        Raises:
            PlannerError: it is not possible, and no other plan was asked for.
        """
        try:
            made = (
                self._attempt(plan, doubted) if self.interrupted else asked_twice(lambda: self._attempt(plan, doubted))
            )
        except (EPError, RangeMissingError) as error:
            if not self.auto:
                raise
            self.failed.append(FailedAttempt(plan.precision, error))
            return None
        self.attempts.append(made)
        return made

    def _attempt(self, plan: Plan, doubted: bool) -> Attempt:
        path = self.folder / f"{len(self.attempts)}.onnx"
        prepare(self.target.ep)
        self.progress(f"quantizing to {plan.precision}", 0, 1)
        made = self.apply(plan, path)
        self.progress(f"quantizing to {plan.precision}", 1, 1)
        self._foresee(plan)
        what = f"verifying {plan.precision} on {self.target.ep}"
        predicted = Prediction({n.name: True for n in plan.nodes if n.on_target})
        try:
            with self._stoppable() as stopped:
                verification = verify(
                    path,
                    Path(self.model.path),
                    self.target.identity,
                    self.inputs.evaluation,
                    Criteria(self.floor, self.demands.allow_fallback, predicted),
                    more=self._further(plan),
                    budget=self.left,
                    brief=self.auto,
                    doubted=doubted,
                    normalized=self.reference,
                    parts=self.emulation.parts,
                    bisect=False if self.auto and not doubted else None,
                    estimate_as=plan.precision if self.demands.estimated else None,
                    stopped=stopped,
                    progress=lambda done, total: self.progress(what, done, total),
                )
        except SessionFailed:
            prove_loads(path, Path(self.model.path))  # else the fault is planner's own
            raise
        if verification.session_error is not None:
            prove_loads(path, Path(self.model.path))
        return Attempt(plan, made, verification, self.time(plan, path) if verification.passed else None)

    @contextlib.contextmanager
    def _stoppable(self) -> Iterator[Callable[[], bool]]:
        """What is judged within asks whether a first interrupt came, now or before."""
        if self.interrupted or not self.demands.keeps:
            yield lambda: self.interrupted
            return
        with stopping() as asked:
            try:
                yield asked
            finally:
                self.interrupted = asked()

    def _further(self, plan: Plan) -> Sequence[Sample]:
        """Samples beside those held apart that a plan is judged on: none that taught how to round its weights."""
        if self.inputs.synthetic or not self.inputs.held_apart:
            return ()  # synthetic samples are alike, and tell nothing of a user's own
        calibration = self.inputs.calibration
        return [calibration[place] for place in teaching(len(calibration))[1]] if _learns(plan) else calibration

    def _foresee(self, plan: Plan) -> None:
        """If the plan passes, its schedule will be compared with others: they are compiled while it is verified."""
        if self.estimator is not None and self.demands.floor is None and self.left != 0:
            tried = {plan.precision, *(attempt.plan.precision for attempt in self.attempts)}
            self.estimator.foresee(lambda: self.rivals(plan, tried))

    def explained(self, kept: Attempt) -> Attempt:
        """The attempt that is kept, with where it loses what it loses."""
        found = kept.verification
        if self.interrupted or found.passed or found.divergence is not None or not found.fidelity or found.faithful:
            return kept
        file, place = Path(kept.artifact.path), self.attempts.index(kept)
        worst = sample_at(found.worst_sample[0], self.inputs.evaluation, self._further(kept.plan))
        found = with_divergence(found, file, self.reference, self.target.identity, worst)
        self.attempts[place] = replace(kept, verification=found)
        return self.attempts[place]

    def rivals(self, plan: Plan, tried: Collection[str]) -> list[Plan]:
        """The plans of the legal precisions that were not tried: what may take a plan's place by its schedule.

        Args:
            plan: as its biases are, theirs are. Without a floor nobody said how much accuracy may go: none of them then computes
                in narrower types.
            tried: names of precisions.
        """
        corrects = plan.inputs is None or plan.inputs.get(CORRECTS) is not False
        return [
            _with_biases(other, corrects=corrects)
            for precision, other in self._drafts.items()
            if precision not in tried and (self.demands.floor is not None or _narrowest(other) >= _narrowest(plan))
        ]

    @functools.cached_property
    def _drafts(self) -> dict[str, Plan]:
        """Those of every legal precision."""
        found: dict[str, Plan] = {}
        for resolution in resolve_each(self.target, self.model, None):
            if resolution.legal:
                with contextlib.suppress(RangeMissingError):
                    plan = self.draft(resolution)
                    found.setdefault(plan.precision, plan)
        return found

    def undercut(self, resolutions: Iterator[Resolution]) -> None:
        """Look for a precision that is cheaper than the one that passed and no less faithful: that one is dominated then.

        Emulation on calibration samples spares most of them the EP.
        """
        kept = self.attempts[-1]
        rates, done = self.target.profile.cost(self.target.device), [work(node) for node in self.model.nodes]
        some = evenly(range(len(self.inputs.calibration)), _COMPARING)
        least: float | None = None
        for resolution in resolutions:
            if not resolution.legal or self.interrupted:
                break
            try:
                plan = self.draft(resolution)
            except RangeMissingError:
                continue
            if plan_cost(done, plan.nodes, rates) >= plan_cost(done, kept.plan.nodes, rates):
                continue
            if least is None:
                known = evenly(kept.verification.further_db, _COMPARING)
                least = min(known) if known and len(known) == len(some) else self.emulated(kept.plan, some)
            if self.emulated(plan, some[:_GLANCE]) + _MOST_DB < least:
                continue  # whatever its biases are
            plan = self.corrected(plan)
            if self.corrected_db.get(plan.precision, least) < least:
                continue  # on some of these samples, and so on all of them
            reached = self.emulated(plan, some)
            if reached < least:
                continue
            cheaper = self.attempt(plan)
            if cheaper is not None and cheaper.passed and not self.interrupted and cheaper.worst_db >= kept.worst_db:
                self.undercutting = kept = cheaper
                least = reached

    def time(self, plan: Plan, path: Path) -> Latency | None:
        """The latency of a plan's model; None where the EP is not hardware, or builds no session for the float32 model itself."""
        if not self.timed:
            return None
        self.progress(f"timing {plan.precision}", 0, 1)
        one, other = (
            (file, cast_feed(self.inputs.evaluation[0], input_dtypes(load(file))))
            for file in (Path(self.model.path), path)
        )
        latency = None
        with contextlib.suppress(SessionFailed):
            latency = measure_latency(one, other, self.target.ep, self.target.options)
        self.progress(f"timing {plan.precision}", 1, 1)
        return latency

    def walk(self, resolutions: Iterator[Resolution], *, every: bool) -> None:
        """The precisions in order, until one passes, or all of them."""
        for resolution in resolutions:
            if resolution.legal is False and not self.demands.allow_fallback:
                break
            try:
                attempt = self.attempt(self.plan(resolution))
            except RangeMissingError as error:
                self.failed.append(FailedAttempt(resolution.precision, error))
                continue
            if self.interrupted or (attempt is not None and attempt.passed and not every):
                break


def _with_biases(plan: Plan, *, corrects: bool) -> Plan:
    """The plan, with the mean error of its weights taken off the biases, or with the biases as they are."""
    if not plan.is_quantized:
        return plan
    inputs = {key: value for key, value in (plan.inputs or {}).items() if key != CORRECTS}
    return replace(plan, inputs=inputs if corrects else {**inputs, CORRECTS: False})


def _learns(plan: Plan) -> bool:
    return bool((plan.inputs or {}).get(LEARNS))


def _usual_bits(plan: Plan) -> int:
    """Bits of the integer activations that most nodes have, the fewer of two as usual; 0 where there are none."""
    counts = Counter(n.activation.bits for n in plan.nodes if n.activation and not n.activation.is_float)
    return min(counts, key=lambda bits: (-counts[bits], bits), default=0)


def _narrowest(plan: Plan) -> int:
    return narrowest(node.activation for node in plan.nodes)
