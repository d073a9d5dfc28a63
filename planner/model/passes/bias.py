"""A constant added to a convolution as the bias of the convolution."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from planner.model.names import Names
from planner.model.passes.edit import new_constant, put_in_place, remove_if_dead
from planner.model.passes.match import both_orders, only_user, producer_of
from planner.model.values import constant_array


def fuse_bias(add: ir.Node, names: Names) -> None:
    """Conv(x, w) + constant per output channel -> Conv(x, w, b); the same for ConvTranspose."""
    for conv_out, constant in both_orders(add):
        conv = producer_of(conv_out, "Conv", "ConvTranspose")
        bias = constant_array(constant)
        if conv is None or conv_out is None or constant is None or bias is None or only_user(conv_out) is not add:
            continue
        if len(conv.inputs) > 2 and conv.inputs[2] is not None and constant_array(conv.inputs[2]) is None:
            continue
        shape = conv_out.shape
        weight = conv.inputs[1]
        if shape is None or len(shape) < 2 or weight is None or weight.dtype is None or add.outputs[0].shape != shape:
            continue
        channels = shape[1]
        # The constant must hold one number a channel (or one for all): shape (1, C, 1, ...) or (C, 1, ...).
        if not isinstance(channels, int) or bias.dtype != weight.dtype.numpy():
            continue
        padded = (1,) * (len(shape) - bias.ndim) + bias.shape
        if len(padded) != len(shape) or padded[1] not in (1, channels) or bias.size != padded[1]:
            continue
        vector = np.broadcast_to(bias.reshape(-1), (channels,))
        if len(conv.inputs) > 2 and (old := constant_array(conv.inputs[2])) is not None:
            vector = vector + old
        value = new_constant(add, f"{add.outputs[0].name}_bias", vector, names)
        new = ir.Node("", conv.op_type, [conv.inputs[0], weight, value], list(conv.attributes.values()))
        put_in_place(add, new)
        remove_if_dead(conv)
        new.name = conv.name
        return
