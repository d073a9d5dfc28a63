"""Between float32 and float16: Cast nodes, and constants in the other type."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from planner.dtypes import FLOAT16_LARGEST, DType
from planner.model.values import constant_array, numbers, tensor_dtype
from planner.quantization.graph import IR_TYPES, Made, Rewriting, graph_of, place_of, put


def as_float(rewriting: Rewriting, value: ir.Value, dtype: DType, consumer: ir.Node) -> ir.Value:
    """The value as float32 or float16, converted once where it is stored otherwise.

    Args:
        rewriting: the model.
        value: float32 or float16.
        dtype: the type that is wanted.
        consumer: the node that reads it.
    """
    if tensor_dtype(value) == IR_TYPES[dtype]:
        return value
    key = (value, dtype)
    if key not in rewriting.made:
        array = constant_array(value)
        if array is not None:
            rewriting.made[key] = _constant(rewriting, value, array, dtype)
        else:
            rewriting.made[key] = cast(rewriting, value, IR_TYPES[dtype], place_of(value, consumer))
    return rewriting.made[key]


def _constant(rewriting: Rewriting, value: ir.Value, array: np.ndarray, dtype: DType) -> ir.Value:
    if dtype is DType.FLOAT16:
        half = _half(array)
        if (np.isfinite(array) & np.isinf(half)).any():
            rewriting.notes.append(
                f"constant {value.name!r} holds values beyond float16's {FLOAT16_LARGEST:g}: clamped to it"
            )
        if ((half == 0) & (array != 0)).any():
            rewriting.notes.append(f"constant {value.name!r} holds values below float16's 6e-8: they become 0")
        made = Made(lambda: _clamped(numbers(value)), array.shape)
    else:
        made = Made(lambda: numbers(value).astype(np.float32), array.shape)
    return rewriting.initializer(graph_of(value), f"{value.name}_{dtype}", made, IR_TYPES[dtype])


def cast(rewriting: Rewriting, value: ir.Value, dtype: ir.DataType, after: ir.Node | ir.Graph) -> ir.Value:
    """A Cast of the value, put behind a node, or into a graph."""
    name = f"{value.name}_to_{dtype.name.lower()}"
    made = rewriting.node(
        "Cast", [value], (name, dtype, value.shape), name=f"{name}_Cast", attributes={"to": int(dtype)}
    )
    producer = value.producer()
    if isinstance(after, ir.Graph) and producer is not None and producer.graph is graph_of(after):
        after = producer
    put(made, after)
    rewriting.sources[made.outputs[0]] = rewriting.source(value)
    return made.outputs[0]


def _half(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return array.astype(np.float16)


def _clamped(array: np.ndarray) -> np.ndarray:
    """The array in float16, with float16's largest number in place of finite ones that overflowed."""
    half = _half(array)
    overflowed = np.isinf(half) & np.isfinite(array)
    return np.where(overflowed, np.sign(half) * np.float16(FLOAT16_LARGEST), half) if overflowed.any() else half


def remove_cast_pairs(model: ir.Model) -> None:
    """Drop a Cast to float32 whose only readers cast back to float16 what was float16 before."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in list(graph):
            first = _undone(node)
            if first is None or first.inputs[0] is None:
                continue
            node.outputs[0].replace_all_uses_with(first.inputs[0])
            graph.remove(node, safe=True)
            unused = not first.outputs[0].uses() and not first.outputs[0].is_graph_output()
            if unused and first.graph is not None:
                first.graph.remove(first, safe=True)


def _undone(node: ir.Node) -> ir.Node | None:
    """The Cast from float16 to float32 that this Cast undoes."""
    value = node.inputs[0] if node.op_type == "Cast" else None
    first = None if value is None else value.producer()
    if value is None or first is None or first.op_type != "Cast" or first.inputs[0] is None:
        return None
    types = (first.inputs[0].dtype, tensor_dtype(value), node.outputs[0].dtype)
    there_and_back = types == (ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.FLOAT16)
    return first if there_and_back and not node.outputs[0].is_graph_output() else None
