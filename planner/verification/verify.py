"""Verifying a candidate: placed by the real EP, and faithful on samples held apart, told apart three ways.

Three runs separate the causes of a loss: the float32 reference on the CPU EP, the candidate on the CPU EP (computed
as the file says, Q/DQ by Q/DQ, float16 rounded after every node), and the candidate on the target. The first two
differ by what quantizing lost, the last two by what the EP itself adds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir

from planner.calibrate.inputs import Sample
from planner.codec import HIDDEN, named
from planner.errors import EPError, RequestError
from planner.estimation.estimate import Estimate
from planner.estimation.file import estimate_session
from planner.estimation.timeline import Summary
from planner.files import temporary_folder
from planner.resolve.plan import TargetIdentity
from planner.runtime.client import Opened, SessionFailed, Worker, WorkerCrashed, WorkerTimeout
from planner.runtime.eps.launcher import Availability
from planner.runtime.refusals import Refusal
from planner.runtime.registry import CPU, launcher
from planner.verification.divergence import Parting, find_parting
from planner.verification.emulation import uses_float16
from planner.verification.feed import AS_WRITTEN, as_written, cast_feed, input_dtypes, load
from planner.verification.fidelity import BEST, Comparison, Fidelity
from planner.verification.floor import DEFAULT_FLOOR, Floor, Run, load_metric
from planner.verification.parts import Parts, read_parts
from planner.verification.placement import (
    Contradiction,
    Placement,
    contradictions,
    own_name,
    packages,
    placement_of,
    unplaced,
)

Kind = Literal["hardware", "software", "simulator", "emulation"]
Progress = Callable[[int, int], None]
Outputs = Mapping[str, Any]


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
        fidelity: of each output.
        causes: the three-way comparison.
        seconds: what loading and running took.
        peak_rss_mb: peak resident memory of the worker that ran the candidate, MiB; None where the platform is silent.
        samples: how many samples were compared.
        floor: what it had to reach.
        metric: its value, where the floor is one.
        reasons: why it did not pass; empty if it passed.
        session_error: the EP's message where it built no session.
        parting: where the run leaves the reference on the worst sample, looked for where the fidelity did not pass, or
            when asked.
        notes: what whoever relies on it should know.
        contradictions: nodes that the EP placed otherwise than the profile predicts.
        schedule: what the EP's compiler made of the candidate, where it writes that down.
        estimate: what a run costs by that schedule: estimated, never measured.
        worst_sample: index of the sample with the least SQNR, and what its outputs have, each as a whole, in dB.
    """

    ran_on: str
    kind: Kind
    runtime: Mapping[str, str]
    placement: Placement
    fidelity: tuple[Fidelity, ...]
    causes: tuple[Causes, ...] = ()
    seconds: Seconds | None = None
    peak_rss_mb: float | None = None
    samples: int = 0
    floor: Floor = DEFAULT_FLOOR
    reasons: tuple[str, ...] = ()
    session_error: str | None = None
    parting: Parting | None = None
    metric: MetricValue | None = None
    notes: tuple[str, ...] = ()
    contradictions: tuple[Contradiction, ...] = ()
    schedule: Summary | None = None
    estimate: Estimate | None = field(default=None, metadata=HIDDEN)
    worst_sample: tuple[int, float] = field(default=(0, BEST), metadata=HIDDEN)

    SHOWN = ("passed",)

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
        predicted: by name, whether a node is on the target, by the profile; what the EP does otherwise is told.
    """

    floor: Floor
    allow_fallback: bool = False
    predicted: Mapping[str, bool] = field(default_factory=dict)


def verify(
    candidate: Path,
    reference: Path,
    target: TargetIdentity,
    samples: Sequence[Sample],
    criteria: Criteria,
    *,
    normalized: Path | None = None,
    bisect: bool | None = None,
    estimate_as: str | None = None,
    timeout: float | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Run both models and compare.

    Where the target's EP can't run here, the CPU EP emulates it, and `kind` says so. The placement is the EP's own where it can
    at least be asked for it, else unknown.

    Args:
        candidate: the model to judge.
        reference: the float32 model it was made from, of the same inputs and outputs.
        target: where it runs.
        samples: feeds of the reference; integer and float inputs are cast to the candidate's types.
        criteria: what it is judged by.
        normalized: the reference in the form that the candidate was made from, whose inner tensors it shares by name;
            only used to find where two runs part. The outputs are always compared with the reference's own.
        bisect: whether to look for the node where the runs part (one more run); None: if the fidelity is below the floor.
        estimate_as: the candidate's precision, by which its estimate is named; None for no estimate. It takes no second
            session: the one that runs is built with its compiler's schedule written down.
        timeout: seconds that one request to a worker may take; None for what `planner.limits` says.
        progress: called with (samples done, of how many).

    Raises:
        RequestError: no samples, or a model that cannot be read.
        EPError: a worker crashed, hung or failed to run; the reference has no session on the CPU EP.
    """
    if not samples:
        raise RequestError("nothing to verify on: no samples", "give --inputs")
    metric = None if criteria.floor.metric is None else load_metric(criteria.floor.metric)
    model = load(candidate)
    with contextlib.ExitStack() as stack:
        try:
            runs = _Runs.start(stack, candidate, reference, model, target, timeout, estimate_as)
            runs.parts = read_parts(normalized or reference)
        except _NoSession as refused:
            return refused.verification(target, _operators(model), criteria)
        compared = runs.compare(samples, progress)
        measured = None if metric is None else runs.measure(str(criteria.floor.metric), metric)
    fidelity, floor = compared.total.results(), criteria.floor
    value = None if measured is None else measured.value
    notes = list(runs.notes)
    misplaced = list(_misplaced(runs.placement, target, runs.emulated))
    if criteria.allow_fallback:
        notes, misplaced = [*notes, *misplaced], []
    shortfalls = list(floor.shortfalls(fidelity, value))
    if not shortfalls:
        floor.score(fidelity, value)  # refuses a floor that measures nothing
    found = Verification(
        runs.ran_on,
        runs.kind,
        dict(runs.opened.runtime),
        runs.placement,
        fidelity,
        _causes(fidelity, compared, runs.emulated),
        Seconds(runs.opened.seconds, compared.seconds / len(samples)),
        compared.peak_rss_mb,
        len(samples),
        floor,
        (*misplaced, *shortfalls),
        metric=measured,
        notes=tuple(notes),
        contradictions=contradictions(criteria.predicted, runs.placement, target.ep, _operators(model)),
        schedule=None if runs.estimate is None else runs.estimate.schedule,
        estimate=runs.estimate,
        worst_sample=compared.worst,
    )
    if bisect or (bisect is None and shortfalls):
        return with_parting(found, candidate, normalized or reference, target, samples, timeout=timeout)
    return found


