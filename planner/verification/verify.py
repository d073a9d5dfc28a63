"""Verifying a candidate: placed by the real EP, and faithful on samples held apart, told apart three ways.

Three runs separate the causes of a loss: the float32 reference on the CPU EP, the candidate on the CPU EP (computed
as the file says, Q/DQ by Q/DQ, float16 rounded after every node), and the candidate on the target. The first two
differ by what quantizing lost, the last two by what the EP itself adds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from planner.calibrate.inputs import Sample
from planner.errors import EPError, RequestError
from planner.resolve.plan import TargetIdentity
from planner.runtime.client import SessionFailed, Worker, WorkerCrashed, WorkerTimeout
from planner.runtime.eps.launcher import Availability
from planner.runtime.refusals import Refusal
from planner.runtime.registry import CPU, launcher
from planner.verification.divergence import Parting, find_parting
from planner.verification.feed import AS_WRITTEN, as_written, cast_feed, input_dtypes, load
from planner.verification.fidelity import Comparison, Fidelity
from planner.verification.floor import Floor, load_metric
from planner.verification.placement import (
    Contradiction,
    Placement,
    contradictions,
    own_name,
    packages,
    placement_of,
    unplaced,
)

Kind = Literal["hardware", "simulator", "emulation"]
Progress = Callable[[int, int], None]
Outputs = Mapping[str, Any]


@dataclass(frozen=True)
class Causes:
    """Of one output, in dB SQNR: what the candidate's own numbers lost, and what the EP added; None where not measured.

    Attributes:
        quantizing: candidate against float32, both on the CPU EP. ep: candidate on the target against it on the CPU EP.
    """

    output: str
    quantizing: float | None
    ep: float | None

    def to_json(self) -> dict[str, Any]:
        return {"output": self.output, "quantizing_sqnr_db": self.quantizing, "ep_sqnr_db": self.ep}


@dataclass(frozen=True)
class MetricValue:
    """The user's metric of the candidate on ran_on, and of the float32 reference on the CPU EP."""

    name: str
    value: float
    reference: float

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "value": self.value, "reference": self.reference}


