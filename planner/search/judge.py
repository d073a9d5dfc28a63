"""Measuring the plans of a search: each is applied, run by emulation or on the EP, and compared with float32.

It runs on calibration samples; those held apart judge the result, not the search.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from planner.calibrate.inputs import Sample
from planner.errors import EPError
from planner.resolve.plan import Plan, Target
from planner.runtime.client import RunFailed, SessionFailed, Worker
from planner.runtime.providers import CPU, launcher
from planner.search.ladder import Assignment
from planner.search.search import Measured
from planner.search.sensitivity import NOISE_LIMIT
from planner.verify.feed import AS_WRITTEN, as_written, cast_feed, input_dtypes, load
from planner.verify.fidelity import Comparison
from planner.verify.floor import Floor, load_metric
from planner.verify.placement import placement_of

# Samples that a plan is run on: by emulation, and on the EP, whose simulator may take seconds each.
EMULATED_SAMPLES, REAL_SAMPLES = 4, 2

# So far from the floor, one sample on the EP decides.
_CLEAR_DB = 6.0

# Writes the model of a plan to a path.
Apply = Callable[[Plan, Path], None]


@dataclass(frozen=True)
class Evaluations:
    """How many plans were run where."""

    emulated: int
    real: int

    def to_json(self) -> dict[str, Any]:
        return {"emulated": self.emulated, "real": self.real}


class PlanJudge:
    """Holds the workers and the reference's outputs, and remembers what it measured. A context manager.

    Where the target's EP cannot run here, its emulation stands in for it (as in verifying, which says so).
    """

    def __init__(
        self,
        reference: Path,
        target: Target,
        samples: Sequence[Sample],
        floor: Floor,
        plan_of: Callable[[Assignment], Plan],
        apply: Apply,
        folder: Path,
        *,
        allow_fallback: bool = False,
        timeout: float = 300,
        progress: Callable[[Evaluations], None] | None = None,
    ) -> None:
        self.has_ep = launcher(target.ep).availability().kind is not None
        self._target = target
        self._floor = floor
        self._metric = None if floor.metric is None else load_metric(floor.metric)
        self._plan_of = plan_of
        self._apply = apply
        self._folder = folder
        self._allow_fallback = allow_fallback
        self._progress = progress
        self._samples = list(samples[:EMULATED_SAMPLES])
        self._reference_file = reference
        self._expected: list[Mapping[str, Any]] = []
        self._emulated: dict[Assignment, Measured] = {}
        self._real: dict[Assignment, Measured] = {}
        self._file: tuple[Assignment, Path] | None = None
        self._cpu = Worker(CPU, timeout=timeout)
        self._ep = Worker(target.ep, timeout=timeout)

    def __enter__(self) -> Self:
        self._cpu.open(self._reference_file, {})
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
            path = self._write(assignment)
            with as_written(path, load(path)) as plain:
                self._emulated[assignment] = self._measure(
                    self._cpu, path, plain, self._samples, {}, AS_WRITTEN, placed=False
                )
            self._tell()
        return self._emulated[assignment]

    def real(self, assignment: Assignment) -> Measured:
        """On the EP, placement included."""
        if not self.has_ep:
            return self.emulated(assignment)
        if assignment not in self._real:
            path = self._write(assignment)
            self._real[assignment] = self._measure(
                self._ep, path, path, self._samples[:REAL_SAMPLES], self._target.options, {}, placed=True
            )
            self._tell()
        return self._real[assignment]

    # -- inner ------------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.evaluations)

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

    def _measure(
        self,
        worker: Worker,
        candidate: Path,
        path: Path,
        samples: Sequence[Sample],
        options: Mapping[str, str],
        config: Mapping[str, str],
        *,
        placed: bool,
    ) -> Measured:
        model = load(candidate)
        dtypes = input_dtypes(model)
        try:
            opened = worker.open(path, options, session_config=config)
        except SessionFailed as error:
            return Measured(-math.inf, NOISE_LIMIT, str(error))
        problem = ""
        if placed and not self._allow_fallback:
            operators = {node.name or "": node.op_type for node in model.graph.all_nodes()}
            fallback = placement_of(opened, self._target.ep, operators).fallback
            if fallback:
                problem = f"{len(fallback)} nodes are not on {self._target.ep}, first {fallback[0].op_type} {fallback[0].name!r}"
        comparison = Comparison()
        try:
            for sample, expected in zip(samples, self._expected, strict=False):
                comparison.add(expected, worker.run(cast_feed(sample, dtypes)).outputs)
                if placed and self._decided(comparison):
                    break
            fidelity = comparison.results()
            noise = max((10 ** (-entry.sqnr_db / 10) for entry in fidelity), default=NOISE_LIMIT)
            if not all(entry.finite for entry in fidelity):
                return Measured(-math.inf, NOISE_LIMIT, "an output holds NaN or infinite values")
            if problem:
                return Measured(-math.inf, noise, problem)
            metric = None
            if self._metric is not None:
                metric = self._metric(lambda sample: worker.run(cast_feed(sample, dtypes)).outputs)
        except RunFailed as error:
            return Measured(-math.inf, NOISE_LIMIT, str(error))
        except EPError as error:
            if worker is self._cpu:
                raise
            return Measured(-math.inf, NOISE_LIMIT, str(error))
        return Measured(self._floor.score(fidelity, metric), noise)


__all__ = ["EMULATED_SAMPLES", "REAL_SAMPLES", "Apply", "Evaluations", "PlanJudge"]
