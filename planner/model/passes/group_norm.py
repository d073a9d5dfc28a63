"""GroupNormalization written with operators that every EP has, for targets that do not take it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from planner.model.names import Names
from planner.model.passes.edit import new_constant, put_in_place
from planner.model.passes.match import float_attribute, graph_of, int_attribute, own
from planner.model.values import constant_array

# From here on scale and bias are one number a channel; before, one a group.
_PER_CHANNEL_OPSET = 21


def spell_group_norm(model: ir.Model) -> None:
    """Put InstanceNormalization over the groups, between Reshapes, in the place of each GroupNormalization, in every graph.

    As exporters without the operator write it. ONNX's own definition computes shapes as the model runs, which some EPs leave to others.
    One stays where its channels or constants are not known, or more than one dimension behind them is open.
    """
    names, opset = Names(model), model.opset_imports.get("", 1)
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in list(graph):
            if node.op_type == "GroupNormalization" and own(node):
                _spell(node, names, per_channel=opset >= _PER_CHANNEL_OPSET)


def _spell(node: ir.Node, names: Names, *, per_channel: bool) -> None:
    x, groups = node.inputs[0], int_attribute(node, "num_groups", 1)
    scale, bias = constant_array(node.inputs[1]), constant_array(node.inputs[2])
    if x is None or x.shape is None or x.dtype is None or scale is None or bias is None or len(x.shape) < 3:
        return
    # 0 stands for the batch, whatever it is.
    back = [0, *(d if isinstance(d, int) else -1 for d in x.shape[1:])]
    channels = back[1]
    if back.count(-1) > 1 or channels < 1 or channels % groups:
        return
    base, dtype = node.outputs[0].name, scale.dtype

    def constant(what: str, array: np.ndarray) -> ir.Value:
        return new_constant(node, f"{base}_{what}", array, names)

    def then(op_type: str, inputs: list[ir.Value], suffix: str, *attributes: ir.Attr) -> ir.Value:
        made = ir.Node("", op_type, inputs, attributes, name=names.beside(node, suffix))
        graph_of(node).insert_before(node, made)
        made.outputs[0].name = names.value(f"{base}_{suffix}")
        made.outputs[0].type = x.type
        return made.outputs[0]

    value = then("Reshape", [x, constant("groups", np.array([0, groups, -1], np.int64))], "grouped")
    of_group = (np.ones(groups, dtype), np.zeros(groups, dtype)) if per_channel else (scale, bias)
    epsilon = ir.AttrFloat32("epsilon", float_attribute(node, "epsilon", 1e-5))
    inputs = [value, constant("group_scale", of_group[0]), constant("group_bias", of_group[1])]
    value = then("InstanceNormalization", inputs, "normalized", epsilon)
    value.shape = ir.Shape([x.shape[0], groups, None])
    shape = constant("shape", np.array(back, np.int64))
    if per_channel:
        value = then("Reshape", [value, shape], "ungrouped")
        value.shape = x.shape
        along = [channels, *([1] * (len(back) - 2))]
        value = then("Mul", [value, constant("scale", scale.reshape(along))], "scaled")
        value.shape = x.shape
        last = ir.Node("", "Add", [value, constant("bias", bias.reshape(along))])
    else:
        last = ir.Node("", "Reshape", [value, shape])
    put_in_place(node, last)
