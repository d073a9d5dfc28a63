"""Shapes and types that onnx does not infer: of onnxruntime's own operators, and of two that ONNX took over later."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from planner.contrib import type_parameter
from planner.model.inference import infer_once
from planner.model.passes.match import int_attribute

# Operators of which onnx (1.23) infers no shape: their first result has the shape and the type of their first input.
_ANY_OPSET = ("GroupNormalization", "LayerNormalization", "SimplifiedLayerNormalization")
_SAME_SHAPE = {
    "": _ANY_OPSET,
    "ai.onnx": _ANY_OPSET,
    "com.microsoft": (
        "MultiHeadAttention", "GroupQueryAttention", "RotaryEmbedding", "Gelu", "FastGelu", "QuickGelu", "BiasGelu",
        "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "QLinearSoftmax", "QLinearSigmoid", "QLinearLeakyRelu",
    ),
}  # fmt: skip


# Of onnxruntime's own: the first result has the shape of the first input alone.
_OTHER_TYPE = ("QuantizeLinear", "DequantizeLinear")


def say_contrib_shapes(model: ir.Model) -> bool:
    """Whether a shape or a type became known that way, or by the type that onnxruntime's own operators have in common with an input."""
    found = False
    for node in (node for node in model.graph.all_nodes() if node.inputs):
        same_type = node.op_type in _SAME_SHAPE.get(node.domain, ())
        if same_type or (node.domain == "com.microsoft" and node.op_type in _OTHER_TYPE):
            x, out = node.inputs[0], node.outputs[0]
            if x is not None and x.shape is not None and out.shape is None and not _is_packed(node):
                out.shape, found = x.shape, True
                out.type = x.type if same_type else out.type
        if node.domain in _RESULTS:
            found = _say_result(node) or found
        if node.domain == "com.microsoft":
            for index, out in enumerate(node.outputs):
                if out.type is None and (kind := _shared_type(node, index)) is not None:
                    out.type, found = ir.TensorType(kind), True
    return found


Dims = list[int | ir.SymbolicDim]


def _rows(node: ir.Node, columns: int | ir.SymbolicDim | None) -> Dims | None:
    """The shape of the first input with so many columns."""
    x = node.inputs[0]
    return None if x is None or x.shape is None or columns is None else [*list(x.shape)[:-1], columns]


def _by_attribute(node: ir.Node) -> Dims | None:
    return _rows(node, int_attribute(node, "N", 0) or None)


def _fused_product(node: ir.Node) -> Dims | None:
    """com.microsoft FusedMatMul of matrices of one batch, either transposed."""
    shapes = [None if v is None or v.shape is None else list(v.shape) for v in node.inputs[:2]]
    left, right = (*shapes, None, None)[:2]
    if (
        left is None
        or right is None
        or len(left) < 2
        or len(right) < 2
        or any(int_attribute(node, name, 0) for name in ("transBatchA", "transBatchB"))
    ):
        return None
    swapped = [int_attribute(node, name, 0) for name in ("transA", "transB")]
    batch = left[:-2] if len(left) >= len(right) else right[:-2]
    return [*batch, left[-1] if swapped[0] else left[-2], right[-2] if swapped[1] else right[-1]]


