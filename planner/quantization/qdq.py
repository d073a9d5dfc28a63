"""Nodes between integer activations: Q/DQ around each, its weight and bias stored to match."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from planner.calibrate.ranges import Range, constant_range
from planner.dtypes import DType, QuantConfig
from planner.errors import RangeMissingError, RequestError
from planner.model.values import constant_array, tensor_dtype
from planner.operators import Role, channel_axis, operator, role_of, summed_axis
from planner.quantization import parameters as q
from planner.quantization.bias import mean_error
from planner.quantization.casts import as_float
from planner.quantization.constants import (
    constant_activation,
    constant_as,
    float_constant,
    int32_bias,
    quantized_weight,
    weight_in_blocks,
)
from planner.quantization.graph import (
    FLOATS,
    IR_TYPES,
    Rewriting,
    Stored,
    attributes_of,
    graph_of,
    place_of,
    put,
)
from planner.resolve.plan import PlanNode


@dataclass
class _Node:
    """A node on its way to Q/DQ.

    Attributes:
        activation: type of its data.
        float_bias: its bias stays float.
        symmetric: its activations have zero at the middle code.
        factor: type of its second factor, where that is another.
        data: how its data is stored, once that is known.
        weight: how its weight is stored.
        error: what rounding the weight adds to each output channel on average.
    """

    node: ir.Node
    config: QuantConfig
    activation: DType
    float_bias: bool
    symmetric: bool
    factor: DType | None = None
    data: q.Parameters | None = None
    weight: q.Parameters | None = None
    error: np.ndarray | None = None


def quantize_node(rewriting: Rewriting, node: ir.Node, line: PlanNode) -> None:
    """Store what a node reads and computes as integers.

    Args:
        rewriting: the model.
        node: of it.
        line: the plan's, with an integer activation.

    Raises:
        RequestError: a tensor has no range, or a constant holds NaN.
    """
    assert line.activation is not None
    float_bias = line.float_bias or operator(node.op_type).float_bias
    state = _Node(node, line.config, line.activation, float_bias, line.symmetric, line.factor)
    joined = _joined_parameters(rewriting, state)
    for position, value in enumerate(list(node.inputs)):
        if value is None or tensor_dtype(value) not in FLOATS:
            continue
        if joined is not None and position in operator(node.op_type).joins:
            node.replace_input_with(position, _stored_as(rewriting, value, joined, node))
        else:
            node.replace_input_with(position, _input(rewriting, state, position, value))
    _take_error_off(rewriting, state)
    share = state.data if operator(node.op_type).keeps is not None and _keeps_range(node) else joined
    for out in list(node.outputs):
        if tensor_dtype(out) == ir.DataType.FLOAT16:
            out.type = ir.TensorType(ir.DataType.FLOAT)
        is_read = bool(out.uses()) or out.is_graph_output()
        if tensor_dtype(out) == ir.DataType.FLOAT and out.name and is_read:
            parameters = _output_parameters(rewriting, out, line, state, share)
            _insert_qdq(rewriting, out, parameters, after=node, replace=True)


def _input(rewriting: Rewriting, state: _Node, position: int, value: ir.Value) -> ir.Value:
    """What the node is to read in the place of a float value."""
    node, array = state.node, constant_array(value)
    role = role_of(node.op_type, position, is_constant=array is not None, is_float=True)
    if role is Role.EXACT:
        return as_float(rewriting, value, DType.FLOAT32, node)
    if role is Role.WEIGHT:
        assert array is not None
        return _weight(rewriting, state, position, value, array)
    if role is Role.BIAS:
        if array is not None and state.error is not None and array.size == state.error.size:
            return _bias(rewriting, state, value, array - state.error.reshape(array.shape))
        if state.float_bias:
            return as_float(rewriting, value, DType.FLOAT32, node)
        return _bias(rewriting, state, value, array)
    if state.factor is not None and position == 1:
        state = replace(state, activation=state.factor, symmetric=True)
    if array is None:
        new = _as_quantized(rewriting, value, state)
    else:
        error = _error_before(rewriting, node, position, array)
        new = constant_activation(rewriting, value, array, state.activation, error, symmetric=state.symmetric)
    state.data = state.data or rewriting.stored[new].parameters
    return new


def _weight(rewriting: Rewriting, state: _Node, position: int, value: ir.Value, array: np.ndarray) -> ir.Value:
    node, config = state.node, state.config
    if config.weight is None or config.weight.is_float:
        raise RequestError(
            f"the plan gives {node.op_type} {node.name!r} integer activations, and its weight no integer type",
            "make the plan anew with `planner plan`",
        )
    if config.block_size is not None:
        return weight_in_blocks(rewriting, node, value, array, config.weight, config.block_size, DType.FLOAT32)
    attributes = attributes_of(node)
    axis = channel_axis(node.op_type, position, array.ndim, attributes) if config.per_channel else None
    third = node.inputs[2] if len(node.inputs) > 2 else None
    bias = constant_array(third) if operator(node.op_type).has_integer_bias and not state.float_bias else None
    means = _means(rewriting, node)

    def learned(parameters: q.Parameters) -> np.ndarray | None:
        if rewriting.rounding is None:
            return None
        # A Conv gets a bias where it has none.
        centred = means is not None and (
            node.op_type == "Conv" or (node.op_type == "Gemm" and constant_array(third) is not None)
        )
        return rewriting.rounding.codes(
            node.name or "", array, parameters, summed=summed_axis(node.op_type, attributes), centred=centred
        )

    new = quantized_weight(rewriting, value, array, config.weight, axis, bias, state.data, learned)
    state.weight = state.weight or rewriting.stored[new].parameters
    state.error = mean_error(node.op_type, attributes, array, state.weight, means, learned(state.weight))
    if state.error is not None and node.op_type == "MatMul":
        rewriting.mean_errors[node.outputs[0].name or ""] = state.error
    return new


def _bias(rewriting: Rewriting, state: _Node, value: ir.Value, array: np.ndarray | None) -> ir.Value:
    if array is None:
        return _as_quantized(rewriting, value, state)
    if state.float_bias:
        return float_constant(rewriting, value, array)
    if state.data is None or state.weight is None:
        return constant_activation(rewriting, value, array, state.activation, symmetric=state.symmetric)
    return int32_bias(rewriting, value, array, state.data, state.weight)


def _take_error_off(rewriting: Rewriting, state: _Node) -> None:
    """Give a Conv without a bias one that takes off what rounding its weight adds."""
    node = state.node
    if state.error is None or node.op_type != "Conv" or (len(node.inputs) > 2 and node.inputs[2] is not None):
        return
    zeros = np.zeros(state.error.shape, np.float32)
    none = rewriting.initializer(graph_of(node), f"{node.name}_bias", zeros, ir.DataType.FLOAT)
    node.resize_inputs(3)
    node.replace_input_with(2, _bias(rewriting, state, none, -state.error))


def _means(rewriting: Rewriting, node: ir.Node) -> tuple[float, ...] | None:
    """The mean of each channel of a node's data, as calibration saw it."""
    value = node.inputs[0]
    if value is None:
        return None
    observed = rewriting.ranges.get(rewriting.source(value))
    return None if observed is None else observed.means


