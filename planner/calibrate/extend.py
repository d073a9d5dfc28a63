"""Extending a model so that it tells of each of its float tensors while it runs.

ReduceMin, ReduceMax and ReduceSum of each tensor join the graph (the sum tells of NaN, which the others may miss), so
that the runtime itself reduces a tensor as soon as it exists. Histograms also take every n-th value of a tensor along, a
few thousand at most.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from planner.calibrate.ranges import MASK_MAGNITUDE
from planner.model.names import Names
from planner.model.values import tensor_dtype
from planner.operators import Keeps, operator

# Values of a tensor that a histogram takes from one sample; of a tensor inside a body, from one pass through it.
SAMPLED_VALUES = 4096
SAMPLED_IN_BODY = 256
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Observed:
    """An extended model, and which of its outputs tell of which tensor.

    Attributes:
        outputs: name of a tensor to the names of the outputs that hold its minimum, maximum and sum.
        averaged: tensors for which the mean of each channel takes the sum's place.
        beside: name of a tensor that holds masks to the names of the outputs that hold its extremes without them.
        sampled: name of a tensor to the name of the output that holds some of its values.
        same: name of a tensor to that of the observed one whose values it holds.
        producers: name of a tensor to the name of the node that computes it; graph inputs have none.
    """

    model: ir.Model
    outputs: Mapping[str, tuple[str, str, str]]
    beside: Mapping[str, tuple[str, str]]
    sampled: Mapping[str, str]
    same: Mapping[str, str]
    producers: Mapping[str, str]
    averaged: Collection[str] = frozenset()


def extend(model: ir.Model, *, sample: bool = False, masked: Mapping[str, float] | None = None) -> Observed:
    """A copy of the float32 model whose outputs are the minimum, maximum and sum of each float tensor.

    Tensors inside bodies are included: what is seen of them leaves the body as further outputs of the If (the other branch
    gives the empty range) or as scan outputs of the Loop or Scan, one entry an iteration.

    Args:
        model: left untouched.
        sample: take values for histograms along.
        masked: by name of a tensor whose extremes are also wanted without masks: what lies below minus this limit, or beyond
            1e30 either way, or is NaN, counts as 0 then.
    """
    masked = masked or {}
    copy = model.clone()
    extension = _Extension(Names(copy), sample, masked)
    outputs = extension.graph(copy.graph, is_main=True)
    # The model's own outputs are observed like any tensor; only the extremes need to leave the run.
    copy.graph.outputs.clear()
    extremes: dict[str, tuple[str, str, str]] = {}
    beside: dict[str, tuple[str, str]] = {}
    sampled: dict[str, str] = {}
    for name, results in outputs:
        copy.graph.outputs.extend(results)
        low, high, total, *more = (str(value.name) for value in results)
        extremes[name] = (low, high, total)
        if name in masked:
            beside[name] = (more[0], more[1])
        if sample:
            sampled[name] = more[-1]
    averaged = frozenset(extension.averaged)
    return Observed(copy, extremes, beside, sampled, extension.same, extension.producers, averaged)


# A tensor's name, and the values that hold its minimum, maximum and sum; the extremes beside masks, where it holds masks; and
# some of its values, where they are taken along. In a body the last has a fixed shape, [SAMPLED_IN_BODY].
_Reduced = tuple[str, tuple[ir.Value, ...]]
_EXTREMES = ("ReduceMin", "ReduceMax")
# What stands for each where the tensor was not computed.
_NOTHING: Mapping[str, float | Array] = {
    "ReduceMin": np.inf,
    "ReduceMax": -np.inf,
    "ReduceSum": 0.0,
    "some": np.full(SAMPLED_IN_BODY, np.nan),
}
# Where between 0 and 1 the values that a body gives lie in its tensor: multiples of the golden ratio, which spread evenly and
# keep no step with any channel.
_PLACES = (np.arange(SAMPLED_IN_BODY) * ((5**0.5 - 1) / 2)) % 1


class _Extension:
    def __init__(self, names: Names, sample: bool, masked: Mapping[str, float]) -> None:
        self.names = names
        self.sample = sample
        self.masked = masked
        self.count = 0
        self.same: dict[str, str] = {}
        self.producers: dict[str, str] = {}
        self.averaged: set[str] = set()

    def graph(self, graph: ir.Graph, *, is_main: bool = False) -> list[_Reduced]:
        """Add the reductions to one graph; the results for each of its float tensors, inner ones included."""
        found: list[_Reduced] = []
        nodes = list(graph)
        if not nodes:
            return found
        observed: set[str] = set()
        for value in graph.inputs:
            if tensor_dtype(value) == ir.DataType.FLOAT:
                found.append(self._reduce(value, graph, nodes[0], before=True, is_main=is_main))
                observed.add(value.name or "")
        for node in nodes:
            outputs = list(node.outputs)  # without those that its bodies are about to get
            found += self._inner(node, is_main=is_main)
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                continue
            for out in outputs:
                if tensor_dtype(out) != ir.DataType.FLOAT or not out.name or not (out.uses() or out.is_graph_output()):
                    continue
                if _is_cut_off(out):
                    continue
                self.producers[out.name] = node.name or f"{node.op_type}:{out.name}"
                source = node.inputs[0].name if node.inputs and node.inputs[0] is not None else None
                if (
                    operator(node.op_type).keeps is Keeps.ALL
                    and source is not None
                    and (source in observed or source in self.same)
                ):
                    self.same[out.name] = self.same.get(source, source)
                if out.name not in self.same or (is_main and _channels(out) is not None):
                    found.append(self._reduce(out, graph, node, before=False, is_main=is_main))
                    observed.add(out.name)
        return found

    def _kinds(self, name: str) -> tuple[str, ...]:
        """What is taken of a tensor, in order."""
        return (
            *_EXTREMES,
            "ReduceSum",
            *(_EXTREMES if name in self.masked else ()),
            *(("some",) if self.sample else ()),
        )

    def _inner(self, node: ir.Node, *, is_main: bool) -> list[_Reduced]:
        if node.op_type == "If":
            return self._branches(node)
        if node.op_type not in ("Loop", "Scan"):
            return []
        found: list[_Reduced] = []
        body = node.attributes["body"].as_graph()
        for name, results in self.graph(body):
            body.outputs.extend(results)
            scanned = self._new_outputs(node, [ir.Shape([None, *_dims(r)]) for r in results])
            for key in ("scan_output_axes", "scan_output_directions"):
                if (given := node.attributes.get(key)) is not None:
                    node.attributes[key] = ir.AttrInt64s(key, [*given.as_ints(), *(0 for _ in results)])
            # The number of iterations differs from one run of the body around it to the next; what leaves it may not.
            found.append((name, scanned) if is_main else self._over_iterations(name, scanned, node))
        return found

    def _branches(self, node: ir.Node) -> list[_Reduced]:
        found: list[_Reduced] = []
        branches = [node.attributes["then_branch"].as_graph(), node.attributes["else_branch"].as_graph()]
        per_branch = [self.graph(b) for b in branches]
        for index, entries in enumerate(per_branch):
            other = branches[1 - index]
            for name, results in entries:
                branches[index].outputs.extend(results)
                other.outputs.extend(self._constant(other, _NOTHING[kind]) for kind in self._kinds(name))
                found.append((name, self._new_outputs(node, [ir.Shape(_dims(r)) for r in results])))
        return found

    def _new_outputs(self, node: ir.Node, shapes: list[ir.Shape]) -> tuple[ir.Value, ...]:
        old = len(node.outputs)
        node.resize_outputs(old + len(shapes))
        for index, (value, shape) in enumerate(zip(node.outputs[old:], shapes, strict=True)):
            value.name = self.names.value(f"planner_inner_{self.count}_{index}")
            value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), shape
        self.count += 1
        return tuple(node.outputs[old:])

    def _constant(self, graph: ir.Graph, content: float | Array) -> ir.Value:
        new = _New(self)
        out = new.constant(np.array(content, np.float32))
        graph.extend(new.nodes)
        return out

    def _over_iterations(self, name: str, scanned: tuple[ir.Value, ...], node: ir.Node) -> _Reduced:
        """The results of an inner loop for one run of the body around it."""
        new = _New(self)
        results = [
            new.some(value) if kind == "some" else new.reduce(kind, new.with_last(value, _NOTHING[kind]))
            for kind, value in zip(self._kinds(name), scanned, strict=True)
        ]
        assert isinstance(node.graph, ir.Graph)
        node.graph.insert_after(node, new.nodes)
        return name, tuple(results)

    def _reduce(self, value: ir.Value, graph: ir.Graph, place: ir.Node, *, before: bool, is_main: bool) -> _Reduced:
        """Minimum, maximum and sum (and values, where wanted) of one tensor, computed beside the node ``place``."""
        new = _New(self)
        results = [new.reduce(kind, value) for kind in _EXTREMES]
        axis = _channels(value) if is_main else None
        if axis is None:
            results.append(new.reduce("ReduceSum", value))
        else:
            results.append(new.mean(value, axis))
            self.averaged.add(str(value.name))
        if value.name in self.masked:
            data = new.without_masks(value, self.masked[value.name or ""])
            results += [new.reduce(kind, data) for kind in _EXTREMES]
        if self.sample:
            results.append(new.every_nth(value) if is_main else new.some(value))
        if before:
            graph.insert_before(place, new.nodes)
        else:
            graph.insert_after(place, new.nodes)
        return str(value.name), tuple(results)


class _New:
    """Nodes that are put into a graph together."""

    def __init__(self, extension: _Extension) -> None:
        self.nodes: list[ir.Node] = []
        self._names, self._number = extension.names, extension.count
        extension.count += 1

    def add(
        self,
        op_type: str,
        inputs: list[ir.Value],
        attributes: tuple[ir.Attr, ...] = (),
        *,
        dtype: ir.DataType = ir.DataType.FLOAT,
        shape: ir.Shape | None = None,
    ) -> ir.Value:
        name = f"planner_{op_type}_{self._number}_{len(self.nodes)}"
        node = ir.Node("", op_type, inputs, attributes, name=self._names.node(name))
        out = node.outputs[0]
        out.name, out.type, out.shape = self._names.value(f"{name}_out"), ir.TensorType(dtype), shape
        self.nodes.append(node)
        return out

    def constant(self, array: Array) -> ir.Value:
        tensor = ir.tensor(array)
        return self.add(
            "Constant", [], (ir.AttrTensor("value", tensor),), dtype=tensor.dtype, shape=ir.Shape(array.shape)
        )

    def reduce(self, op_type: str, value: ir.Value) -> ir.Value:
        return self.add(op_type, [value], (ir.AttrInt64("keepdims", 0),), shape=ir.Shape([]))

    def mean(self, value: ir.Value, axis: int) -> ir.Value:
        """The mean of each channel; 0 where there is nothing."""
        assert value.shape is not None
        others = self.constant(np.array([i for i in range(len(value.shape)) if i != axis], np.int64))
        total = self.add("ReduceSum", [value, others], (ir.AttrInt64("keepdims", 0),))
        channels = self.add("Size", [total], dtype=ir.DataType.INT64)
        each = self.add(
            "Div",
            [self.size(value), self.add("Max", [channels, self.one()], dtype=ir.DataType.INT64)],
            dtype=ir.DataType.INT64,
        )
        count = self.add(
            "Cast", [self.add("Max", [each, self.one()], dtype=ir.DataType.INT64)], (_to(ir.DataType.FLOAT),)
        )
        return self.add("Div", [total, count])

    def one(self) -> ir.Value:
        return self.constant(np.array(1, np.int64))

    def without_masks(self, value: ir.Value, limit: float) -> ir.Value:
        most, least = (self.constant(np.array(end, np.float32)) for end in (MASK_MAGNITUDE, -limit))
        small = self.add("Less", [self.add("Abs", [value]), most], dtype=ir.DataType.BOOL)
        if limit < MASK_MAGNITUDE:
            above = self.add("Greater", [value, least], dtype=ir.DataType.BOOL)
            small = self.add("And", [small, above], dtype=ir.DataType.BOOL)
        return self.add("Where", [small, value, self.constant(np.array(0, np.float32))])

    def flat(self, value: ir.Value) -> ir.Value:
        return self.add("Reshape", [value, self.constant(np.array([-1], np.int64))])

    def size(self, value: ir.Value) -> ir.Value:
        return self.add("Size", [value], dtype=ir.DataType.INT64)

    def with_last(self, value: ir.Value, number: float | Array) -> ir.Value:
        """The tensor's values in one row, and one more: a row is never empty."""
        last = self.constant(np.array(number, np.float32).reshape(-1)[:1])
        return self.add("Concat", [self.flat(value), last], (ir.AttrInt64("axis", 0),))

    def every_nth(self, value: ir.Value) -> ir.Value:
        """At most SAMPLED_VALUES of the tensor's values."""
        step = _step(value)
        first, end, axis = (self.constant(np.array([number], np.int64)) for number in (0, 2**62, 0))
        steps = self.constant(np.array([step or 1], np.int64))
        if step is None:
            share = [self.size(value), self.constant(np.array([SAMPLED_VALUES], np.int64))]
            steps = self.add("Add", [self.add("Div", share, dtype=ir.DataType.INT64), steps], dtype=ir.DataType.INT64)
        return self.add("Slice", [self.flat(value), first, end, axis, steps], shape=ir.Shape([None]))

    def some(self, value: ir.Value) -> ir.Value:
        """SAMPLED_IN_BODY of the tensor's values, some more than once where it holds fewer; NaN where it is empty."""
        size = _size(value)
        if size:
            row, places = self.flat(value), self.constant((_PLACES * size).astype(np.int64))
        else:
            row = self.with_last(value, np.nan)
            wide = self.add("Cast", [self.size(value)], (_to(ir.DataType.DOUBLE),), dtype=ir.DataType.DOUBLE)
            exact = self.add("Mul", [wide, self.constant(_PLACES)], dtype=ir.DataType.DOUBLE)
            places = self.add("Cast", [exact], (_to(ir.DataType.INT64),), dtype=ir.DataType.INT64)
        return self.add("Gather", [row, places], shape=ir.Shape([SAMPLED_IN_BODY]))


