"""Where two runs part: the inner tensors of reference and candidate side by side, in the order of the graph.

Every float tensor that both models have under one name becomes an output of both. What a quantized tensor is, is what
its consumers read: the value behind its Q/DQ (`<name>_dequantized`). An exposed tensor must exist, so that the EP
can't fuse across it: the numbers may differ from the run that is being explained, and a placement may too. Where the loss
goes away so, a fusion of the EP is to blame, and the first tensor that mends it is looked for.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from planner.calibrate.inputs import Sample
from planner.dtypes import FLOAT16_LARGEST
from planner.files import temporary_folder
from planner.model.exposed import exposed, in_batches
from planner.model.inference import infer_once
from planner.model.values import tensor_dtype
from planner.model.write import save
from planner.resolve.plan import TargetIdentity
from planner.runtime.client import Worker
from planner.runtime.registry import CPU, launcher
from planner.verification.emulation import emulate_float16, uses_float16
from planner.verification.feed import AS_WRITTEN, cast_feed, input_dtypes, load
from planner.verification.fidelity import BEST, WORST, sqnr

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
# Outputs of one run that are held at once; more go into further runs.
_BATCH_BYTES = 256 << 20
# A tensor this faithful is no suspect, nor one better by a steep fall than the worst output.
_CLEAN_DB = 20.0
# A fall from the least faithful input by this much is steep: ten times the error energy.
_STEEP_DB = 10.0
# Less than this is no fall but the noise of every further node.
_FALL_DB = 1.0


@dataclass(frozen=True)
class TensorDivergence:
    """One inner tensor, compared.

    Attributes:
        tensor: its name in the reference. node, op_type: what produces it there. depth: nodes on the longest way to it.
        sqnr_db: over the samples, within -200..200, of the places where both are finite.
        drop_db: how much less than its least faithful measured input (all inputs above 80 dB count as 80).
        reference_range: lowest and highest value of the reference; None where it has no finite value.
        finite: whether the candidate is finite wherever the reference is.
        precision: how the candidate stores it: "float16", "float32", or the integer type of its Q/DQ.
    """

    tensor: str
    node: str
    op_type: str
    depth: int
    sqnr_db: float
    drop_db: float
    reference_range: tuple[float, float] | None
    finite: bool
    precision: str = "float32"


@dataclass(frozen=True)
class Fusion:
    """Nodes that the EP computes as one, and otherwise than one by one.

    Attributes:
        tensor: between them; as an output of the graph, it makes the loss go away.
        nodes: what makes it and what reads it. operators: theirs.
        mended_db: least SQNR of an output with this tensor and those before it laid open.
    """

    tensor: str
    nodes: tuple[str, ...]
    operators: tuple[str, ...]
    mended_db: float


@dataclass(frozen=True)
class Divergence:
    """All compared tensors in the order of the graph, and the first at which the candidate leaves the reference.

    Attributes:
        first: the first that is not finite; else the first steep fall; else None: no single node is to blame.
        ran_on: the EP that ran the candidate.
        opened_db: least SQNR of an output in this run; explained_db: in the run that is explained.
        fusion: what the EP fuses, where laying it open makes the loss go away.
    """

    tensors: tuple[TensorDivergence, ...]
    first: TensorDivergence | None
    ran_on: str
    opened_db: float | None = None
    explained_db: float | None = None
    fusion: Fusion | None = None

    SHOWN = ("ranked",)

    @property
    def ranked(self) -> tuple[str, ...]:
        """Names of the suspects, worst first."""
        return tuple(entry.tensor for entry in self.suspects())

    def mends(self, explained_db: float) -> bool:
        """Whether the loss that is explained goes away where every tensor is laid open: a fusion of the EP is to blame."""
        return self.opened_db is not None and self.opened_db - explained_db >= _STEEP_DB

    def suspects(self) -> tuple[TensorDivergence, ...]:
        """The suspects, worst first.

        First what is not finite, in the order of the graph (the first makes the others). Then what falls by 1 dB or more from
        its least faithful input, by the error energy that it adds to its input's, relative to its own signal.
        """
        falling = [t for t in self.tensors if not t.finite or t.drop_db >= _FALL_DB]
        return tuple(sorted(falling, key=lambda t: (t.finite, -_added(t) if t.finite else 0.0, t.depth)))

    def sentence(self) -> str:
        """The finding in one line, for a person."""
        if self.fusion is not None:
            named = ", ".join(f"{op} {n!r}" for op, n in zip(self.fusion.operators, self.fusion.nodes, strict=True))
            return (
                f"{self.ran_on}'s fusion of {named}: with {self.fusion.tensor!r} laid open between them the outputs have "
                f"{self.fusion.mended_db:.1f} dB SQNR, without {self.explained_db:.1f}"
            )
        if self.first is None:
            return self._gradual()
        part = self.first
        span = ""
        if part.reference_range is not None:
            low, high = part.reference_range
            span = f"; float32 has {low:.4g} to {high:.4g} there"
            if max(-low, high) > FLOAT16_LARGEST and part.precision.startswith("float"):
                span += f", beyond float16's {FLOAT16_LARGEST:g}"
        how = f"falls to {part.sqnr_db:.1f} dB SQNR" if part.finite else "becomes infinite or NaN"
        return f"{part.op_type} {part.node!r}: its result {part.tensor!r} {how} on {self.ran_on}{span}"

    def _gradual(self) -> str:
        """The finding where no tensor stands out for good."""
        worst = max(self.tensors, key=lambda entry: entry.drop_db, default=None)
        if worst is None or worst.drop_db < _STEEP_DB:
            return "no single node is to blame: the error grows step by step"
        return (
            f"the largest loss is at {worst.op_type} {worst.node!r}, whose result {worst.tensor!r} has "
            f"{worst.sqnr_db:.1f} dB SQNR, {worst.drop_db:.1f} dB less than its inputs; the rest grows step by step"
        )


def find_divergence(
    candidate: Path,
    reference: Path,
    target: TargetIdentity,
    samples: Sequence[Sample],
    *,
    timeout: float | None = None,
    emulated: bool = False,
    explained_db: float | None = None,
    by_ep: bool = True,
    worker: Worker | None = None,
) -> Divergence:
    """Run both models with their inner tensors exposed and find where they part.

    Runs on the target's EP where it is here, else, or where ``emulated`` says so, on the CPU EP's emulation of it
    (`ran_on` says which).

    Args:
        candidate: the model that is explained.
        reference: the float32 model in the form that it was made from.
        target: where it runs.
        samples: feeds of the reference.
        timeout: seconds that one request to a worker may take.
        emulated: run it on the CPU EP anyway.
        explained_db: least SQNR of an output in the run that is explained, on these samples; None where there is none.
        by_ep: whether that loss may come of what the EP fuses.
        worker: of the target's EP, where whoever calls may have to end it; None for one of its own.

    Raises:
        RequestError: unreadable models or inputs that do not fit. EPError: the EP failed.
    """
    reference_model, candidate_model = _typed(load(reference)), _typed(load(candidate))
    # Looked up before the emulation rewrites it: the precision is what the candidate stores.
    stored = _values(candidate_model)
    available = launcher(target.ep).availability(target.options)
    real = not emulated and available.runs_model(float16=uses_float16(candidate_model))
    if not real:
        candidate_model = emulate_float16(candidate_model)
    ran_on = target.ep if real else CPU
    pairs = shared_tensors(reference_model, candidate_model)
    with (
        Worker(CPU, timeout=timeout) as reference_worker,
        Worker(ran_on, timeout=timeout) if worker is None else contextlib.nullcontext(worker) as running,
    ):
        opened = _Opened(
            reference_model, candidate_model, samples, reference_worker, running, target.options if real else {},
            {} if real else AS_WRITTEN,
        )  # fmt: skip
        sums: dict[str, _Sums] = {}
        best, mended = WORST, list[tuple[str, str]]()
        for batch in _batches(reference_model, pairs):
            found, least = opened.run(batch)
            sums |= found
            if least > best:
                best, mended = least, batch
        fusion = None
        if real and by_ep and explained_db is not None and best - explained_db >= _STEEP_DB:
            fusion = opened.fusion(mended, explained_db, best)
    precisions = {name: _precision(stored[value]) for name, value in pairs.items()}
    ranked = rank(reference_model, _rows(sums, precisions), ran_on)
    return replace(ranked, opened_db=best if pairs else None, explained_db=explained_db, fusion=fusion)


@dataclass
class _Opened:
    """Runs of both models with some of their inner tensors laid open."""

    reference: ir.Model
    candidate: ir.Model
    samples: Sequence[Sample]
    reference_worker: Worker
    worker: Worker
    options: Mapping[str, str]
    config: Mapping[str, str]

    def run(self, batch: Sequence[tuple[str, str]]) -> tuple[dict[str, _Sums], float]:
        """What these tensors come to, by name in the reference; and the least SQNR of an output."""
        outputs = [out.name or "" for out in self.reference.graph.outputs]
        sums = {name: _Sums() for name in (*outputs, *(name for name, _ in batch))}
        pairs = {**{name: name for name in outputs}, **dict(batch)}
        dtypes, expects = input_dtypes(self.candidate), input_dtypes(self.reference)
        with (
            _exposed(self.reference, [name for name, _ in batch]) as reference_file,
            _exposed(self.candidate, [value for _, value in batch]) as candidate_file,
        ):
            # The reference must keep every tensor as it is written, too.
            self.reference_worker.open(reference_file, {}, session_config=AS_WRITTEN)
            self.worker.open(candidate_file, self.options, session_config=self.config)
            for sample in self.samples:
                expected = self.reference_worker.run(cast_feed(sample, expects)).outputs
                got = self.worker.run(cast_feed(sample, dtypes)).outputs
                for name, value in pairs.items():
                    if name in expected and value in got and _is_number(expected[name]):
                        sums[name].add(expected[name], got[value])
        fidelities = (sqnr(sums[name].signal, sums[name].noise) if sums[name].finite else WORST for name in outputs)
        least = min(fidelities, default=WORST)
        wanted = {name for name, _ in batch}
        return {name: found for name, found in sums.items() if name in wanted}, least

    def fusion(self, batch: Sequence[tuple[str, str]], explained: float, best: float) -> Fusion:
        """The first tensor in the order of the graph with which, and with those before it, the loss goes away."""
        mended = {len(batch): best}

        def mends(count: int) -> bool:
            mended[count] = self.run(batch[:count])[1]
            return mended[count] >= (explained + best) / 2

        count = first_that(mends, len(batch))
        tensor = batch[count - 1][0]
        value = _values(self.reference)[tensor]
        around = [value.producer(), *dict.fromkeys(use.node for use in value.uses())]
        nodes = [node for node in around if node is not None]
        names, operators = tuple(n.name or "" for n in nodes), tuple(n.op_type for n in nodes)
        return Fusion(tensor, names, operators, mended[count])


def first_that(holds: Callable[[int], bool], most: int) -> int:
    """The least number from 1 to ``most`` that it holds of, as far as that is monotone; it holds of ``most``."""
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def _is_number(array: np.ndarray[Any, Any]) -> bool:
    return array.dtype.kind not in "OUS"


def shared_tensors(reference: ir.Model, candidate: ir.Model) -> dict[str, str]:
    """Float tensors of the main graph that both models have: name in the reference -> name in the candidate."""
    available = {
        out.name: out
        for node in candidate.graph
        for out in node.outputs
        if out.name and tensor_dtype(out) in (*_FLOATS, None)
    }
    pairs: dict[str, str] = {}
    for node in reference.graph:
        for out in node.outputs:
            if not out.name or tensor_dtype(out) not in _FLOATS:
                continue
            # A graph output is already exposed under its own name, which the Q/DQ behind the node gives it.
            dequantized = f"{out.name}_dequantized"
            name = dequantized if dequantized in available and not out.is_graph_output() else out.name
            if name in available:
                pairs[out.name] = name
    return pairs


def _added(part: TensorDivergence) -> float:
    """Error energy, relative to the signal's, beyond that of the least faithful input."""
    before = min(BEST, max(WORST, part.sqnr_db + part.drop_db))
    return 10 ** (-min(BEST, max(WORST, part.sqnr_db)) / 10) - 10 ** (-before / 10)