def _error_before(rewriting: Rewriting, node: ir.Node, position: int, array: np.ndarray) -> np.ndarray | None:
    """What rounding the weight of the MatMul before this Add puts on its results on average, where the Add's constant can
    take it off: it has a number for each, and nothing else reads the product.
    """
    other = node.inputs[1 - position] if node.op_type == "Add" and len(node.inputs) == 2 else None
    have = None if other is None else rewriting.stored.get(other)
    if other is None or have is None or len(list(other.uses())) != 1 or other.is_graph_output():
        return None
    error = rewriting.mean_errors.get(have.source)
    return error if error is not None and array.shape[-1:] == error.shape == (array.size,) else None


# -- activations ------------------------------------------------------------------------------------------------------


def _joined_parameters(rewriting: Rewriting, state: _Node) -> q.Parameters | None:
    """The one way in which all is stored that an operator puts side by side: as its data, where these span the rest.

    None where what is put beside the data flows: on the HTP (onnxruntime-qnn 2.7) constants at another scale cost
    ScatterElements all but 5 dB, and so does a conversion of updates that flow, which at their own scale kept 43.6 dB. There, too,
    a Pad by a number from outside the range of its data loses all but 0 to 6 dB, unless both are stored over the result's.
    """
    node, dtype = state.node, state.activation
    if node.op_type == "Pad" and not _keeps_range(node):
        return _observed_parameters(rewriting, node.outputs[0], state, node.outputs[0].name)
    positions = [i for i in operator(node.op_type).joins if i < len(node.inputs)]
    values = [v for i in positions if (v := node.inputs[i]) is not None and v.dtype in FLOATS]
    if len(values) < 2 or any(constant_array(value) is None for value in values[1:]):
        return None
    seen = [_range_of(rewriting, value) for value in values]
    union = Range(
        min(r.low for r in seen),
        max(r.high for r in seen),
        any(r.masked_low for r in seen),
        any(r.masked_high for r in seen),
    )
    stored = rewriting.stored.get(values[0])
    if stored is not None and _fits(stored.parameters, state) and union == seen[0]:
        return stored.parameters
    return q.activation_parameters(union, dtype, zero_at_middle=state.symmetric)


