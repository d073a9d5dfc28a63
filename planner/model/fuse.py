"""Fusing decomposed operators back into the one the exporter took apart.

EPs know Gelu and LayerNormalization as one operator; decomposed, a quantized Erf falls off the HTP and a sum of
squares overflows float16. Constant folding and batch-normalization fusion come from onnxscript; these patterns are
ours because theirs rewrite to contrib operators or need one fixed operand order and an axis given as a tensor.
Each fused node keeps the name of the output value, by which it is traced to the user's own nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

_GELU_MIN_OPSET = 20
_LAYER_NORM_MIN_OPSET = 17


def fuse(model: ir.Model) -> None:
    """Fuse Gelu, LayerNormalization and the bias of Conv, ConvTranspose and Gemm in every graph, in place."""
    opset = model.opset_imports.get("", 1)
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in list(graph):
            if node.op_type == "Softmax" and _own(node):
                _unflatten_softmax(node)
            elif node.op_type in ("Flatten", "Reshape") and _own(node):
                _remove_no_op(node)
        for node in list(graph):
            if node.op_type == "Add" and _own(node):
                _fuse_bias(node)
        if opset >= _GELU_MIN_OPSET:
            for node in list(graph):
                if node.op_type in ("Erf", "Tanh") and _own(node):
                    _fuse_gelu(node)
        if opset >= _LAYER_NORM_MIN_OPSET:
            for node in list(graph):
                if node.op_type in ("Div", "Mul") and _own(node):
                    _fuse_layer_norm(node)


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
    return value.uses()[0].node


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
        name = f"{add.outputs[0].name}_bias"
        value = ir.Value(name=name, const_value=ir.tensor(np.ascontiguousarray(vector), name=name))
        value.shape, value.type = ir.Shape(vector.shape), ir.TensorType(ir.DataType.FLOAT)
        _root(graph).register_initializer(value)
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


def _fuse_layer_norm(normalize: ir.Node) -> None:
    """(x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * scale + bias over the last axes
    (Ba, Kiros and Hinton, Layer Normalization; ONNX LayerNormalization-17)."""
    deviation, root = _normalized(normalize)
    if deviation is None or root is None:
        return
    centre = _producer(deviation, "Sub")
    add = _producer(root.inputs[0], "Add")
    if centre is None or add is None:
        return
    x = centre.inputs[0]
    for variance, constant in _operands(add):
        epsilon = _scalar(constant)
        mean_square = _producer(variance, "ReduceMean")
        if epsilon is None or mean_square is None or not _is_square(mean_square.inputs[0], deviation):
            continue
        mean = _producer(centre.inputs[1], "ReduceMean")
        if x is None or x.shape is None or mean is None or mean.inputs[0] is not x:
            return
        axes = _trailing_axes(mean, len(x.shape))
        if axes is None or axes != _trailing_axes(mean_square, len(x.shape)):
            return
        _replace_layer_norm(normalize, x, min(axes), epsilon)
        return


def _normalized(node: ir.Node) -> tuple[ir.Value | None, ir.Node | None]:
    """(deviation, the Sqrt node) of Div(d, Sqrt) or Mul(d, Reciprocal(Sqrt))."""
    if node.op_type == "Div":
        return node.inputs[0], _producer(node.inputs[1], "Sqrt")
    for deviation, inverse in _operands(node):
        if (reciprocal := _producer(inverse, "Reciprocal")) is not None:
            return deviation, _producer(reciprocal.inputs[0], "Sqrt")
    return None, None


def _is_square(value: ir.Value | None, x: ir.Value) -> bool:
    if (mul := _producer(value, "Mul")) is not None:
        return mul.inputs[0] is x and mul.inputs[1] is x
    power = _producer(value, "Pow")
    return power is not None and power.inputs[0] is x and _is(power.inputs[1], 2.0)


def _trailing_axes(reduce: ir.Node, rank: int) -> tuple[int, ...] | None:
    """The reduced axes if they are constant, kept as dimensions, and the last ones of the tensor; else None."""
    keepdims = reduce.attributes.get("keepdims")
    if keepdims is not None and keepdims.as_int() != 1:
        return None
    if "axes" in reduce.attributes:
        raw = list(reduce.attributes["axes"].as_ints())
    else:
        array = constant_array(reduce.inputs[1]) if len(reduce.inputs) > 1 else None
        if array is None:
            return None
        raw = [int(a) for a in array.reshape(-1)]
    axes = tuple(sorted(a % rank for a in raw))
    return axes if axes and axes == tuple(range(rank - len(axes), rank)) else None


def _replace_layer_norm(normalize: ir.Node, x: ir.Value, axis: int, epsilon: float) -> None:
    assert x.shape is not None
    dims = tuple(x.shape)[axis:]
    if not all(isinstance(d, int) for d in dims):
        return
    normal_shape = tuple(int(d) for d in dims if isinstance(d, int))
    last, scale, bias = normalize, None, None
    mul = _only_user(normalize.outputs[0])
    if mul is not None and mul.op_type == "Mul":
        candidate = _other(mul, normalize.outputs[0])
        if _fits(candidate, normal_shape):
            last, scale = mul, candidate
            add = _only_user(mul.outputs[0])
            if add is not None and add.op_type == "Add":
                candidate = _other(add, mul.outputs[0])
                if _fits(candidate, normal_shape):
                    last, bias = add, candidate
    graph = normalize.graph
    assert graph is not None
    if scale is None:
        name = f"{last.outputs[0].name}_scale"
        scale = ir.Value(name=name, const_value=ir.tensor(np.ones(normal_shape, np.float32), name=name))
        scale.shape, scale.type = ir.Shape(normal_shape), ir.TensorType(ir.DataType.FLOAT)
        _root(graph).register_initializer(scale)
    inputs = [x, scale] if bias is None else [x, scale, bias]
    attributes = [ir.AttrInt64("axis", axis - len(x.shape)), ir.AttrFloat32("epsilon", epsilon)]
    _replace(last, ir.Node("", "LayerNormalization", inputs, attributes))


def _fits(value: ir.Value | None, shape: tuple[int, ...]) -> bool:
    array = constant_array(value)
    return array is not None and array.shape == shape and array.dtype == np.float32