@dataclass
class _Sums:
    """What is kept of one tensor over the samples."""

    signal: float = 0.0
    noise: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    finite: bool = True

    def add(self, reference: np.ndarray[Any, Any], candidate: np.ndarray[Any, Any]) -> None:
        if reference.size != candidate.size:
            return
        ref, out = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
        usable = np.isfinite(ref)
        if not np.isfinite(out[usable]).all():
            self.finite = False
        ref_usable = ref[usable]
        if ref_usable.size:
            self.low, self.high = min(self.low, float(ref_usable.min())), max(self.high, float(ref_usable.max()))
        both = usable & np.isfinite(out)
        self.signal += float(ref[both] @ ref[both])
        error = ref[both] - out[both]
        self.noise += float(error @ error)


@dataclass(frozen=True)
class Row:
    """Measured of one tensor: see TensorDivergence."""

    sqnr_db: float
    low: float | None
    high: float | None
    finite: bool
    precision: str = "float32"


def _typed(model: ir.Model) -> ir.Model:
    """The model with the types of its inner values inferred where the file does not give them."""
    if any(tensor_dtype(out) is None for node in model.graph for out in node.outputs):
        # What cannot be inferred stays unknown, and is not compared.
        infer_once(model)
    return model


def _values(model: ir.Model) -> dict[str, ir.Value]:
    return {out.name or "": out for node in model.graph for out in node.outputs}