def _range_of(rewriting: Rewriting, value: ir.Value) -> Range:
    """What a value held while calibrating, or holds as a constant; without the cut of 8-bit codes, the means, ..."""
    array = constant_array(value)
    if array is not None:
        return constant_range(array)
    seen = _observed(rewriting, value, rewriting.source(value))
    return Range(seen.low, seen.high, seen.masked_low, seen.masked_high)


def _stored_as(rewriting: Rewriting, value: ir.Value, parameters: q.Parameters, consumer: ir.Node) -> ir.Value:
    """The value stored in this very way."""
    array = constant_array(value)
    if array is not None:
        return constant_as(rewriting, value, array, parameters)
    have = rewriting.stored.get(value)
    if have is not None and have.parameters is parameters:
        return value
    key = (value, "as", parameters.dtype, parameters.scale.tobytes(), parameters.zero_point.tobytes())
    if key not in rewriting.made:
        as_float32 = as_float(rewriting, value, DType.FLOAT32, consumer)
        place = place_of(as_float32, consumer)
        rewriting.made[key] = _insert_qdq(rewriting, as_float32, parameters, after=place, replace=False)
    return rewriting.made[key]


def _fits(stored: q.Parameters, state: _Node) -> bool:
    """Whether the node can read a value that is stored so."""
    return stored.dtype is state.activation and not (state.symmetric and stored.zero_point.any())


def _as_quantized(rewriting: Rewriting, value: ir.Value, state: _Node) -> ir.Value:
    """The value stored as the node reads it: itself if it is, else with a Q/DQ pair made once."""
    have = rewriting.stored.get(value)
    if have is not None and _fits(have.parameters, state):
        return value
    key = (value, "q", state.activation, state.symmetric)
    if key not in rewriting.made:
        parameters = _observed_parameters(rewriting, value, state, rewriting.source(value))
        as_float32 = as_float(rewriting, value, DType.FLOAT32, state.node)
        place = place_of(as_float32, state.node)
        rewriting.made[key] = _insert_qdq(rewriting, as_float32, parameters, after=place, replace=False)
    return rewriting.made[key]