@dataclass(frozen=True)
class Verification:
    """What a verification found.

    Attributes:
        ran_on: the EP that really ran. kind: "hardware", the vendor's "simulator", or "emulation" by the CPU EP.
        runtime: versions of its packages.
        causes: the three-way comparison. load_seconds: building the session on ran_on. run_seconds: mean of one sample.
        peak_rss_mb: peak resident memory of the worker that ran the candidate, MiB; None where the platform is silent.
        samples: how many samples were compared. floor: what it had to reach. metric: where the floor is one.
        reasons: why it did not pass; empty if it passed.
        session_error: the EP's message where it built no session.
        parting: where the run leaves the reference on the worst sample, looked for where the fidelity did not pass, or
            when asked.
        contradictions: nodes that the EP placed otherwise than the profile predicts.
    """

    ran_on: str
    kind: Kind
    runtime: Mapping[str, str]
    placement: Placement
    fidelity: tuple[Fidelity, ...]
    causes: tuple[Causes, ...]
    load_seconds: float | None
    run_seconds: float | None
    peak_rss_mb: float | None
    samples: int
    floor: Floor
    reasons: tuple[str, ...]
    session_error: str | None = None
    parting: Parting | None = None
    metric: MetricValue | None = None
    notes: tuple[str, ...] = field(default=())
    contradictions: tuple[Contradiction, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.reasons

    def to_json(self) -> dict[str, Any]:
        return {
            "ran_on": self.ran_on,
            "kind": self.kind,
            "runtime": dict(self.runtime),
            "placement": self.placement.to_json(),
            "fidelity": [entry.to_json() for entry in self.fidelity],
            "causes": [entry.to_json() for entry in self.causes],
            "seconds": {"load": self.load_seconds, "run": self.run_seconds},
            "peak_rss_mb": self.peak_rss_mb,
            "samples": self.samples,
            "floor": self.floor.to_json(),
            "metric": None if self.metric is None else self.metric.to_json(),
            "passed": self.passed,
            "reasons": list(self.reasons),
            "session_error": self.session_error,
            "parting": None if self.parting is None else self.parting.to_json(),
            "notes": list(self.notes),
            "contradictions": [entry.to_json() for entry in self.contradictions],
        }


def verify(
    candidate: Path,
    reference: Path,
    target: TargetIdentity,
    samples: Sequence[Sample],
    *,
    floor: Floor,
    normalized: Path | None = None,
    allow_fallback: bool = False,
    predicted: Mapping[str, bool] | None = None,
    progress: Progress | None = None,
    timeout: float = 300,
    explain: bool = True,
    bisect: bool = False,
) -> Verification:
    """Run both models and compare.

    Where the target's EP can't run here, the CPU EP emulates it, and `kind` says so. The placement is the EP's own where it can
    at least be asked for it, else unknown.

    Args:
        candidate: the model to judge. reference: the float32 model it was made from, of the same inputs and outputs.
        normalized: the reference in the form that the candidate was made from, whose inner tensors it shares by name;
            only used to find where two runs part. The outputs are always compared with the reference's own.
        samples: feeds of the reference; integer and float inputs are cast to the candidate's types.
        floor: what the candidate must reach. progress: called with (samples done, of how many).
        allow_fallback: nodes that are not on the EP are noted, and do not fail it.
        predicted: whether a node is on the target, by the profile; what the EP does otherwise is told.
        timeout: seconds that one request to a worker may take.
        explain: look for the node where the runs part (one more run) if the fidelity is below the floor.
        bisect: look for it in any case.

    Raises:
        RequestError: no samples, or a model that cannot be read.
        EPError: a worker crashed, hung or failed to run; the reference has no session on the CPU EP.
    """
    if not samples:
        raise RequestError("nothing to verify on: no samples", "give --inputs")
    available = launcher(target.ep).availability()
    emulated = not available.runs
    metric = None if floor.metric is None else load_metric(floor.metric)
    model = load(candidate)
    dtypes = input_dtypes(model)
    operators = {node.name or "": node.op_type for node in model.graph.all_nodes()}
    notes: list[str] = []
    refusal: tuple[str, ...] = ()
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(as_written(candidate, model))
        reference_worker = stack.enter_context(Worker(CPU, timeout=timeout))
        reference_worker.open(reference, {})
        yardstick: Worker | None = stack.enter_context(Worker(CPU, timeout=timeout))
        assert yardstick is not None
        ran_on: str
        kind: Kind
        if emulated:
            opened = yardstick.open(plain, {}, session_config=AS_WRITTEN)
            worker, ran_on, kind = yardstick, CPU, "emulation"
            yardstick = None
            placement, refusal = _asked_placement(candidate, target, available, operators, notes, timeout)
            notes.append("float32 nodes were computed in float32: a target that computes them in float16 may differ")
        else:
            worker, ran_on = stack.enter_context(Worker(target.ep, timeout=timeout)), target.ep
            kind = "simulator" if available.kind == "simulator" else "hardware"
            try:
                opened = worker.open(candidate, target.options, log=True)
            except SessionFailed as error:
                return _no_session(error, target, kind, worker.runtime, operators, floor, predicted or {})
            placement = placement_of(opened, target.ep, operators)
            try:
                yardstick.open(plain, {}, session_config=AS_WRITTEN)
            except SessionFailed as error:
                notes.append(f"the causes of a loss can't be told apart: {error}")
                yardstick = None
        total, quantizing, own = Comparison(), Comparison(), Comparison()
        run_seconds, peak = 0.0, opened.peak_rss_mb
        worst, worst_db = samples[0], float("inf")
        for index, sample in enumerate(samples):
            feed = cast_feed(sample, dtypes)
            expected = reference_worker.run(sample).outputs
            ran = worker.run(feed)
            run_seconds += ran.seconds
            peak = ran.peak_rss_mb or peak
            total.add(expected, ran.outputs)
            if (db := _least(expected, ran.outputs)) < worst_db:
                worst, worst_db = sample, db
            if yardstick is not None:
                written = yardstick.run(feed).outputs
                quantizing.add(expected, written)
                own.add(written, ran.outputs)
            if progress is not None:
                progress(index + 1, len(samples))
        measured = None
        if metric is not None and floor.metric is not None:
            measured = MetricValue(
                floor.metric,
                metric(lambda sample: worker.run(cast_feed(sample, dtypes)).outputs),
                metric(lambda sample: reference_worker.run(sample).outputs),
            )
    fidelity = total.results()
    misplaced = [*_misplaced(placement, target, emulated), *refusal]
    if allow_fallback:
        notes.extend(misplaced)
        misplaced = []
    shortfalls = list(floor.shortfalls(fidelity, None if measured is None else measured.value))
    if not shortfalls:
        floor.score(fidelity, None if measured is None else measured.value)  # refuses a floor that measures nothing
    reasons = [*misplaced, *shortfalls]
    parting = None
    if bisect or (explain and shortfalls):
        try:
            parting = find_parting(candidate, normalized or reference, target, [worst], timeout=timeout)
            if shortfalls:
                reasons.append(f"where the two part: {parting.sentence()}")
        except EPError as error:
            notes.append(f"where the two part could not be found: {error}")
    return Verification(
        ran_on,
        kind,
        dict(opened.runtime),
        placement,
        fidelity,
        _causes(fidelity, quantizing, own, emulated),
        opened.seconds,
        run_seconds / len(samples),
        peak,
        len(samples),
        floor,
        tuple(reasons),
        parting=parting,
        metric=measured,
        notes=tuple(notes),
        contradictions=contradictions(predicted or {}, placement, target.ep, operators),
    )


def _least(expected: Outputs, got: Outputs) -> float:
    one = Comparison()
    one.add(expected, got)
    return min((entry.sqnr_db for entry in one.results()), default=0.0)


def _asked_placement(
    candidate: Path,
    target: TargetIdentity,
    available: Availability,
    operators: Mapping[str, str],
    notes: list[str],
    timeout: float,
) -> tuple[Placement, tuple[str, ...]]:
    """The placement by an EP that does not run here, and why it refuses the whole model, if it does.

    Args:
        notes: told what was asked, and what came of it.
    """
    unknown = Placement(len(operators), None, ())
    if available.kind != "placement":
        notes.append(f"{target.ep} can't run here ({available.reason}); the CPU EP emulated it")
        return unknown, ()
    notes.append(f"{available.by} said which nodes it takes; its numbers were emulated by the CPU EP")
    with Worker(target.ep, timeout=timeout) as worker:
        try:
            return placement_of(worker.open(candidate, target.options, log=True), target.ep, operators), ()
        except SessionFailed as error:
            return unplaced(operators, refusal_reasons(error.refusals, operators), available.by), (str(error),)
        except (WorkerCrashed, WorkerTimeout) as error:
            notes.append(f"the placement is unknown: {error}")
            return unknown, ()


def refusal_reasons(refusals: Sequence[Refusal], candidate: Mapping[str, str]) -> dict[str, str]:
    """Reasons by the candidate's own node names."""
    named = ((own_name(refusal.name, candidate), refusal.reason) for refusal in refusals)
    return {name: reason for name, reason in named if name is not None}


def _no_session(
    error: SessionFailed,
    target: TargetIdentity,
    kind: Kind,
    runtime: Mapping[str, str],
    operators: Mapping[str, str],
    floor: Floor,
    predicted: Mapping[str, bool],
) -> Verification:
    placement = unplaced(operators, refusal_reasons(error.refusals, operators), packages(runtime))
    refused = [f for f in placement.fallback if f.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    named = "".join(f"; it refused {f.op_type} {f.name!r}: {f.reason}" for f in refused[:3])
    return Verification(
        target.ep,
        kind,
        dict(runtime),
        placement,
        (),
        (),
        None,
        None,
        None,
        0,
        floor,
        (f"{error}{named}",),
        session_error=str(error),
        contradictions=contradictions(predicted, placement, target.ep, operators),
    )


def _causes(
    fidelity: Sequence[Fidelity], quantizing: Comparison, own: Comparison, emulated: bool
) -> tuple[Causes, ...]:
    if emulated:
        return tuple(Causes(entry.output, entry.sqnr_db, None) for entry in fidelity)
    by_quantizing = {entry.output: entry.sqnr_db for entry in quantizing.results()}
    by_ep = {entry.output: entry.sqnr_db for entry in own.results()}
    return tuple(Causes(entry.output, by_quantizing.get(entry.output), by_ep.get(entry.output)) for entry in fidelity)


def _misplaced(placement: Placement, target: TargetIdentity, emulated: bool) -> Iterator[str]:
    if placement.on_target is None and not emulated:
        yield f"the installed onnxruntime cannot tell which nodes {target.ep} took"
    if placement.fallback:
        first = placement.fallback[0]
        yield (
            f"{len(placement.fallback)} of {placement.total} nodes are not on {target.ep}, "
            f"first {first.op_type} {first.name!r}: {first.reason}"
        )


__all__ = ["Causes", "MetricValue", "Verification", "verify"]
