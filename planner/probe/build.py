"""The one-operator model of a probe case, rebuilt from it bit for bit, and values for its inputs."""

from __future__ import annotations

import functools
import zlib
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from planner.dtypes import DType
from planner.probe.case import Case, Granularity, block_axis
from planner.probe.forms import Form, Kind, Slot
from planner.quantization.parameters import (
    Parameters,
    asymmetric,
    bias_parameters,
    numpy_codes,
    quantize,
    symmetric,
    weight_parameters,
)

NODE = "target"
_BLOCK = 16
Array = np.ndarray[Any, Any]


def build(case: Case) -> onnx.ModelProto:
    """The one-operator model of a case; the operator's node is named NODE."""
    return _Builder(case).model()


def inputs_of(case: Case) -> dict[str, Array]:
    """Seeded values for the graph inputs of the case's model."""
    builder = _Builder(case)
    return {
        f"x{i}": builder.values(i, slot)
        for i, slot in enumerate(case.form.slots)
        if slot is not None and _flows(slot) and not slot.sequence
    }


def _flows(slot: Slot) -> bool:
    return slot.kind is Kind.ACTIVATION or (slot.kind is Kind.EXACT and not slot.constant)


class _Builder:
    def __init__(self, case: Case) -> None:
        self.case = case
        self.form = case.form
        self.initializers: list[TensorProto] = []
        self.nodes: list[onnx.NodeProto] = []
        # 16-bit and 4-bit Q/DQ came with opset 21.
        self.float = np.dtype(np.float16 if case.activation is DType.FLOAT16 else np.float32)
        self.quantizes = case.activation is not None and not case.activation.is_float

    def values(self, position: int, slot: Slot) -> Array:
        """The float (or exact) content of an operand."""
        dtype = self.float if slot.kind is not Kind.EXACT else np.dtype(slot.dtype)
        if slot.data is not None:
            return (
                np.array(slot.data, np.float64).astype(dtype).reshape(slot.shape)
                if dtype.kind == "f"
                else np.array(slot.data, dtype).reshape(slot.shape)
            )
        # Seeded by operator and position, so that the pairs of a form compute on the same numbers.
        seed = zlib.crc32(f"{self.form.name}/{position}".encode())
        random = np.random.default_rng(seed)
        if dtype.kind == "O":
            return np.array(["a b", "c", "d.e"], object)[random.integers(0, 3, slot.shape)]
        if dtype.kind == "b":
            return random.integers(0, 2, slot.shape).astype(bool)
        if dtype.kind in "iu":
            return random.integers(int(slot.low), max(int(slot.high), int(slot.low) + 1), slot.shape).astype(dtype)
        return np.asarray(random.uniform(slot.low, slot.high, slot.shape)).astype(dtype)

    def model(self) -> onnx.ModelProto:
        form = self.form
        graph_inputs, names = [], []
        for i, slot in enumerate(form.slots):
            if slot is None:
                names.append("")
                continue
            names.append(self._operand(i, slot))
            if _flows(slot):
                shape: list[int | str] = [f"d{a}" if a in form.dynamic else d for a, d in enumerate(slot.shape)]
                dtype = helper.np_dtype_to_tensor_dtype(self.values(i, slot).dtype)
                make = helper.make_tensor_sequence_value_info if slot.sequence else helper.make_tensor_value_info
                graph_inputs.append(make(f"x{i}", dtype, shape))
        inferred = _output_types(form)
        types = [t.tensor_type.elem_type for t in inferred]
        outputs = [f"y{i}" for i in range(form.outputs)]
        if form.body:
            names = names[:1] if form.op == "If" else names
        node = helper.make_node(form.op, names, outputs, name=NODE, domain=form.domain, **form.attributes)
        for name, make in form.body.items():
            node.attribute.append(helper.make_attribute(name, make()))
        quantized = [o for o, t in zip(outputs, types, strict=True) if t == TensorProto.FLOAT and self.quantizes]
        node.output[:] = [f"{o}_raw" if o in quantized else o for o in outputs]
        self.nodes.append(node)
        for name in quantized:
            self._quantize_output(name)
        kind = helper.np_dtype_to_tensor_dtype(self.float)
        shapes = form.states or (None,) * form.outputs
        graph_outputs = [
            helper.make_tensor_value_info(o, kind if t == TensorProto.FLOAT and form.has_float else t, shape)
            if t
            else helper.make_value_info(o, whole)
            for o, t, shape, whole in zip(outputs, types, shapes, inferred, strict=True)
        ]
        inner = [
            helper.make_tensor_value_info(f"{o}_raw", kind, shape)
            for o, shape in zip(outputs, shapes, strict=True)
            if o in quantized and shape is not None
        ]
        graph = helper.make_graph(self.nodes, "probe", graph_inputs, graph_outputs, self.initializers, value_info=inner)
        opsets = [helper.make_opsetid("", form.opset)]
        if form.domain:
            opsets.append(helper.make_opsetid(form.domain, _domain_version(form)))
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=10 if form.opset < 23 else 11, producer_name="planner probe"
        )

    def _operand(self, i: int, slot: Slot) -> str:
        values = self.values(i, slot)
        case = self.case
        if _flows(slot):
            if slot.kind is Kind.ACTIVATION and self.quantizes:
                return self._through_q(f"x{i}", self._parameters(slot))
            return f"x{i}"
        if slot.kind is Kind.CONSTANT and self.quantizes:
            return self._dequantized(f"c{i}", values, self._parameters(slot, values))
        if slot.kind is Kind.WEIGHT and case.weight is not None and not case.weight.is_float:
            return self._quantized_weight(i, slot, values)
        if (
            slot.kind is Kind.BIAS
            and self.quantizes
            and case.weight is not None
            and case.granularity is not Granularity.BLOCK
        ):
            return self._quantized_bias(i, values)
        if slot.kind is Kind.BIAS and self.quantizes and case.weight is None:
            return self._dequantized(f"c{i}", values, self._parameters(slot, values))
        self.initializers.append(numpy_helper.from_array(values, f"c{i}"))
        return f"c{i}"

    def _parameters(self, slot: Slot, values: Array | None = None) -> Parameters:
        assert self.case.activation is not None
        low, high = slot.low, slot.high
        if values is not None and values.size:
            low, high = float(values.min()), float(values.max())
        if self.form.symmetric:
            return symmetric(np.asarray(max(abs(low), abs(high))), self.case.activation, None)
        return asymmetric(low, high, self.case.activation)

    def _scalar_codes(self, name: str, parameters: Parameters) -> tuple[str, str]:
        scale = np.asarray(parameters.scale, self.float)
        self.initializers.append(numpy_helper.from_array(scale, f"{name}_scale"))
        self.initializers.append(_tensor(parameters.zero_point, f"{name}_zero"))
        return f"{name}_scale", f"{name}_zero"

    def _dequantize(self, name: str, result: str, **attributes: int) -> str:
        operands = [f"{name}_q", f"{name}_scale", f"{name}_zero"]
        self.nodes.append(helper.make_node("DequantizeLinear", operands, [result], name=f"{name}_DQ", **attributes))
        return result

    def _through_q(self, name: str, parameters: Parameters) -> str:
        scale, zero = self._scalar_codes(name, parameters)
        self.nodes.append(helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name}_q"], name=f"{name}_Q"))
        return self._dequantize(name, f"{name}_dq")

    def _quantize_output(self, name: str) -> None:
        assert self.case.activation is not None
        first = self.form.slots[0]
        if self.form.same_scale and first is not None and first.kind in (Kind.ACTIVATION, Kind.CONSTANT):
            values = None if first.kind is Kind.ACTIVATION else self.values(0, first)
            parameters = self._parameters(first, values)
        elif self.form.symmetric:
            parameters = symmetric(np.asarray(max(map(abs, self.form.output))), self.case.activation, None)
        else:
            parameters = asymmetric(*self.form.output, self.case.activation)
        scale, zero = self._scalar_codes(name, parameters)
        self.nodes.append(
            helper.make_node("QuantizeLinear", [f"{name}_raw", scale, zero], [f"{name}_q"], name=f"{name}_Q")
        )
        self._dequantize(name, name)

    def _dequantized(self, name: str, values: Array, parameters: Parameters) -> str:
        self.initializers.append(_tensor(quantize(values.astype(np.float32), parameters), f"{name}_q"))
        self._scalar_codes(name, parameters)
        return self._dequantize(name, name, **({} if parameters.axis is None else {"axis": parameters.axis}))

    def _quantized_weight(self, i: int, slot: Slot, values: Array) -> str:
        assert self.case.weight is not None
        if self.case.granularity is Granularity.BLOCK:
            return self._blocked_weight(i, values.astype(np.float32), self.case.weight)
        axis = slot.axis if self.case.granularity is Granularity.CHANNEL else None
        return self._dequantized(f"c{i}", values, weight_parameters(values.astype(np.float32), self.case.weight, axis))

    def _blocked_weight(self, i: int, values: Array, dtype: DType) -> str:
        """Blocks of _BLOCK numbers along the axis that is summed over share a scale (ONNX DequantizeLinear, block_size)."""
        axis = block_axis(self.form)
        assert axis is not None
        shape = list(values.shape)
        shape[axis : axis + 1] = [shape[axis] // _BLOCK, _BLOCK]
        blocks = values.reshape(shape)
        _, largest = dtype.integer_range
        middle = 0 if dtype.is_signed else (largest + 1) // 2
        scale = (np.abs(blocks).max(axis=axis + 1) / (largest - middle)).astype(np.float32)
        spread = np.repeat(scale, _BLOCK, axis=axis)
        smallest, largest = dtype.integer_range
        codes = np.clip(np.rint(values / spread) + middle, smallest, largest)
        name = f"c{i}"
        self.initializers.append(_tensor(numpy_codes(codes, dtype), f"{name}_q"))
        self.initializers.append(numpy_helper.from_array(scale.astype(self.float), f"{name}_scale"))
        self.initializers.append(_tensor(numpy_codes(np.full(scale.shape, middle), dtype), f"{name}_zero"))
        return self._dequantize(name, name, axis=axis, block_size=_BLOCK)

    def _quantized_bias(self, i: int, values: Array) -> str:
        """int32 at activation scale x weight scale, per channel where the weight is (ONNX QLinearConv)."""
        position, slot = next((p, s) for p, s in enumerate(self.form.slots) if s is not None and s.kind is Kind.WEIGHT)
        assert self.case.weight is not None
        axis = slot.axis if self.case.granularity is Granularity.CHANNEL else None
        weights = weight_parameters(self.values(position, slot).astype(np.float32), self.case.weight, axis)
        flowing = next((s for s in self.form.slots if s is not None and s.kind is Kind.ACTIVATION), None)
        assert flowing is not None
        scale, zero = bias_parameters(float(self._parameters(flowing).scale), weights.scale)
        per_axis = values.ndim - 1 if scale.size > 1 and values.ndim > 1 else 0
        if scale.size > 1 and values.shape[per_axis : per_axis + 1] != scale.shape:
            scale, zero = scale.reshape(-1)[0].reshape(()), zero.reshape(-1)[0].reshape(())
        spread = scale if scale.ndim == 0 else scale.reshape([-1 if a == per_axis else 1 for a in range(values.ndim)])
        codes = np.clip(np.rint(values.astype(np.float64) / spread), -(2**31), 2**31 - 1).astype(np.int32)
        name = f"c{i}"
        self.initializers.append(numpy_helper.from_array(codes, f"{name}_q"))
        self.initializers.append(numpy_helper.from_array(np.asarray(scale, self.float), f"{name}_scale"))
        self.initializers.append(numpy_helper.from_array(np.asarray(zero), f"{name}_zero"))
        return self._dequantize(name, name, **({"axis": per_axis} if scale.ndim else {}))


def _domain_version(form: Form) -> int:
    """The opset of a form's own domain: the last that has its operator; 1 for domains that ONNX does not define."""
    found = [
        s.since_version
        for s in onnx.defs.get_all_schemas_with_history()
        if (s.name, s.domain) == (form.op, form.domain) and not s.deprecated
    ]
    return max(found, default=1)


def _tensor(codes: Array, name: str) -> TensorProto:
    return numpy_helper.from_array(np.asarray(codes), name)


def _output_types(form: Form) -> list[onnx.TypeProto]:
    """Types of the outputs in float32: inferred by ONNX, float32 tensors for operators that it does not define."""
    if not onnx.defs.has(form.op, form.domain):
        return [helper.make_tensor_type_proto(TensorProto.FLOAT, None)] * form.outputs
    return _inferred_types(_Key(form))


class _Key:
    """A form as a cache key: forms hold dictionaries and are not hashable themselves."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self._text = repr(
            (form.op, form.slots, sorted(form.attributes.items(), key=str), form.opset, form.outputs, form.domain)
        )

    def __hash__(self) -> int:
        return hash(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._text == other._text


@functools.lru_cache(4096)
def _inferred_types(key: _Key) -> list[onnx.TypeProto]:
    form = key.form
    outputs = [f"y{i}" for i in range(form.outputs)]
    inputs, names = [], []
    for i, slot in enumerate(form.slots):
        names.append("" if slot is None else f"x{i}")
        if slot is not None:
            dtype = slot.dtype if slot.kind is Kind.EXACT else "float32"
            make = helper.make_tensor_sequence_value_info if slot.sequence else helper.make_tensor_value_info
            inputs.append(make(f"x{i}", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), slot.shape))
    given = names[:1] if form.op == "If" else names
    node = helper.make_node(form.op, given, outputs, domain=form.domain, **form.attributes)
    for name, make in form.body.items():
        node.attribute.append(helper.make_attribute(name, make()))
    graph = helper.make_graph([node], "types", inputs, [onnx.ValueInfoProto(name=o) for o in outputs])
    opsets = [helper.make_opsetid("", form.opset)]
    if form.domain:
        opsets.append(helper.make_opsetid(form.domain, _domain_version(form)))
    model = helper.make_model(graph, opset_imports=opsets)
    found = {v.name: v.type for v in onnx.shape_inference.infer_shapes(model).graph.output}
    unknown = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    return [found[o] if o in found and found[o].WhichOneof("value") else unknown for o in outputs]