def with_parting(
    found: Verification,
    candidate: Path,
    normalized: Path,
    target: TargetIdentity,
    samples: Sequence[Sample],
    *,
    timeout: float | None = None,
) -> Verification:
    """The verification, with where the two runs part; this takes one more run of its worst sample, or a few.

    Args:
        found: of the candidate, on these samples.
        candidate: the model that was judged.
        normalized: the reference in the form that the candidate was made from.
        target: where it ran.
        samples: feeds of the reference.
        timeout: seconds that one request to a worker may take; None for what `planner.limits` says.
    """
    index, explained = found.worst_sample
    try:
        parting = find_parting(candidate, normalized, target, [samples[index]], timeout=timeout, explained_db=explained)
    except EPError as error:
        return replace(found, notes=(*found.notes, f"where the two part could not be found: {error}"))
    reasons = found.reasons
    if not found.floor.passes(found.fidelity, None if found.metric is None else found.metric.value):
        reasons = (*reasons, f"where the two part: {parting.sentence()}")
    return replace(found, parting=parting, reasons=reasons)


def _operators(model: ir.Model) -> dict[str, str]:
    """The candidate's nodes, name -> operator."""
    return {node.name or "": node.op_type for node in model.graph.all_nodes()}


@dataclass
class _Compared:
    """The three runs over all samples.

    Attributes:
        worst: index of the sample with the least SQNR of any output or part, and what its outputs have, each as a whole.
        peak_rss_mb: of the target's worker.
        total: reference against target.
        quantizing: reference against the candidate on the CPU EP.
        own: the candidate on the CPU EP against target.
        seconds: of all runs on the target.
    """

    worst: tuple[int, float]
    peak_rss_mb: float | None
    total: Comparison
    quantizing: Comparison = field(default_factory=Comparison)
    own: Comparison = field(default_factory=Comparison)
    seconds: float = 0.0


