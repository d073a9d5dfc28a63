"""Fusing decomposed operators back into the one the exporter took apart.

EPs know Gelu and LayerNormalization as one operator; decomposed, a quantized Erf falls off the HTP and a sum of
squares overflows float16. Constant folding and batch-normalization fusion come from onnxscript; these patterns are
ours because theirs rewrite to contrib operators or need one fixed operand order and an axis given as a tensor.
Each fused node keeps the name of the output value, by which it is traced to the user's own nodes.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np
import onnx_ir as ir

_GELU_MIN_OPSET = 20
_LAYER_NORM_MIN_OPSET = 17
# Before 13, Softmax flattened its input to two dimensions.
_SOFTMAX_ONE_AXIS_OPSET = 13
_GELU_CUBIC = 0.044715


FUSED_OPERATORS = frozenset({"Gelu", "LayerNormalization", "Softmax"})


def fuse(model: ir.Model, operators: Collection[str] = FUSED_OPERATORS, *, as_stored: bool = False) -> None:
    """Fuse decomposed operators, and the bias of Conv and ConvTranspose, in every graph, in place.

    Args:
        operators: which of FUSED_OPERATORS may be made: those that the target takes.
        as_stored: only what an EP that takes Gelu makes of the file itself: a Gelu around Erf, whatever the opset, with DQ and Q at
            both ends or at none (onnxruntime, core/providers/qnn/builder/qnn_node_group/gelu_fusion.cc; seen on smart-turn).
    """
    opset = model.opset_imports.get("", 1)
    fusions: list[tuple[tuple[str, ...], Callable[[ir.Node], None]]] = [
        (("Softmax",), _unflatten_softmax),
        (("Flatten", "Reshape"), _remove_no_op),
        (("Add",), _fuse_bias),
    ]
    if as_stored:
        if "Gelu" in operators:
            fusions.append((("Erf",), functools.partial(_fuse_gelu, whole_units=True)))
        operators = ()
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


def _is(value: ir.Value | None, number: float) -> bool:
    scalar = _scalar(value)
    return scalar is not None and _close(scalar, number, value)


def _close(number: float, wanted: float, value: ir.Value | None) -> bool:
    """Equal but for rounding: exporters write sqrt(2) with five digits, a float16 file holds three of them."""
    is_half = value is not None and value.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    return math.isclose(number, wanted, rel_tol=2e-3 if is_half else 1e-4)


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


def _int_attribute(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _same_shape(a: ir.Shape | None, b: ir.Shape | None) -> bool:
    """Whether two values of equally many elements surely have one shape: a single unknown dimension follows from the
    others, two could be swapped."""
    if a is None or b is None or tuple(a) != tuple(b):
        return False
    return sum(1 for d in a if not isinstance(d, int) and d.value is None) <= 1


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
    axis = _int_attribute(flatten, "axis", 1)
    if rank == 0 or axis % rank != rank - 1 or _int_attribute(softmax, "axis", -1) not in (-1, 1):
        return
    if not _same_shape(reshape.outputs[0].shape, x.shape):
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


def _fuse_gelu(core: ir.Node, *, whole_units: bool = False) -> None:
    """0.5 x (1 + erf(x / sqrt 2)) and 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), in any order and grouping of the
    factors (Hendrycks and Gimpel, Gaussian Error Linear Units)."""
    plus_one = _only_user(core.outputs[0])
    if plus_one is None or plus_one.op_type != "Add" or not _is(_other(plus_one, core.outputs[0]), 1.0):
        return
    is_argument = _is_erf_argument if core.op_type == "Erf" else _is_tanh_argument
    for x in _sources(core.inputs[0]):
        if not is_argument(core.inputs[0], x):
            continue
        last = _half_times(plus_one.outputs[0], x)
        if last is not None and whole_units and _is_dequantized(x) is not is_quantized(last.outputs[0]):
            return
        # A constant of more dimensions than x would give the result more than Gelu has.
        if last is not None and _same_shape(last.outputs[0].shape, x.shape):
            approximate = "none" if core.op_type == "Erf" else "tanh"
            _replace(last, ir.Node("", "Gelu", [x], [ir.AttrString("approximate", approximate)]))
            return


def _is_dequantized(value: ir.Value) -> bool:
    return _producer(value, "DequantizeLinear") is not None


def is_quantized(value: ir.Value) -> bool:
    """Whether a QuantizeLinear reads the value."""
    return any(use.node.op_type == "QuantizeLinear" for use in value.uses())


def _sources(value: ir.Value | None) -> list[ir.Value]:
    """The values that arithmetic of a few steps makes this one from, the nearest first."""
    found: list[ir.Value] = []
    level = [value]
    for _ in range(6):
        below = [v for up in level if (node := _producer(up, "Mul", "Div", "Pow", "Add")) for v in node.inputs]
        level = list(dict.fromkeys(v for v in below if v is not None and v.const_value is None and v not in found))
        found += [v for v in level if v is not None]
    return found


def _product(value: ir.Value | None, *symbols: ir.Value, depth: int = 5) -> tuple[float, Counter[ir.Value]] | None:
    """(coefficient, powers of the symbols) where ``value`` is a product of constants and symbols; else None."""
    if value is None:
        return None
    if any(value is s for s in symbols):
        return 1.0, Counter([value])
    if (scalar := _scalar(value)) is not None:
        return scalar, Counter()
    node = _producer(value, "Mul", "Div", "Pow")
    first = _product(node.inputs[0], *symbols, depth=depth - 1) if node is not None and depth else None
    if node is None or first is None:
        return None
    coefficient, powers = first
    if node.op_type == "Mul":
        second = _product(node.inputs[1], *symbols, depth=depth - 1)
        return None if second is None else (coefficient * second[0], powers + second[1])
    number = _scalar(node.inputs[1])
    if number is None or number == 0:
        return None
    if node.op_type == "Div":
        return coefficient / number, powers
    if number not in (2.0, 3.0):
        return None
    return coefficient**number, Counter({symbol: int(number) * power for symbol, power in powers.items()})


def _is_product(value: ir.Value | None, coefficient: float, powers: Mapping[ir.Value, int], *symbols: ir.Value) -> bool:
    found = _product(value, *symbols)
    return found is not None and found[1] == powers and _close(found[0], coefficient, symbols[0])


def _is_erf_argument(value: ir.Value | None, x: ir.Value) -> bool:
    return _is_product(value, 1 / math.sqrt(2), {x: 1}, x)


def _is_tanh_argument(value: ir.Value | None, x: ir.Value) -> bool:
    """Whether ``value`` is sqrt(2/pi) (x + 0.044715 x^3), or sqrt(2/pi) x (1 + 0.044715 x^2) as JAX and FastGELU have it."""
    for sum_ in (value, *_sources(value)):
        add = _producer(sum_, "Add")
        if add is None or sum_ is None:
            continue
        for first, second in _operands(add):
            if first is x:
                fits, powers = _is_product(second, _GELU_CUBIC, {x: 3}, x), {sum_: 1}
            elif _is(first, 1.0):
                fits, powers = _is_product(second, _GELU_CUBIC, {x: 2}, x), {sum_: 1, x: 1}
            else:
                continue
            if fits and _is_product(value, math.sqrt(2 / math.pi), powers, x, sum_):
                return True
    return False


def _half_times(value: ir.Value, x: ir.Value) -> ir.Node | None:
    """The last node of the one or two that bring ``value`` to 0.5 * x * value, in any order and grouping."""
    coefficient, powers = 1.0, Counter[ir.Value]()
    for _ in range(2):
        node = _only_user(value)
        if node is None or not _own(node) or node.op_type not in ("Mul", "Div"):
            return None
        if node.op_type == "Div" and node.inputs[0] is not value:
            return None
        other = _product(_other(node, value), x)
        if other is None or (node.op_type == "Div" and (other[1] or other[0] == 0)):
            return None
        coefficient *= 1 / other[0] if node.op_type == "Div" else other[0]
        powers += other[1]
        if powers == {x: 1} and _close(coefficient, 0.5, x):
            return node
        value = node.outputs[0]
    return None


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
        if (node := _producer(value, "Reshape", "Squeeze", "Unsqueeze")) is not None or (
            or_clamp and (node := _producer(value, "Relu")) is not None
        ):
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
            # Nearer than other constants: a division by n - 1 is no mean.
            tolerance = 1e-3 if x.dtype == ir.DataType.FLOAT16 else 1e-6
            if math.isclose(number, 1 / count if op_type == "Mul" else count, rel_tol=tolerance):
                return found
    return None


def _reduced(reduce: ir.Node) -> tuple[ir.Value, tuple[int, ...]] | None:
    """(x, axes) of a reduction over constant axes whose lengths are known."""
    x = reduce.inputs[0]
    if x is None or x.shape is None:
        return None
    rank = len(x.shape)
    if "axes" in reduce.attributes:
        raw = list(reduce.attributes["axes"].as_ints())
    else:
        array = constant_array(reduce.inputs[1]) if len(reduce.inputs) > 1 else None
        if array is None:
            return None
        raw = [int(a) for a in array.reshape(-1)]
    if not raw or any(not -rank <= a < rank or not isinstance(x.shape[a], int) for a in raw):
        return None
    return x, tuple(sorted(a % rank for a in raw))


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
    return _same_shape(reduced.shape, ir.Shape([1 if i in axes else d for i, d in enumerate(x.shape)]))


_End = tuple[ir.Node, np.ndarray | None, np.ndarray | None]


def _normalized_end(root: ir.Node, x: ir.Value, axes: tuple[int, ...]) -> _End | None:
    """(last node, scale, bias) of the normalization that uses this square root."""
    user = _only_user(root.outputs[0])
    if user is None or not _keeps_axes(root.outputs[0], x, axes):
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
    if array is None or x.dtype is None or array.dtype != x.dtype.numpy() or array.ndim > len(x.shape):
        return None
    padded = array.reshape((1,) * (len(x.shape) - array.ndim) + array.shape)
    dims = list(x.shape)
    if any(size != 1 and (i not in axes or size != dims[i]) for i, size in enumerate(padded.shape)):
        return None
    kept = padded.reshape([padded.shape[i] for i in axes])
    return np.ascontiguousarray(np.broadcast_to(kept, _lengths(x, axes)))


def _lengths(x: ir.Value, axes: tuple[int, ...]) -> list[int]:
    """Lengths of the axes, known since `_reduced` asked for them."""
    assert x.shape is not None
    return [d for d in (x.shape[a] for a in axes) if isinstance(d, int)]


def _replace_layer_norm(
    last: ir.Node, scale: np.ndarray | None, bias: np.ndarray | None, x: ir.Value, axes: tuple[int, ...], epsilon: float
) -> None:
    assert x.shape is not None and x.dtype is not None and last.graph is not None
    base, dims = last.outputs[0].name, list(x.shape)
    if scale is None:
        scale = np.ones(_lengths(x, axes), x.dtype.numpy())
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
    value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.from_numpy(array.dtype))
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
