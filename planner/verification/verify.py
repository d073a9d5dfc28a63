"""Verifying a candidate: placed by the real EP, and faithful on samples held apart, told apart three ways.

Three runs separate the causes of a loss: the float32 reference on the CPU EP, the candidate on the CPU EP (computed
as the file says, Q/DQ by Q/DQ, float16 rounded after every node), and the candidate on the target. The first two
differ by what quantizing lost, the last two by what the EP itself adds.

A run on the CPU EP is cheap, one on a simulator may take seconds. Where there are more samples than those that the EP must run,
the CPU EP runs all of them, and the EP the hardest of them and others of every kind.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path

from planner.calibrate.inputs import Sample
from planner.calibrate.spread import spread
from planner.codec import HIDDEN, named
from planner.errors import EPError, RequestError
from planner.estimation.estimate import Estimate
from planner.estimation.timeline import Summary
from planner.files import unchanged
from planner.model.load import load_with_sources
from planner.resolve.plan import TargetIdentity
from planner.resolve.verdicts import Prediction
from planner.runtime.client import Worker
from planner.verification.divergence import Divergence, find_divergence
from planner.verification.feed import check_fits, sample_at
from planner.verification.fidelity import BEST, Comparison, Fidelity
from planner.verification.floor import DEFAULT_FLOOR, Floor, load_metric
from planner.verification.parts import Parts, read_parts
from planner.verification.placement import (
    Contradiction,
    Placement,
    contradictions,
    packages,
    unplaced,
)
from planner.verification.runs import (
    Compared,
    Kind,
    NoSession,
    Progress,
    Runs,
    beside,
    operators_of,
    part,
    refusal_reasons,
)

# Seconds after which an EP need not run further samples of a candidate that falls short with those that ran, were the others as good
# as by emulation, or by emulation alone, after a few.
_PATIENCE, _FEW = 5.0, 2


@dataclass(frozen=True)
class Causes:
    """What one output lost to which cause, in dB SQNR; None where it was not measured.

    Attributes:
        output: name of the output.
        quantizing: the candidate's own numbers: candidate against float32, both on the CPU EP.
        ep: what the EP added: candidate on the target against it on the CPU EP.
    """

    output: str
    quantizing: float | None = field(metadata=named("quantizing_sqnr_db"))
    ep: float | None = field(metadata=named("ep_sqnr_db"))


@dataclass(frozen=True)
class MetricValue:
    """The user's metric of the candidate on ran_on, and of the float32 reference on the CPU EP."""

    name: str
    value: float
    reference: float


@dataclass(frozen=True)
class Seconds:
    """Wall time.

    Attributes:
        load: building the session on ran_on.
        run: mean of one sample.
    """

    load: float | None = None
    run: float | None = None


@dataclass(frozen=True)
class Verification:
    """What a verification found.

    Attributes:
        ran_on: the EP that really ran.
        kind: "hardware", "software" (the EP itself, on a software GPU), the vendor's "simulator", or "emulation" by the CPU EP.
        runtime: versions of its packages.
        placement: where each node ran.
        fidelity: of each output, on the samples that ran on ran_on.
        emulated: of each output on all samples, on the CPU EP; empty where every sample ran on ran_on.
        causes: the three-way comparison.
        seconds: what loading and running took.
        peak_rss_mb: peak resident memory of the worker that ran the candidate, MiB; None where the platform is silent.
        samples: how many samples ran on ran_on.
        floor: what it had to reach.
        metric: its value, where the floor is one.
        reasons: why it did not pass; empty if it passed.
        session_error: the EP's message where it built no session.
        divergence: where the run leaves the reference on the worst sample, looked for where the fidelity did not pass, or
            when asked.
        notes: what whoever relies on it should know.
        contradictions: nodes that the EP placed otherwise than the profile predicts.
        schedule: what the EP's compiler made of the candidate, where it writes that down.
        estimate: what a run costs by that schedule: estimated, never measured.
        worst_sample: index of the sample with the least SQNR, further ones counted behind the others, and what its outputs have,
            each as a whole, in dB.
        further_db: least SQNR of any output or part on each further sample, on the CPU EP; empty where they did not run there.
    """

    ran_on: str
    kind: Kind
    runtime: Mapping[str, str]
    placement: Placement
    fidelity: tuple[Fidelity, ...]
    emulated: tuple[Fidelity, ...] = ()
    causes: tuple[Causes, ...] = ()
    seconds: Seconds | None = None
    peak_rss_mb: float | None = None
    samples: int = 0
    floor: Floor = DEFAULT_FLOOR
    reasons: tuple[str, ...] = ()
    session_error: str | None = None
    divergence: Divergence | None = None
    metric: MetricValue | None = None
    notes: tuple[str, ...] = ()
    contradictions: tuple[Contradiction, ...] = ()
    schedule: Summary | None = None
    estimate: Estimate | None = field(default=None, metadata=HIDDEN)
    worst_sample: tuple[int, float] = field(default=(0, BEST), metadata=HIDDEN)
    further_db: tuple[float, ...] = field(default=(), metadata=HIDDEN)

    SHOWN = ("passed",)

    @property
    def faithful(self) -> bool:
        """Whether it reaches the floor, on ran_on and, where not all samples ran there, by emulation on all of them."""
        value = None if self.metric is None else self.metric.value
        everywhere = not self.emulated or self.floor.kind == "metric" or self.floor.passes(self.emulated)
        return everywhere and self.floor.passes(self.fidelity, value)

    @property
    def passed(self) -> bool:
        """Whether it is placed and faithful as demanded."""
        return not self.reasons


