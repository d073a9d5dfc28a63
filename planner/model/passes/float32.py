"""A float16, bfloat16 or float64 model as the float32 model that precisions are chosen for."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from planner.model.names import Names
from planner.model.passes.edit import insert_first
from planner.model.passes.match import HALVES, WAS_HALF

_F = ir.DataType
_OTHER = (*HALVES, _F.DOUBLE)
# Attributes that name an element type. The domains whose operators compute the same in any float type.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")
_DOMAINS = ("", "ai.onnx", "com.microsoft", "ai.onnx.ml")
# Larger constants are widened each time they are read: together they may be gigabytes.
_KEPT = 1 << 20


def compute_in_float32(model: ir.Model) -> str | None:
    """Let everything between the graph's inputs and outputs be float32.

    Inputs and outputs of a 16-bit type keep it, with a Cast; float64 ones become float32.

    Args:
        model: changed in place, types inferred.

    Returns:
        What the user should know of it; None where nothing changed for them.
    """
    graphs = (model.graph, *model.graph.subgraphs())
    if any(node.domain not in _DOMAINS for node in model.graph.all_nodes()):
        return None  # nobody knows what an operator of another domain takes
    if any(node.op_type == "BitCast" for node in model.graph.all_nodes()):
        return None  # it gives the bits of a number a meaning, which those of another type do not have
    values = [v for graph in graphs for v in _values(graph)]
    if not any(v.dtype in _OTHER for v in values):
        return None
    had_float64 = [str(v.name) for v in (*model.graph.inputs, *model.graph.outputs) if v.dtype == _F.DOUBLE]
    results = [(out, out.name, out.dtype) for out in model.graph.outputs]
    inputs = [value for value in model.graph.inputs if value.dtype in HALVES]
    halves = {id(value) for value in inputs}
    for value in values:
        if value.dtype in _OTHER and id(value) not in halves:
            _widen(value)
    for node in model.graph.all_nodes():
        _widen_attributes(node)
    names = Names(model)
    for value in inputs:
        _widen_input(model.graph, value, names)
    for index, (_, name, dtype) in enumerate(results):
        if dtype in HALVES:
            _narrow_output(model.graph, index, name, dtype, names)
    if had_float64:
        return f"float64 is computed and given out in float32: {', '.join(had_float64)}"
    return None


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *graph.initializers.values(), *(out for node in graph for out in node.outputs)]


def _widen(value: ir.Value) -> None:
    if not isinstance(value.type, ir.TensorType):
        return
    if value.dtype in HALVES:
        value.meta[WAS_HALF] = True
    value.type = ir.TensorType(_F.FLOAT)
    if value.const_value is not None:
        value.const_value = _widened(value.const_value)


def _widened(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    def make() -> ir.TensorProtocol:
        with np.errstate(over="ignore"):
            return ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)

    if tensor.size <= _KEPT:
        return make()
    return ir.LazyTensor(make, _F.FLOAT, ir.Shape(tensor.shape.numpy()), name=tensor.name)


def _widen_attributes(node: ir.Node) -> None:
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in _OTHER:
            node.attributes[name] = ir.AttrTensor(name, _widened(attribute.as_tensor()))
        elif name in _TYPE_ATTRIBUTES and attribute.type == ir.AttributeType.INT and attribute.as_int() in _OTHER:
            node.attributes[name] = ir.AttrInt64(name, int(_F.FLOAT))
    first = node.inputs[0] if node.inputs else None
    if node.op_type == "Cast" and first is not None and first.dtype == _F.FLOAT and node.outputs[0].dtype == _F.FLOAT:
        node.op_type = "Identity"
        node.attributes.clear()


def _widen_input(graph: ir.Graph, value: ir.Value, names: Names) -> None:
    wide = _cast(value, names.value(f"{value.name}_widened"), _F.FLOAT, names)
    wide.outputs[0].meta[WAS_HALF] = True
    uses = list(value.uses())
    given = [index for index, out in enumerate(graph.outputs) if out is value]
    insert_first(graph, wide)
    for user, index in uses:
        if user is not wide:
            user.replace_input_with(index, wide.outputs[0])
    for index in given:
        graph.outputs[index] = wide.outputs[0]


def _narrow_output(graph: ir.Graph, index: int, name: str | None, dtype: ir.DataType, names: Names) -> None:
    value = graph.outputs[index]
    narrow = _cast(value, name, dtype, names)
    if value.name == name:
        value.name = names.value(f"{name}_to_narrow")
    graph.append(narrow)
    graph.outputs[index] = narrow.outputs[0]


def _cast(value: ir.Value, name: str | None, dtype: ir.DataType, names: Names) -> ir.Node:
    node = ir.node("Cast", [value], {"to": int(dtype)}, name=names.node(f"{name}_Cast"))
    out = node.outputs[0]
    out.name, out.type, out.shape = name, ir.TensorType(dtype), value.shape
    return node
