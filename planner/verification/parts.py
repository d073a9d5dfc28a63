"""The parts of an output that joins several results: boxes in pixels and scores in 0..1, one behind the other.

A part is judged by itself: the energy of the boxes would hide that every score is lost. Which element of the output comes
from which part is found by sending labels through the nodes that join and move the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from planner.model.load import load
from planner.model.shapes import infer_shapes
from planner.model.values import constant_array
from planner.operators import operator

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
# Labels are computed as float32, which every operator that moves data takes. It holds more of them than there are parts.
_LABEL = onnx.TensorProto.FLOAT


@dataclass(frozen=True)
class Parts:
    """What an output is made of.

    Attributes:
        names: the tensors that it joins.
        labels: shape of the output, int64: the index of the name.
    """

    names: tuple[str, ...]
    labels: np.ndarray[Any, Any]


def read_parts(reference: Path) -> dict[str, Parts]:
    """`find_parts` of a model's file."""
    model = load(reference)
    infer_shapes(model)
    return find_parts(model)


def find_parts(model: ir.Model) -> dict[str, Parts]:
    """The parts of each float output that joins at least two tensors, by the output's name.

    An output is left out where the shape of a part is not known ahead.

    Args:
        model: the float32 reference, with shapes.
    """
    found = {}
    for output in model.graph.outputs:
        if output.dtype in _FLOATS and (parts := _parts_of(output, model)) is not None:
            found[output.name or ""] = parts
    return found


def _parts_of(output: ir.Value, model: ir.Model) -> Parts | None:
    nodes, leaves = _behind(output, model.graph)
    if len(leaves) < 2 or not all(leaf.shape is not None and leaf.shape.is_static() for leaf in leaves):
        return None
    names = tuple(leaf.name or "" for leaf in leaves)
    labels = _send(output, nodes, leaves, model)
    return None if labels is None else Parts(names, labels)


def _behind(output: ir.Value, graph: ir.Graph) -> tuple[list[ir.Node], list[ir.Value]]:
    """The nodes before an output that join and move values alone, in order, and the values that they start from."""
    nodes: dict[ir.Node, None] = {}
    leaves: dict[ir.Value, None] = {}
    pending = [output]
    while pending:
        value = pending.pop()
        producer = value.producer()
        if producer is None or not _only_places(producer):
            leaves[value] = None
        elif producer not in nodes:
            nodes[producer] = None
            pending += [v for v in reversed(_data(producer)) if v is not None]
    return [node for node in graph if node in nodes], list(leaves)


def _only_places(node: ir.Node) -> bool:
    """Whether it puts values into places that are known ahead."""
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "Concat":
        return True
    known = all(v is None or constant_array(v) is not None for v in node.inputs[1:])
    # A Pad adds values of its own, which could be mistaken for labels.
    return known and operator(node.op_type).moves and node.op_type != "Pad"


def _data(node: ir.Node) -> tuple[ir.Value | None, ...]:
    """The operands whose values it moves."""
    return tuple(node.inputs) if node.op_type == "Concat" else tuple(node.inputs[:1])


def _send(
    output: ir.Value, nodes: list[ir.Node], leaves: list[ir.Value], model: ir.Model
) -> np.ndarray[Any, Any] | None:
    """The labels of the leaves, where the nodes put them; None where onnx's reference does not run the nodes."""
    feeds = {
        leaf.name or "": np.full(leaf.shape.numpy() if leaf.shape is not None else (), i, np.float32)
        for i, leaf in enumerate(leaves)
    }
    constants = {
        v.name: constant_array(v)
        for node in nodes
        for v in node.inputs
        if v is not None and v.name not in feeds and v.producer() not in nodes
    }
    graph = onnx.helper.make_graph(
        [ir.serde.serialize_node(node) for node in nodes],
        "labels",
        [onnx.helper.make_tensor_value_info(name, _LABEL, array.shape) for name, array in feeds.items()],
        [onnx.helper.make_tensor_value_info(output.name or "", _LABEL, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items() if array is not None],
    )
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 21))
    labels_of = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        labels = ReferenceEvaluator(labels_of).run(None, feeds)[0]
    except Exception:  # whatever the reference does not know: the output is judged as one
        return None
    return np.asarray(labels).astype(np.int64)
