"""Changing a graph: a node in another's place, a new constant, a dead node gone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def put_in_place(last: ir.Node, new: ir.Node) -> None:
    """Put ``new`` in the place of ``last``; its output takes over name, type and uses. Dead nodes go later."""
    old, out = last.outputs[0], new.outputs[0]
    name = old.name
    out.type, out.shape = old.type, old.shape
    graph = last.graph
    assert graph is not None
    graph.insert_before(last, new)
    old.replace_all_uses_with(out, replace_graph_outputs=True)
    new.name = last.name
    old.name = None
    out.name = name
    graph.remove(last, safe=True)


def new_constant(graph: ir.Graph | ir.Function, name: str, array: np.ndarray) -> ir.Value:
    """A new initializer of the graph."""
    value = ir.Value(name=name, const_value=ir.tensor(np.ascontiguousarray(array), name=name))
    value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.from_numpy(array.dtype))
    _root(graph).register_initializer(value)
    return value


def _root(graph: ir.Graph | ir.Function) -> ir.Graph:
    assert isinstance(graph, ir.Graph)
    return graph


def remove_if_dead(node: ir.Node) -> None:
    """Remove a node whose results nobody reads."""
    if node.graph is not None and not any(o.uses() or o.is_graph_output() for o in node.outputs):
        node.graph.remove(node, safe=True)
