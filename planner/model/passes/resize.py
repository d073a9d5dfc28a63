"""Resizing in forms that EPs compute alike: nearest places as a Gather, pictures with their channels first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from planner.model.names import Names
from planner.model.passes.edit import new_constant, put_before, put_in_place
from planner.model.passes.match import text_attribute
from planner.model.values import constant_array

# The nearest places that every EP known here computes as ONNX says.
_USUAL = (("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("pytorch_half_pixel", "round_prefer_floor"))


@dataclass(frozen=True)
class _Axis:
    """One axis of a Resize: its size before and after, and the scale that is asked for."""

    before: int
    after: int
    scale: float

    @property
    def changes(self) -> bool:
        return self.before != self.after


def _axes(node: ir.Node) -> list[_Axis] | None:
    """The axes of a Resize; None where they are not known, or it does more than resize."""
    x, out = node.inputs[0], node.outputs[0]
    if x is None or x.shape is None or out.shape is None or not x.shape.is_static() or not out.shape.is_static():
        return None
    if len(node.inputs) < 3 or "axes" in node.attributes or "keep_aspect_ratio_policy" in node.attributes:
        return None
    before, after = [int(d) for d in x.shape.numpy()], [int(d) for d in out.shape.numpy()]
    scales = None if node.inputs[2] is None else constant_array(node.inputs[2])
    if 0 in (*before, *after) or (node.inputs[2] is not None and scales is None):
        return None
    if scales is None or scales.size == 0:
        scales = np.array(after) / np.array(before)
    if scales.size != len(before):
        return None
    axes = [_Axis(b, a, float(s)) for b, a, s in zip(before, after, scales, strict=True)]
    # A scale that changes no size moves places all the same.
    return None if any(axis.before == axis.after and axis.scale != 1 for axis in axes) else axes


def gather_nearest(node: ir.Node, names: Names) -> None:
    """A Resize to the nearest place by an unusual rule is a Gather along each axis that changes.

    TensorFlow 2 asks for half_pixel and floor, which QNN (2.7) computes by another rule.
    """
    where, how = (
        text_attribute(node, "coordinate_transformation_mode", "half_pixel"),
        text_attribute(node, "nearest_mode", "round_prefer_floor"),
    )
    if text_attribute(node, "mode", "nearest") != "nearest" or (where, how) in _USUAL or where not in _KNOWN:
        return
    axes = _axes(node)
    value = node.inputs[0]
    if axes is None or value is None:
        return
    name, changing = node.outputs[0].name, [i for i, axis in enumerate(axes) if axis.changes]
    dims = [axis.before for axis in axes]
    found = {i: _nearest(axes[i], where, how) for i in changing}
    if any(place is None for place in found.values()):
        return
    for i, place in found.items():
        assert place is not None
        places = new_constant(node, f"{name}_places_{i}", place, names)
        gather = ir.Node("", "Gather", [value, places], {"axis": ir.AttrInt64("axis", i)})
        if i == changing[-1]:
            put_in_place(node, gather)
            return
        dims[i] = axes[i].after
        gather.name = names.beside(node, f"axis_{i}")
        value = put_before(node, gather, f"{name}_axis_{i}", dims, names)


_KNOWN = ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners", "tf_half_pixel_for_nn")


def _nearest(axis: _Axis, where: str, how: str) -> np.ndarray | None:
    """Of each place of the result, the place in the input (ONNX, Resize; onnxruntime, core/providers/cpu/tensor/upsamplebase.h).

    None where one lies so near the middle of two that the runtime's own rounding decides.
    """
    single, double = (_places(axis, where, how, kind) for kind in (np.float32, np.float64))
    return double if np.array_equal(single, double) else None


def _places(axis: _Axis, where: str, how: str, single: Any) -> np.ndarray:
    """The same, computed in this type."""
    half = single(0.5)
    places, scale = np.arange(axis.after, dtype=single), single(axis.scale)
    if where == "align_corners":
        places = places * single(axis.before - 1) / single(axis.after - 1) if axis.after > 1 else places * single(0)
    elif where == "pytorch_half_pixel" and axis.after == 1:
        places = places * single(0)
    elif where == "asymmetric":
        places = places / scale
    elif where == "tf_half_pixel_for_nn":
        places = (places + half) / scale
    else:
        places = (places + half) / scale - half
    rounded: np.ndarray = np.clip(_rounded(places.astype(np.float64), how), 0, axis.before - 1).astype(np.int64)
    return rounded


def _rounded(places: np.ndarray, how: str) -> np.ndarray:
    rounded: np.ndarray = np.copysign(np.floor(np.abs(places) + 0.5), places)
    if how == "floor":
        rounded = np.floor(places)
    elif how == "ceil":
        rounded = np.ceil(places)
    elif how == "round_prefer_floor":
        rounded = np.where(places == np.trunc(places) + 0.5, np.floor(places), rounded)
    return rounded


def channels_first(node: ir.Node, names: Names) -> None:
    """A Resize of two dimensions, or of a picture with its channels last, is one of a picture with its channels first.

    QNN (2.7) takes no other; JAX and TensorFlow have the channels last.
    """
    axes, out, x = _axes(node), node.outputs[0], node.inputs[0]
    if axes is None or x is None or text_attribute(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return
    changing = [i for i, axis in enumerate(axes) if axis.changes or len(axes) == 2]
    kept = [i for i in range(len(axes)) if i not in changing]
    ones = 2 - len(kept)
    if not 1 <= len(changing) <= 2 or ones < 0 or (min(changing) >= 2 and len(axes) > 2):
        return
    name, order = out.name, [*kept, *changing]
    moved, resized = [axes[i].before for i in order], [axes[i].after for i in order]
    value = x
    if order != sorted(order):
        transpose = ir.Node(
            "", "Transpose", [value], {"perm": ir.AttrInt64s("perm", order)}, name=names.beside(node, "moved")
        )
        value = put_before(node, transpose, f"{name}_moved", moved, names)
    if ones:
        value = _reshaped(node, value, f"{name}_picture", [1] * ones + moved, names)
    scales = np.array([1.0] * ones + [axes[i].scale for i in order], np.float32)
    inputs = [value, None, new_constant(node, f"{name}_scales", scales, names)]
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        sizes = np.array([1] * ones + resized, np.int64)
        inputs = [value, None, None, new_constant(node, f"{name}_sizes", sizes, names)]
    resize = ir.Node("", "Resize", inputs, node.attributes.values(), name=names.beside(node, "picture"))
    value = put_before(node, resize, f"{name}_resized", [1] * ones + resized, names)
    if ones:
        value = _reshaped(node, value, f"{name}_plain", resized, names)
    if order == sorted(order):
        put_in_place(node, ir.Node("", "Identity", [value]))
        return
    back = ir.AttrInt64s("perm", [order.index(i) for i in range(len(order))])
    put_in_place(node, ir.Node("", "Transpose", [value], {"perm": back}))


def _reshaped(node: ir.Node, value: ir.Value, name: str, shape: Sequence[int], names: Names) -> ir.Value:
    content = new_constant(node, f"{name}_shape", np.array(shape, np.int64), names)
    reshape = ir.Node("", "Reshape", [value, content], name=names.beside(node, "Reshape"))
    return put_before(node, reshape, name, shape, names)
