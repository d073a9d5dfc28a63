"""Measuring the plans of a search: each is applied, run by emulation and on the EP, and compared with float32.

By emulation a plan runs on every calibration sample, which is cheap, and what counts for a floor is the lower end of the
interval over them. The EP, whose simulator may take seconds a sample, runs a hard one and a middling one: what it loses
against the emulation of the same samples is taken off. The samples held apart judge the result, and decide nothing before.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import onnx_ir as ir

from planner.calibrate.inputs import Sample, Store
from planner.calibrate.spread import evenly, spread
from planner.errors import EPError, RangeMissingError
from planner.estimation.latency import Interval
from planner.model.node import Node
from planner.model.write import save
from planner.resolve.plan import TargetIdentity
from planner.runtime.client import Opened, Worker, asked_twice
from planner.runtime.registry import CPU, launcher
from planner.search.candidates import IDEAL, Assignment
from planner.search.finalists import is_faster
from planner.search.goal import Measured
from planner.search.ranker import BlockRanker, mean_db
from planner.search.sensitivity import NOISE_LIMIT
from planner.verification.divergence import Divergence, find_divergence
from planner.verification.emulated import Emulation
from planner.verification.emulation import emulate_float16, uses_float16
from planner.verification.feed import AS_WRITTEN, cast_feed, input_dtypes
from planner.verification.fidelity import WORST, Comparison, Fidelity
from planner.verification.floor import Floor, load_metric
from planner.verification.parts import Parts, read_parts
from planner.verification.placement import placement_of

# Calibration samples that every plan runs on by emulation; those on which blocks are ranked; those on the EP.
_POOL, _RANKING, _REAL = 24, 4, 2
# A share of equal answers tells nothing on a few samples.
_SHARE_POOL = 16

# So far from the floor, one sample on the EP decides.
_CLEAR_DB = 3.0
# Where the EP has so many times the emulation's error energy, the nodes to blame are looked for.
_LOST = 1.5
# The EP leaves the emulation at a tensor whose error energy is this many times the emulation's, while that of the node's
# inputs is not; where it keeps more dB than the last, it does no harm.
_LEAVES, _STILL_WITH_IT, _HARMLESS_DB = 4.0, 2.0, 40.0


@dataclass(frozen=True)
class Evaluations:
    """How many plans were run where.

    Attributes:
        estimated: blocks that the switched model, or a few samples, told enough of.
    """

    emulated: int
    real: int
    estimated: int = 0


class OutOfTime(Exception):
    """The search has used up the time that it has."""


@dataclass(frozen=True)
class _Ran:
    """One plan's run: over all of its samples, and the least SQNR of each of them alone, in dB, by index."""

    fidelity: tuple[Fidelity, ...]
    alone: Mapping[int, float]
    metric: float | None = None


