"""A cube as two products."""

from __future__ import annotations

import onnx_ir as ir

from planner.model.names import Names
from planner.model.passes.edit import put_before, put_in_place
from planner.model.passes.match import is_number, own, same_shape


def spell_cubes(model: ir.Model, names: Names) -> None:
    """Write x to the power of 3 as x * x * x, in every graph, in place.

    At uint16 QNN (2.7) loses the cube of negative numbers (13 dB). A GELU by tanh that is not fused holds one.
    """
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in list(graph):
            x = node.inputs[0] if node.op_type == "Pow" and own(node) else None
            if x is None or not is_number(node.inputs[1], 3.0) or not same_shape(x.shape, node.outputs[0].shape):
                continue
            square = ir.Node("", "Mul", [x, x], name=names.beside(node, "square"))
            out = put_before(node, square, f"{node.outputs[0].name}_square", x.shape, names)
            put_in_place(node, ir.Node("", "Mul", [out, x]))
