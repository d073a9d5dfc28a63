"""The three runs of a verification: the reference and the candidate on the CPU EP, and the candidate on the target."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import onnx_ir as ir

from planner.calibrate.inputs import Sample
from planner.calibrate.spread import spread
from planner.errors import EPError, PlannerError, RequestError
from planner.estimation.estimate import Estimate
from planner.estimation.file import estimate_session
from planner.files import temporary_folder
from planner.model.read import read_model
from planner.model.write import save
from planner.resolve.plan import TargetIdentity
from planner.runtime.client import (
    Opened,
    Ran,
    RunFailed,
    SessionFailed,
    Worker,
    WorkerCrashed,
    WorkerTimeout,
    model_refused,
)
from planner.runtime.eps.launcher import Availability
from planner.runtime.refusals import Refusal
from planner.runtime.registry import CPU, launcher
from planner.runtime.worker import INVALID
from planner.verification.emulation import uses_float16
from planner.verification.feed import AS_WRITTEN, as_written, cast_feed, input_dtypes, load
from planner.verification.fidelity import BEST, ENOUGH_SAMPLES, Comparison
from planner.verification.floor import Run
from planner.verification.parts import Parts
from planner.verification.placement import Placement, own_name, placement_of, unplaced

# Of further samples, those that a simulator runs at least, and those that hardware runs.
_HARDEST, _ON_HARDWARE = 2, 64
# A second session is opened where the runs to come take this many times as long as opening one, its process included.
_WORTH, _PROCESS_SECONDS = 3.0, 0.5

Kind = Literal["hardware", "software", "simulator", "emulation"]
Progress = Callable[[int, int], None]
Outputs = Mapping[str, Any]
T = TypeVar("T")


class NoSession(Exception):
    """The target's EP builds no session for the candidate."""

    def __init__(self, error: SessionFailed, kind: Kind, runtime: Mapping[str, str]) -> None:
        super().__init__(str(error))
        self.refusals, self.kind, self.runtime = error.refusals, kind, dict(runtime)


@dataclass
class Compared:
    """The three runs over all samples.

    Attributes:
        worst: index of the sample with the least SQNR of any output or part, and what its outputs have, each as a whole.
        peak_rss_mb: of the target's worker.
        total: reference against target.
        quantizing: reference against the candidate on the CPU EP.
        own: the candidate on the CPU EP against target.
        seconds: of all runs on the target.
        count: samples that ran.
    """

    worst: tuple[int, float]
    peak_rss_mb: float | None
    total: Comparison
    quantizing: Comparison = field(default_factory=Comparison)
    own: Comparison = field(default_factory=Comparison)
    seconds: float = 0.0
    count: int = 0


