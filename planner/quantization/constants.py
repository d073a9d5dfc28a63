"""Constants that are stored as integers, each behind a DequantizeLinear: weights, biases, constant activations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from planner.calibrate.ranges import constant_range
from planner.dtypes import DType, QuantConfig
from planner.errors import RequestError
from planner.model.values import numbers
from planner.operators import channel_axis, summed_axis
from planner.quantization import blocks as b
from planner.quantization import parameters as q
from planner.quantization.graph import (
    IR_TYPES,
    NUMPY_FLOATS,
    Made,
    Rewriting,
    Stored,
    attributes_of,
    graph_of,
    put,
)


def constant_activation(
    rewriting: Rewriting,
    value: ir.Value,
    array: np.ndarray,
    dtype: DType,
    error: np.ndarray | None = None,
    *,
    symmetric: bool = False,
) -> ir.Value:
    """A constant in the place of an activation: stored in the activation's type, over its own range.

    Args:
        rewriting: the model.
        value: the constant.
        array: its float numbers.
        dtype: of the activation.
        error: a number for each of the constant's: what it is to take off; None: nothing.
        symmetric: with zero at the middle code.

    Raises:
        RequestError: it holds NaN.
    """
    key = (value, "constant", dtype, symmetric, None if error is None else error.tobytes())
    if key not in rewriting.made:
        array = (array if error is None else array - error.reshape(array.shape)).astype(np.float32)
        _refuse_nan(value, array)
        held = rewriting.ranges.get(value.name or "") or constant_range(array)
        if held.masked_low or held.masked_high:
            rewriting.notes.append(f"constant {value.name!r} holds masks: stored as the ends of its range")
        # A constant is known whole: it needs no headroom.
        parameters = q.activation_parameters(held, dtype, bounded=True, zero_at_middle=symmetric)
        rewriting.made[key] = _stored_activation(rewriting, value, array, parameters)
    return rewriting.made[key]


def constant_as(rewriting: Rewriting, value: ir.Value, array: np.ndarray, parameters: q.Parameters) -> ir.Value:
    """A constant in the place of an activation, stored in this very way.

    Raises:
        RequestError: it holds NaN.
    """
    key = (value, "constant as", parameters.dtype, parameters.scale.tobytes(), parameters.zero_point.tobytes())
    if key not in rewriting.made:
        _refuse_nan(value, array)
        rewriting.made[key] = _stored_activation(rewriting, value, array, parameters)
    return rewriting.made[key]


def _refuse_nan(value: ir.Value, array: np.ndarray) -> None:
    """Raise a RequestError where a constant holds NaN."""
    if np.isnan(array).any():
        raise RequestError(f"constant {value.name!r} holds NaN", "the model itself is broken")


def _stored_activation(rewriting: Rewriting, value: ir.Value, array: np.ndarray, parameters: q.Parameters) -> ir.Value:
    kind = IR_TYPES[parameters.dtype]
    return _stored(rewriting, value, q.quantize(array, parameters), parameters, kind, f"_{parameters.dtype}")


def quantized_weight(
    rewriting: Rewriting,
    value: ir.Value,
    array: np.ndarray,
    dtype: DType,
    axis: int | None,
    bias: np.ndarray | None,
    data: q.Parameters | None,
    learned: Callable[[q.Parameters], np.ndarray | None],
) -> ir.Value:
    """A weight between integer activations.

    Args:
        rewriting: the model.
        value: the weight.
        array: its float numbers.
        dtype: of its codes.
        axis: of the channels that have a scale each; None: one scale.
        bias: of the node, where it is stored as int32 and bounds the scales from below.
        data: how the node's data is stored.
        learned: the codes that were learned for it; None where each number is rounded by itself.
    """
    parameters = q.weight_parameters(array.astype(np.float32, copy=False), dtype, axis)
    if bias is not None and data is not None:
        scale = q.scale_for_bias(bias, float(data.scale), parameters.scale)
        if (scale != parameters.scale).any():
            parameters = q.Parameters(dtype, scale, parameters.zero_point, axis)
    key = (value, "weight", dtype, axis, parameters.scale.tobytes())
    if key not in rewriting.made:
        codes = learned(parameters)
        made = Made(lambda: q.quantize(numbers(value), parameters), array.shape) if codes is None else codes
        rewriting.made[key] = _stored(rewriting, value, made, parameters, IR_TYPES[dtype], f"_{dtype}")
    return rewriting.made[key]


def int32_bias(
    rewriting: Rewriting, value: ir.Value, array: np.ndarray, data: q.Parameters, weight: q.Parameters
) -> ir.Value:
    """A bias in units of data scale times weight scale, as the sums have them.

    Args:
        rewriting: the model.
        value: the bias.
        array: its float numbers, one for each channel.
        data: how the node's data is stored.
        weight: how its weight is stored.
    """
    scale, zero = q.bias_parameters(float(data.scale), weight.scale)
    codes = np.rint(array.astype(np.float64) / scale.astype(np.float64))
    codes = np.clip(codes, -(2**31), 2**31 - 1).astype(np.int32)
    parameters = q.Parameters(DType.INT16, scale, zero, 0 if scale.ndim > 0 else None)
    key = (value, "bias", codes.tobytes(), scale.tobytes())
    if key not in rewriting.made:
        rewriting.made[key] = _stored(rewriting, value, codes, parameters, ir.DataType.INT32, "_int32")
    return rewriting.made[key]


def float_constant(rewriting: Rewriting, value: ir.Value, array: np.ndarray) -> ir.Value:
    """A float32 constant in the place of one with other numbers.

    Args:
        rewriting: the model.
        value: the constant.
        array: the new numbers.
    """
    key = (value, "numbers", array.tobytes())
    if key not in rewriting.made:
        numbers = array.astype(np.float32)
        graph = graph_of(value)
        rewriting.made[key] = rewriting.initializer(graph, f"{value.name}_float32", numbers, ir.DataType.FLOAT)
    return rewriting.made[key]


def weight_only(
    rewriting: Rewriting,
    node: ir.Node,
    position: int,
    value: ir.Value,
    array: np.ndarray,
    config: QuantConfig,
    dtype: DType,
) -> ir.Value:
    """A weight that is stored as integers and multiplied as float.

    Args:
        rewriting: the model.
        node: that multiplies by it.
        position: of the weight among the node's inputs.
        value: the weight.
        array: its float numbers.
        config: types and granularity.
        dtype: float type that comes out.
    """
    kind = config.weight
    assert kind is not None
    if config.block_size is not None:
        return weight_in_blocks(rewriting, node, value, array, kind, config.block_size, dtype)
    axis = channel_axis(node.op_type, position, array.ndim, attributes_of(node)) if config.per_channel else None
    key = (value, "weight only", kind, axis, dtype)
    if key not in rewriting.made:
        # Multiplied as float, channels may differ as they like.
        parameters = q.weight_parameters(array.astype(np.float32, copy=False), kind, axis, widest_spread=np.inf)
        codes = Made(lambda: q.quantize(numbers(value), parameters), array.shape)
        rewriting.made[key] = _dequantized(
            rewriting, value, (codes, parameters.scale.astype(NUMPY_FLOATS[dtype]), parameters.zero_point),
            (IR_TYPES[kind], IR_TYPES[dtype]), f"_{kind}_{dtype}", {} if axis is None else {"axis": axis},
        )  # fmt: skip
    return rewriting.made[key]


def weight_in_blocks(
    rewriting: Rewriting,
    node: ir.Node,
    value: ir.Value,
    array: np.ndarray,
    kind: DType,
    block_size: int,
    dtype: DType,
) -> ir.Value:
    """A matrix in blocks.

    Args:
        rewriting: the model.
        node: the MatMul or Gemm that multiplies by it.
        value: the matrix.
        array: float[rows, columns].
        kind: of its codes.
        block_size: so many numbers share a scale.
        dtype: float type that comes out.

    Raises:
        RequestError: it is no matrix, or too small for such blocks.
    """
    axis = summed_axis(node.op_type, attributes_of(node))
    require_blocks(node, array, axis, block_size)
    key = (value, "blocks", kind, axis, block_size, dtype)
    if key not in rewriting.made:
        rows = array if axis == 1 else array.T
        blocks = b.quantize_blocks(rows, kind, block_size, NUMPY_FLOATS[dtype])
        codes, scale, zero = b.for_dequantize_linear(blocks, axis)
        rewriting.made[key] = _dequantized(
            rewriting, value, (codes, scale.astype(NUMPY_FLOATS[dtype]), zero), (IR_TYPES[kind], IR_TYPES[dtype]),
            f"_{kind}_blocks_{dtype}", {"axis": axis, "block_size": block_size},
        )  # fmt: skip
    return rewriting.made[key]


def require_blocks(node: ir.Node, array: np.ndarray, axis: int, block_size: int) -> None:
    """See that a constant can be cut into blocks.

    Args:
        node: that reads it.
        array: its content.
        axis: along which the blocks run.
        block_size: so many numbers share a scale.

    Raises:
        RequestError: it is no matrix, or too small for such blocks.
    """
    if array.ndim != 2 or array.shape[axis] < block_size:
        raise RequestError(
            f"the plan stores the weight of {node.op_type} {node.name!r} in blocks of {block_size}, but its shape is "
            f"{list(array.shape)}",
            "make the plan anew with `planner plan`",
        )


def _stored(
    rewriting: Rewriting,
    value: ir.Value,
    codes: np.ndarray | Made,
    parameters: q.Parameters,
    dtype: ir.DataType,
    suffix: str,
) -> ir.Value:
    """Codes behind a DequantizeLinear to float32, remembered with their parameters."""
    attributes = {} if parameters.axis is None else {"axis": parameters.axis}
    content = (codes, parameters.scale, parameters.zero_point)
    out = _dequantized(rewriting, value, content, (dtype, ir.DataType.FLOAT), suffix, attributes)
    rewriting.stored[out] = Stored(parameters, value.name or "")
    return out


def _dequantized(
    rewriting: Rewriting,
    value: ir.Value,
    content: tuple[np.ndarray | Made, np.ndarray, np.ndarray],
    types: tuple[ir.DataType, ir.DataType],
    suffix: str,
    attributes: dict[str, int],
) -> ir.Value:
    """Codes as an initializer with a DequantizeLinear.

    Args:
        rewriting: the model.
        value: the constant that they stand for.
        content: codes, scale, zero point.
        types: of the codes and of the scale.
        suffix: of the new names.
        attributes: of the DequantizeLinear.
    """
    graph = graph_of(value)
    base = f"{value.name}{suffix}"
    inputs = [
        rewriting.initializer(graph, f"{base}_quantized", content[0], types[0]),
        rewriting.initializer(graph, f"{base}_scale", content[1], types[1]),
        rewriting.initializer(graph, f"{base}_zero_point", content[2], types[0]),
    ]
    result = (f"{base}_dequantized", types[1], value.shape)
    made = rewriting.node("DequantizeLinear", inputs, result, name=f"{base}_DequantizeLinear", attributes=attributes)
    put(made, graph)
    return made.outputs[0]