def _channels(value: ir.Value) -> int | None:
    """Axis of the channels that all Convs, Gemms and MatMuls with a constant weight that read the value sum over; None where
    there are none, or they differ.
    """
    if value.shape is None or len(value.shape) < 2:
        return None
    axes = set()
    for use in value.uses():
        node = use.node
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        if use.idx != 0 or node.op_type not in ("Conv", "Gemm", "MatMul") or node.domain not in ("", "ai.onnx"):
            continue
        if weight is None or weight.const_value is None or weight.is_graph_input():
            continue
        transposed = node.op_type == "Gemm" and bool(a.as_int() if (a := node.attributes.get("transA")) else 0)
        axes.add(1 if node.op_type == "Conv" else 0 if transposed else len(value.shape) - 1)
    return axes.pop() if len(axes) == 1 else None


def _to(dtype: ir.DataType) -> ir.Attr:
    return ir.AttrInt64("to", int(dtype))


def _dims(value: ir.Value) -> list[int]:
    assert value.shape is not None
    return [d for d in value.shape if isinstance(d, int)]


def _is_cut_off(value: ir.Value) -> bool:
    """Whether a Relu or Clip that is looked at itself is all that reads the value.

    The value is stored over their range; looked at itself, it would keep the runtime from fusing the two, at the cost of
    time and memory.
    """
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].idx != 0:
        return False
    user = uses[0].node
    if user.op_type not in ("Relu", "Clip") or user.domain not in ("", "ai.onnx"):
        return False
    out = user.outputs[0]
    return bool(out.uses() or out.is_graph_output()) and not _is_cut_off(out)


def _size(value: ir.Value) -> int | None:
    """How many values the tensor holds; None where that is not known."""
    if value.shape is None:
        return None
    dims = [d for d in value.shape if isinstance(d, int)]
    return None if len(dims) < len(value.shape) else math.prod(dims)


def _step(value: ir.Value) -> int | None:
    """Every how manieth value is taken, without a factor in common with the size, or it would always meet the same
    channels; None where the size is not known.
    """
    size = _size(value)
    if size is None:
        return None
    step = -(-size // SAMPLED_VALUES)
    while step > 1 and math.gcd(step, size) > 1:
        step += 1
    return max(step, 1)
