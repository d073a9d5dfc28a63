"""Observing every float tensor while the float32 model runs, one sample at a time.

The graph is extended by ReduceMin, ReduceMax and ReduceSum of each tensor (the sum tells of NaN, which the others may
miss), so that the runtime itself reduces a tensor as soon as it exists: memory stays that of a bare run, whatever the
number and size of the samples, and only scalars travel. Methods that need the distribution also take every n-th value of
a tensor along, a few thousand at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from planner.calibrate.histogram import Histogram, cut_entropy, cut_mse, cut_percentile
from planner.errors import RequestError

# Values beyond this are masks (attention adds -3.4e38 where it must not look), not data.
MASK_MAGNITUDE = 1e30
# Values of a tensor that a histogram takes from one sample.
SAMPLED_VALUES = 4096

# Operators whose result holds the very values of their first input: one observation serves both.
_RELABELS = frozenset(
    {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "DepthToSpace", "SpaceToDepth"}
)
Array = npt.NDArray[Any]
Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]


class Method(StrEnum):
    """How the range of an 8-bit activation is chosen. 16-bit ones always get all that was seen, and room to spare.

    MINMAX: all that was seen. AVERAGE: the mean of the samples' own extremes. PERCENTILE: all but 0.01 % at each end.
    ENTROPY: least Kullback-Leibler divergence. MSE: least squared error.
    """

    MINMAX = "minmax"
    AVERAGE = "average"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"

    @property
    def needs_histogram(self) -> bool:
        return self in (Method.PERCENTILE, Method.ENTROPY, Method.MSE)


@dataclass(frozen=True)
class Range:
    """What a tensor took.

    Attributes:
        low, high: smallest and largest value, masks (beyond 1e30) left out.
        masked: whether it also held masks, below or above: they must stay far from the values, not merely clip to them.
        cut: the ends that the calibration method chose for 8-bit codes; None for the whole range.
    """

    low: float
    high: float
    masked_low: bool = False
    masked_high: bool = False
    cut: tuple[float, float] | None = None


@dataclass(frozen=True)
class Observed:
    """An extended model, and which of its outputs tell of which tensor.

    Attributes:
        outputs: name of a tensor to the names of the outputs that hold its minimum, maximum and sum.
        sampled: name of a tensor to the name of the output that holds some of its values.
        same: name of a tensor to that of the observed one whose values it holds.
        producers: name of a tensor to the name of the node that computes it; graph inputs have none.
    """

    model: ir.Model
    outputs: Mapping[str, tuple[str, str, str]]
    sampled: Mapping[str, str]
    same: Mapping[str, str]
    producers: Mapping[str, str]


def extend(model: ir.Model, *, sample: bool = False, unmasked: Collection[str] | None = None) -> Observed:
    """A copy of the float32 model whose outputs are the minimum, maximum and sum of each float tensor.

    Tensors inside If and Loop bodies are included: their extremes leave the body as further outputs of the If (the other
    branch gives the empty range) or as scan outputs of the Loop. Inner tensors of a Scan are not observed.

    Args:
        sample: take values for histograms along, from the tensors of the main graph.
        unmasked: only these tensors, and their masks (beyond 1e30, or infinite) taken for 0.
    """
    copy = model.clone()
    extension = _Extension(sample, unmasked)
    outputs = extension.graph(copy.graph, is_main=True)
    # The model's own outputs are observed like any tensor; only the extremes need to leave the run.
    copy.graph.outputs.clear()
    extremes: dict[str, tuple[str, str, str]] = {}
    for name, (low, high, total) in outputs:
        copy.graph.outputs.extend([low, high, total])
        extremes[name] = (str(low.name), str(high.name), str(total.name))
    copy.graph.outputs.extend(extension.sampled.values())
    sampled = {name: str(value.name) for name, value in extension.sampled.items()}
    return Observed(copy, extremes, sampled, extension.same, extension.producers)


@dataclass
class _Seen:
    """What is kept of one tensor while samples go by: a few numbers, whatever the number of samples."""

    low: float = math.inf
    high: float = -math.inf
    lows: float = 0.0
    highs: float = 0.0
    runs: int = 0
    histogram: Histogram = field(default_factory=Histogram)

    def add(self, low: float, high: float) -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.lows, self.highs, self.runs = self.lows + low, self.highs + high, self.runs + 1


def collect(
    observed: Observed,
    run: Run,
    samples: Iterable[Mapping[str, Array]],
    method: Method = Method.MINMAX,
    progress: Callable[[], None] | None = None,
) -> dict[str, Range]:
    """Run the extended model on each sample; the range of each tensor that was computed at least once.

    Infinite and masked extremes are returned as they are: `masked_tensors` names who has any, a second pass over those
    alone and `merge_unmasked` put it right.

    Raises:
        RequestError: a tensor held NaN; the message names the first node that gave one.
    """
    seen: dict[str, _Seen] = {}
    for i, sample in enumerate(samples):
        values = run(sample)
        for name, names in observed.outputs.items():
            low, high, total = (values[n] for n in names)
            if low.size == 0:
                continue  # a Loop that ran no iteration
            least, most = float(low.min()), float(high.max())
            # A sum over -inf and inf is NaN as well.
            infinite = least == -math.inf and most == math.inf
            if math.isnan(least) or math.isnan(most) or (np.isnan(total).any() and not infinite):
                raise _nan(name, observed, i)
            if least > most:
                continue  # the other branch of an If, or an empty tensor
            entry = seen.setdefault(name, _Seen())
            entry.add(least, most)
            if (source := observed.sampled.get(name)) is not None:
                taken = values[source]
                entry.histogram.add(taken[np.abs(taken) < MASK_MAGNITUDE])
        if progress is not None:
            progress()
    ranges = {name: Range(s.low, s.high, cut=_cut(s, method)) for name, s in seen.items()}
    for name, source in observed.same.items():
        if source in ranges:
            ranges[name] = ranges[source]
    return ranges


def _nan(name: str, observed: Observed, sample: int) -> RequestError:
    node = observed.producers.get(name)
    who = f"node {node!r} computes NaN (tensor {name!r})" if node is not None else f"input {name!r} holds NaN"
    return RequestError(
        f"{who} on calibration sample {sample}",
        "no range can be taken from it: check the inputs, and the model's own float32 result",
    )


def _cut(seen: _Seen, method: Method) -> tuple[float, float] | None:
    if method is Method.MINMAX:
        return None
    if method is Method.AVERAGE:
        return seen.lows / seen.runs, seen.highs / seen.runs
    if seen.histogram.counts.sum() == 0:
        return None
    cut = {Method.PERCENTILE: cut_percentile, Method.ENTROPY: cut_entropy, Method.MSE: cut_mse}[method]
    low, high = max(seen.low, -seen.histogram.limit), min(seen.high, seen.histogram.limit)
    return cut(seen.histogram, low, high)


def masked_tensors(ranges: Mapping[str, Range]) -> tuple[str, ...]:
    """Names of the tensors whose extremes are masks."""
    return tuple(n for n, r in ranges.items() if r.low <= -MASK_MAGNITUDE or r.high >= MASK_MAGNITUDE)


def merge_unmasked(ranges: Mapping[str, Range], unmasked: Mapping[str, Range]) -> dict[str, Range]:
    """The ranges with masked extremes replaced by those of the values beside the masks, and marked.

    A tensor that holds nothing but masks gets the range [0, 0].
    """
    merged = dict(ranges)
    for name in masked_tensors(ranges):
        seen, values = ranges[name], unmasked.get(name, Range(0.0, 0.0))
        cut = None if seen.cut is None else (max(seen.cut[0], values.low), min(seen.cut[1], values.high))
        merged[name] = Range(values.low, values.high, seen.low <= -MASK_MAGNITUDE, seen.high >= MASK_MAGNITUDE, cut)
    return merged


# A tensor's name, and the values that hold its minimum, maximum and sum.
_Reduced = tuple[str, tuple[ir.Value, ...]]


class _Extension:
    def __init__(self, sample: bool, unmasked: Collection[str] | None) -> None:
        self.sample = sample
        self.unmasked = unmasked
        self.count = 0
        self.sampled: dict[str, ir.Value] = {}
        self.same: dict[str, str] = {}
        self.producers: dict[str, str] = {}

    def graph(self, graph: ir.Graph, *, is_main: bool = False) -> list[_Reduced]:
        """Add the reductions to one graph; the results for each of its float tensors, inner ones included."""
        found: list[_Reduced] = []
        first = next(iter(graph), None)
        if first is None:
            return found
        observed: set[str] = set()
        for value in graph.inputs:
            if value.dtype == ir.DataType.FLOAT and self._wanted(value):
                found.append(self._reduce(value, graph, first, before=True, is_main=is_main))
                observed.add(value.name or "")
        for node in list(graph):
            found += self._inner(node)
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                continue
            for out in list(node.outputs):
                if out.dtype != ir.DataType.FLOAT or not out.name or not (out.uses() or out.is_graph_output()):
                    continue
                if _is_cut_off(out):
                    continue
                self.producers[out.name] = node.name or f"{node.op_type}:{out.name}"
                source = node.inputs[0].name if node.inputs and node.inputs[0] is not None else None
                if node.op_type in _RELABELS and source is not None and (source in observed or source in self.same):
                    self.same[out.name] = self.same.get(source, source)
                elif self._wanted(out):
                    found.append(self._reduce(out, graph, node, before=False, is_main=is_main))
                    observed.add(out.name)
        return found

    def _wanted(self, value: ir.Value) -> bool:
        return self.unmasked is None or value.name in self.unmasked

    def _inner(self, node: ir.Node) -> list[_Reduced]:
        found: list[_Reduced] = []
        if node.op_type == "If":
            branches = [node.attributes["then_branch"].as_graph(), node.attributes["else_branch"].as_graph()]
            per_branch = [self.graph(b) for b in branches]
            for index, entries in enumerate(per_branch):
                other = branches[1 - index]
                for name, results in entries:
                    branches[index].outputs.extend(results)
                    other.outputs.extend([self._constant(other, number) for number in (np.inf, -np.inf, 0)])
                    # Of a Loop within an If, an extreme an iteration; the other branch gives a scalar.
                    found.append((name, self._new_outputs(node, None if results[0].shape else ir.Shape([]))))
        elif node.op_type == "Loop":
            body = node.attributes["body"].as_graph()
            for name, results in self.graph(body):
                body.outputs.extend(results)
                # A scan output holds one extreme an iteration.
                found.append((name, self._new_outputs(node, ir.Shape([None, *(results[0].shape or ())]))))
        return found

    def _new_outputs(self, node: ir.Node, shape: ir.Shape | None) -> tuple[ir.Value, ...]:
        old = len(node.outputs)
        node.resize_outputs(old + 3)
        for index, value in enumerate(node.outputs[old:]):
            value.name = f"planner_inner_{self.count}_{index}"
            value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), shape
        self.count += 1
        return tuple(node.outputs[old:])

    def _constant(self, graph: ir.Graph, number: float) -> ir.Value:
        tensor = ir.tensor(np.array(number, np.float32))
        node = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], name=f"planner_none_{self.count}")
        out = node.outputs[0]
        out.name, out.type, out.shape = f"{node.name}_out", ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
        self.count += 1
        graph.append(node)
        return out

    def _reduce(self, value: ir.Value, graph: ir.Graph, place: ir.Node, *, before: bool, is_main: bool) -> _Reduced:
        """Minimum, maximum and sum (and values, where wanted) of one tensor, computed beside the node ``place``."""
        nodes: list[ir.Node] = []

        def add(op_type: str, inputs: list[ir.Value], attributes: tuple[ir.Attr, ...] = ()) -> ir.Value:
            node = ir.Node("", op_type, inputs, attributes, name=f"planner_{op_type}_{self.count}_{len(nodes)}")
            node.outputs[0].name = f"{node.name}_out"
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
            nodes.append(node)
            return node.outputs[0]

        def whole(array: Array, dtype: ir.DataType) -> ir.Value:
            out = add("Constant", [], (ir.AttrTensor("value", ir.tensor(array)),))
            out.type, out.shape = ir.TensorType(dtype), ir.Shape(array.shape)
            return out

        data = value
        if self.unmasked is not None:
            magnitude = add("Abs", [value])
            small = add("Less", [magnitude, whole(np.array(MASK_MAGNITUDE, np.float32), ir.DataType.FLOAT)])
            small.type = ir.TensorType(ir.DataType.BOOL)
            data = add("Where", [small, value, whole(np.array(0, np.float32), ir.DataType.FLOAT)])
        results = tuple(
            add(op, [data], (ir.AttrInt64("keepdims", 0),)) for op in ("ReduceMin", "ReduceMax", "ReduceSum")
        )
        for result in results:
            result.shape = ir.Shape([])
        if self.sample and is_main:
            step = _step(value)
            ends = [whole(np.array([number], np.int64), ir.DataType.INT64) for number in (-1, 0, 2**62, 0)]
            flat = add("Reshape", [value, ends[0]])
            steps = whole(np.array([step or 1], np.int64), ir.DataType.INT64)
            if step is None:
                size = add("Size", [value])
                size.type = ir.TensorType(ir.DataType.INT64)
                share = add("Div", [size, whole(np.array([SAMPLED_VALUES], np.int64), ir.DataType.INT64)])
                steps = add("Add", [share, steps])
                share.type = steps.type = ir.TensorType(ir.DataType.INT64)
            taken = add("Slice", [flat, ends[1], ends[2], ends[3], steps])
            taken.shape = ir.Shape([None])
            self.sampled[value.name or ""] = taken
        self.count += 1
        if before:
            graph.insert_before(place, nodes)
        else:
            graph.insert_after(place, nodes)
        return str(value.name), results


def _is_cut_off(value: ir.Value) -> bool:
    """Whether a Relu or Clip is all that reads the value. It is stored over their range, which is observed; looked at
    itself, it would keep the runtime from fusing the two, at the cost of time and memory."""
    uses = list(value.uses())
    return (
        len(uses) == 1
        and not value.is_graph_output()
        and uses[0].idx == 0
        and uses[0].node.op_type in ("Relu", "Clip")
        and uses[0].node.domain in ("", "ai.onnx")
        and bool(uses[0].node.outputs[0].uses() or uses[0].node.outputs[0].is_graph_output())
    )


def _step(value: ir.Value) -> int | None:
    """Every how manieth value is taken, without a factor in common with the size, or it would always meet the same
    channels; None where the size is not known."""
    if value.shape is None:
        return None
    dims = [d for d in value.shape if isinstance(d, int)]
    if len(dims) < len(value.shape):
        return None
    size = math.prod(dims)
    step = -(-size // SAMPLED_VALUES)
    while step > 1 and math.gcd(step, size) > 1:
        step += 1
    return max(step, 1)