def _precision(value: ir.Value) -> str:
    producer = value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear" and producer.inputs[0] is not None:
        value = producer.inputs[0]
    dtype = tensor_dtype(value)
    return "unknown" if dtype is None else dtype.numpy().name


def _rows(sums: Mapping[str, _Sums], precisions: Mapping[str, str]) -> dict[str, Row]:
    return {
        name: Row(
            sqnr(s.signal, s.noise),
            s.low if math.isfinite(s.low) else None,
            s.high if math.isfinite(s.high) else None,
            s.finite,
            precisions[name],
        )
        for name, s in sums.items()
    }


def rank(reference: ir.Model, rows: Mapping[str, Row], ran_on: str) -> Divergence:
    """Put the measured tensors in the order of the graph and name the first that parts. Pure."""
    depths: dict[str, int] = {}
    # SQNR that a tensor carries on: its own if measured, else the least of the inputs of its node.
    carried: dict[str, float] = {}
    tensors: list[TensorDivergence] = []
    for node in reference.graph:
        inputs = [v.name or "" for v in node.inputs if v is not None]
        depth = 1 + max((depths.get(name, 0) for name in inputs), default=0)
        best = min((carried[name] for name in inputs if name in carried), default=80.0)
        for out in node.outputs:
            name = out.name or ""
            depths[name] = depth
            row = rows.get(name)
            if row is None:
                carried[name] = best
                continue
            carried[name] = min(80.0, row.sqnr_db)
            drop = best - carried[name]
            tensors.append(
                TensorDivergence(
                    name,
                    node.name or "",
                    node.op_type,
                    depth,
                    row.sqnr_db,
                    drop,
                    None if row.low is None or row.high is None else (row.low, row.high),
                    row.finite,
                    row.precision,
                )
            )
    first = next((t for t in tensors if not t.finite), None)
    if first is None:
        outputs = {value.name for value in reference.graph.outputs}
        worst = min((t.sqnr_db for t in tensors if t.tensor in outputs), default=0.0)
        limit = max(_CLEAN_DB, worst + _STEEP_DB)
        lasting = _lasting(reference, {t.tensor: t.sqnr_db for t in tensors})
        suspects = (
            t
            for t in tensors
            if t.sqnr_db < limit and t.drop_db >= _STEEP_DB and lasting[t.tensor] < t.sqnr_db + _STEEP_DB
        )
        first = next(suspects, None)
    return Divergence(tuple(tensors), first, ran_on)