@dataclass
class _Runs:
    """The open sessions of a verification.

    Attributes:
        reference: runs the float32 model on the CPU EP.
        worker: runs the candidate on ran_on.
        yardstick: runs the candidate on the CPU EP as it is written; None where that is what the worker does.
        parts: of the outputs that join several tensors, by name.
        estimate: by the schedule that building the worker's session left.
    """

    reference: Worker
    worker: Worker
    yardstick: Worker | None
    dtypes: Mapping[str, Any]
    opened: Opened
    placement: Placement
    ran_on: str
    kind: Kind
    notes: tuple[str, ...]
    parts: Mapping[str, Parts] = field(default_factory=dict)
    estimate: Estimate | None = None

    @property
    def emulated(self) -> bool:
        return self.kind == "emulation"

    @classmethod
    def start(
        cls,
        stack: contextlib.ExitStack,
        candidate: Path,
        reference: Path,
        model: ir.Model,
        target: TargetIdentity,
        timeout: float | None,
        estimate_as: str | None,
    ) -> _Runs:
        """Open the sessions.

        Raises:
            _NoSession: the target's EP built none for the candidate.
            EPError: the CPU EP built none.
        """
        dtypes, operators = input_dtypes(model), _operators(model)
        plain = stack.enter_context(as_written(candidate, model))
        float32 = stack.enter_context(Worker(CPU, timeout=timeout))
        float32.open(reference, {})
        yardstick = stack.enter_context(Worker(CPU, timeout=timeout))
        available = launcher(target.ep).availability(target.options)
        kind = available.kind
        if kind is None or kind == "placement" or not available.runs_model(float16=uses_float16(model)):
            opened = yardstick.open(plain, {}, session_config=AS_WRITTEN)
            placement, note = _asked_placement(candidate, target, available, operators, timeout)
            notes = (note, "float32 nodes were computed in float32: a target that computes them in float16 may differ")
            return cls(float32, yardstick, None, dtypes, opened, placement, CPU, "emulation", notes)
        # Real hardware is measured: profiling would slow it down.
        estimated = estimate_as is not None and launcher(target.ep).schedules and available.kind == "simulator"
        folder = stack.enter_context(temporary_folder()) if estimated else None
        worker = stack.enter_context(Worker(target.ep, timeout=timeout))
        try:
            opened = worker.open(candidate, target.options, log=True, schedule=folder)
        except SessionFailed as error:
            raise _NoSession(error, kind, worker.runtime) from None
        runs = cls(
            float32, worker, yardstick, dtypes, opened, placement_of(opened, target.ep, operators),
            target.ep, kind, (),
        )  # fmt: skip
        if folder is not None:
            runs.estimate = estimate_session(target, candidate, str(estimate_as), folder, opened)
        try:
            yardstick.open(plain, {}, session_config=AS_WRITTEN)
        except SessionFailed as error:
            runs.notes, runs.yardstick = (f"the causes of a loss can't be told apart: {error}",), None
        return runs

    def compare(self, samples: Sequence[Sample], progress: Progress | None) -> _Compared:
        """Run every sample."""
        found = _Compared((0, BEST), self.opened.peak_rss_mb, Comparison(self.parts))
        worst_db = float("inf")
        for index, sample in enumerate(samples):
            feed = cast_feed(sample, self.dtypes)
            expected = self.reference.run(sample).outputs
            ran = self.worker.run(feed)
            found.seconds += ran.seconds
            found.peak_rss_mb = ran.peak_rss_mb or found.peak_rss_mb
            found.total.add(expected, ran.outputs)
            one = Comparison(self.parts)
            one.add(expected, ran.outputs)
            if (db := min((entry.least_db for entry in one.results()), default=0.0)) < worst_db:
                found.worst, worst_db = (index, min(entry.sqnr_db for entry in one.results())), db
            if self.yardstick is not None:
                written = self.yardstick.run(feed).outputs
                found.quantizing.add(expected, written)
                found.own.add(written, ran.outputs)
            if progress is not None:
                progress(index + 1, len(samples))
        return found

    def measure(self, name: str, metric: Callable[[Run], float]) -> MetricValue:
        """The user's metric of both models."""
        return MetricValue(
            name,
            metric(lambda sample: self.worker.run(cast_feed(sample, self.dtypes)).outputs),
            metric(lambda sample: self.reference.run(sample).outputs),
        )


