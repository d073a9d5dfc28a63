"""Applying a plan: rewriting the normalized graph so that it stores and computes what the plan says.

One walk over the graph in topological order serves every mix of float32, float16 and Q/DQ nodes. It knows nothing of
EPs. Each float value has one owner, the node that produces it, which decides how it is stored; a consumer that needs
another type gets an explicit conversion, made once per value and type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from planner.calibrate.ranges import Range
from planner.dtypes import DType
from planner.errors import RequestError
from planner.model.read import Model
from planner.model.values import constant_array
from planner.operators import DATA_MOVEMENT, Role, channel_axis, role_of
from planner.quantization import blocks as b
from planner.quantization import parameters as q
from planner.quantization.bias import mean_error
from planner.quantization.graph import (
    IR_TYPES,
    NUMPY_FLOATS,
    Made,
    graph_of,
    initializer,
    initializer_graph,
    place_of,
    summed_axis,
)
from planner.quantization.replaced import Replacing
from planner.resolve.plan import Plan, PlanNode

_FLOAT16_LARGEST = 65504.0
# Operators whose results lie in a fixed range whatever their input: no headroom.
_BOUNDED = frozenset({"Softmax", "Sigmoid", "Tanh", "HardSigmoid", "Sin", "Cos", "Erf", "Clip"})
# Recurrent operators have a bias a gate, added to two products of different scales: no one int32 scale fits, so it stays float.
_FLOAT_BIAS = frozenset({"LSTM", "GRU", "RNN"})
_FLOAT_DTYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


@dataclass(frozen=True)
class Applied:
    """A rewritten model, and notes on what had to be done to values (clamped constants, unseen tensors)."""

    model: ir.Model
    notes: tuple[str, ...]


def apply_plan(model: Model, plan: Plan, ranges: Mapping[str, Range], *, float16_io: bool = False) -> Applied:
    """Rewrite a copy of the model as the plan says.

    Args:
        model: normalized, as read with the plan's shapes; left untouched.
        ranges: observed range of each float tensor that becomes an integer activation, by name.
        float16_io: let float32 graph inputs and outputs that meet float16 nodes be float16 themselves.

    Raises:
        RequestError: the plan names other nodes than the model has, or a range is missing.
    """
    assert model.ir is not None
    copy = model.ir.clone()
    planned = {node.name: node for node in plan.nodes}
    _check_names(copy, planned, model.path)
    walk = _Walk(planned, ranges, copy.opset_imports.get("", 1), float16_io)
    walk.graph(copy.graph, is_main=True)
    _remove_cast_pairs(copy)
    copy.graph.sort()
    _remove_unused_initializers(copy)
    if any(line.replacement is not None and line.replacement.startswith("com.microsoft.") for line in plan.nodes):
        copy.opset_imports["com.microsoft"] = 1
    copy.producer_name = "planner"
    return Applied(copy, tuple(walk.notes))


def _check_names(model: ir.Model, planned: Mapping[str, PlanNode], path: str) -> None:
    names = {n.name for n in model.graph.all_nodes() if n.op_type not in ("QuantizeLinear", "DequantizeLinear")}
    missing = sorted(str(n) for n in names - set(planned))
    extra = sorted(set(planned) - names)
    if missing or extra:
        what = f"has no line for node {missing[0]!r}" if missing else f"names node {extra[0]!r}, which is not there"
        raise RequestError(f"the plan does not fit {path}: it {what}", "make the plan anew with `planner plan`")


@dataclass
class _Quantized:
    """A value that comes out of a DequantizeLinear: what it is stored as."""

    parameters: q.Parameters
    source: str  # name of the float tensor it stands for


@dataclass
class _Walk:
    planned: Mapping[str, PlanNode]
    ranges: Mapping[str, Range]
    opset: int
    float16_io: bool
    notes: list[str] = field(default_factory=list)
    stored: dict[ir.Value, _Quantized] = field(default_factory=dict)
    conversions: dict[tuple[ir.Value, object], ir.Value] = field(default_factory=dict)
    mean_errors: dict[str, np.ndarray] = field(default_factory=dict)
    replacing: Replacing = field(init=False)

    def __post_init__(self) -> None:
        self.replacing = Replacing(self._as_float)

    # -- graphs ---------------------------------------------------------------------------------------------------

    def graph(self, graph: ir.Graph, *, is_main: bool) -> None:
        original = {id(out): (out.name, out.dtype) for out in graph.outputs}
        outputs = [(out, *original[id(out)]) for out in graph.outputs]
        if is_main and self.float16_io:
            self._float16_inputs(graph)
        for node in list(graph):
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    self.graph(attribute.as_graph(), is_main=False)
                elif attribute.type == ir.AttributeType.GRAPHS:
                    for sub in attribute.as_graphs():
                        self.graph(sub, is_main=False)
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                continue
            line = self.planned.get(node.name or "")
            if line is None or line.activation is None:
                self._exact(node)
            elif line.replacement is not None:
                self.replacing.replace(node, line)
            elif line.activation.is_float:
                self._float(node, line.activation, line)
            else:
                self._quantize(node, line, line.activation)
        self._restore_outputs(graph, outputs, keep=not (is_main and self.float16_io))

    def _float16_inputs(self, graph: ir.Graph) -> None:
        for value in graph.inputs:
            consumers = [self.planned.get(use.node.name or "") for use in value.uses()]
            if (
                value.dtype == ir.DataType.FLOAT
                and consumers
                and all(c is not None and c.activation is DType.FLOAT16 for c in consumers)
            ):
                value.type = ir.TensorType(ir.DataType.FLOAT16)

    def _restore_outputs(
        self, graph: ir.Graph, outputs: list[tuple[ir.Value, str | None, ir.DataType | None]], *, keep: bool
    ) -> None:
        """Graph outputs keep their names and, unless asked otherwise, their types."""
        for index, (_, name, dtype) in enumerate(outputs):
            current = graph.outputs[index]
            if keep and dtype in _FLOAT_DTYPES and current.dtype != dtype and current.dtype in _FLOAT_DTYPES:
                wanted = DType.FLOAT32 if dtype == ir.DataType.FLOAT else DType.FLOAT16
                key = (current, wanted)
                if key not in self.conversions:
                    self.conversions[key] = self._cast(current, dtype, graph)
                current = self.conversions[key]
                graph.outputs[index] = current
            if current.name != name and not current.is_graph_input():
                for node in graph:
                    for out in node.outputs:
                        if out.name == name and out is not current:
                            out.name = f"{name}_float"
                current.name = name

    # -- nodes ----------------------------------------------------------------------------------------------------

    def _exact(self, node: ir.Node) -> None:
        """Leave the node alone; where it must choose between float types, it follows its first flowing input."""
        floats = [v for v in node.inputs if v is not None and v.dtype in _FLOAT_DTYPES]
        flowing = [v for v in floats if constant_array(v) is None]
        if not floats or not flowing or node.op_type in ("If", "Loop", "Scan", "Cast", "CastLike"):
            if node.op_type in ("Loop", "Scan"):
                for i, value in enumerate(node.inputs):
                    if value is not None and value.dtype == ir.DataType.FLOAT16:
                        node.replace_input_with(i, self._as_float(value, DType.FLOAT32, node))
            return
        dtype = DType.FLOAT16 if flowing[0].dtype == ir.DataType.FLOAT16 else DType.FLOAT32
        self._float(node, dtype)

    def _float(self, node: ir.Node, dtype: DType, line: PlanNode | None = None) -> None:
        for i, value in enumerate(node.inputs):
            if value is None or value.dtype not in _FLOAT_DTYPES:
                continue
            if line is not None and line.weight is not None and not line.weight.is_float:
                array = constant_array(value)
                role = role_of(node.op_type, i, is_constant=array is not None, is_float=True)
                if array is not None and role is Role.WEIGHT:
                    node.replace_input_with(i, self._float_weight(node, i, value, array, line, line.weight, dtype))
                    continue
            if _shares_data_type(node, i):
                node.replace_input_with(i, self._as_float(value, dtype, node))
        for out in node.outputs:
            if out.dtype in _FLOAT_DTYPES:
                out.type = ir.TensorType(IR_TYPES[dtype])

    def _quantize(self, node: ir.Node, line: PlanNode, activation: DType) -> None:
        attributes = {k: a.value for k, a in node.attributes.items()}
        data: q.Parameters | None = None
        weight: q.Parameters | None = None
        error: np.ndarray | None = None
        for i, value in enumerate(list(node.inputs)):
            if value is None or value.dtype not in _FLOAT_DTYPES:
                continue
            array = constant_array(value)
            role = role_of(node.op_type, i, is_constant=array is not None, is_float=True)
            if role is Role.EXACT:
                node.replace_input_with(i, self._as_float(value, DType.FLOAT32, node))
            elif role is Role.ACTIVATION:
                new = (
                    self._constant(value, array, activation, self._error_before(node, i, array))
                    if array is not None
                    else self._as_quantized(value, activation, node)
                )
                data = data or self.stored[new].parameters
                node.replace_input_with(i, new)
            elif role is Role.WEIGHT:
                assert array is not None and line.weight is not None
                if line.config.block_size is not None:
                    new = self._block_weight(node, i, value, array, line, line.weight, DType.FLOAT32)
                    node.replace_input_with(i, new)
                    continue
                axis = channel_axis(node.op_type, i, array.ndim, attributes) if line.config.per_channel else None
                bias_value = node.inputs[2] if len(node.inputs) > 2 else None
                bias = constant_array(bias_value) if _has_int32_bias(node) and not line.float_bias else None
                means = self._means(node)
                new = self._weight(value, array, line.weight, axis, bias, data)
                weight = weight or self.stored[new].parameters
                error = mean_error(node.op_type, attributes, array, weight, means)
                if error is not None and node.op_type == "MatMul":
                    self.mean_errors[node.outputs[0].name or ""] = error
                node.replace_input_with(i, new)
            elif role is Role.BIAS and node.op_type in _FLOAT_BIAS:
                node.replace_input_with(i, self._as_float(value, DType.FLOAT32, node))
            elif role is Role.BIAS:
                if array is not None and error is not None and array.size == error.size:
                    array = array - error.reshape(array.shape)
                node.replace_input_with(i, self._bias(value, array, data, weight, line, node))
        if error is not None and node.op_type == "Conv" and (len(node.inputs) < 3 or node.inputs[2] is None):
            graph = graph_of(node)
            none = initializer(graph, f"{node.name}_bias", np.zeros(error.shape, np.float32), ir.DataType.FLOAT)
            node.resize_inputs(3)
            node.replace_input_with(2, self._bias(none, -error, data, weight, line, node))
        share = data if node.op_type in DATA_MOVEMENT and _keeps_range(node) else None
        for out in list(node.outputs):
            if out.dtype == ir.DataType.FLOAT16:
                out.type = ir.TensorType(ir.DataType.FLOAT)
            if out.dtype == ir.DataType.FLOAT and out.name:
                self._store(out, activation, line, share, node)

    def _means(self, node: ir.Node) -> tuple[float, ...] | None:
        """The mean of each channel of a node's data, as calibration saw it."""
        value = node.inputs[0]
        if value is None:
            return None
        have = self.stored.get(value)
        observed = self.ranges.get((value.name if have is None else have.source) or "")
        return None if observed is None else observed.means

    def _error_before(self, node: ir.Node, position: int, array: np.ndarray) -> np.ndarray | None:
        """What rounding the weight of the MatMul before this Add puts on its results on average, where the Add's constant can
        take it off: it has a number for each, and nothing else reads the product."""
        other = node.inputs[1 - position] if node.op_type == "Add" and len(node.inputs) == 2 else None
        have = None if other is None else self.stored.get(other)
        if other is None or have is None or len(list(other.uses())) != 1 or other.is_graph_output():
            return None
        error = self.mean_errors.get(have.source)
        return error if error is not None and array.shape[-1:] == error.shape == (array.size,) else None

    def _float_weight(
        self,
        node: ir.Node,
        position: int,
        value: ir.Value,
        array: np.ndarray,
        line: PlanNode,
        kind: DType,
        dtype: DType,
    ) -> ir.Value:
        """A weight that is stored as integers and multiplied as float."""
        if line.config.block_size is not None:
            return self._block_weight(node, position, value, array, line, kind, dtype)
        attributes = {k: a.value for k, a in node.attributes.items()}
        axis = channel_axis(node.op_type, position, array.ndim, attributes) if line.config.per_channel else None
        key = (value, ("weight only", kind, axis, dtype))
        if key not in self.conversions:
            # Multiplied as float, channels may differ as they like.
            parameters = q.weight_parameters(array.astype(np.float32, copy=False), kind, axis, widest_spread=np.inf)
            codes = Made(lambda: q.quantize(array, parameters), array.shape)
            self.conversions[key] = self._dequantized(
                value, codes, parameters.scale, parameters.zero_point, kind, f"_{kind}_{dtype}",
                {} if axis is None else {"axis": axis}, dtype,
            )  # fmt: skip
        return self.conversions[key]

    def _block_weight(
        self,
        node: ir.Node,
        position: int,
        value: ir.Value,
        array: np.ndarray,
        line: PlanNode,
        kind: DType,
        dtype: DType,
    ) -> ir.Value:
        """A weight in blocks behind a DequantizeLinear."""
        assert line.config.block_size is not None
        axis = summed_axis(node)
        key = (value, ("blocks", kind, axis, line.config.block_size, dtype))
        if key not in self.conversions:
            rows = array if axis == 1 else array.T
            blocks = b.quantize_blocks(rows, kind, line.config.block_size, NUMPY_FLOATS[dtype])
            codes, scale, zero = b.for_dequantize_linear(blocks, axis)
            self.conversions[key] = self._dequantized(
                value, codes, scale, zero, kind, f"_{kind}_blocks_{dtype}",
                {"axis": axis, "block_size": line.config.block_size}, dtype,
            )  # fmt: skip
        return self.conversions[key]

    def _dequantized(
        self, value: ir.Value, codes: np.ndarray | Made, scale: np.ndarray, zero: np.ndarray, kind: DType, suffix: str,
        attributes: dict[str, int], dtype: DType,
    ) -> ir.Value:  # fmt: skip
        """Codes as an initializer with a DequantizeLinear that gives float32 or float16."""
        graph = initializer_graph(value)
        base = f"{value.name}{suffix}"
        inputs = [
            initializer(graph, f"{base}_quantized", codes, IR_TYPES[kind]),
            initializer(graph, f"{base}_scale", scale.astype(NUMPY_FLOATS[dtype]), IR_TYPES[dtype]),
            initializer(graph, f"{base}_zero_point", zero, IR_TYPES[kind]),
        ]
        made = ir.node("DequantizeLinear", inputs, attributes, name=f"{base}_DequantizeLinear")
        out = made.outputs[0]
        out.name, out.shape, out.type = f"{base}_dequantized", value.shape, ir.TensorType(IR_TYPES[dtype])
        graph.insert_before(next(iter(graph)), made)
        return out

    # -- values ---------------------------------------------------------------------------------------------------

    def _store(self, out: ir.Value, dtype: DType, line: PlanNode, share: q.Parameters | None, node: ir.Node) -> None:
        """Put Q and DQ behind a node's output; every later use reads the DQ."""
        if line.fixed is not None:
            zero = q.numpy_codes(np.array(line.fixed.zero_point), dtype)
            parameters = q.Parameters(dtype, np.array(line.fixed.scale, np.float32), zero)
        elif share is not None and share.dtype is dtype and share.axis is None:
            parameters = share
        else:
            parameters = self._parameters(out, dtype)
        self._insert_qdq(out, parameters, after=node, replace=True)

    def _as_quantized(self, value: ir.Value, dtype: DType, consumer: ir.Node) -> ir.Value:
        """The value stored as dtype: itself if it is, else with a Q/DQ pair made once."""
        have = self.stored.get(value)
        if have is not None and have.parameters.dtype is dtype:
            return value
        key = (value, ("q", dtype))
        if key not in self.conversions:
            source = value if have is None else None
            name = value.name if source is not None else have.source if have is not None else None
            parameters = self._parameters(value, dtype, name)
            as_float32 = self._as_float(value, DType.FLOAT32, consumer)
            self.conversions[key] = self._insert_qdq(
                as_float32, parameters, after=place_of(as_float32, consumer), replace=False
            )
        return self.conversions[key]

    def _parameters(self, value: ir.Value, dtype: DType, name: str | None = None) -> q.Parameters:
        name = name or value.name or ""
        observed = self.ranges.get(_range_name(value, self.ranges) if value.name == name else name)
        if observed is None:
            raise RequestError(
                f"tensor {name!r} was never computed while calibrating, so it has no range",
                "give --inputs that reach this part of the model",
            )
        producer = value.producer()
        bounded = producer is not None and producer.op_type in _BOUNDED
        return q.activation_parameters(observed, dtype, bounded=bounded)

    def _insert_qdq(
        self, value: ir.Value, parameters: q.Parameters, *, after: ir.Node | ir.Graph, replace: bool
    ) -> ir.Value:
        graph = graph_of(after)
        base = f"{value.name}"
        suffix = "" if replace else f"_{parameters.dtype}"
        scale, zero = self._parameter_values(graph, f"{base}{suffix}", parameters)
        quantize = ir.Node("", "QuantizeLinear", [value, scale, zero], name=f"{base}{suffix}_QuantizeLinear")
        code = quantize.outputs[0]
        code.name, code.shape = f"{base}{suffix}_quantized", value.shape
        code.type = ir.TensorType(IR_TYPES[parameters.dtype])
        dequantize = ir.Node("", "DequantizeLinear", [code, scale, zero], name=f"{base}{suffix}_DequantizeLinear")
        out = dequantize.outputs[0]
        out.name, out.shape, out.type = f"{base}{suffix}_dequantized", value.shape, ir.TensorType(ir.DataType.FLOAT)
        self.stored[out] = _Quantized(parameters, value.name or "")
        if replace:
            # Uses are moved before the Q node reads the value, or Q would read its own DQ.
            quantize.replace_input_with(0, None)
            value.replace_all_uses_with(out, replace_graph_outputs=True)
            quantize.replace_input_with(0, value)
        if isinstance(after, ir.Node):
            graph.insert_after(after, [quantize, dequantize])
        else:
            first = next(iter(graph))
            graph.insert_before(first, [quantize, dequantize])
        return out

    def _parameter_values(self, graph: ir.Graph, base: str, parameters: q.Parameters) -> tuple[ir.Value, ir.Value]:
        scale = initializer(graph, f"{base}_scale", parameters.scale, ir.DataType.FLOAT)
        zero = initializer(graph, f"{base}_zero_point", parameters.zero_point, IR_TYPES[parameters.dtype])
        return scale, zero

    def _stored_constant(
        self, value: ir.Value, codes: np.ndarray | Made, parameters: q.Parameters, dtype: ir.DataType, suffix: str
    ) -> ir.Value:
        graph = initializer_graph(value)
        base = f"{value.name}{suffix}"
        stored = initializer(graph, f"{base}_quantized", codes, dtype)
        scale = initializer(graph, f"{base}_scale", parameters.scale, ir.DataType.FLOAT)
        zero = initializer(graph, f"{base}_zero_point", parameters.zero_point, dtype)
        attributes = [] if parameters.axis is None else [ir.AttrInt64("axis", parameters.axis)]
        node = ir.Node("", "DequantizeLinear", [stored, scale, zero], attributes, name=f"{base}_DequantizeLinear")
        out = node.outputs[0]
        out.name, out.shape, out.type = f"{base}_dequantized", value.shape, ir.TensorType(ir.DataType.FLOAT)
        graph.insert_before(next(iter(graph)), node)
        self.stored[out] = _Quantized(parameters, value.name or "")
        return out

    def _constant(self, value: ir.Value, array: np.ndarray, dtype: DType, error: np.ndarray | None = None) -> ir.Value:
        """A constant in the place of an activation: stored in the activation's type, over its own range; less an error that
        it is to take off."""
        key = (value, ("constant", dtype, None if error is None else error.tobytes()))
        if key not in self.conversions:
            array = (array if error is None else array - error.reshape(array.shape)).astype(np.float32)
            if np.isnan(array).any():
                raise RequestError(f"constant {value.name!r} holds NaN", "the model itself is broken")
            held = q.constant_range(array)
            if held.masked_low or held.masked_high:
                self.notes.append(f"constant {value.name!r} holds masks: stored as the ends of its range")
            # A constant is known whole: it needs no headroom.
            parameters = q.activation_parameters(held, dtype, bounded=True)
            largest = float(np.finfo(np.float32).max)
            codes = q.quantize(np.nan_to_num(array, posinf=largest, neginf=-largest), parameters)
            self.conversions[key] = self._stored_constant(value, codes, parameters, IR_TYPES[dtype], f"_{dtype}")
        return self.conversions[key]

    def _weight(
        self,
        value: ir.Value,
        array: np.ndarray,
        dtype: DType,
        axis: int | None,
        bias: np.ndarray | None,
        data: q.Parameters | None,
    ) -> ir.Value:
        parameters = q.weight_parameters(array.astype(np.float32, copy=False), dtype, axis)
        if bias is not None and data is not None:
            scale = q.scale_for_bias(bias, float(data.scale), parameters.scale)
            if (scale != parameters.scale).any():
                parameters = q.Parameters(dtype, scale, parameters.zero_point, axis)
        key = (value, ("weight", dtype, axis, parameters.scale.tobytes()))
        if key not in self.conversions:
            codes = Made(lambda: q.quantize(array, parameters), array.shape)
            shared = sum(1 for k in self.conversions if k[0] is value)
            suffix = f"_{dtype}" + (f"_{shared}" if shared else "")
            self.conversions[key] = self._stored_constant(value, codes, parameters, IR_TYPES[dtype], suffix)
        return self.conversions[key]

    def _bias(
        self,
        value: ir.Value,
        array: np.ndarray | None,
        data: q.Parameters | None,
        weight: q.Parameters | None,
        line: PlanNode,
        node: ir.Node,
    ) -> ir.Value:
        activation = line.activation
        assert activation is not None
        if line.float_bias:
            same = array is None or array is constant_array(value)
            own = constant_array(value)
            if array is None or (own is not None and np.array_equal(array, own)):
                return self._as_float(value, DType.FLOAT32, node)
            return self._float_bias(value, array)
        if array is None or data is None or weight is None:
            return (
                self._as_quantized(value, activation, node)
                if array is None
                else self._constant(value, array, activation)
            )
        scale, zero = q.bias_parameters(float(data.scale), weight.scale)
        per_channel = scale.ndim > 0
        codes = np.rint(array.astype(np.float64) / scale.astype(np.float64))
        codes = np.clip(codes, -(2**31), 2**31 - 1).astype(np.int32)
        parameters = q.Parameters(DType.INT16, scale, zero, 0 if per_channel else None)
        key = (value, ("bias", codes.tobytes(), scale.tobytes()))
        if key not in self.conversions:
            shared = sum(1 for k in self.conversions if k[0] is value)
            suffix = "_int32" + (f"_{shared}" if shared else "")
            self.conversions[key] = self._stored_constant(value, codes, parameters, ir.DataType.INT32, suffix)
        return self.conversions[key]

    def _float_bias(self, value: ir.Value, array: np.ndarray) -> ir.Value:
        """The bias with other numbers than the model has, as float32."""
        key = (value, ("bias", array.tobytes()))
        if key not in self.conversions:
            self.conversions[key] = self._float_constant(value, array, DType.FLOAT32)
        return self.conversions[key]

    def _as_float(self, value: ir.Value, dtype: DType, consumer: ir.Node) -> ir.Value:
        if value.dtype == IR_TYPES[dtype]:
            return value
        array = constant_array(value)
        key = (value, dtype)
        if key not in self.conversions:
            if array is not None:
                self.conversions[key] = self._float_constant(value, array, dtype)
            else:
                self.conversions[key] = self._cast(value, IR_TYPES[dtype], place_of(value, consumer))
        return self.conversions[key]

    def _float_constant(self, value: ir.Value, array: np.ndarray, dtype: DType) -> ir.Value:
        if dtype is DType.FLOAT16:
            half = _half(array)
            if (np.isfinite(array) & np.isinf(half)).any():
                self.notes.append(
                    f"constant {value.name!r} holds values beyond float16's {_FLOAT16_LARGEST:g}: clamped to it"
                )
            if ((half == 0) & (array != 0)).any():
                self.notes.append(f"constant {value.name!r} holds values below float16's 6e-8: they become 0")
            made = Made(lambda: _clamped(array), array.shape)
        else:
            made = Made(lambda: array.astype(np.float32), array.shape)
        return initializer(initializer_graph(value), f"{value.name}_{dtype}", made, IR_TYPES[dtype])

    def _cast(self, value: ir.Value, dtype: ir.DataType, after: ir.Node | ir.Graph) -> ir.Value:
        graph = graph_of(after)
        name = f"{value.name}_to_{dtype.name.lower()}"
        node = ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(dtype))], name=f"{name}_Cast")
        node.outputs[0].name, node.outputs[0].shape = name, value.shape
        node.outputs[0].type = ir.TensorType(dtype)
        if isinstance(after, ir.Node):
            graph.insert_after(after, node)
        elif value.producer() is not None and value.producer().graph is graph:  # type: ignore[union-attr]
            graph.insert_after(value.producer(), node)  # type: ignore[arg-type]
        else:
            graph.insert_before(next(iter(graph)), node)
        return node.outputs[0]


