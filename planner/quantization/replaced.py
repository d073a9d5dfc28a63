"""Nodes in another operator's place: matrices in blocks (MatMulNBits, GatherBlockQuantized), data quantized as it comes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from planner.dtypes import DType, QuantConfig
from planner.errors import RequestError
from planner.model.values import constant_array
from planner.operators import summed_axis
from planner.quantization import blocks as b
from planner.quantization.casts import as_float
from planner.quantization.constants import require_blocks
from planner.quantization.dynamic import dynamic_matmul
from planner.quantization.graph import (
    IR_TYPES,
    NUMPY_FLOATS,
    Rewriting,
    attributes_of,
    graph_of,
    number_of,
)
from planner.resolve.plan import PlanNode
from planner.resolve.replacements import Replacement

# MatMulNBits may quantize its data to 8 bits a block inside (level 4, what onnxruntime also does by default with a blocked
# DequantizeLinear in front of a MatMul). onnxruntime 1.32, CPU EP, 2048 x 2048, one row, 4 bits: 0.08 ms and 20.3 dB, where
# level 1 (float32 inside) takes 0.31 ms for 20.4 dB; with 8 bits 0.07 ms and 42.6 dB against 10.7 ms and 45.7 dB.
_ACCURACY_LEVEL = 4


def replace_node(rewriting: Rewriting, node: ir.Node, line: PlanNode) -> None:
    """Put what the plan names in the node's place; its name and those of its results stay.

    Args:
        rewriting: the model.
        node: a MatMul, Gemm or Gather.
        line: the plan's, with a replacement.

    Raises:
        RequestError: the node has no constant matrix.
    """
    assert node.graph is not None
    dtype = line.config.stored_activation
    assert dtype is not None
    position = 0 if node.op_type == "Gather" else 1
    value = node.inputs[position]
    array = constant_array(value)
    if value is None or array is None or array.ndim != 2:
        raise RequestError(
            f"the plan turns {node.op_type} {node.name!r} into {line.replacement}, but its operand {position} is no constant matrix",
            "make the plan anew with `planner plan`",
        )
    if line.config.block_size is not None:
        axis = 1 if node.op_type == "Gather" else summed_axis(node.op_type, attributes_of(node))
        require_blocks(node, array, axis, line.config.block_size)
    if line.replacement is Replacement.GATHER_BLOCKS:
        made = [_gather_blocks(rewriting, node, value, array, line.config, dtype)]
    else:
        made = _product(rewriting, node, value, array, line, dtype)
    old, new = node.outputs[0], made[-1].outputs[0]
    old_name, shape = old.name, old.shape
    node.graph.insert_before(node, made)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
    new.name, new.shape, new.type = old_name, shape, ir.TensorType(IR_TYPES[dtype])


def _product(
    rewriting: Rewriting, node: ir.Node, value: ir.Value, array: np.ndarray, line: PlanNode, dtype: DType
) -> list[ir.Node]:
    """The product with a matrix, and the bias of a Gemm added to it."""
    assert node.inputs[0] is not None
    data = as_float(rewriting, node.inputs[0], dtype, node)
    if line.replacement is Replacement.DYNAMIC_MATMUL:
        made = dynamic_matmul(rewriting, node, data, value, line.config)
    else:
        rows = array if summed_axis(node.op_type, attributes_of(node)) == 1 else array.T
        made = [_matmul_nbits(rewriting, node, data, value, rows, line.config, dtype)]
    return made + _added_bias(rewriting, node, made[-1].outputs[0], dtype)


def _matmul_nbits(
    rewriting: Rewriting,
    node: ir.Node,
    data: ir.Value,
    value: ir.Value,
    rows: np.ndarray,
    config: QuantConfig,
    dtype: DType,
) -> ir.Node:
    kind, size = config.weight, config.block_size
    assert kind is not None and size is not None
    alpha = number_of(node, "alpha")
    key = (value, "MatMulNBits", kind, size, dtype, alpha, rows.shape)
    if key not in rewriting.packed:
        blocks = b.quantize_blocks(rows * np.float32(alpha), kind, size, NUMPY_FLOATS[dtype])
        rewriting.packed[key] = _packed(rewriting, value, b.for_matmul_nbits(blocks), kind, dtype)
    attributes = {
        "K": rows.shape[1], "N": rows.shape[0], "bits": kind.bits, "block_size": size, "accuracy_level": _ACCURACY_LEVEL,
    }  # fmt: skip
    return ir.node("MatMulNBits", [data, *rewriting.packed[key]], attributes, domain="com.microsoft", name=node.name)


def _gather_blocks(
    rewriting: Rewriting, node: ir.Node, value: ir.Value, array: np.ndarray, config: QuantConfig, dtype: DType
) -> ir.Node:
    kind, size = config.weight, config.block_size
    assert kind is not None and size is not None
    key = (value, "GatherBlockQuantized", kind, size, dtype)
    if key not in rewriting.packed:
        blocks = b.quantize_blocks(array, kind, size, NUMPY_FLOATS[dtype])
        rewriting.packed[key] = _packed(rewriting, value, b.for_gather(blocks), kind, dtype)
    table, scale, zero = rewriting.packed[key]
    attributes = {"bits": kind.bits, "block_size": size, "gather_axis": 0, "quantize_axis": 1}
    inputs = [table, node.inputs[1], scale, zero]
    return ir.node("GatherBlockQuantized", inputs, attributes, domain="com.microsoft", name=node.name)


def _packed(
    rewriting: Rewriting,
    value: ir.Value,
    arrays: tuple[np.ndarray, np.ndarray, np.ndarray],
    kind: DType,
    dtype: DType,
) -> tuple[ir.Value, ...]:
    graph = graph_of(value)
    base = f"{value.name}_{kind}_packed"
    return (
        rewriting.initializer(graph, f"{base}_quantized", arrays[0], ir.DataType.UINT8),
        rewriting.initializer(graph, f"{base}_scale", arrays[1], IR_TYPES[dtype]),
        rewriting.initializer(graph, f"{base}_zero_point", arrays[2], ir.DataType.UINT8),
    )


def _added_bias(rewriting: Rewriting, node: ir.Node, product: ir.Value, dtype: DType) -> list[ir.Node]:
    """The Add of a Gemm's third operand, times beta."""
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    if bias is None:
        return []
    kind = IR_TYPES[dtype]
    product.type = ir.TensorType(kind)
    product.name = product.name or rewriting.names.value(f"{node.outputs[0].name}_product")
    beta = number_of(node, "beta")
    made: list[ir.Node] = []
    addend = as_float(rewriting, bias, dtype, node)
    if beta != 1.0:
        number = np.array(beta, NUMPY_FLOATS[dtype])
        factor = rewriting.initializer(graph_of(node), f"{node.name}_beta", number, kind)
        result = (f"{node.name}_scaled_bias", kind, addend.shape)
        made = [rewriting.node("Mul", [addend, factor], result, name=f"{node.name}_beta_Mul")]
        addend = made[0].outputs[0]
    name = rewriting.names.node(f"{node.name}_bias_Add")
    return [*made, ir.node("Add", [product, addend], name=name)]