@dataclass
class Runs:
    """The open sessions of a verification.

    Attributes:
        reference: runs the float32 model on the CPU EP.
        expects: types of its inputs: a sample of float32 may be one of a float64 model.
        worker: runs the candidate on ran_on.
        yardstick: runs the candidate on the CPU EP as it is written; None where that is what the worker does.
        parts: of the outputs that join several tensors, by name.
        second: opens the candidate on the target once more; None where that is not to be.
        estimate: makes one from the schedule that building the worker's session left, where there is to be one.
        first: the first sample's run, where it was begun.
    """

    reference: Worker
    expects: Mapping[str, Any]
    worker: Worker
    yardstick: Worker | None
    dtypes: Mapping[str, Any]
    opened: Opened
    placement: Placement
    ran_on: str
    kind: Kind
    notes: tuple[str, ...]
    parts: Mapping[str, Parts] = field(default_factory=dict)
    second: Callable[[], Worker] | None = None
    estimate: Callable[[], Estimate | None] = lambda: None
    first: Future[Ran] | None = None

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
    ) -> Runs:
        """Open the sessions.

        Raises:
            NoSession: the target's EP built none for the candidate.
            EPError: the CPU EP built none.
        """
        dtypes, operators = input_dtypes(model), operators_of(model)
        plain = stack.enter_context(as_written(candidate, model))
        float32 = stack.enter_context(Worker(CPU, timeout=timeout))
        expects, broken = _open_reference(float32, reference)
        yardstick = stack.enter_context(Worker(CPU, timeout=timeout))
        available = launcher(target.ep).availability(target.options)
        kind = available.kind

        def emulated(placement: Placement, *notes: str) -> Runs:
            opened = yardstick.open(plain, {}, session_config=AS_WRITTEN)
            notes = (
                *notes,
                "float32 nodes were computed in float32: a target that computes them in float16 may differ",
            )
            return cls(float32, expects, yardstick, None, dtypes, opened, placement, CPU, "emulation", notes)

        if kind is None or kind == "placement" or not available.runs_model(float16=uses_float16(model)):
            return emulated(*_asked_placement(candidate, target, available, operators, timeout))
        # Real hardware is measured: profiling would slow it down.
        estimated = estimate_as is not None and launcher(target.ep).schedules and kind == "simulator"
        folder = stack.enter_context(temporary_folder()) if estimated else None
        worker = stack.enter_context(Worker(target.ep, timeout=timeout))
        try:
            opened = worker.open(candidate, target.options, log=True, schedule=folder)
        except SessionFailed as error:
            if broken is not None and error.code == INVALID:
                raise broken from None  # the reference's own fault, in the candidate too
            raise NoSession(error, kind, worker.runtime) from None
        if opened.unbuilt:
            placement = placement_of(opened, target.ep, operators)
            return emulated(placement, _placed_by(available), f"this machine built no session of it: {opened.unbuilt}")
        runs = cls(
            float32, expects, worker, yardstick, dtypes, opened, placement_of(opened, target.ep, operators),
            target.ep, kind, (),
        )  # fmt: skip

        def second() -> Worker:
            another = stack.enter_context(Worker(target.ep, timeout=timeout))
            another.open(candidate, target.options)
            return another

        runs.second = second
        if folder is not None:
            runs.estimate = functools.partial(estimate_session, target, candidate, str(estimate_as), folder, opened)
        try:
            yardstick.open(plain, {}, session_config=AS_WRITTEN)
        except SessionFailed as error:
            runs.notes, runs.yardstick = (f"the causes of a loss can't be told apart: {error}",), None
        return runs

    def expected(self, sample: Sample) -> Outputs:
        """What the float32 model makes of a sample."""
        return self.reference.run(cast_feed(sample, self.expects)).outputs

    def emulate(self, samples: Iterable[Sample], emulated: Comparison) -> list[float]:
        """What each sample comes to on the CPU EP, added to the others; nothing where the candidate does not run there."""
        if self.yardstick is None:
            return []
        alone = []
        for sample in samples:
            written = self.yardstick.run(cast_feed(sample, self.dtypes)).outputs
            alone.append(emulated.add(self.expected(sample), written).least_db)
        return alone

    def choose(self, first: int, alone: Sequence[float], own: int, budget: float | None) -> list[int]:
        """The places of the samples that the target is to run: after the first the hardest, and last what a budget adds.

        Args:
            first: the place of the one that it begins with.
            alone: what each sample comes to by emulation.
            own: so many of them, the first, were held apart: they are all chosen, and a few of the others.
            budget: seconds that the target may spend on further ones; None for no more than those.
        """
        if self.emulated:
            return list(range(len(alone)))
        count = _ON_HARDWARE if self.kind == "hardware" else max(_HARDEST, ENOUGH_SAMPLES - own)
        further = [own + index for index in spread(alone[own:], count)]
        places = [first, *sorted({*range(own), *further} - {first}, key=lambda place: (alone[place], place))]
        if budget is not None:
            every = [own + index for index in spread(alone[own:], len(alone))]
            places += [place for place in every if place not in places]
        return places

    def compare(
        self,
        places: Sequence[int],
        sample_at: Callable[[int], Sample],
        own: int,
        budget: float | None,
        progress: Progress | None,
        patience: float = math.inf,
        settled: Callable[[Compared], bool] = lambda _: True,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Compared:
        """Run the samples at these places on the target, in this order.

        Args:
            places: as `choose` gives them.
            sample_at: the sample at a place.
            own: so many were held apart, and count before a budget does.
            budget: seconds in which others may run; None for as long as it takes.
            progress: called with (samples done, of how many).
            patience: after so many seconds of running those that ran will do, where what they came to settles it.
            settled: whether it does.
            stopped: whether no further sample is to run.
        """
        found = Compared((0, BEST), self.opened.peak_rss_mb, Comparison(self.parts))
        worst_db = math.inf
        started = time.monotonic()
        needed = len(places) if budget is None else min(len(places), max(own + _HARDEST, ENOUGH_SAMPLES))
        for place, (sample, ran) in zip(places, self.ran(map(sample_at, places), len(places), stopped), strict=False):
            feed = cast_feed(sample, self.dtypes)
            expected = self.expected(sample)
            found.seconds += ran.seconds
            found.count += 1
            found.peak_rss_mb = ran.peak_rss_mb or found.peak_rss_mb
            one = found.total.add(expected, ran.outputs)
            if one.least_db < worst_db:
                found.worst, worst_db = (place, one.sqnr_db), one.least_db
            if self.yardstick is not None:
                written = self.yardstick.run(feed).outputs
                found.quantizing.add(expected, written)
                found.own.add(written, ran.outputs)
            if progress is not None:
                progress(found.count, len(places))
            if budget is not None and found.count >= needed and time.monotonic() - started > budget:
                break
            if found.seconds > patience and settled(found):
                break
        return found

    @contextlib.contextmanager
    def begun(self, first: Sample) -> Iterator[None]:
        """The first sample's run on a simulator goes on beside what is done within, which `compare` then makes use of."""
        if self.kind != "simulator":
            yield
            return
        feed = cast_feed(first, self.dtypes)
        with beside(self.worker, lambda: self.worker.run(feed)) as self.first:
            yield

    def ran(
        self, samples: Iterator[Sample], count: int, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[Sample, Ran]]:
        """Each sample's run on the target, until none is to begin: two side by side on a simulator, which keeps about one core busy."""
        first = next(samples)
        try:
            ran = self.worker.run(cast_feed(first, self.dtypes)) if self.first is None else self.first.result()
        except RunFailed:
            # A sample that the float32 model itself does not take is not the EP's fault: then this says so.
            self.expected(first)
            raise
        yield first, ran
        workers = [self.worker]
        lasts = ran.seconds * (count - 1) > _WORTH * (self.opened.seconds + _PROCESS_SECONDS)
        if self.kind == "simulator" and lasts and self.second is not None and not stopped():
            # What the second one fails at, the first one tells of.
            with contextlib.suppress(EPError):
                workers.append(self.second())
                part(workers)
        with ThreadPoolExecutor(len(workers)) as pool:
            while not stopped() and (batch := list(itertools.islice(samples, len(workers)))):
                feeds = [cast_feed(sample, self.dtypes) for sample in batch]
                yield from zip(batch, pool.map(lambda w, feed: w.run(feed), workers, feeds), strict=True)

    def measure(self, metric: Callable[[Run], float]) -> tuple[float, float]:
        """The user's metric of the candidate on ran_on, and of the reference on the CPU EP."""
        return (
            metric(lambda sample: self.worker.run(cast_feed(sample, self.dtypes)).outputs),
            metric(self.expected),
        )


@contextlib.contextmanager
def beside(worker: Worker, work: Callable[[], T]) -> Iterator[Future[T]]:
    """Work with a worker goes on in a thread beside what is done within; an error there ends the worker's process."""
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(contextvars.copy_context().run, work)
        except BaseException:
            worker.abandon()
            raise


def part(workers: Sequence[Worker]) -> None:
    """Give each worker cores of its own, where there are enough.

    The simulator's threads wait by spinning: two of its processes that share cores hinder one another.
    """
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    for index, worker in enumerate(workers):
        worker.keep_to(cores[index :: len(workers)])


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
    return placement, _placed_by(available)


def _placed_by(available: Availability) -> str:
    """A note that says who told the placement, and that it did no more."""
    return f"{available.by} said which nodes it takes; its numbers were emulated by the CPU EP"


def refusal_reasons(refusals: Sequence[Refusal], candidate: Mapping[str, str]) -> dict[str, str]:
    """Reasons by the candidate's own node names."""
    named = ((own_name(refusal.name, candidate), refusal.reason) for refusal in refusals)
    return {name: reason for name, reason in named if name is not None}


def _open_reference(worker: Worker, reference: Path) -> tuple[Mapping[str, Any], RequestError | None]:
    """Open the float32 model; the types of its inputs, and what is wrong with its file where onnxruntime takes it for no model.

    One that onnxruntime does not load as it is (of an opset without kernels, with a name given twice) is opened in the form that
    planner brings it to.
    """
    try:
        worker.open(reference, {}, session_config=AS_WRITTEN)
        return input_dtypes(load(reference)), None
    except SessionFailed as error:
        broken = None
        if error.code == INVALID:
            broken = model_refused(error)
        if error.code in ("NotImplemented", INVALID):
            with contextlib.suppress(PlannerError), temporary_folder() as folder:
                brought = read_model(reference).ir
                assert brought is not None
                save(brought, folder / "reference.onnx")
                worker.open(folder / "reference.onnx", {}, session_config=AS_WRITTEN)
                return input_dtypes(brought), broken
        if broken is not None:
            raise broken from None
        raise


def operators_of(model: ir.Model) -> dict[str, str]:
    """The candidate's nodes, name -> operator."""
    return {node.name or "": node.op_type for node in model.graph.all_nodes()}


__all__ = ["Compared", "Kind", "NoSession", "Progress", "Runs", "beside", "operators_of", "part", "refusal_reasons"]
