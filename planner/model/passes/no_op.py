"""Nodes that change nothing, dropped."""

from __future__ import annotations

import onnx_ir as ir

from planner.model.passes.match import int_attribute, is_shared, own
from planner.model.values import constant_array


def remove_no_op(node: ir.Node) -> None:
    """Remove a Reshape or Flatten whose output has the shape of its input."""
    x, out = node.inputs[0], node.outputs[0]
    if x is None or x.shape is None or not x.shape.is_static() or out.shape != x.shape or out.is_graph_output():
        return
    out.replace_all_uses_with(x)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def drop_zeros_allowed(model: ir.Model) -> None:
    """Drop allowzero from a Reshape to a shape in which no 0 stands, where it says nothing.

    PyTorch's exporter sets it everywhere, and DirectML builds no kernel of a Reshape that has it and a -1 in its shape.

    Args:
        model: changed in place.
    """
    for node in model.graph.all_nodes():
        if node.op_type == "Reshape" and own(node) and "allowzero" in node.attributes and len(node.inputs) == 2:
            shape = constant_array(node.inputs[1])
            if shape is not None and 0 not in shape:
                node.attributes.pop("allowzero")


# Reductions that of one element are that element.
_SELECTING = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd")


def drop_empty_axes(model: ir.Model) -> None:
    """Drop a constant without elements that names the axes of a reduction; what then reduces nothing becomes an Identity.

    No axes and axes that are empty mean the same, and QNN (2.7) has no reduction that reduces nothing.

    Args:
        model: changed in place.
    """
    for node in model.graph.all_nodes():
        if not (node.op_type.startswith("Reduce") and own(node)):
            continue
        if len(node.inputs) > 1 and (axes := constant_array(node.inputs[1])) is not None and not axes.size:
            node.resize_inputs(1)
        named = len(node.inputs) > 1 or "axes" in node.attributes
        if node.op_type in _SELECTING and not named and int_attribute(node, "noop_with_empty_axes", 0):
            node.op_type = "Identity"
            node.attributes.clear()


def eliminate_identities(model: ir.Model, as_stored: bool) -> None:
    """Drop Identity nodes, and, as onnxruntime does, a Dropout that drops nothing.

    Those stay by which a graph or a body of an If or Loop gives out a value that it was given: an input, an initializer, a
    value of the graph around it, or one that is given out already.

    Args:
        model: changed in place.
        as_stored: keep what onnxruntime keeps: an Identity that gives out a value that other nodes read too
            (core/optimizer/identity_elimination.cc).
    """
    for node in list(model.graph.all_nodes()):
        if not own(node) or not (_is_identity(node) or (as_stored and _is_dropout(node))):
            continue
        value, out = node.inputs[0], node.outputs[0]
        if value is None or node.graph is None:
            continue
        if out.is_graph_output():
            if not _is_made_here(value, node) or (as_stored and is_shared(value)):
                continue
            value.name, out.name = out.name, None
        if value.shape is None:
            value.shape = out.shape
        if value.type is None:
            value.type = out.type
        out.replace_all_uses_with(value, replace_graph_outputs=True)
        node.graph.remove(node, safe=True)


def _is_identity(node: ir.Node) -> bool:
    return node.op_type == "Identity" and len(node.inputs) == 1


def _is_dropout(node: ir.Node) -> bool:
    """Whether it is a Dropout that onnxruntime takes out (core/optimizer/dropout_elimination.cc): its mask is not read, nothing trains."""
    if node.op_type != "Dropout" or any(out.uses() or out.is_graph_output() for out in list(node.outputs)[1:]):
        return False
    training = node.inputs[2] if len(node.inputs) > 2 else None
    constant = None if training is None else constant_array(training)
    return training is None or (constant is not None and not constant.any())


def _is_made_here(value: ir.Value, reader: ir.Node) -> bool:
    """Whether a node of the reader's own graph computes the value, and the graph does not give it out already."""
    producer = value.producer()
    return producer is not None and producer.graph is reader.graph and not value.is_graph_output()
