"""Fusing decomposed operators back into the one the exporter took apart.

EPs know Gelu and LayerNormalization as one operator; decomposed, a quantized Erf falls off the HTP and a sum of
squares overflows float16. Constant folding and batch-normalization fusion come from onnxscript; these patterns are
ours because theirs rewrite to contrib operators or need one fixed operand order and an axis given as a tensor.
Each fused node keeps the name of the output value, by which it is traced to the user's own nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable

import numpy as np
import onnx_ir as ir

_GELU_MIN_OPSET = 20
_LAYER_NORM_MIN_OPSET = 17
# Before 13, Softmax flattened its input to two dimensions.
_SOFTMAX_ONE_AXIS_OPSET = 13


FUSED_OPERATORS = frozenset({"Gelu", "LayerNormalization", "Softmax"})


def fuse(model: ir.Model, operators: Collection[str] = FUSED_OPERATORS) -> None:
    """Fuse decomposed operators, and the bias of Conv and ConvTranspose, in every graph, in place.

    Args:
        operators: which of FUSED_OPERATORS may be made: those that the target takes.
    """
    opset = model.opset_imports.get("", 1)
    fusions: list[tuple[tuple[str, ...], Callable[[ir.Node], None]]] = [
        (("Softmax",), _unflatten_softmax),
        (("Flatten", "Reshape"), _remove_no_op),
        (("Add",), _fuse_bias),
    ]
    if "Gelu" in operators and opset >= _GELU_MIN_OPSET:
        fusions.append((("Erf", "Tanh"), _fuse_gelu))
    if "LayerNormalization" in operators and opset >= _LAYER_NORM_MIN_OPSET:
        fusions.append((("Sqrt",), _fuse_layer_norm))
    if "Softmax" in operators and opset >= _SOFTMAX_ONE_AXIS_OPSET:
        fusions.append((("Div",), _fuse_softmax))
    for graph in (model.graph, *model.graph.subgraphs()):
        for op_types, apply in fusions:
            for node in list(graph):
                if node.op_type in op_types and _own(node):
                    apply(node)


def _own(node: ir.Node) -> bool:
    return node.domain in ("", "ai.onnx") and node.graph is not None


def constant_array(value: ir.Value | None) -> np.ndarray | None:
    """The value's content if it is an initializer, else None. A graph input may be overridden: not a constant."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def _scalar(value: ir.Value | None) -> float | None:
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    array = constant_array(value)
    return None if array is None else float(array.reshape(-1)[0])


def _is(value: ir.Value | None, number: float, tolerance: float = 1e-3) -> bool:
    scalar = _scalar(value)
    return scalar is not None and math.isclose(scalar, number, rel_tol=tolerance)


def _only_user(value: ir.Value | None) -> ir.Node | None:
    if value is None or value.is_graph_output() or len(value.uses()) != 1:
        return None
    usage = next(iter(value.uses()))
    return usage.node


def _producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type in op_types and _own(node) else None


