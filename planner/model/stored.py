"""What a file says of a node's precision: its own float type, or what the QuantizeLinear and DequantizeLinear around it store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from planner.dtypes import NO_PRECISION, PER_CHANNEL, PER_TENSOR, DType, QuantConfig
from planner.model.node import Operand
from planner.model.spread import dequantizer, is_quantized, quantized_source
from planner.model.values import constant_array
from planner.operators import Role, operator

FLOATS = {
    ir.DataType.FLOAT: DType.FLOAT32,
    ir.DataType.FLOAT16: DType.FLOAT16,
    ir.DataType.BFLOAT16: DType.BFLOAT16,
}
_DTYPE_NAMES = {
    ir.DataType.FLOAT: "float32",
    ir.DataType.FLOAT16: "float16",
    ir.DataType.DOUBLE: "float64",
}


def dtype_name(dtype: ir.DataType | None) -> str | None:
    """An element type as planner writes it: "float32", "int64"."""
    return None if dtype is None else _DTYPE_NAMES.get(dtype, dtype.name.lower())


def stored_config(node: ir.Node, operands: Sequence[Operand | None]) -> QuantConfig:
    """What the file says of the node's precision: the types of its Q/DQ neighbours, else its own float type."""
    if operator(node.op_type).exact:
        return NO_PRECISION
    weight: DType | None = None
    activation: DType | None = None
    per_channel = False
    for value, operand in zip(node.inputs, operands, strict=True):
        if value is None or operand is None or operand.role not in (Role.WEIGHT, Role.ACTIVATION):
            continue
        source = quantized_source(value)
        dtype = _quantized_dtype(source) if source is not None else FLOATS.get(value.dtype or ir.DataType.UNDEFINED)
        if operand.role is Role.WEIGHT:
            weight = weight or dtype
            producer = value.producer()
            if source is not None and producer is not None and producer.op_type == "DequantizeLinear":
                scale = constant_array(producer.inputs[1])
                per_channel = per_channel or (scale is not None and scale.size > 1)
        elif activation is None or (
            not activation.is_float and dtype is not None and dtype.is_float and not operand.constant
        ):
            activation = dtype
    floats = [out for out in node.outputs if out.dtype in FLOATS]
    if activation is None and floats:
        activation = FLOATS[floats[0].dtype or ir.DataType.UNDEFINED]
    if activation is None:
        return NO_PRECISION
    if not activation.is_float and floats and not _is_unit(node, operands):
        activation = DType.FLOAT32
    return QuantConfig(weight, activation, PER_CHANNEL if per_channel else PER_TENSOR)


def _is_unit(node: ir.Node, operands: Sequence[Operand | None]) -> bool:
    """Whether Q/DQ stand around the whole node. Else it computes in float what DQ hands to it."""
    if not any(is_quantized(out) for out in node.outputs if out.dtype in FLOATS):
        return False
    for value, operand in zip(node.inputs, operands, strict=True):
        if (
            value is None
            or operand is None
            or operand.role not in (Role.WEIGHT, Role.BIAS)
            or value.dtype not in FLOATS
        ):
            continue
        # Of these the bias alone may stay float.
        spared = operand.role is Role.BIAS and node.op_type in ("Conv", "ConvTranspose", "Gemm")
        if operand.constant and not spared and quantized_source(value) is None:
            return False
    return True


def is_blocked(node: ir.Node, operands: Sequence[Operand | None]) -> bool:
    """Whether a stored weight has one scale per block (DequantizeLinear's block_size, opset 21)."""
    for value, operand in zip(node.inputs, operands, strict=True):
        producer = value.producer() if value is not None else None
        if operand is not None and operand.role is Role.WEIGHT and producer is not None:
            size = producer.attributes.get("block_size")
            if producer.op_type == "DequantizeLinear" and size is not None and size.as_int() > 0:
                return True
    return False


def has_integer_bias(node: ir.Node, operands: Sequence[Operand | None]) -> bool:
    """Whether a bias is stored as int32 behind a DequantizeLinear."""
    biases = [v for v, o in zip(node.inputs, operands, strict=True) if o is not None and o.role is Role.BIAS]
    sources = [quantized_source(value) for value in biases]
    return any(source is not None and source.dtype == ir.DataType.INT32 for source in sources)


def has_off_center_weight(node: ir.Node, operands: Sequence[Operand | None]) -> bool:
    """Whether a weight of one scale per channel has a zero point other than the middle of its type."""
    return any(
        operand is not None and operand.role is Role.WEIGHT and _is_off_center(dequantizer(value))
        for value, operand in zip(node.inputs, operands, strict=True)
    )


def _is_off_center(conversion: ir.Node | None) -> bool:
    scale = None if conversion is None else constant_array(conversion.inputs[1])
    dtype = None if conversion is None or conversion.inputs[0] is None else _quantized_dtype(conversion.inputs[0])
    if conversion is None or dtype is None or dtype.is_float or scale is None or scale.size == 1:
        return False
    middle = 0 if dtype.is_signed else 1 << (dtype.bits - 1)
    zero = conversion.inputs[2] if len(conversion.inputs) > 2 else None
    codes = np.zeros(1) if zero is None else constant_array(zero)
    return codes is not None and bool((codes.astype(np.int32) != middle).any())


def has_signed_factor(node: ir.Node) -> bool:
    """Whether the second operand comes from a DequantizeLinear of a signed type."""
    codes = quantized_source(node.inputs[1]) if len(node.inputs) > 1 else None
    dtype = None if codes is None else _quantized_dtype(codes)
    return dtype is not None and dtype.is_signed


def largest_code(node: ir.Node, operands: Sequence[Operand | None]) -> int | None:
    """The largest code of the weights that are stored as int16; None where there are none."""
    weights = [v for v, o in zip(node.inputs, operands, strict=True) if o is not None and o.role is Role.WEIGHT]
    sources = [source for value in weights if (source := quantized_source(value)) is not None]
    # Of other types none is read: weights may be gigabytes.
    codes = [constant_array(source) for source in sources if source.dtype == ir.DataType.INT16]
    return max((int(array.max()) for array in codes if array is not None and array.size), default=None)


def _quantized_dtype(value: ir.Value) -> DType | None:
    name = dtype_name(value.dtype)
    try:
        return DType(name) if name else None
    except ValueError:
        return None


def is_asymmetric(node: ir.Node, operands: Sequence[Operand | None]) -> bool:
    """Whether a Q or DQ around the node has a zero point other than 0. One that is not constant counts as such."""
    return any(_has_zero_point(conversion) for conversion in _conversions(node, operands))


def _conversions(node: ir.Node, operands: Sequence[Operand | None]) -> Iterator[ir.Node]:
    """The DequantizeLinear that the node reads from (of activations and weights), the QuantizeLinear that read its results."""
    for value, operand in zip(node.inputs, operands, strict=True):
        if operand is None or operand.role not in (Role.WEIGHT, Role.ACTIVATION):
            continue
        codes = quantized_source(value)
        yield from (
            use.node for use in (() if codes is None else codes.uses()) if use.node.op_type == "DequantizeLinear"
        )
    for out in node.outputs:
        yield from (use.node for use in out.uses() if use.node.op_type == "QuantizeLinear")


def _has_zero_point(conversion: ir.Node) -> bool:
    zero = conversion.inputs[2] if len(conversion.inputs) > 2 else None
    if zero is None:
        return False
    codes = constant_array(zero)
    return codes is None or bool(codes.any())
