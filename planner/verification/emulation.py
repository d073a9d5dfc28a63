"""Emulating a float16 EP on the CPU EP: float32 arithmetic with every result rounded to float16.

Running a float16 file on the CPU EP is no emulation: it computes in float32 and drops the casts between neighbours,
even with all optimisations off, so that a value above 65504 passes where a float16 EP gives inf. Here each float16
result is cast to float16 and back explicitly, which onnxruntime keeps. A partial sum that overflows inside one kernel
cannot be seen this way.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from planner.model.inference import infer_once
from planner.model.names import Names
from planner.model.values import tensor_dtype
from planner.operators import Keeps, operator

_HALF, _SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT
# Attributes that name an element type.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "stash_type")


def emulate_float16(model: ir.Model) -> ir.Model:
    """A copy in which every float16 tensor is float32 rounded to float16; other tensors are left alone.

    Graph inputs and outputs keep their names, types and shapes. Inner values keep their names, so that two runs can be
    compared tensor by tensor; what they were before rounding is called `<name>_unrounded`. Q/DQ nodes stay.
    """
    copy = model.clone()
    infer_once(copy)
    halves = _float16_values(copy.graph)
    _widen(copy.graph, halves, Names(copy), is_main=True)
    copy.graph.sort()
    return copy


def uses_float16(model: ir.Model) -> bool:
    """Whether any tensor of the model is float16."""
    return bool(_float16_values(model.graph))


def _float16_values(graph: ir.Graph) -> set[ir.Value]:
    """Every float16 value of the graph and of the graphs inside it.

    A value whose type shape inference does not know (an operator of another domain) follows its node's first float
    input.
    """
    halves = {v for v in (*graph.inputs, *graph.initializers.values()) if tensor_dtype(v) == _HALF}
    for node in ir.traversal.RecursiveGraphIterator(graph):
        inner = (a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH)
        for sub in inner:
            halves |= {v for v in (*sub.inputs, *sub.initializers.values()) if tensor_dtype(v) == _HALF}
        floats = [v for v in node.inputs if v is not None and (v in halves or tensor_dtype(v) == _SINGLE)]
        for out in node.outputs:
            if not out.name:
                continue  # an output that is left out
            if tensor_dtype(out) == _HALF or (tensor_dtype(out) is None and floats and floats[0] in halves):
                halves.add(out)
    return halves


def _widen(graph: ir.Graph, halves: set[ir.Value], names: Names, *, is_main: bool) -> None:
    for value in graph.initializers.values():
        if value in halves and value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
            value.type = ir.TensorType(_SINGLE)
    for value in graph.inputs:
        if value in halves:
            _widen_input(graph, value, names, is_main=is_main)
    for node in list(graph):
        for attribute in list(node.attributes.values()):
            if attribute.type == ir.AttributeType.GRAPH:
                _widen(attribute.as_graph(), halves, names, is_main=False)
            elif attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == _HALF:
                wide_tensor = ir.tensor(attribute.as_tensor().numpy().astype(np.float32))
                node.attributes[attribute.name] = ir.AttrTensor(attribute.name, wide_tensor)
            elif attribute.name in _TYPE_ATTRIBUTES and attribute.value == int(_HALF):
                node.attributes[attribute.name] = ir.AttrInt64(attribute.name, int(_SINGLE))
        for out in node.outputs:
            if out in halves:
                _round(graph, node, out, names, is_main=is_main)


def _widen_input(graph: ir.Graph, value: ir.Value, names: Names, *, is_main: bool) -> None:
    """An input of a subgraph becomes float32; one of the model stays float16 and is cast behind it."""
    if not is_main:
        value.type = ir.TensorType(_SINGLE)
        return
    uses = tuple(value.uses())
    if uses:
        wide = _cast(value, _SINGLE, names.value(f"{value.name}_float32"), names)
        graph.insert_before(graph[0], wide.producer())  # type: ignore[arg-type]
        for node, index in uses:
            node.replace_input_with(index, wide)


def _round(graph: ir.Graph, node: ir.Node, out: ir.Value, names: Names, *, is_main: bool) -> None:
    """Put Cast(float16) and, but for an output of the whole model, Cast(float32) behind a float16 result."""
    is_output = any(o is out for o in graph.outputs)
    uses = tuple(out.uses())
    out.type = ir.TensorType(_SINGLE)
    # Values of the input are rounded already; Resize, which keeps their range, interpolates.
    if operator(node.op_type).keeps in (Keeps.ALL, Keeps.SOME) and not (is_main and is_output):
        return  # its values were rounded where they were made
    name = out.name or ""
    out.name = names.value(f"{name}_unrounded")
    narrow = _cast(out, _HALF, names.value(f"{name}_float16"), names)
    wide = _cast(narrow, _SINGLE, name, names)
    graph.insert_after(node, [narrow.producer(), wide.producer()])  # type: ignore[list-item]
    for user, index in uses:
        user.replace_input_with(index, wide)
    if is_output:
        if is_main:
            narrow.name, wide.name = name, names.value(f"{name}_float32")
        for index, current in enumerate(graph.outputs):
            if current is out:
                graph.outputs[index] = narrow if is_main else wide


def _cast(value: ir.Value, dtype: ir.DataType, name: str, names: Names) -> ir.Value:
    cast = ir.node("Cast", [value], {"to": int(dtype)}, name=names.node(f"{name}:emulation"))
    result = cast.outputs[0]
    result.name, result.type, result.shape = name, ir.TensorType(dtype), value.shape
    return result