def _lasting(reference: ir.Model, measured: Mapping[str, float]) -> dict[str, float]:
    """SQNR that is left of each tensor's error where it does the most harm further down, its own at least.

    A Clip behind an Add mends what was clipped in the Add anyway: such an error does not last.
    """
    lasting: dict[str, float] = {}
    for node in reversed(reference.graph):
        for out in node.outputs:
            name = out.name or ""
            own = measured.get(name, WORST)
            after = [lasting[v.name] for use in out.uses() for v in use.node.outputs if v.name and v.name in lasting]
            lasting[name] = own if out.is_graph_output() or not after else max(own, min(after))
    return lasting


def _batches(reference: ir.Model, pairs: Mapping[str, str]) -> Iterator[list[tuple[str, str]]]:
    sizes = {
        out.name: math.prod(d if isinstance(d, int) else 1 for d in out.shape) * 4
        for node in reference.graph
        for out in node.outputs
        if out.shape is not None
    }
    return in_batches(pairs.items(), lambda pair: sizes.get(pair[0], 0), _BATCH_BYTES)


@contextlib.contextmanager
def _exposed(model: ir.Model, names: Sequence[str]) -> Iterator[Path]:
    """A temporary file of the model with those inner values as further outputs."""
    with temporary_folder() as folder:
        path = Path(folder) / "exposed.onnx"
        save(exposed(model, names), path)
        yield path
