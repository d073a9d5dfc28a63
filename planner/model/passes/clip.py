"""Relu, Clip, Min and Max with constants in a row: one of them is enough."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from planner.model.names import Names
from planner.model.passes.edit import new_constant, put_in_place, remove_if_dead
from planner.model.passes.match import both_orders, only_user, own, producer_of, scalar_of

CLIPPING = ("Relu", "Clip", "Min", "Max")


def merge_clips(node: ir.Node, names: Names) -> None:
    """Make one Relu or Clip of the node and the one before it that nothing else reads: ReLU6 is often written so."""
    second = _interval(node)
    before = None if second is None else producer_of(second[0], *CLIPPING)
    if second is None or before is None or not own(before) or only_user(before.outputs[0]) is not node:
        return
    first = _interval(before)
    if first is None:
        return
    x, (low, high), (least, most) = first[0], first[1], second[1]
    # min(max(., least), most) of both ends of the first interval.
    low, high = min(max(low, least), most), min(max(high, least), most)
    name = node.outputs[0].name
    if (low, high) == (0, math.inf):
        new = ir.Node("", "Relu", [x])
    else:
        assert x.dtype is not None
        bounds = [
            new_constant(node, f"{name}_{end}", np.array(number, x.dtype.numpy()), names)
            if math.isfinite(number)
            else None
            for end, number in (("min", low), ("max", high))
        ]
        new = ir.Node("", "Clip", [x, *(bounds if bounds[1] is not None else bounds[:1])])
    put_in_place(node, new)
    remove_if_dead(before)


def _interval(node: ir.Node) -> tuple[ir.Value, tuple[float, float]] | None:
    """(x, (low, high)) of a node that is min(max(x, low), high); None where it is none, or the bounds are not known."""
    x = node.inputs[0]
    if node.op_type == "Relu":
        return None if x is None else (x, (0.0, math.inf))
    if node.op_type in ("Min", "Max"):
        if len(node.inputs) != 2:
            return None
        for value, other in both_orders(node):
            bound = scalar_of(other)
            # A constant of more dimensions than the data would give the result more than a Clip has.
            if bound is not None and value is not None and value.shape == node.outputs[0].shape:
                return value, ((bound, math.inf) if node.op_type == "Max" else (-math.inf, bound))
        return None
    ends = []
    for position, default in ((1, -math.inf), (2, math.inf)):
        given = node.inputs[position] if len(node.inputs) > position else None
        bound = default if given is None else scalar_of(given)
        if bound is None:
            return None
        ends.append(bound)
    return None if x is None else (x, (ends[0], ends[1]))