def _fused_attention(node: ir.Node) -> Dims | None:
    """com.microsoft Attention: queries, keys and values by one weight."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if weight is None or weight.shape is None or "qkv_hidden_sizes" in node.attributes:
        return None
    width = list(weight.shape)[-1]
    return _rows(node, width // 3 if isinstance(width, int) else None)


def _picked(node: ir.Node) -> Dims | None:
    """ai.onnx.ml ArrayFeatureExtractor: some columns."""
    places = node.inputs[1] if len(node.inputs) > 1 else None
    if places is None or places.shape is None or not places.shape.is_static():
        return None
    dims = _rows(node, int(np.prod(places.shape.numpy())))
    return dims if dims is None or len(dims) > 1 else [1, *dims]


def _embedded(node: ir.Node) -> Dims | None:
    """com.microsoft EmbedLayerNormalization: a row of the table for each id."""
    ids, table = node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None
    if ids is None or ids.shape is None or table is None or table.shape is None:
        return None
    return [*list(ids.shape), list(table.shape)[-1]]


def _broadcast(node: ir.Node) -> Dims | None:
    """com.microsoft QLinearAdd and QLinearMul: operands 0 and 3 against one another."""
    shapes = [v.shape for v in (node.inputs[0], node.inputs[3] if len(node.inputs) > 3 else None) if v is not None]
    known = [shape.numpy() for shape in shapes if shape is not None and shape.is_static()]
    if len(known) == 2:
        with contextlib.suppress(ValueError):
            return [int(d) for d in np.broadcast_shapes(*known)]
    return None


def _quantized_gemm(node: ir.Node) -> Dims | None:
    """com.microsoft QGemm: operands 0 and 3."""
    left, right = node.inputs[0], node.inputs[3] if len(node.inputs) > 3 else None
    if (
        left is None
        or right is None
        or left.shape is None
        or right.shape is None
        or len(left.shape) != 2
        or len(right.shape) != 2
    ):
        return None
    swapped = [int_attribute(node, name, 0) for name in ("transA", "transB")]
    return [left.shape[1 if swapped[0] else 0], right.shape[0 if swapped[1] else 1]]


def _as_standard(node: ir.Node) -> Dims | None:
    """An operator of ONNX with an activation behind it: the shape that ONNX infers without that."""
    operands = [v for v in node.inputs[:3] if v is not None]
    if any(v.shape is None or v.dtype is None for v in operands) or not operands:
        return None
    plain = node.op_type.removeprefix("Fused")
    kept = [a for name, a in node.attributes.items() if not name.startswith("activation")]
    inputs = [ir.Value(name=f"i{i}", shape=v.shape, type=v.type) for i, v in enumerate(operands)]
    twin = ir.Node("", plain, inputs, kept)
    twin.outputs[0].name = "o"
    model = ir.Model(ir.Graph(inputs, [], nodes=[twin], opset_imports={"": 21}, name="twin"), ir_version=10)
    infer_once(model)
    shape = twin.outputs[0].shape
    return None if shape is None else list(shape)


# Operators of onnxruntime's own whose result has another shape than their first input.
_RESULTS: Mapping[str, Mapping[str, Callable[[ir.Node], Dims | None]]] = {
    "com.microsoft": {
        "MatMulNBits": _by_attribute,
        "FusedMatMul": _fused_product,
        "FusedGemm": _as_standard,
        "FusedConv": _as_standard,
        "Attention": _fused_attention,
        "EmbedLayerNormalization": _embedded,
        "QLinearAdd": _broadcast,
        "QLinearMul": _broadcast,
        "QGemm": _quantized_gemm,
    },
    "ai.onnx.ml": {"ArrayFeatureExtractor": _picked},
}


# The operand whose type the first result has, where that is not the first.
_TYPED_BY = {"EmbedLayerNormalization": 2, "QGemm": 8}


def _say_result(node: ir.Node) -> bool:
    """Whether the shape of the first result became known that way."""
    make, out = _RESULTS[node.domain].get(node.op_type), node.outputs[0]
    # A file may state a name where the number is known by now.
    dims = None if make is None or (out.shape is not None and out.shape.is_static()) else make(node)
    if dims is None or (out.shape is not None and not all(isinstance(d, int) for d in dims)):
        return False
    out.shape = ir.Shape(dims)
    position = _TYPED_BY.get(node.op_type, 0)
    of_type = node.inputs[position] if position < len(node.inputs) else None
    if out.type is None and of_type is not None:
        out.type = of_type.type
    return True


def _shared_type(node: ir.Node, position: int) -> ir.DataType | None:
    """The element type of an output of one of onnxruntime's own operators, by an input of the same type parameter."""
    wanted = type_parameter(node.op_type, node.domain, position, output=True)
    alike = (
        value.dtype
        for index, value in enumerate(node.inputs)
        if value is not None and type_parameter(node.op_type, node.domain, index) == wanted
    )
    return None if wanted is None else next((dtype for dtype in alike if dtype is not None), None)


def _is_packed(node: ir.Node) -> bool:
    """Whether an attention gets queries, keys and values in one, or values of another width: its result is not like its queries."""
    if not node.op_type.endswith("Attention"):
        return False
    query, key, value, *_ = [*node.inputs, None, None]
    shapes = [None if v is None or v.shape is None else tuple(v.shape) for v in (query, key, value)]
    if any(shape is None or len(shape) != 3 for shape in shapes):
        return True
    return node.op_type == "MultiHeadAttention" and shapes[0][-1] != shapes[2][-1]  # type: ignore[index]