@dataclass(frozen=True)
class Criteria:
    """What a candidate is judged by.

    Attributes:
        floor: what it must reach.
        allow_fallback: nodes that are not on the EP are noted, and do not fail it.
        predicted: what the profile expects; what the EP does otherwise is told.
    """

    floor: Floor
    allow_fallback: bool = False
    predicted: Prediction = field(default_factory=Prediction)


def verify(
    candidate: Path,
    reference: Path,
    target: TargetIdentity,
    samples: Sequence[Sample],
    criteria: Criteria,
    *,
    more: Sequence[Sample] = (),
    budget: float | None = None,
    brief: bool = False,
    doubted: bool = False,
    normalized: Path | None = None,
    parts: Mapping[str, Parts] | None = None,
    bisect: bool | None = None,
    estimate_as: str | None = None,
    timeout: float | None = None,
    stopped: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
) -> Verification:
    """Run both models and compare.

    Where the target's EP can't run here, the CPU EP emulates it, and `kind` says so. The placement is the EP's own where it can
    at least be asked for it, else unknown.

    Args:
        candidate: the model to judge.
        reference: the float32 model it was made from, of the same inputs and outputs.
        target: where it runs.
        samples: feeds of the reference, which all run on the target; integer and float inputs are cast to the candidate's types.
        criteria: what it is judged by.
        more: further samples, such as those of the calibration: all run on the CPU EP, the hardest of them and a spread of the
            others on the target. Where not all do, the floor must hold in both places.
        budget: seconds that the target may spend on further samples; None for a few.
        brief: where the emulation of all samples says no already, or does so with what ran, an EP that takes long runs a few of them
            only.
        doubted: it is expected to fall short: its hardest sample of all runs first, and on a simulator the node where the runs part is
            looked for meanwhile.
        normalized: the reference in the form that the candidate was made from, whose inner tensors it shares by name;
            only used to find where two runs part. The outputs are always compared with the reference's own.
        parts: of the reference's outputs, where whoever calls knows them: see `read_parts`.
        bisect: whether to look for the node where the runs part (one more run); None: if the fidelity is below the floor.
        estimate_as: the candidate's precision, by which its estimate is named; None for no estimate. It takes no second
            session: the one that runs is built with its compiler's schedule written down.
        timeout: seconds that one request to a worker may take; None for what `planner.limits` says.
        stopped: whether somebody asked to stop: the verdict is that of the samples that run already, one at least.
        progress: called with (samples done, of how many).

    Raises:
        RequestError: no samples, or a model that cannot be read.
        EPError: a worker crashed, hung or failed to run; the reference has no session on the CPU EP.
    """
    if not samples:
        raise RequestError("nothing to verify on: no samples", "give --inputs")
    metric = None if criteria.floor.metric is None else load_metric(criteria.floor.metric)
    floor, every = criteria.floor, functools.partial(sample_at, samples=samples, more=more)
    model, sources = load_with_sources(candidate)
    check_fits(model, samples[0])
    with unchanged(sources), contextlib.ExitStack() as stack:
        try:
            runs = Runs.start(stack, candidate, reference, model, target, timeout, estimate_as)
            runs.parts = read_parts(normalized or reference) if parts is None else parts
        except NoSession as refused:
            return _without_session(refused, target, operators_of(model), criteria)
        emulated, count = Comparison(runs.parts), len(samples) + len(more)
        # One that falls short for sure may be settled by the hardest of all.
        early = 0 if not more else count if doubted else len(samples)
        alone = runs.emulate(map(every, range(early)), emulated)
        first = next(iter(spread(alone, 1)), 0)
        looking = None
        if doubted and runs.kind == "simulator":
            looking = _Looking.begin(stack, candidate, normalized or reference, target, every(first), timeout)
            part([runs.worker, looking.worker])
            runs.second = None  # it would share their cores
        with runs.begun(every(first)):
            estimate = runs.estimate()
            alone += runs.emulate(map(every, range(early, count if more else 0)), emulated)
            places = runs.choose(first, alone or [0.0] * count, len(samples), budget)
        hopeless = brief and floor.kind != "metric" and any(floor.shortfalls(emulated.results()))

        def settled(ran: Compared) -> bool:
            """Whether the others need not run: by emulation they do not reach the floor, or not with what ran."""
            return (hopeless and ran.count >= _FEW) or floor.is_missed(ran.total, emulated, places[ran.count :])

        patience = _PATIENCE if brief and floor.kind != "metric" else math.inf
        compared = runs.compare(places, every, len(samples), budget, progress, patience, settled, stopped)
        measured = None if metric is None else MetricValue(str(criteria.floor.metric), *runs.measure(metric))
        short = any(floor.shortfalls(compared.total.results())) and not stopped()
        known = None if looking is None else looking.end(wanted=short and compared.worst[0] == first)
    fidelity = compared.total.results()
    everywhere = emulated.results() if compared.count < count and not runs.emulated else ()
    value = None if measured is None else measured.value
    few = floor.too_few(compared.count)
    if stopped() and compared.count < len(places) and not settled(compared):
        few = f"interrupted: the verdict rests on {compared.count} of {count} samples that {target.ep} ran"
    elif few and (hopeless or (compared.count < len(places) and settled(compared))):
        why = "by emulation on all of them" if hopeless else "with the others as good as by emulation"
        few = f"{target.ep} ran {compared.count} of {count} samples: {why} the floor is not reached"
    notes = [*runs.notes, *filter(None, [few]), *floor.other_answers(fidelity)]
    misplaced = list(_misplaced(runs.placement, target, criteria.predicted, emulated=runs.emulated))
    if criteria.allow_fallback:
        notes, misplaced = [*notes, *misplaced], []
    shortfalls = list(floor.shortfalls(fidelity, value))
    if floor.kind != "metric" and not shortfalls:
        shortfalls += [f"by emulation on all {count} samples, {why}" for why in floor.shortfalls(everywhere)]
    if not shortfalls:
        floor.score(fidelity, value)  # refuses a floor that measures nothing
    found = Verification(
        runs.ran_on,
        runs.kind,
        dict(runs.opened.runtime),
        runs.placement,
        fidelity,
        everywhere,
        _causes(fidelity, compared, runs.emulated),
        Seconds(runs.opened.seconds, compared.seconds / compared.count),
        compared.peak_rss_mb,
        compared.count,
        floor,
        (*misplaced, *shortfalls),
        metric=measured,
        notes=tuple(notes),
        contradictions=contradictions(criteria.predicted.on_target, runs.placement, target.ep, operators_of(model)),
        schedule=None if estimate is None else estimate.schedule,
        estimate=estimate,
        worst_sample=compared.worst,
        further_db=tuple(alone[len(samples) :]),
    )
    if bisect or (bisect is None and shortfalls and not stopped()):
        worst = every(compared.worst[0])
        return with_divergence(found, candidate, normalized or reference, target, worst, timeout=timeout, known=known)
    return found


