"""Measuring the plans of a search: each is applied, run by emulation or on the EP, and compared with float32.

It runs on calibration samples; those held apart judge the result once, and decide nothing before.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import onnx_ir as ir

from planner.calibrate.inputs import Sample
from planner.errors import EPError, RangeMissingError
from planner.model.node import Node
from planner.resolve.plan import Plan, TargetIdentity
from planner.runtime.client import Opened, Worker
from planner.runtime.registry import CPU, launcher
from planner.search.candidates import Assignment
from planner.search.search import Measured
from planner.search.sensitivity import NOISE_LIMIT
from planner.verification.divergence import Parting, find_parting
from planner.verification.feed import AS_WRITTEN, as_written, cast_feed, input_dtypes, load
from planner.verification.fidelity import WORST, Comparison
from planner.verification.floor import Floor, load_metric
from planner.verification.parts import Parts, read_parts
from planner.verification.placement import placement_of

# Calibration samples that are looked at; those on which a plan is run by emulation; on the EP, whose simulator may take
# seconds each; and, for the plan found, on the EP before it is judged on the samples held apart.
_POOL, _EMULATED, _REAL, _CONFIRMING = 12, 4, 2, 6
# A share of equal answers tells nothing on a few samples.
_SHARE_POOL = 16

# So far from the floor, one sample on the EP decides.
_CLEAR_DB = 3.0
# The EP leaves the emulation at a tensor whose error energy is this many times the emulation's, while that of the node's
# inputs is not; where it keeps more dB than the last, it does no harm.
_LEAVES, _STILL_WITH_IT, _HARMLESS_DB = 4.0, 2.0, 40.0

# Writes the model of a plan to a path.
Apply = Callable[[Plan, Path], None]


@dataclass(frozen=True)
class Evaluations:
    """How many plans were run where."""

    emulated: int
    real: int


class PlanEvaluator:
    """Holds the workers and the reference's outputs, and remembers what it measured. A context manager.

    Where the target's EP cannot run here, its emulation stands in for it (as in verifying, which says so).
    """

    def __init__(
        self,
        reference: Path,
        target: TargetIdentity,
        samples: Sequence[Sample],
        floor: Floor,
        nodes: Sequence[Node],
        plan_of: Callable[[Assignment], Plan],
        apply: Apply,
        folder: Path,
        *,
        allow_fallback: bool = False,
        timeout: float | None = None,
        progress: Callable[[Evaluations], None] | None = None,
    ) -> None:
        # What is tried may be in float16, whatever the plan begins with.
        self.has_ep = launcher(target.ep).availability(target.options).runs_model(float16=True)
        self._target = target
        self._floor = floor
        self._metric = None if floor.metric is None else load_metric(floor.metric)
        self._plan_of = plan_of
        self._apply = apply
        self._folder = folder
        self._allow_fallback = allow_fallback
        self._progress = progress
        shares = floor.kind == "top1"
        self._samples = list(samples[: _SHARE_POOL if shares else _POOL])
        # Indices of the samples, those that tell most of all of them first; as they come, until something was measured.
        self._order: list[int] = list(range(len(self._samples)))
        self._ordered = shares
        self._counts = (_SHARE_POOL, _SHARE_POOL) if shares else (_EMULATED, _REAL)
        self._nodes = nodes
        self._timeout = timeout
        self._suspects: dict[Assignment, tuple[int, ...]] = {}
        self._reference_file = reference
        self._parts: Mapping[str, Parts] = {}
        self._expected: list[Mapping[str, Any]] = []
        self._emulated: dict[Assignment, Measured] = {}
        self._real: dict[Assignment, Measured] = {}
        self._file: tuple[Assignment, Path] | None = None
        self._cpu = Worker(CPU, timeout=timeout)
        self._ep = Worker(target.ep, timeout=timeout)

    def __enter__(self) -> Self:
        self._cpu.open(self._reference_file, {})
        self._parts = read_parts(self._reference_file)
        self._expected = [self._cpu.run(sample).outputs for sample in self._samples]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cpu.close()
        self._ep.close()

    @property
    def evaluations(self) -> Evaluations:
        return Evaluations(len(self._emulated), len(self._real))

    def emulated(self, assignment: Assignment) -> Measured:
        """On the CPU EP, computed as the file says."""
        if assignment not in self._emulated:
            chosen = self._order[: self._counts[0] if self._ordered else None]
            self._emulated[assignment] = self._emulate(assignment, chosen)
            self._tell()
        return self._emulated[assignment]

    def real(self, assignment: Assignment) -> Measured:
        """On the EP, placement included."""
        if not self.has_ep:
            return self.emulated(assignment)
        if assignment not in self._real:
            self._real[assignment] = self._run(assignment, self._order[: self._counts[1]])
            self._tell()
        return self._real[assignment]

    def confirmed(self, assignment: Assignment) -> Measured:
        """On the EP, on as many calibration samples as a plan deserves that is about to be judged for good.

        The search goes on from this figure where it falls short.
        """
        if not self.has_ep:
            return self.emulated(assignment)
        # Of every kind: those that tell most are much alike.
        chosen = self._order[:: max(1, len(self._order) // _CONFIRMING)]
        more = self._run(assignment, chosen, every=True)
        # Measured on other samples than before: so is the emulation, lest the EP look worse than it.
        self._emulated[assignment] = self._emulate(assignment, chosen)
        self._real[assignment] = more
        self._tell()
        return more

    def suspects(self, assignment: Assignment) -> tuple[int, ...]:
        """Indices of the nodes at which the EP's run leaves the emulation of the same file, on one sample."""
        if not self.has_ep or self._target.ep == CPU:
            return ()
        if assignment not in self._suspects:
            try:
                path = self._write(assignment)
                on_ep, emulated = (
                    find_parting(
                        path,
                        self._reference_file,
                        self._target,
                        [self._samples[self._order[0]]],
                        timeout=self._timeout,
                        emulated=e,
                    )
                    for e in (False, True)
                )
            except (EPError, RangeMissingError):
                self._suspects[assignment] = ()  # with every tensor laid open it does not run: nothing can be told
            else:
                self._suspects[assignment] = leaving(self._nodes, _decibels(on_ep), _decibels(emulated))
        return self._suspects[assignment]

    def refute(self, assignment: Assignment, score: float) -> None:
        """The samples held apart gave this score: it counts from now on."""
        known = self.real(assignment)
        measured = Measured(score, max(known.noise, 10 ** (-score / 10) if self._floor.kind == "sqnr" else 0.0))
        (self._real if self.has_ep else self._emulated)[assignment] = measured

    # -- inner ------------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.evaluations)

    def _emulate(self, assignment: Assignment, chosen: Sequence[int]) -> Measured:
        """Measure a plan by emulation; what cannot be written or run has no score."""
        try:
            path = self._write(assignment)
            with as_written(path, load(path)) as plain:
                return self._measure(self._cpu, path, plain, chosen, {}, AS_WRITTEN, placed=False)
        except (EPError, RangeMissingError) as error:
            return Measured(-math.inf, NOISE_LIMIT, str(error))

    def _run(self, assignment: Assignment, chosen: Sequence[int], *, every: bool = False) -> Measured:
        """Measure a plan on the EP; what cannot be written or run has no score."""
        try:
            path = self._write(assignment)
            return self._measure(self._ep, path, path, chosen, self._target.options, {}, placed=True, every=every)
        except (EPError, RangeMissingError) as error:
            return Measured(-math.inf, NOISE_LIMIT, str(error))

    def _write(self, assignment: Assignment) -> Path:
        """The model of the assignment; the last one is kept, since emulation and EP are asked in a row."""
        if self._file is not None and self._file[0] == assignment:
            return self._file[1]
        path = self._folder / "candidate.onnx"
        with contextlib.suppress(FileNotFoundError):
            path.with_name(f"{path.name}.data").unlink()
        self._file = None
        self._apply(self._plan_of(assignment), path)
        self._file = (assignment, path)
        return path

    def _decided(self, comparison: Comparison) -> bool:
        """Whether further samples would hardly change the answer: each may take a simulator many seconds."""
        if self._floor.kind != "sqnr":
            return False
        return abs(self._floor.score(comparison.results()) - self._floor.value) > _CLEAR_DB

    def _misplaced(self, model: ir.Model, opened: Opened) -> str:
        """What is wrong with the placement; empty where nothing is."""
        operators = {node.name or "": node.op_type for node in model.graph.all_nodes()}
        fallback = placement_of(opened, self._target.ep, operators).fallback
        if not fallback:
            return ""
        return f"{len(fallback)} nodes are not on {self._target.ep}, first {fallback[0].op_type} {fallback[0].name!r}"

    def _measure(
        self,
        worker: Worker,
        candidate: Path,
        path: Path,
        chosen: Sequence[int],
        options: Mapping[str, str],
        config: Mapping[str, str],
        *,
        placed: bool,
        every: bool = False,
    ) -> Measured:
        model = load(candidate)
        dtypes = input_dtypes(model)
        opened = worker.open(path, options, session_config=config)
        problem = self._misplaced(model, opened) if placed and not self._allow_fallback else ""
        comparison = Comparison(self._parts)
        alone: dict[int, float] = {}
        for index in chosen:
            outputs = worker.run(cast_feed(self._samples[index], dtypes)).outputs
            comparison.add(self._expected[index], outputs)
            if not self._ordered:
                one = Comparison(self._parts)
                one.add(self._expected[index], outputs)
                alone[index] = min((entry.least_db for entry in one.results()), default=WORST)
            if placed and not every and self._decided(comparison):
                break
        fidelity = comparison.results()
        noise = max((10 ** (-entry.least_db / 10) for entry in fidelity), default=NOISE_LIMIT)
        if not self._ordered:
            whole = min((entry.least_db for entry in fidelity), default=WORST)
            self._order.sort(key=lambda index: abs(alone[index] - whole))
            self._ordered = True
        if not all(entry.finite for entry in fidelity):
            return Measured(-math.inf, NOISE_LIMIT, "an output holds NaN or infinite values")
        if problem:
            return Measured(-math.inf, noise, problem)
        metric = None
        if self._metric is not None:
            metric = self._metric(lambda sample: worker.run(cast_feed(sample, dtypes)).outputs)
        return Measured(self._floor.score(fidelity, metric), noise)


def leaving(nodes: Sequence[Node], on_ep: Mapping[str, float], emulated: Mapping[str, float]) -> tuple[int, ...]:
    """Indices of the nodes where the EP leaves its emulation. Pure.

    Args:
        nodes: of the model, in order.
        on_ep: SQNR in dB against float32 of each tensor, by name, on the EP.
        emulated: the same by emulation.
    """
    # How many times the emulation's error energy the EP has at each tensor.
    times = {name: 10 ** ((emulated[name] - db) / 10) for name, db in on_ep.items() if name in emulated}
    carried: dict[str, float] = {}
    found = []
    for index, node in enumerate(nodes):
        before = max((carried.get(o.name, 1.0) for o in node.inputs if o is not None), default=1.0)
        for name in node.outputs:
            own = times.get(name)
            carried[name] = before if own is None else own
            if own is not None and own >= _LEAVES and before <= _STILL_WITH_IT and on_ep[name] < _HARMLESS_DB:
                found.append(index)
    return tuple(dict.fromkeys(found))


def _decibels(parting: Parting) -> dict[str, float]:
    return {t.tensor: t.sqnr_db if t.finite else WORST for t in parting.tensors}


__all__ = ["Apply", "Evaluations", "PlanEvaluator", "leaving"]