def _output_parameters(
    rewriting: Rewriting, out: ir.Value, line: PlanNode, state: _Node, share: q.Parameters | None
) -> q.Parameters:
    """How a node's result is stored: as the EP demands, as the data that it was moved from, or by its range."""
    if line.fixed is not None:
        zero = q.numpy_codes(np.array(line.fixed.zero_point), state.activation)
        return q.Parameters(state.activation, np.array(line.fixed.scale, np.float32), zero)
    if share is not None and _fits(share, state) and share.axis is None:
        return share
    return _observed_parameters(rewriting, out, state, out.name)


def _observed_parameters(rewriting: Rewriting, value: ir.Value, state: _Node, name: str | None) -> q.Parameters:
    producer = value.producer()
    bounded = producer is not None and operator(producer.op_type).bounded
    seen = _observed(rewriting, value, name)
    return q.activation_parameters(seen, state.activation, bounded=bounded, zero_at_middle=state.symmetric)


def _observed(rewriting: Rewriting, value: ir.Value, name: str | None) -> Range:
    name = name or ""
    ranges = rewriting.ranges
    observed = ranges.get(_range_name(value, name, ranges))
    if observed is None:
        raise RangeMissingError(
            f"tensor {name!r} was never computed while calibrating, so it has no range",
            "give --inputs that reach this part of the model",
        )
    return observed


def _range_name(value: ir.Value, name: str, ranges: Mapping[str, Range]) -> str:
    """The tensor whose range a value is stored over: its own, ``name``, or that of a Relu or Clip that is its only user,
    since what these cut off needs no codes.
    """
    uses = list(value.uses())
    if len(uses) == 1 and not value.is_graph_output():
        user = uses[0].node
        if user.op_type in ("Relu", "Clip") and user.domain in ("", "ai.onnx") and uses[0].idx == 0:
            after = user.outputs[0].name or ""
            return after if after in ranges else name
    return name


def _keeps_range(node: ir.Node) -> bool:
    """Whether the node's output stays within the range of its data input: cubic resizing overshoots, Pad may add a
    constant from outside.
    """
    mode = node.attributes.get("mode")
    if node.op_type == "Resize":
        return mode is None or mode.as_string() != "cubic"
    if node.op_type == "Pad":
        constant = mode is None or mode.as_string() == "constant"
        value = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
        return not constant or value is None or not value.any()
    return True


def _insert_qdq(
    rewriting: Rewriting, value: ir.Value, parameters: q.Parameters, *, after: ir.Node | ir.Graph, replace: bool
) -> ir.Value:
    """Put Q and DQ behind a value.

    Args:
        rewriting: the model.
        value: float32.
        parameters: how it is stored.
        after: the node, or the graph, behind which they go.
        replace: every later use reads the DQ.
    """
    graph = graph_of(after)
    base = f"{value.name}{'' if replace else f'_{parameters.dtype}'}"
    kind = IR_TYPES[parameters.dtype]
    scale = rewriting.initializer(graph, f"{base}_scale", parameters.scale, ir.DataType.FLOAT)
    zero = rewriting.initializer(graph, f"{base}_zero_point", parameters.zero_point, kind)
    codes = (f"{base}_quantized", kind, value.shape)
    quantize = rewriting.node("QuantizeLinear", [value, scale, zero], codes, name=f"{base}_QuantizeLinear")
    floats = (f"{base}_dequantized", ir.DataType.FLOAT, value.shape)
    inputs = [quantize.outputs[0], scale, zero]
    dequantize = rewriting.node("DequantizeLinear", inputs, floats, name=f"{base}_DequantizeLinear")
    out = dequantize.outputs[0]
    rewriting.stored[out] = Stored(parameters, rewriting.source(value))
    if replace:
        # Uses are moved before the Q node reads the value, or Q would read its own DQ.
        quantize.replace_input_with(0, None)
        value.replace_all_uses_with(out, replace_graph_outputs=True)
        quantize.replace_input_with(0, value)
    put([quantize, dequantize], after)
    return out
