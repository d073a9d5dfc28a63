"""A convolution with as many input channels as the target computes rightly."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from planner.model.names import Names
from planner.model.passes.edit import new_constant, put_before
from planner.model.passes.match import own
from planner.model.values import constant_array

# (shape of its weight, attributes, whether it has a bias) of a Conv -> whether the target computes it wrongly.
Misconvolves = Callable[[tuple[int, ...], Mapping[str, object], bool], bool]
# More than any group of numbers that a kernel reads at once.
_MOST = 8


def fill_channels(model: ir.Model, misconvolves: Misconvolves) -> None:
    """Give each Conv that the target gets wrong the fewest channels of zeros that help, in every graph, in place.

    Args:
        model: after its weights are final, since these are padded too.
        misconvolves: which convolutions the target gets wrong.
    """
    names = Names(model)
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in list(graph):
            if node.op_type == "Conv" and own(node):
                _fill(node, misconvolves, names)


def _fill(node: ir.Node, misconvolves: Misconvolves, names: Names) -> None:
    x, weight = node.inputs[0], constant_array(node.inputs[1])
    if x is None or weight is None:
        return
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    bias = len(node.inputs) > 2 and node.inputs[2] is not None

    def wrong(more: int) -> bool:
        return misconvolves((weight.shape[0], weight.shape[1] + more, *weight.shape[2:]), attributes, bias)

    more = next((more for more in range(_MOST + 1) if not wrong(more)), 0)
    if more == 0:
        return
    rank = weight.ndim
    ends = new_constant(node, f"{x.name}_channels", np.eye(2 * rank, dtype=np.int64)[rank + 1] * more, names)
    pad = ir.Node("", "Pad", [x, ends], name=names.beside(node, "channels"))
    shape = (
        None
        if x.shape is None
        else ir.Shape([d + more if i == 1 and isinstance(d, int) else d for i, d in enumerate(x.shape)])
    )
    node.replace_input_with(0, put_before(node, pad, f"{x.name}_filled", shape, names))
    filled = np.pad(weight, [(0, more if i == 1 else 0) for i in range(rank)])
    name = node.inputs[1].name if node.inputs[1] is not None else "weight"
    node.replace_input_with(1, new_constant(node, f"{name}_filled", filled, names))