def _half(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return array.astype(np.float16)


def _clamped(array: np.ndarray) -> np.ndarray:
    """The array in float16, with float16's largest number in place of finite ones that overflowed."""
    half = _half(array)
    overflowed = np.isinf(half) & np.isfinite(array)
    return np.where(overflowed, np.sign(half) * np.float16(_FLOAT16_LARGEST), half) if overflowed.any() else half


def _has_int32_bias(node: ir.Node) -> bool:
    return node.op_type in (
        "Conv",
        "ConvTranspose",
        "Gemm",
        "LayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "BatchNormalization",
    )


def _keeps_range(node: ir.Node) -> bool:
    """Whether the node's output stays within the range of its data input: cubic resizing overshoots, Pad may add a
    constant from outside."""
    if node.op_type == "Resize":
        mode = node.attributes.get("mode")
        return mode is None or mode.as_string() != "cubic"
    if node.op_type == "Pad":
        mode = node.attributes.get("mode")
        constant = mode is None or mode.as_string() == "constant"
        value = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
        return not constant or value is None or not value.any()
    return True


def _range_name(value: ir.Value, ranges: Mapping[str, Range]) -> str:
    """The tensor whose range a value is stored over: that of a Relu or Clip that is its only user, since what these
    cut off needs no codes."""
    name = value.name or ""
    uses = list(value.uses())
    if len(uses) == 1 and not value.is_graph_output():
        user = uses[0].node
        if user.op_type in ("Relu", "Clip") and user.domain in ("", "ai.onnx") and uses[0].idx == 0:
            after = user.outputs[0].name or ""
            return after if after in ranges else name
    return name


def _shares_data_type(node: ir.Node, position: int) -> bool:
    """Whether input ``position`` has the type of the node's data (ONNX: the same type parameter), so that it follows
    it to float16; Resize's scales, say, stay float32."""
    domain = "" if node.domain in ("", "ai.onnx") else node.domain
    try:
        schema = onnx.defs.get_schema(node.op_type, 21, domain)
    except onnx.defs.SchemaError:
        return True
    formal = schema.inputs[min(position, len(schema.inputs) - 1)]
    first = schema.inputs[1] if node.op_type in ("Where", "OneHot") else schema.inputs[0]
    if node.op_type == "OneHot":
        return position == 2
    if node.op_type == "Pow":
        return True  # its exponent may have another type, but EPs have kernels for equal ones only
    return bool(formal.type_str == first.type_str) or (
        "float16" in str(formal.types)
        and formal.type_str not in ("tensor(float)",)
        and node.op_type in ("BatchNormalization",)
    )


def _remove_cast_pairs(model: ir.Model) -> None:
    """Drop a Cast to float32 whose only readers cast back to float16 what was float16 before."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in list(graph):
            if node.op_type != "Cast" or node.inputs[0] is None:
                continue
            source = node.inputs[0].producer()
            if (
                source is not None
                and source.op_type == "Cast"
                and source.inputs[0] is not None
                and source.inputs[0].dtype == node.outputs[0].dtype
                and source.inputs[0].dtype == ir.DataType.FLOAT16
                and node.inputs[0].dtype == ir.DataType.FLOAT
                and not node.outputs[0].is_graph_output()
            ):
                node.outputs[0].replace_all_uses_with(source.inputs[0])
                graph.remove(node, safe=True)
                if (
                    not source.outputs[0].uses()
                    and not source.outputs[0].is_graph_output()
                    and source.graph is not None
                ):
                    source.graph.remove(source, safe=True)


def _remove_unused_initializers(model: ir.Model) -> None:
    for graph in (model.graph, *model.graph.subgraphs()):
        outputs = {id(o) for o in graph.outputs}
        for name, value in list(graph.initializers.items()):
            if not value.uses() and id(value) not in outputs and not value.is_graph_input():
                del graph.initializers[name]