def with_divergence(
    found: Verification,
    candidate: Path,
    normalized: Path,
    target: TargetIdentity,
    worst: Sample,
    *,
    timeout: float | None = None,
    known: Divergence | None = None,
) -> Verification:
    """The verification, with where the two runs part; this takes one more run of its worst sample, or a few.

    Args:
        found: of the candidate.
        candidate: the model that was judged.
        normalized: the reference in the form that the candidate was made from.
        target: where it ran.
        worst: the sample that `found.worst_sample` speaks of.
        timeout: seconds that one request to a worker may take; None for what `planner.limits` says.
        known: where they part on the worst sample, but for what the EP fuses.
    """
    explained = found.worst_sample[1]
    lost = [
        (cause.ep, cause.quantizing) for cause in found.causes if cause.ep is not None and cause.quantizing is not None
    ]
    # Where quantizing alone costs more than the EP adds, no fusion of the EP's is to blame.
    by_ep = not lost or any(ep < quantizing for ep, quantizing in lost)
    try:
        if known is not None and not (by_ep and known.mends(explained)):
            divergence = replace(known, explained_db=explained)
        else:
            divergence = find_divergence(
                candidate, normalized, target, [worst], timeout=timeout, explained_db=explained, by_ep=by_ep
            )
    except EPError as error:
        return replace(found, notes=(*found.notes, f"where the two part could not be found: {error}"))
    reasons = found.reasons
    if not found.faithful:
        reasons = (*reasons, f"where the two part: {divergence.sentence()}")
    return replace(found, divergence=divergence, reasons=reasons)


