"""Observing the range of every float tensor while the float32 model runs, one sample at a time.

The graph is extended by ReduceMin and ReduceMax of each tensor, so that the runtime itself reduces a tensor as soon as it
exists: memory stays that of a bare run, whatever the number and size of the samples, and only scalars travel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from planner.errors import RequestError

# Values beyond this are masks (attention adds -3.4e38 where it must not look), not data.
MASK_MAGNITUDE = 1e30

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Range:
    """Smallest and largest value that a tensor took; masks (beyond 1e30) left out."""

    low: float
    high: float

    def union(self, other: Range) -> Range:
        return Range(min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class Observed:
    """An extended model, and which of its outputs tell of which tensor.

    Attributes:
        outputs: name of a tensor to the names of the outputs that hold its minimum and maximum.
    """

    model: ir.Model
    outputs: Mapping[str, tuple[str, str]]


def extend(model: ir.Model) -> Observed:
    """A copy of the float32 model whose outputs are the minimum and maximum of each float tensor, masks left out.

    Tensors inside If and Loop bodies are included: their extremes leave the body as further outputs of the If (the other
    branch gives the empty range) or as scan outputs of the Loop.
    """
    copy = model.clone()
    extension = _Extension()
    outputs = extension.graph(copy.graph)
    # The model's own outputs are observed like any tensor; only the extremes need to leave the run.
    copy.graph.outputs.clear()
    pairs: dict[str, tuple[str, str]] = {}
    for name, low, high in outputs:
        copy.graph.outputs.extend([low, high])
        pairs[name] = (str(low.name), str(high.name))
    return Observed(copy, pairs)


def collect(
    observed: Observed,
    run: Run,
    samples: Sequence[Mapping[str, np.ndarray]],
    progress: Callable[[], None] | None = None,
) -> dict[str, Range]:
    """Run the extended model on each sample; the range of each tensor that was computed at least once.

    Raises:
        RequestError: a tensor held NaN; the message names the first one.
    """
    ranges: dict[str, Range] = {}
    for i, sample in enumerate(samples):
        values = run(sample)
        for name, (low_name, high_name) in observed.outputs.items():
            low, high = values[low_name].reshape(-1), values[high_name].reshape(-1)
            if low.size == 0:
                continue
            least, most = float(low.min()), float(high.max())
            if math.isnan(least) or math.isnan(most):
                raise RequestError(
                    f"tensor {name!r} holds NaN on calibration sample {i}",
                    "check the inputs, and the model's own float32 result",
                )
            if least > most:
                continue  # never computed in this run, or masks only
            found = Range(least, most)
            ranges[name] = ranges[name].union(found) if name in ranges else found
        if progress is not None:
            progress()
    return ranges


class _Extension:
    def __init__(self) -> None:
        self.count = 0

    def graph(self, graph: ir.Graph) -> list[tuple[str, ir.Value, ir.Value]]:
        """Add the reductions to one graph; (tensor, minimum, maximum) of each of its float tensors, inner ones included."""
        found: list[tuple[str, ir.Value, ir.Value]] = []
        float_inputs = [v for v in graph.inputs if v.dtype == ir.DataType.FLOAT]
        first = next(iter(graph), None)
        if first is not None:
            for value in float_inputs:
                found.append(self._reduce(value, graph, before=first))
        for node in list(graph):
            inner = self._inner(node)
            for name, low, high in inner:
                if node.op_type == "If":
                    found.append((name, low, high))
                else:
                    # Scan outputs hold one extreme an iteration.
                    found.append((name, low, high))
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                continue
            for out in list(node.outputs):
                if out.dtype == ir.DataType.FLOAT and out.name and (out.uses() or out.is_graph_output()):
                    found.append(self._reduce(out, graph, after=node))
        return found

    def _inner(self, node: ir.Node) -> list[tuple[str, ir.Value, ir.Value]]:
        if node.op_type == "If":
            branches = [node.attributes["then_branch"].as_graph(), node.attributes["else_branch"].as_graph()]
            per_branch = [self.graph(b) for b in branches]
            found = []
            for index, entries in enumerate(per_branch):
                other = branches[1 - index]
                for name, low, high in entries:
                    branches[index].outputs.extend([low, high])
                    other.outputs.extend([self._constant(other, np.inf), self._constant(other, -np.inf)])
                    found.append((name, *self._new_outputs(node, [])))
            return found
        if node.op_type == "Loop":
            body = node.attributes["body"].as_graph()
            entries = self.graph(body)
            found = []
            for name, low, high in entries:
                body.outputs.extend([low, high])
                found.append((name, *self._new_outputs(node, [None])))
            return found
        return []

    def _new_outputs(self, node: ir.Node, shape: list[int | None]) -> tuple[ir.Value, ir.Value]:
        old = len(node.outputs)
        node.resize_outputs(old + 2)
        low, high = node.outputs[old], node.outputs[old + 1]
        for value, kind in ((low, "low"), (high, "high")):
            value.name = f"planner_{kind}_{self.count}"
            value.type = ir.TensorType(ir.DataType.FLOAT)
            value.shape = ir.Shape(shape)
        self.count += 1
        return low, high

    def _constant(self, graph: ir.Graph, number: float) -> ir.Value:
        value = ir.Value(name=f"planner_none_{self.count}")
        self.count += 1
        node = ir.Node(
            "",
            "Constant",
            [],
            [ir.AttrTensor("value", ir.tensor(np.float32(number)))],
            outputs=[value],
            name=f"{value.name}_node",
        )
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
        graph.append(node)
        return value

    def _reduce(
        self, value: ir.Value, graph: ir.Graph, *, after: ir.Node | None = None, before: ir.Node | None = None
    ) -> tuple[str, ir.Value, ir.Value]:
        nodes = []
        results = []
        for op_type, kind in (("ReduceMin", "low"), ("ReduceMax", "high")):
            out = ir.Value(
                name=f"planner_{kind}_{self.count}", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([])
            )
            nodes.append(
                ir.Node(
                    "",
                    op_type,
                    [value],
                    [ir.AttrInt64("keepdims", 0)],
                    outputs=[out],
                    name=f"planner_{op_type}_{self.count}",
                )
            )
            results.append(out)
        self.count += 1
        if after is not None:
            graph.insert_after(after, nodes)
        else:
            assert before is not None
            graph.insert_before(before, nodes)
        return str(value.name), results[0], results[1]