def _other(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """The other operand of a binary node."""
    first, second = node.inputs[0], node.inputs[1]
    return second if first is value else first


def _operands(node: ir.Node) -> Iterable[tuple[ir.Value | None, ir.Value | None]]:
    """Both orders of the operands of a commutative node."""
    a, b = node.inputs[0], node.inputs[1]
    return ((a, b), (b, a))


def _replace(last: ir.Node, new: ir.Node) -> None:
    """Put ``new`` in the place of ``last``; its output takes over name, type and uses. Dead nodes go later."""
    old, out = last.outputs[0], new.outputs[0]
    name = old.name
    out.type, out.shape = old.type, old.shape
    graph = last.graph
    assert graph is not None
    graph.insert_before(last, new)
    old.replace_all_uses_with(out, replace_graph_outputs=True)
    new.name = last.name
    old.name = None
    out.name = name
    graph.remove(last, safe=True)


def _remove_no_op(node: ir.Node) -> None:
    """Remove a Reshape or Flatten whose output has the shape of its input."""
    x, out = node.inputs[0], node.outputs[0]
    if x is None or x.shape is None or not x.shape.is_static() or out.shape != x.shape or out.is_graph_output():
        return
    out.replace_all_uses_with(x)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def _unflatten_softmax(softmax: ir.Node) -> None:
    """Flatten -> Softmax -> Reshape back, as ONNX's version converter writes Softmax-11, over the last axis alone:
    the same as Softmax over the last axis without them."""
    flatten = _producer(softmax.inputs[0], "Flatten")
    reshape = _only_user(softmax.outputs[0])
    x = flatten.inputs[0] if flatten is not None else None
    if flatten is None or x is None or x.shape is None or reshape is None or reshape.op_type != "Reshape":
        return
    rank = len(x.shape)
    axis = flatten.attributes["axis"].as_int() if "axis" in flatten.attributes else 1
    if axis % rank != rank - 1 or reshape.outputs[0].shape != x.shape:
        return
    _replace(reshape, ir.Node("", "Softmax", [x], [ir.AttrInt64("axis", -1)]))
    _remove_if_dead(softmax)
    _remove_if_dead(flatten)


def _fuse_bias(add: ir.Node) -> None:
    """Conv(x, w) + constant per output channel -> Conv(x, w, b); the same for ConvTranspose."""
    for conv_out, constant in _operands(add):
        conv = _producer(conv_out, "Conv", "ConvTranspose")
        bias = constant_array(constant)
        if conv is None or conv_out is None or constant is None or bias is None or _only_user(conv_out) is not add:
            continue
        if len(conv.inputs) > 2 and conv.inputs[2] is not None and constant_array(conv.inputs[2]) is None:
            continue
        shape = conv_out.shape
        weight = conv.inputs[1]
        if shape is None or weight is None or weight.shape is None or add.outputs[0].shape != shape:
            continue
        channels = shape[1]
        # The constant must hold one number a channel (or one for all): shape (1, C, 1, ...) or (C, 1, ...).
        if not isinstance(channels, int) or bias.dtype != np.float32:
            continue
        padded = (1,) * (len(shape) - bias.ndim) + bias.shape
        if len(padded) != len(shape) or padded[1] not in (1, channels) or bias.size != padded[1]:
            continue
        vector = np.broadcast_to(bias.reshape(-1), (channels,)).astype(np.float32)
        if len(conv.inputs) > 2 and (old := constant_array(conv.inputs[2])) is not None:
            vector = vector + old
        graph = add.graph
        assert graph is not None
        value = _new_constant(graph, f"{add.outputs[0].name}_bias", vector)
        new = ir.Node("", conv.op_type, [conv.inputs[0], weight, value], list(conv.attributes.values()))
        _replace(add, new)
        _remove_if_dead(conv)
        new.name = conv.name
        return


def _root(graph: ir.Graph | ir.Function) -> ir.Graph:
    assert isinstance(graph, ir.Graph)
    return graph


def _remove_if_dead(node: ir.Node) -> None:
    if node.graph is not None and not any(o.uses() or o.is_graph_output() for o in node.outputs):
        node.graph.remove(node, safe=True)


def _times(value: ir.Value | None, factor: float) -> ir.Value | None:
    """x where ``value`` is x * factor or x / (1 / factor); None otherwise."""
    if (mul := _producer(value, "Mul")) is not None:
        for x, c in _operands(mul):
            if _is(c, factor):
                return x
    if (div := _producer(value, "Div")) is not None and _is(div.inputs[1], 1 / factor):
        return div.inputs[0]
    return None


def _fuse_gelu(core: ir.Node) -> None:
    """0.5 x (1 + erf(x / sqrt 2)) and 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), in any operand order
    (Hendrycks and Gimpel, Gaussian Error Linear Units)."""
    if core.op_type == "Erf":
        x = _times(core.inputs[0], 1 / math.sqrt(2))
        approximate = "none"
    else:
        x = _tanh_argument(core.inputs[0])
        approximate = "tanh"
    if x is None:
        return
    plus_one = _only_user(core.outputs[0])
    if plus_one is None or plus_one.op_type != "Add" or not _is(_other(plus_one, core.outputs[0]), 1.0):
        return
    last = _half_times(plus_one.outputs[0], x)
    if last is not None:
        new = ir.Node("", "Gelu", [x], [ir.AttrString("approximate", approximate)])
        _replace(last, new)


def _half_times(value: ir.Value, x: ir.Value) -> ir.Node | None:
    """The last node of the two multiplications that bring ``value`` to 0.5 * x * value, in any order."""
    half, with_x = False, False
    for _ in range(2):
        mul = _only_user(value)
        if mul is None or mul.op_type != "Mul":
            return None
        other = _other(mul, value)
        if not half and _is(other, 0.5):
            half = True
        elif not with_x and other is x:
            with_x = True
        elif not half and not with_x and _times(other, 0.5) is x:
            return mul
        else:
            return None
        value = mul.outputs[0]
    return value.producer()


def _tanh_argument(value: ir.Value | None) -> ir.Value | None:
    """x where ``value`` is sqrt(2/pi) * (x + 0.044715 * x^3)."""
    inner = _times(value, math.sqrt(2 / math.pi))
    add = _producer(inner, "Add")
    if add is None:
        return None
    for x, cubic in _operands(add):
        if x is not None and sorted(_factors(cubic), key=str) == sorted(["0.044715", x, x, x], key=str):
            return x
    return None


def _factors(value: ir.Value | None, depth: int = 4) -> list[object]:
    """The factors of a product of nested Mul and Pow(x, 3): values, and "0.044715" for that constant."""
    if _is(value, 0.044715):
        return ["0.044715"]
    if depth:
        if (mul := _producer(value, "Mul")) is not None:
            return _factors(mul.inputs[0], depth - 1) + _factors(mul.inputs[1], depth - 1)
        if (power := _producer(value, "Pow")) is not None and _is(power.inputs[1], 3.0):
            return [power.inputs[0]] * 3
    return [value]


def _fuse_layer_norm(root: ir.Node) -> None:
    """(x - mean(x)) / sqrt(var(x) + epsilon) * scale + bias (Ba, Kiros and Hinton, Layer Normalization), where the variance
    is mean((x - mean(x))^2), or mean(x^2) - mean(x)^2 as Flax and Keras write it.

    ONNX LayerNormalization-17 works on the last axes; over others it is put between two Transposes.
    """
    add = _producer(root.inputs[0], "Add")
    if add is None:
        return
    for variance, constant in _operands(add):
        epsilon = _scalar(constant)
        found = _variance_of(variance) if epsilon is not None else None
        if found is None or epsilon is None:
            continue
        x, axes = found
        end = _normalized_end(root, x, axes)
        if end is not None:
            _replace_layer_norm(*end, x, axes, epsilon)
            return


def _variance_of(value: ir.Value | None) -> tuple[ir.Value, tuple[int, ...]] | None:
    """(x, axes) where ``value`` is the variance of x over the axes."""
    value = _through_shape(value, or_clamp=True)
    if (mean := _mean_of(value)) is not None:
        deviation, axes = _square_of(mean[0]), mean[1]
        x = _centred(deviation, axes)
        return (x, axes) if x is not None else None
    difference = _producer(value, "Sub")
    if difference is None:
        return None
    mean_square = _mean_of(_through_shape(difference.inputs[0]))
    square_mean = _mean_of(_through_shape(_square_of(_through_shape(difference.inputs[1]))))
    if mean_square is None or square_mean is None:
        return None
    x, axes = square_mean
    return (x, axes) if _square_of(mean_square[0]) is x and mean_square[1] == axes else None


def _through_shape(value: ir.Value | None, *, or_clamp: bool = False) -> ir.Value | None:
    """The value before nodes that only change its shape (or, asked for, cut negative values off)."""
    for _ in range(4):
        if (node := _producer(value, "Reshape", "Squeeze", "Unsqueeze")) is not None or (or_clamp and (node := _producer(value, "Relu")) is not None):
            value = node.inputs[0]
        elif or_clamp and (node := _producer(value, "Max")) is not None and len(node.inputs) == 2:
            kept = [v for v, c in _operands(node) if _scalar(c) == 0.0]
            if not kept:
                return value
            value = kept[0]
        else:
            break
    return value


def _mean_of(value: ir.Value | None) -> tuple[ir.Value, tuple[int, ...]] | None:
    """(x, axes) where ``value`` is the mean of x over constant axes: ReduceMean, or ReduceSum times 1/n."""
    if (reduce := _producer(value, "ReduceMean")) is not None:
        return _reduced(reduce)
    for op_type in ("Mul", "Div"):
        node = _producer(value, op_type)
        if node is None:
            continue
        for total, factor in _operands(node) if op_type == "Mul" else ((node.inputs[0], node.inputs[1]),):
            reduce = _producer(_through_shape(total), "ReduceSum")
            number = _scalar(factor)
            found = _reduced(reduce) if reduce is not None else None
            if found is None or not number:
                continue
            x, axes = found
            count = math.prod(d for i, d in enumerate(x.shape or ()) if i in axes and isinstance(d, int))
            if math.isclose(number, 1 / count if op_type == "Mul" else count, rel_tol=1e-5):
                return found
    return None


def _reduced(reduce: ir.Node) -> tuple[ir.Value, tuple[int, ...]] | None:
    """(x, axes) of a reduction over constant axes of a tensor whose shape is known."""
    x = reduce.inputs[0]
    if x is None or x.shape is None or not x.shape.is_static():
        return None
    rank = len(x.shape)
    if "axes" in reduce.attributes:
        raw = list(reduce.attributes["axes"].as_ints())
    else:
        array = constant_array(reduce.inputs[1]) if len(reduce.inputs) > 1 else None
        if array is None:
            return None
        raw = [int(a) for a in array.reshape(-1)]
    return (x, tuple(sorted(a % rank for a in raw))) if raw else None


def _square_of(value: ir.Value | None) -> ir.Value | None:
    """x where ``value`` is x * x or x ** 2."""
    if (mul := _producer(value, "Mul")) is not None and mul.inputs[0] is mul.inputs[1]:
        return mul.inputs[0]
    power = _producer(value, "Pow")
    return power.inputs[0] if power is not None and _is(power.inputs[1], 2.0) else None


def _centred(value: ir.Value | None, axes: tuple[int, ...]) -> ir.Value | None:
    """x where ``value`` is x - mean(x), the mean being over these axes and kept as dimensions of one."""
    centre = _producer(value, "Sub")
    if centre is None:
        return None
    x, mean = centre.inputs[0], centre.inputs[1]
    found = _mean_of(_through_shape(mean))
    if x is None or mean is None or found is None or found[0] is not x or found[1] != axes:
        return None
    return x if _keeps_axes(mean, x, axes) else None


def _keeps_axes(reduced: ir.Value, x: ir.Value, axes: tuple[int, ...]) -> bool:
    """Whether the reduced value has x's shape with one in the place of each axis, so that it broadcasts as it must."""
    assert x.shape is not None
    return reduced.shape is not None and tuple(reduced.shape) == tuple(
        1 if i in axes else d for i, d in enumerate(x.shape)
    )


_End = tuple[ir.Node, np.ndarray | None, np.ndarray | None]


def _normalized_end(root: ir.Node, x: ir.Value, axes: tuple[int, ...]) -> _End | None:
    """(last node, scale, bias) of the normalization that uses this square root."""
    user = _only_user(root.outputs[0])
    if user is None:
        return None
    scale: np.ndarray | None = None
    if user.op_type == "Div" and user.inputs[1] is root.outputs[0] and _centred(user.inputs[0], axes) is x:
        last = user
    elif user.op_type == "Reciprocal":
        inverse = user.outputs[0]
        last_or_none = _only_user(inverse)
        if last_or_none is None or last_or_none.op_type != "Mul":
            return None
        last = last_or_none
        other = _other(last, inverse)
        if (scale := _along(other, x, axes)) is not None:
            # (1 / root * scale) * (x - mean)
            inverse = last.outputs[0]
            last_or_none = _only_user(inverse)
            if last_or_none is None or last_or_none.op_type != "Mul":
                return None
            last = last_or_none
            other = _other(last, inverse)
        if _centred(other, axes) is not x:
            return None
    else:
        return None
    if scale is None and (mul := _only_user(last.outputs[0])) is not None and mul.op_type == "Mul":
        scale = _along(_other(mul, last.outputs[0]), x, axes)
        last = mul if scale is not None else last
    bias = None
    if scale is not None and (add := _only_user(last.outputs[0])) is not None and add.op_type == "Add":
        bias = _along(_other(add, last.outputs[0]), x, axes)
        last = add if bias is not None else last
    return last, scale, bias


def _along(value: ir.Value | None, x: ir.Value, axes: tuple[int, ...]) -> np.ndarray | None:
    """The constant broadcast along the normalized axes, in their order; None if it is none or varies along others."""
    array = constant_array(value)
    assert x.shape is not None
    if array is None or array.dtype != np.float32 or array.ndim > len(x.shape):
        return None
    padded = array.reshape((1,) * (len(x.shape) - array.ndim) + array.shape)
    dims = list(x.shape.numpy())
    if any(size != 1 and (i not in axes or size != dims[i]) for i, size in enumerate(padded.shape)):
        return None
    kept = padded.reshape([padded.shape[i] for i in axes])
    return np.ascontiguousarray(np.broadcast_to(kept, [dims[i] for i in axes]))


def _replace_layer_norm(
    last: ir.Node, scale: np.ndarray | None, bias: np.ndarray | None, x: ir.Value, axes: tuple[int, ...], epsilon: float
) -> None:
    assert x.shape is not None and last.graph is not None
    base, dims = last.outputs[0].name, list(x.shape.numpy())
    if scale is None:
        scale = np.ones([dims[i] for i in axes], np.float32)
    operands = [_new_constant(last.graph, f"{base}_scale", scale)]
    if bias is not None:
        operands.append(_new_constant(last.graph, f"{base}_bias", bias))
    rank = len(dims)
    attributes = [ir.AttrInt64("axis", -len(axes)), ir.AttrFloat32("epsilon", epsilon)]
    order = [i for i in range(rank) if i not in axes] + list(axes)
    if order == list(range(rank)):
        _replace(last, ir.Node("", "LayerNormalization", [x, *operands], attributes))
        return
    to_end = ir.Node("", "Transpose", [x], [ir.AttrInt64s("perm", order)], name=f"{last.name}_to_last_axis")
    norm = ir.Node("", "LayerNormalization", [to_end.outputs[0], *operands], attributes, name=f"{last.name}_normalize")
    for node, suffix in ((to_end, "_to_last_axis"), (norm, "_normalized")):
        out = node.outputs[0]
        out.name, out.type, out.shape = f"{base}{suffix}", x.type, ir.Shape([dims[i] for i in order])
    last.graph.insert_before(last, [to_end, norm])
    back = [order.index(i) for i in range(rank)]
    _replace(last, ir.Node("", "Transpose", [norm.outputs[0]], [ir.AttrInt64s("perm", back)]))


def _new_constant(graph: ir.Graph | ir.Function, name: str, array: np.ndarray) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(np.ascontiguousarray(array), name=name))
    value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.FLOAT)
    _root(graph).register_initializer(value)
    return value