@dataclass(frozen=True)
class _Looking:
    """Where the runs part on a sample is looked for beside other work."""

    worker: Worker
    result: Future[Divergence]

    @classmethod
    def begin(
        cls,
        stack: contextlib.ExitStack,
        candidate: Path,
        normalized: Path,
        target: TargetIdentity,
        sample: Sample,
        timeout: float | None,
    ) -> _Looking:
        """It ends with the stack at the latest."""
        worker = stack.enter_context(Worker(target.ep, timeout=timeout))
        look = functools.partial(
            find_divergence, candidate, normalized, target, [sample], timeout=timeout, worker=worker
        )
        return cls(worker, stack.enter_context(beside(worker, look)))

    def end(self, *, wanted: bool) -> Divergence | None:
        """What was found; None where it is not wanted, or failed: asked once more, that says why."""
        if wanted:
            with contextlib.suppress(EPError):
                return self.result.result()
        self.worker.abandon()
        return None


def _without_session(
    refused: NoSession, target: TargetIdentity, operators: Mapping[str, str], criteria: Criteria
) -> Verification:
    """What there is to tell."""
    placement = unplaced(operators, refusal_reasons(refused.refusals, operators), packages(refused.runtime))
    nodes = [f for f in placement.fallback if f.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    named = "".join(f"; it refused {f.op_type} {f.name!r}: {f.reason}" for f in nodes[:3])
    return Verification(
        target.ep,
        refused.kind,
        refused.runtime,
        placement,
        (),
        seconds=Seconds(),
        floor=criteria.floor,
        reasons=(f"{refused}{named}",),
        session_error=str(refused),
        contradictions=contradictions(criteria.predicted.on_target, placement, target.ep, operators),
    )


def _causes(fidelity: Sequence[Fidelity], compared: Compared, emulated: bool) -> tuple[Causes, ...]:
    if emulated:
        return tuple(Causes(entry.output, entry.sqnr_db, None) for entry in fidelity)
    quantizing = {entry.output: entry.sqnr_db for entry in compared.quantizing.results()}
    own = {entry.output: entry.sqnr_db for entry in compared.own.results()}
    return tuple(Causes(entry.output, quantizing.get(entry.output), own.get(entry.output)) for entry in fidelity)


def _misplaced(placement: Placement, target: TargetIdentity, predicted: Prediction, *, emulated: bool) -> Iterator[str]:
    if placement.fallback and predicted.open_inputs:
        yield (
            f"{target.ep} takes static shapes only, and the file has open dimensions (--shape {predicted.open_inputs[0]}): "
            "fix them in the file, or let `planner target` write it"
        )
    if placement.on_target is None and not emulated:
        yield f"the installed onnxruntime cannot tell which nodes {target.ep} took"
    if placement.fallback:
        first = placement.fallback[0]
        yield (
            f"{len(placement.fallback)} of {placement.total} nodes are not on {target.ep}, "
            f"first {first.op_type} {first.name!r}: {first.reason}"
        )


__all__ = ["Causes", "Criteria", "MetricValue", "Seconds", "Verification", "verify", "with_divergence"]
