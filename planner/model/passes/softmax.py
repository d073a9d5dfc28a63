"""The steps of a softmax as one Softmax."""

from __future__ import annotations

import math

import onnx_ir as ir

from planner.model.passes.edit import put_in_place, remove_if_dead
from planner.model.passes.match import (
    before_shape_change,
    both_orders,
    int_attribute,
    keeps_axes,
    only_user,
    producer_of,
    reduction_of,
    same_shape,
    scalar_of,
)


def fuse_softmax(divide: ir.Node) -> None:
    """exp(x - max(x)) / sum(exp(x - max(x))) over one axis -> Softmax."""
    exponential = producer_of(divide.inputs[0], "Exp")
    total = producer_of(before_shape_change(divide.inputs[1]), "ReduceSum")
    if exponential is None or total is None or total.inputs[0] is not exponential.outputs[0]:
        return
    shifted = producer_of(exponential.inputs[0], "Sub")
    found, sums = reduction_of(total), divide.inputs[1]
    if shifted is None or found is None or sums is None or len(found[1]) != 1:
        return
    x, peak, axes = shifted.inputs[0], shifted.inputs[1], found[1]
    inner = before_shape_change(peak)
    if (clamp := producer_of(inner, "Max")) is not None and len(clamp.inputs) == 2:
        # JAX writes max(-inf, max(x)).
        inner = next((v for v, c in both_orders(clamp) if scalar_of(c) == -math.inf), inner)
    reduce = producer_of(inner, "ReduceMax")
    if x is None or peak is None or reduce is None or reduction_of(reduce) != (x, axes):
        return
    if keeps_axes(peak, x, axes) and keeps_axes(sums, x, axes):
        put_in_place(divide, ir.Node("", "Softmax", [x], [ir.AttrInt64("axis", axes[0])]))


def unflatten_softmax(softmax: ir.Node) -> None:
    """Flatten -> Softmax -> Reshape back, over the last axis alone: the same as Softmax without them.

    ONNX's version converter writes Softmax-11 so.
    """
    flatten = producer_of(softmax.inputs[0], "Flatten")
    reshape = only_user(softmax.outputs[0])
    x = flatten.inputs[0] if flatten is not None else None
    if flatten is None or x is None or x.shape is None or reshape is None or reshape.op_type != "Reshape":
        return
    rank = len(x.shape)
    axis = int_attribute(flatten, "axis", 1)
    if rank == 0 or axis % rank != rank - 1 or int_attribute(softmax, "axis", -1) not in (-1, 1):
        return
    if not same_shape(reshape.outputs[0].shape, x.shape):
        return
    put_in_place(reshape, ir.Node("", "Softmax", [x], [ir.AttrInt64("axis", -1)]))
    remove_if_dead(softmax)
    remove_if_dead(flatten)
