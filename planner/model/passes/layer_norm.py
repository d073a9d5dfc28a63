"""The steps of a layer normalization as one LayerNormalization."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from planner.model.names import Names
from planner.model.passes.edit import new_constant, put_in_place
from planner.model.passes.match import (
    before_shape_change,
    both_orders,
    is_number,
    keeps_axes,
    only_user,
    other_operand,
    producer_of,
    reduction_of,
    scalar_of,
)
from planner.model.values import constant_array

_End = tuple[ir.Node, np.ndarray | None, np.ndarray | None]


def fuse_layer_norm(root: ir.Node, names: Names) -> None:
    """Fuse (x - mean(x)) / sqrt(var(x) + epsilon) * scale + bias (Ba, Kiros and Hinton, Layer Normalization).

    The variance is mean((x - mean(x))^2), or mean(x^2) - mean(x)^2 as Flax and Keras write it.
    ONNX LayerNormalization-17 works on the last axes; over others it is put between two Transposes.
    """
    add = producer_of(root.inputs[0], "Add")
    if add is None:
        return
    for variance, constant in both_orders(add):
        epsilon = scalar_of(constant)
        found = _variance_of(variance) if epsilon is not None else None
        if found is None or epsilon is None:
            continue
        x, axes = found
        end = _normalized_end(root, x, axes)
        if end is not None:
            _replace_layer_norm(*end, x, axes, epsilon, names)
            return


def _variance_of(value: ir.Value | None) -> tuple[ir.Value, tuple[int, ...]] | None:
    """Give (x, axes) where ``value`` is the variance of x over the axes."""
    value = before_shape_change(value, or_clamp=True)
    if (mean := _mean_of(value)) is not None:
        deviation, axes = _square_of(mean[0]), mean[1]
        x = _centred(deviation, axes)
        return (x, axes) if x is not None else None
    difference = producer_of(value, "Sub")
    if difference is None:
        return None
    mean_square = _mean_of(before_shape_change(difference.inputs[0]))
    square_mean = _mean_of(before_shape_change(_square_of(before_shape_change(difference.inputs[1]))))
    if mean_square is None or square_mean is None:
        return None
    x, axes = square_mean
    return (x, axes) if _square_of(mean_square[0]) is x and mean_square[1] == axes else None


def _mean_of(value: ir.Value | None) -> tuple[ir.Value, tuple[int, ...]] | None:
    """Give (x, axes) where ``value`` is the mean of x over constant axes: ReduceMean, or ReduceSum times 1/n."""
    if (reduce := producer_of(value, "ReduceMean")) is not None:
        return reduction_of(reduce)
    for op_type in ("Mul", "Div"):
        node = producer_of(value, op_type)
        if node is None:
            continue
        for total, factor in both_orders(node) if op_type == "Mul" else ((node.inputs[0], node.inputs[1]),):
            reduce = producer_of(before_shape_change(total), "ReduceSum")
            number = scalar_of(factor)
            found = reduction_of(reduce) if reduce is not None else None
            if found is None or not number:
                continue
            x, axes = found
            count = math.prod(d for i, d in enumerate(x.shape or ()) if i in axes and isinstance(d, int))
            # Nearer than other constants: a division by n - 1 is no mean.
            tolerance = 1e-3 if x.dtype == ir.DataType.FLOAT16 else 1e-6
            if math.isclose(number, 1 / count if op_type == "Mul" else count, rel_tol=tolerance):
                return found
    return None


def _square_of(value: ir.Value | None) -> ir.Value | None:
    """The x where ``value`` is x * x or x ** 2."""
    if (mul := producer_of(value, "Mul")) is not None and mul.inputs[0] is mul.inputs[1]:
        return mul.inputs[0]
    power = producer_of(value, "Pow")
    return power.inputs[0] if power is not None and is_number(power.inputs[1], 2.0) else None


def _centred(value: ir.Value | None, axes: tuple[int, ...]) -> ir.Value | None:
    """The x where ``value`` is x - mean(x), the mean being over these axes and kept as dimensions of one."""
    centre = producer_of(value, "Sub")
    if centre is None:
        return None
    x, mean = centre.inputs[0], centre.inputs[1]
    found = _mean_of(before_shape_change(mean))
    if x is None or mean is None or found is None or found[0] is not x or found[1] != axes:
        return None
    return x if keeps_axes(mean, x, axes) else None


def _normalized_end(root: ir.Node, x: ir.Value, axes: tuple[int, ...]) -> _End | None:
    """(last node, scale, bias) of the normalization that uses this square root."""
    user = only_user(root.outputs[0])
    if user is None or not keeps_axes(root.outputs[0], x, axes):
        return None
    scale: np.ndarray | None = None
    if user.op_type == "Div" and user.inputs[1] is root.outputs[0] and _centred(user.inputs[0], axes) is x:
        last = user
    elif user.op_type == "Reciprocal":
        inverse = user.outputs[0]
        last_or_none = only_user(inverse)
        if last_or_none is None or last_or_none.op_type != "Mul":
            return None
        last = last_or_none
        other = other_operand(last, inverse)
        if (scale := _along(other, x, axes)) is not None:
            # (1 / root * scale) * (x - mean)
            inverse = last.outputs[0]
            last_or_none = only_user(inverse)
            if last_or_none is None or last_or_none.op_type != "Mul":
                return None
            last = last_or_none
            other = other_operand(last, inverse)
        if _centred(other, axes) is not x:
            return None
    else:
        return None
    if scale is None and (mul := only_user(last.outputs[0])) is not None and mul.op_type == "Mul":
        scale = _along(other_operand(mul, last.outputs[0]), x, axes)
        last = mul if scale is not None else last
    bias = None
    if scale is not None and (add := only_user(last.outputs[0])) is not None and add.op_type == "Add":
        bias = _along(other_operand(add, last.outputs[0]), x, axes)
        last = add if bias is not None else last
    return last, scale, bias


def _along(value: ir.Value | None, x: ir.Value, axes: tuple[int, ...]) -> np.ndarray | None:
    """The constant broadcast along the normalized axes, in their order; None if it is none or varies along others."""
    array = constant_array(value)
    assert x.shape is not None
    if array is None or x.dtype is None or array.dtype != x.dtype.numpy() or array.ndim > len(x.shape):
        return None
    padded = array.reshape((1,) * (len(x.shape) - array.ndim) + array.shape)
    dims = list(x.shape)
    if any(size != 1 and (i not in axes or size != dims[i]) for i, size in enumerate(padded.shape)):
        return None
    kept = padded.reshape([padded.shape[i] for i in axes])
    return np.ascontiguousarray(np.broadcast_to(kept, _lengths(x, axes)))


def _lengths(x: ir.Value, axes: tuple[int, ...]) -> list[int]:
    """Lengths of the axes, known since `reduced` asked for them."""
    assert x.shape is not None
    return [d for d in (x.shape[a] for a in axes) if isinstance(d, int)]


def _replace_layer_norm(
    last: ir.Node,
    scale: np.ndarray | None,
    bias: np.ndarray | None,
    x: ir.Value,
    axes: tuple[int, ...],
    epsilon: float,
    names: Names,
) -> None:
    assert x.shape is not None and x.dtype is not None and last.graph is not None
    base, dims = last.outputs[0].name, list(x.shape)
    if scale is None:
        scale = np.ones(_lengths(x, axes), x.dtype.numpy())
    operands = [new_constant(last, f"{base}_scale", scale, names)]
    if bias is not None:
        operands.append(new_constant(last, f"{base}_bias", bias, names))
    rank = len(dims)
    attributes = [ir.AttrInt64("axis", -len(axes)), ir.AttrFloat32("epsilon", epsilon)]
    order = [i for i in range(rank) if i not in axes] + list(axes)
    if order == list(range(rank)):
        put_in_place(last, ir.Node("", "LayerNormalization", [x, *operands], attributes))
        return
    to_end = ir.Node("", "Transpose", [x], [ir.AttrInt64s("perm", order)], name=names.beside(last, "to_last_axis"))
    norm = ir.Node(
        "", "LayerNormalization", [to_end.outputs[0], *operands], attributes, name=names.beside(last, "normalize")
    )
    for node, suffix in ((to_end, "_to_last_axis"), (norm, "_normalized")):
        out = node.outputs[0]
        out.name, out.type, out.shape = names.value(f"{base}{suffix}"), x.type, ir.Shape([dims[i] for i in order])
    last.graph.insert_before(last, [to_end, norm])
    back = [order.index(i) for i in range(rank)]
    put_in_place(last, ir.Node("", "Transpose", [norm.outputs[0]], [ir.AttrInt64s("perm", back)]))
