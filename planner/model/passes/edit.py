"""Changing a graph: a node in another's place, a new constant, a dead node gone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from planner.model.names import Names
from planner.model.passes.match import graph_of


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


def put_before(
    node: ir.Node, new: ir.Node, name: str, shape: ir.Shape | Sequence[int] | None, names: Names
) -> ir.Value:
    """Put ``new`` before a node; its result, under this name or one like it, has the type of that one's first result."""
    out = new.outputs[0]
    out.name, out.type = names.value(name), node.outputs[0].type
    out.shape = shape if isinstance(shape, ir.Shape | None) else ir.Shape(shape)
    graph_of(node).insert_before(node, new)
    return out


def follow(node: ir.Node, op_type: str, other: ir.Value, suffix: str, names: Names, result: int = 0) -> ir.Node:
    """Put a binary node behind a node; it takes over name, type and uses of the node's result, the first or another."""
    old = node.outputs[result]
    new = ir.Node("", op_type, [None, other], name=names.beside(node, suffix))
    out = new.outputs[0]
    out.type, out.shape = old.type, old.shape
    old.replace_all_uses_with(out, replace_graph_outputs=True)
    new.replace_input_with(0, old)
    old.name, out.name = names.value(f"{old.name}_before_{suffix}"), old.name
    graph_of(node).insert_after(node, new)
    return new


def new_constant(node: ir.Node, name: str, array: np.ndarray, names: Names) -> ir.Value:
    """A new initializer of the node's graph, under this name or one like it."""
    graph, name = graph_of(node), names.value(name)
    value = ir.Value(name=name, const_value=ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name))
    value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.from_numpy(array.dtype))
    graph.register_initializer(value)
    return value


def remove_if_dead(node: ir.Node) -> None:
    """Remove a node whose results nobody reads."""
    if node.graph is not None and not any(o.uses() or o.is_graph_output() for o in node.outputs):
        node.graph.remove(node, safe=True)


def insert_first(graph: ir.Graph, node: ir.Node) -> None:
    """Put a node at the head of a graph, even an empty one."""
    first = next(iter(graph), None)
    if first is None:
        graph.append(node)
    else:
        graph.insert_before(first, node)
