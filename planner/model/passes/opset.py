"""The ai.onnx opset, raised: each operator's older form as the newer one that computes the same.

ONNX's own converter (1.23) changes what some of them compute: Upsample and linear Resize-10 (where samples lie), and
Hardmax (what is flattened). Here every change of form from opset 7 on is one function; the test holds each of them to
the original.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from planner.errors import first_line
from planner.model.names import Names
from planner.model.passes.edit import new_constant
from planner.model.passes.match import float_attribute, graph_of, int_attribute, own
from planner.model.values import constant_array

# Older forms differ in broadcasting by axis, is_test and consumed_inputs; ONNX's own converter brings them here.
_OLDEST = 7


class _CannotRaiseError(Exception):
    """Why a node has no newer form that computes the same."""


def raise_opset(model: ir.Model, target: int) -> str | None:
    """Raise the ai.onnx opset to ``target``; what could not be done, in words.

    Args:
        model: changed in place, shapes inferred; left as it was where it cannot be raised.
        target: the opset to reach.
    """
    have = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
    try:
        if have < _OLDEST:
            _raise_oldest(model)
        nodes = [node for node in model.graph.all_nodes() if own(node)]
        for node in nodes:
            for _, obstacle in _steps(node, max(have, _OLDEST), target, _OBSTACLES):
                obstacle(node)
    except _CannotRaiseError as reason:
        return f"opset {have} could not be raised to {target}: {reason}"
    names = Names(model)
    for node in nodes:
        for op_type, change in list(_steps(node, max(have, _OLDEST), target, _CHANGES)):
            if node.op_type == op_type:  # a change may leave another operator, in its newest form
                change(node, names)
    model.opset_imports.pop("ai.onnx", None)
    model.opset_imports[""] = target
    # QuantizeLinear of 16-bit types needs IR version 10 beside opset 21 (ONNX Versioning.md).
    model.ir_version = max(model.ir_version or 0, 10 if target >= 21 else 8)
    return None


def _raise_oldest(model: ir.Model) -> None:
    from onnxscript import version_converter

    try:
        version_converter.convert_version(model, _OLDEST, fallback=True)
    except Exception as error:
        raise _CannotRaiseError(first_line(error)) from None
    if model.opset_imports.get("", 0) < _OLDEST:
        raise _CannotRaiseError(f"ONNX's converter does not reach opset {_OLDEST}")


_Change = Callable[[ir.Node, Names], None]
_Obstacle = Callable[[ir.Node], None]
_T = TypeVar("_T")


def _steps(node: ir.Node, have: int, target: int, table: Mapping[tuple[str, int], _T]) -> Iterator[tuple[str, _T]]:
    """The table's entries for the node's operator between two opsets, oldest first."""
    for version in range(have + 1, target + 1):
        if (change := table.get((node.op_type, version))) is not None:
            yield node.op_type, change


# -- what changes ---------------------------------------------------------------------------------------------------------


def _take(node: ir.Node, name: str) -> ir.Attr | None:
    return node.attributes.pop(name, None)


def _ints(node: ir.Node, name: str) -> list[int] | None:
    attribute = _take(node, name)
    return None if attribute is None else list(attribute.as_ints())


def _give(node: ir.Node, position: int, what: str, array: np.ndarray, names: Names) -> None:
    """Give the node a constant input."""
    if len(node.inputs) <= position:
        node.resize_inputs(position + 1)
    node.replace_input_with(position, new_constant(node, f"{node.outputs[0].name}_{what}", array, names))


def _numbers(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def _dtype(node: ir.Node) -> np.dtype:
    x = node.inputs[0]
    return np.dtype(np.float32) if x is None or x.dtype is None else np.dtype(x.dtype.numpy())


def _axes_as_input(node: ir.Node, names: Names) -> None:
    axes = _ints(node, "axes")
    if axes is not None:
        _give(node, 1, "axes", _numbers(*axes), names)


def _clip(node: ir.Node, names: Names) -> None:
    low, high = float_attribute(node, "min", -math.inf), float_attribute(node, "max", math.inf)
    for position, name, end in ((1, "min", low), (2, "max", high)):
        _take(node, name)
        if abs(end) < np.finfo(np.float32).max:
            _give(node, position, name, np.array(end, _dtype(node)), names)


def _pad(node: ir.Node, names: Names) -> None:
    pads, value = _ints(node, "pads") or [], float_attribute(node, "value", 0.0)
    _take(node, "value")
    _give(node, 1, "pads", _numbers(*pads), names)
    if value:
        _give(node, 2, "value", np.array(value, _dtype(node)), names)


def _slice(node: ir.Node, names: Names) -> None:
    starts, ends, axes = (_ints(node, name) for name in ("starts", "ends", "axes"))
    _give(node, 1, "starts", _numbers(*(starts or [])), names)
    _give(node, 2, "ends", _numbers(*(ends or [])), names)
    if axes is not None:
        _give(node, 3, "axes", _numbers(*axes), names)


def _split_sizes(node: ir.Node, names: Names) -> None:
    sizes = _ints(node, "split")
    if sizes is not None:
        _give(node, 1, "split", _numbers(*sizes), names)


def _split_count(node: ir.Node, _: Names) -> None:
    if len(node.inputs) < 2 or node.inputs[1] is None:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))


def _topk(node: ir.Node, names: Names) -> None:
    _give(node, 1, "k", _numbers(int_attribute(node, "k", 1)), names)
    _take(node, "k")


def _dft(node: ir.Node, names: Names) -> None:
    _give(node, 2, "axis", np.array(int_attribute(node, "axis", 1), np.int64), names)
    _take(node, "axis")


def _dropout(node: ir.Node, _: Names) -> None:
    _take(node, "ratio")  # it drops nothing outside of training


def _not_spatial(node: ir.Node, _: Names) -> None:
    _take(node, "spatial")


def _batch_norm_inference(node: ir.Node, _: Names) -> None:
    node.resize_outputs(1)


def _grid_sample(node: ir.Node, _: Names) -> None:
    mode = node.attributes.get("mode")
    new = {"bilinear": "linear", "bicubic": "cubic"}.get("bilinear" if mode is None else mode.as_string())
    if new is not None:
        node.attributes["mode"] = ir.AttrString("mode", new)


def _group_norm(node: ir.Node, names: Names) -> None:
    """A scale and a bias a channel, where they were one a group."""
    groups, channels = int_attribute(node, "num_groups", 1), _channels(node)
    for position, what in ((1, "scale"), (2, "bias")):
        array = constant_array(node.inputs[position])
        assert array is not None and channels is not None, "looked at before"
        _give(node, position, what, np.repeat(array, channels // groups), names)


def _channels(node: ir.Node) -> int | None:
    x = node.inputs[0]
    dims = x.shape if x is not None else None
    return dims[1] if dims is not None and len(dims) > 1 and isinstance(dims[1], int) else None


def _roi_align(node: ir.Node, _: Names) -> None:
    mode = "coordinate_transformation_mode"
    node.attributes.setdefault(mode, ir.AttrString(mode, "output_half_pixel"))


def _scatter(node: ir.Node, _: Names) -> None:
    node.op_type = "ScatterElements"


def _upsample(node: ir.Node, names: Names) -> None:
    scales = _take(node, "scales")
    if scales is not None:
        _give(node, 1, "scales", np.array(scales.as_floats(), np.float32), names)
    _as_resize(node, "floor")


def _resize_10(node: ir.Node, _: Names) -> None:
    scales = constant_array(node.inputs[1])
    _as_resize(node, "floor" if scales is None else _rounding(scales) or "floor")


def _rounding(scales: np.ndarray) -> str | None:
    """How Resize-10 rounds to the nearest sample: up where it makes smaller, down elsewhere; None where it does both.

    So onnxruntime has it (core/providers/cpu/tensor/upsamplebase.h, ResizeNearestMode::SIMPLE); where the samples fall on
    whole numbers there is nothing to round.
    """
    rounds = [s for s in scales.reshape(-1) if s != 1 and not (s < 1 and float(1 / s).is_integer())]
    if all(s > 1 for s in rounds):
        return "floor"
    return "ceil" if all(s < 1 for s in scales.reshape(-1) if s != 1) else None


def _as_resize(node: ir.Node, rounding: str) -> None:
    """Resize-13 and later: no region of interest; samples lie where the old operators had them."""
    x, scales = node.inputs[0], node.inputs[1]
    node.resize_inputs(3)
    for position, value in enumerate((x, None, scales)):
        node.replace_input_with(position, value)
    node.op_type = "Resize"
    node.attributes["coordinate_transformation_mode"] = ir.AttrString("coordinate_transformation_mode", "asymmetric")
    node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", rounding)


def _flattened(node: ir.Node, names: Names) -> None:
    """Softmax, LogSoftmax and Hardmax took all dimensions from the axis on together."""
    x, axis = node.inputs[0], int_attribute(node, "axis", 1)
    assert x is not None
    dims = None if x.shape is None else list(x.shape)
    if dims is not None and dims:
        axis %= len(dims)
        if all(d == 1 for d in dims[axis + 1 :]):
            node.attributes["axis"] = ir.AttrInt64("axis", axis)
            return
    old = node.outputs[0]
    base, dtype = old.name, old.type
    flat = ir.Node("", "Flatten", [x], [ir.AttrInt64("axis", axis)], name=names.beside(node, "flatten"))
    shape = ir.Node("", "Shape", [x], name=names.beside(node, "shape"))
    back = ir.Node("", "Reshape", [None, shape.outputs[0]], name=names.beside(node, "reshape"))
    for made, suffix in ((flat, "flat"), (shape, "shape")):
        made.outputs[0].name = names.value(f"{base}_{suffix}")
    flat.outputs[0].type, shape.outputs[0].type = dtype, ir.TensorType(ir.DataType.INT64)
    result = back.outputs[0]
    result.type, result.shape = dtype, old.shape
    old.replace_all_uses_with(result, replace_graph_outputs=True)
    old.name, result.name, old.shape = names.value(f"{base}_of_flat"), base, None
    back.replace_input_with(0, old)
    node.replace_input_with(0, flat.outputs[0])
    node.attributes["axis"] = ir.AttrInt64("axis", -1)
    graph_of(node).insert_before(node, [flat, shape])
    graph_of(node).insert_after(node, back)


_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSumSquare",
)  # fmt: skip
# By operator and the opset from which on it has the newer form.
_CHANGES: Mapping[tuple[str, int], _Change] = {
    **{(op_type, 18): _axes_as_input for op_type in _REDUCTIONS},
    **{(op_type, 13): _axes_as_input for op_type in ("ReduceSum", "Squeeze", "Unsqueeze")},
    **{(op_type, 13): _flattened for op_type in ("Softmax", "LogSoftmax", "Hardmax")},
    ("BatchNormalization", 9): _not_spatial,
    ("BatchNormalization", 14): _batch_norm_inference,
    ("Clip", 11): _clip,
    ("DFT", 20): _dft,
    ("Dropout", 12): _dropout,
    ("GridSample", 20): _grid_sample,
    ("GroupNormalization", 21): _group_norm,
    ("Pad", 11): _pad,
    ("Resize", 11): _resize_10,
    ("RoiAlign", 16): _roi_align,
    ("Scatter", 11): _scatter,
    ("Slice", 10): _slice,
    ("Split", 13): _split_sizes,
    ("Split", 18): _split_count,
    ("TopK", 10): _topk,
    ("Upsample", 10): _upsample,
}


# -- what cannot be changed -----------------------------------------------------------------------------------------------


def _refuse_scan(_: ir.Node) -> None:
    raise _CannotRaiseError("Scan before opset 9 scans over batches")


def _refuse_spatial(node: ir.Node) -> None:
    if int_attribute(node, "spatial", 1) != 1:
        raise _CannotRaiseError(f"BatchNormalization {node.name!r} is not spatial")


def _refuse_group_norm(node: ir.Node) -> None:
    groups, channels = int_attribute(node, "num_groups", 1), _channels(node)
    if channels is None or channels % groups or any(constant_array(v) is None for v in node.inputs[1:3]):
        raise _CannotRaiseError(f"GroupNormalization {node.name!r} has a scale or channels that are not known")


def _refuse_resize(node: ir.Node) -> None:
    mode = node.attributes.get("mode")
    scales = constant_array(node.inputs[1])
    if (mode is None or mode.as_string() == "nearest") and (scales is None or _rounding(scales) is None):
        raise _CannotRaiseError(f"Resize {node.name!r} rounds up and down, or by scales that are not known")


_OBSTACLES: Mapping[tuple[str, int], _Obstacle] = {
    ("BatchNormalization", 9): _refuse_spatial,
    ("GroupNormalization", 21): _refuse_group_norm,
    ("Resize", 11): _refuse_resize,
    ("Scan", 9): _refuse_scan,
}