def _fuse_softmax(divide: ir.Node) -> None:
    """exp(x - max(x)) / sum(exp(x - max(x))) over one axis -> Softmax."""
    exponential = _producer(divide.inputs[0], "Exp")
    total = _producer(_through_shape(divide.inputs[1]), "ReduceSum")
    if exponential is None or total is None or total.inputs[0] is not exponential.outputs[0]:
        return
    shifted = _producer(exponential.inputs[0], "Sub")
    found, sums = _reduced(total), divide.inputs[1]
    if shifted is None or found is None or sums is None or len(found[1]) != 1:
        return
    x, peak, axes = shifted.inputs[0], shifted.inputs[1], found[1]
    inner = _through_shape(peak)
    if (clamp := _producer(inner, "Max")) is not None and len(clamp.inputs) == 2:
        # JAX writes max(-inf, max(x)).
        inner = next((v for v, c in _operands(clamp) if _scalar(c) == -math.inf), inner)
    reduce = _producer(inner, "ReduceMax")
    if x is None or peak is None or reduce is None or _reduced(reduce) != (x, axes):
        return
    if _keeps_axes(peak, x, axes) and _keeps_axes(sums, x, axes):
        _replace(divide, ir.Node("", "Softmax", [x], [ir.AttrInt64("axis", axes[0])]))