def _asked_placement(
    candidate: Path,
    target: TargetIdentity,
    available: Availability,
    operators: Mapping[str, str],
    timeout: float | None,
) -> tuple[Placement, str]:
    """The placement by an EP that runs nothing here, and a note that says what was asked of whom."""
    unknown = Placement(len(operators), None, ())
    if available.kind is None:
        return unknown, f"{target.ep} can't run here ({available.reason}); the CPU EP emulated it"
    emulated = "its numbers were emulated by the CPU EP"
    with Worker(target.ep, timeout=timeout) as worker:
        try:
            placement = placement_of(worker.open(candidate, target.options, log=True), target.ep, operators)
        except SessionFailed as error:
            # It refuses the whole model: none of its nodes is on it.
            reasons = {name: str(error) for name in operators} | refusal_reasons(error.refusals, operators)
            placement = unplaced(operators, reasons, available.by)
        except (WorkerCrashed, WorkerTimeout) as error:
            return unknown, f"the placement is unknown: {error}; {emulated}"
    return placement, f"{available.by} said which nodes it takes; {emulated}"


def refusal_reasons(refusals: Sequence[Refusal], candidate: Mapping[str, str]) -> dict[str, str]:
    """Reasons by the candidate's own node names."""
    named = ((own_name(refusal.name, candidate), refusal.reason) for refusal in refusals)
    return {name: reason for name, reason in named if name is not None}


class _NoSession(Exception):
    """The target's EP builds no session for the candidate."""

    def __init__(self, error: SessionFailed, kind: Kind, runtime: Mapping[str, str]) -> None:
        super().__init__(str(error))
        self.refusals, self.kind, self.runtime = error.refusals, kind, dict(runtime)

    def verification(self, target: TargetIdentity, operators: Mapping[str, str], criteria: Criteria) -> Verification:
        """What there is to tell."""
        placement = unplaced(operators, refusal_reasons(self.refusals, operators), packages(self.runtime))
        refused = [f for f in placement.fallback if f.op_type not in ("QuantizeLinear", "DequantizeLinear")]
        named = "".join(f"; it refused {f.op_type} {f.name!r}: {f.reason}" for f in refused[:3])
        return Verification(
            target.ep,
            self.kind,
            self.runtime,
            placement,
            (),
            seconds=Seconds(),
            floor=criteria.floor,
            reasons=(f"{self}{named}",),
            session_error=str(self),
            contradictions=contradictions(criteria.predicted, placement, target.ep, operators),
        )


def _causes(fidelity: Sequence[Fidelity], compared: _Compared, emulated: bool) -> tuple[Causes, ...]:
    if emulated:
        return tuple(Causes(entry.output, entry.sqnr_db, None) for entry in fidelity)
    quantizing = {entry.output: entry.sqnr_db for entry in compared.quantizing.results()}
    own = {entry.output: entry.sqnr_db for entry in compared.own.results()}
    return tuple(Causes(entry.output, quantizing.get(entry.output), own.get(entry.output)) for entry in fidelity)


def _misplaced(placement: Placement, target: TargetIdentity, emulated: bool) -> Iterator[str]:
    if placement.on_target is None and not emulated:
        yield f"the installed onnxruntime cannot tell which nodes {target.ep} took"
    if placement.fallback:
        first = placement.fallback[0]
        yield (
            f"{len(placement.fallback)} of {placement.total} nodes are not on {target.ep}, "
            f"first {first.op_type} {first.name!r}: {first.reason}"
        )


__all__ = ["Causes", "Criteria", "MetricValue", "Seconds", "Verification", "verify", "with_parting"]