class PlanEvaluator:
    """Holds the workers and the reference's outputs, and remembers what it measured. A context manager.

    Where the target's EP cannot run here, its emulation stands in for it (as in verifying, which says so).

    Attributes:
        has_ep: whether the target's EP takes part.
        real_seconds: what building a session on the EP and running a sample took there, the last time.
    """

    def __init__(
        self,
        reference: Path,
        target: TargetIdentity,
        samples: Sequence[Sample],
        floor: Floor,
        nodes: Sequence[Node],
        build: Callable[[Assignment], ir.Model],
        folder: Path,
        *,
        allow_fallback: bool = False,
        timeout: float | None = None,
        deadline: float | None = None,
        ranker: BlockRanker | None = None,
        flattered: Callable[[Assignment], float] = lambda _: 0.0,
        folds: Callable[[Assignment], Iterable[tuple[ir.Model, Sequence[int]]]] = lambda _: (),
        estimated: Callable[[Assignment], Interval | None] = lambda _: None,
        foresee: Callable[[Assignment], None] = lambda _: None,
        progress: Callable[[Assignment, bool], None] | None = None,
    ) -> None:
        # What is tried may be in float16, whatever the plan begins with.
        self.has_ep = launcher(target.ep).availability(target.options).runs_model(float16=True)
        self.real_seconds = (0.0, 0.0)
        self._target = target
        self._floor = floor
        self._metric = None if floor.metric is None else load_metric(floor.metric)
        self._build = build
        self._folder = folder
        self._allow_fallback = allow_fallback
        self._deadline = deadline
        self._ranker = ranker
        self._flattered, self._folds, self._estimated_ms, self._foresee = flattered, folds, estimated, foresee
        self._progress = progress
        self._nodes = nodes
        self._timeout = timeout
        self._every = samples
        self._whole = Emulation(reference, samples, timeout=timeout)
        self._shares = floor.kind == "top1"
        count = min(len(samples), _SHARE_POOL if self._shares else _POOL)
        # Evenly spaced: samples that come in a row may be of one kind.
        self._samples = evenly(samples, count)
        # Indices of the samples, the hardest first; as they come, until something was measured.
        self._order = list(range(count))
        self._ordered = False
        self._reference_file = reference
        self._parts: Mapping[str, Parts] = {}
        self._expected = Store()
        # Energy of each output over all samples: what an error is compared with.
        self._signals: dict[str, float] = {}
        # By the written model on all samples; by the switched model, or on a few samples.
        self._emulated: dict[Assignment, Measured] = {}
        self._estimated: dict[Assignment, Measured] = {}
        self._real: dict[Assignment, Measured] = {}
        self._alone: dict[Assignment, Mapping[int, float]] = {}
        # By emulation, each sample by ranges from others; None where that cannot be told.
        self._folded: dict[Assignment, Measured | None] = {}
        self._suspects: dict[Assignment, tuple[int, ...]] = {}
        self._built: tuple[Assignment, ir.Model] | None = None
        self._saved: tuple[Assignment, bool] | None = None
        self._cpu = Worker(CPU, timeout=timeout)
        self._ep = Worker(target.ep, timeout=timeout)

    def __enter__(self) -> Self:
        self._cpu.open(self._reference_file, {})
        self._parts = read_parts(self._reference_file)
        alone = Comparison()
        for sample in self._samples:
            outputs = self._cpu.run(sample).outputs
            self._expected.append(outputs)
            alone.add(outputs, outputs)
        self._signals = alone.signals()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cpu.close()
        self._ep.close()
        if self._ranker is not None:
            self._ranker.close()

    @property
    def evaluations(self) -> Evaluations:
        return Evaluations(len(self._emulated), len(self._real) if self.has_ep else 0, len(self._estimated))

    @property
    def known(self) -> Mapping[Assignment, Measured]:
        """Every plan that was measured where its measure counts: on the EP where there is one."""
        return self._real if self.has_ep else {a: m for a, m in self._emulated.items() if IDEAL not in a} | self._real

    def emulated(self, assignment: Assignment) -> Measured:
        """By emulation on the CPU EP: computed as the file says.

        Some nodes alone are only ranked: on a few samples, by the switched model where that agrees.
        """
        if IDEAL not in assignment or not self._ordered or self._floor.kind != "sqnr":
            return self._exactly(assignment)
        if assignment not in self._estimated:
            some = [self._order[i] for i in spread(range(len(self._order)), _RANKING)]
            fidelity = self._switched(assignment, some)
            if fidelity is not None:
                self._estimated[assignment] = self._measured(_Ran(fidelity, {}), assignment)
            else:
                ran = self._emulate(assignment, some, hopeless=False)
                self._estimated[assignment] = ran if isinstance(ran, Measured) else self._measured(ran, assignment)
        return self._estimated[assignment]

    def real(self, assignment: Assignment) -> Measured:
        """On the EP, placement included: the emulation's figure, less what the EP loses against it.

        A plan that reaches the floor is cross-validated, too: a mix before it runs on the EP, which is spared one that falls short by
        emulation.
        """
        if assignment in self._real:
            return self._real[assignment]
        measured = self._exactly(assignment)
        if len(set(assignment)) > 1 and (crossed := self._crossed(assignment, measured)).score < self._floor.value:
            return crossed
        if self.has_ep:
            self._begin(assignment, on_ep=True)
            if len(set(assignment)) == 1 and measured.score >= self._floor.value:
                self._foresee(assignment)
            chosen = self._order if self._shares else [self._order[0], self._order[len(self._order) // 2]][:_REAL]
            found = self._on_ep(assignment, list(dict.fromkeys(chosen)))
            measured = found if isinstance(found, Measured) else self._taken_off(assignment, found)
        self._real[assignment] = self._crossed(assignment, measured)
        return self._real[assignment]

    def _exactly(self, assignment: Assignment) -> Measured:
        """The written model, on all samples."""
        if assignment not in self._emulated:
            self._begin(assignment, on_ep=False)
            ran = self._emulate(assignment, self._order, hopeless=len(set(assignment)) > 1)
            self._emulated[assignment] = ran if isinstance(ran, Measured) else self._measured(ran, assignment)
        return self._emulated[assignment]

    def _crossed(self, assignment: Assignment, measured: Measured) -> Measured:
        """A plan that reaches the floor, less what it loses on samples that its ranges were not taken from: those never clip."""
        if self._floor.kind != "sqnr" or not self._floor.value <= measured.score < math.inf:
            return measured
        if assignment not in self._folded:
            try:
                fidelity = asked_twice(lambda: self._whole.fidelity_of_all(self._folds(assignment)))
            except (EPError, RangeMissingError):
                return measured  # a part of the model that only some samples reach
            self._folded[assignment] = self._measured(_Ran(fidelity, {}), assignment) if fidelity else None
        crossed = self._folded[assignment]
        if crossed is None or crossed.problem:
            return crossed or measured
        lost = max(0.0, self._emulated[assignment].score - crossed.score)
        return Measured(measured.score - lost, measured.noise)

    def confirmed(self, assignment: Assignment) -> Measured:
        """On every calibration sample, where the search looked at some of them only. The search goes on from this figure."""
        known = self.real(assignment)
        if len(self._every) == len(self._samples) or self._floor.kind == "metric" or not math.isfinite(known.score):
            return known
        lost = self._exactly(assignment).score - known.score
        fidelity = asked_twice(lambda: self._whole.fidelity(self._model(assignment), range(len(self._every))))
        measured = self._measured(_Ran(fidelity, {}), assignment)
        self._real[assignment] = Measured(measured.score - max(0.0, lost), measured.noise, measured.problem)
        return self._real[assignment]

    def suspects(self, assignment: Assignment) -> tuple[int, ...]:
        """Indices of the nodes at which the EP's run leaves the emulation of the same file, on one sample.

        Nothing where the EP was not asked about the plan, or lost little against the emulation: no node is to blame then.
        """
        known = self._real.get(assignment)
        another = self.has_ep and self._target.ep != CPU
        if not another or known is None or known.noise <= _LOST * self._exactly(assignment).noise:
            return ()
        if assignment not in self._suspects:
            self._begin(assignment, on_ep=True)
            sample = [self._samples[self._order[0]]]
            try:
                path = self._save(assignment, emulation=False)
                on_ep, emulated = (
                    find_divergence(
                        path, self._reference_file, self._target, sample, timeout=self._timeout, emulated=emulation
                    )
                    for emulation in (False, True)
                )
            except (EPError, RangeMissingError):
                self._suspects[assignment] = ()  # with every tensor laid open it does not run: nothing can be told
            else:
                self._suspects[assignment] = leaving(self._nodes, _decibels(on_ep), _decibels(emulated))
        return self._suspects[assignment]

    def slower(self, assignment: Assignment, other: Assignment) -> bool:
        """Whether a plan is estimated slower than another by the schedules of their files; False where there are no estimates."""
        return is_faster(self._estimated_ms(other), self._estimated_ms(assignment))

    def faster(self, assignment: Assignment, other: Assignment) -> bool:
        """Whether a plan is estimated so much faster that it should take the other's place; True where there is no estimate."""
        one, two = self._estimated_ms(assignment), self._estimated_ms(other)
        return one is None or two is None or is_faster(one, two)

    def refute(self, assignment: Assignment, score: float) -> None:
        """The samples held apart gave this score: it counts from now on."""
        known = self.real(assignment)
        noise = 10 ** (-score / 10) if self._floor.kind == "sqnr" else 0.0
        self._real[assignment] = Measured(score, max(known.noise, noise))

    # -- inner ------------------------------------------------------------------------------------------------------

    def _begin(self, assignment: Assignment, *, on_ep: bool) -> None:
        if self._progress is not None:
            self._progress(assignment, on_ep)
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise OutOfTime

    def _switched(self, assignment: Assignment, some: Sequence[int]) -> tuple[Fidelity, ...] | None:
        """What the switched model has on these samples; None where it has nothing to say."""
        if self._ranker is None:
            return None
        self._begin(assignment, on_ep=False)
        measured = {
            a[0]: mean_db([alone[i] for i in some])
            for a, alone in self._alone.items()
            if len(set(a)) == 1 and all(i in alone for i in some)
        }
        samples, expected = [self._samples[i] for i in some], [self._expected.read(i) for i in some]
        return self._ranker.fidelity(assignment, samples, expected, self._parts, measured, self._folder)

    def _model(self, assignment: Assignment) -> ir.Model:
        """The model of the assignment; the last one is kept, since emulation and EP are asked in a row."""
        if self._built is None or self._built[0] != assignment:
            self._built = (assignment, self._build(assignment))
        return self._built[1]

    def _save(self, assignment: Assignment, *, emulation: bool) -> Path:
        """The file of the assignment, or of what the CPU EP computes as that one says."""
        path, model = self._folder / "candidate.onnx", self._model(assignment)
        emulation = emulation and uses_float16(model)
        if self._saved != (assignment, emulation):
            self._saved = None
            with contextlib.suppress(FileNotFoundError):
                path.with_name(f"{path.name}.data").unlink()
            save(emulate_float16(model) if emulation else model, path)
            self._saved = (assignment, emulation)
        return path

    def _emulate(self, assignment: Assignment, order: Sequence[int], *, hopeless: bool) -> _Ran | Measured:
        def run() -> _Ran:
            self._cpu.open(self._save(assignment, emulation=True), {}, session_config=AS_WRITTEN)
            return self._run(self._cpu, self._model(assignment), order, self._beyond_hope if hopeless else None)

        try:
            ran = asked_twice(run)
        except (EPError, RangeMissingError) as error:
            return Measured(-math.inf, NOISE_LIMIT, str(error))
        self._alone[assignment] = ran.alone
        if not self._ordered and len(ran.alone) == len(self._samples):
            self._order.sort(key=lambda index: ran.alone[index])
            self._ordered = True
        return ran

    def _on_ep(self, assignment: Assignment, chosen: Sequence[int]) -> _Ran | Measured:
        def run() -> tuple[Opened, _Ran]:
            opened = self._ep.open(self._save(assignment, emulation=False), self._target.options)
            return opened, self._run(self._ep, self._model(assignment), chosen, self._decided)

        try:
            opened, ran = asked_twice(run)
            problem = "" if self._allow_fallback else self._misplaced(self._model(assignment), opened)
        except (EPError, RangeMissingError) as error:
            return Measured(-math.inf, NOISE_LIMIT, str(error))
        self.real_seconds = (opened.seconds, self.real_seconds[1])
        measured = self._measured(ran)
        return Measured(-math.inf, measured.noise, problem) if problem and measured.problem is None else ran

    def _run(
        self, worker: Worker, model: ir.Model, chosen: Iterable[int], enough: Callable[[Comparison], bool] | None
    ) -> _Ran:
        """Run the open model on these samples, until there are enough."""
        dtypes, comparison = input_dtypes(model), Comparison(self._parts)
        alone: dict[int, float] = {}
        for index in chosen:
            ran, expected = worker.run(cast_feed(self._samples[index], dtypes)), self._expected.read(index)
            if worker is self._ep:
                self.real_seconds = (self.real_seconds[0], ran.seconds)
            alone[index] = comparison.add(expected, ran.outputs).least_db
            if enough is not None and enough(comparison):
                break
        metric = None
        if self._metric is not None:
            metric = self._metric(lambda sample: worker.run(cast_feed(sample, dtypes)).outputs)
        return _Ran(comparison.results(), alone, metric)

    def _measured(self, ran: _Ran, assignment: Assignment | None = None) -> Measured:
        """What a run comes to; by emulation, where the assignment is given, less what these samples flatter it by."""
        if not all(entry.finite for entry in ran.fidelity):
            return Measured(-math.inf, NOISE_LIMIT, "an output holds NaN or infinite values")
        flattered = 0.0 if assignment is None or self._floor.kind != "sqnr" else self._flattered(assignment)
        score = self._floor.score(ran.fidelity, ran.metric) - flattered
        return Measured(score, _noise(e.least_db for e in ran.fidelity))

    def _taken_off(self, assignment: Assignment, ran: _Ran) -> Measured:
        """What the EP's run of some samples makes of the emulation's figure for all of them."""
        measured, emulated = self._measured(ran), self._emulated[assignment]
        same = self._alone.get(assignment, {})
        if self._floor.kind != "sqnr" or measured.problem or not math.isfinite(emulated.score):
            return measured
        theirs, ours = (sum(_noise([part[i]]) for i in ran.alone if i in same) for part in (ran.alone, same))
        times = max(1.0, theirs / ours) if ours > 0 else 1.0
        return Measured(emulated.score - 10 * math.log10(times), min(NOISE_LIMIT, emulated.noise * times))

    def _beyond_hope(self, comparison: Comparison) -> bool:
        """Whether no further sample, however good, brings the plan to the floor."""
        return self._floor.is_out_of_reach(comparison, self._signals)

    def _decided(self, comparison: Comparison) -> bool:
        """Whether further samples on the EP would hardly change the answer: each may take a simulator many seconds."""
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


def _noise(decibels: Iterable[float]) -> float:
    """Error energy relative to the signal's of the worst."""
    return max((10 ** (-db / 10) for db in decibels), default=NOISE_LIMIT)


def _decibels(divergence: Divergence) -> dict[str, float]:
    return {t.tensor: t.sqnr_db if t.finite else WORST for t in divergence.tensors}


__all__ = ["Evaluations", "OutOfTime", "PlanEvaluator", "leaving"]
