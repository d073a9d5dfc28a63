"""Pieces of a graph that is being rewritten: new initializers, where a conversion goes, numbers of attributes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from planner.dtypes import DType

IR_TYPES = {
    DType.FLOAT32: ir.DataType.FLOAT,
    DType.FLOAT16: ir.DataType.FLOAT16,
    DType.UINT8: ir.DataType.UINT8,
    DType.INT8: ir.DataType.INT8,
    DType.UINT16: ir.DataType.UINT16,
    DType.INT16: ir.DataType.INT16,
    DType.UINT4: ir.DataType.UINT4,
    DType.INT4: ir.DataType.INT4,
}
NUMPY_FLOATS: dict[DType, type[np.floating]] = {DType.FLOAT32: np.float32, DType.FLOAT16: np.float16}


@dataclass(frozen=True)
class Made:
    """An array that is made while the model is written, and not kept: together, the new weights may be gigabytes."""

    make: Callable[[], np.ndarray]
    shape: tuple[int, ...]


def summed_axis(node: ir.Node) -> int:
    """Axis of the second operand of a MatMul or Gemm that is summed over."""
    return 1 if node.op_type == "Gemm" and number_of(node, "transB", 0) else 0


def number_of(node: ir.Node, name: str, default: float = 1.0) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.value)


def place_of(value: ir.Value, consumer: ir.Node) -> ir.Node | ir.Graph:
    """Where a conversion of the value goes: behind its producer, or at the head of the graph it is an input of."""
    producer = value.producer()
    if producer is not None:
        return producer
    graph = value.graph if value.graph is not None else consumer.graph
    assert isinstance(graph, ir.Graph)
    return graph


def graph_of(place: ir.Node | ir.Graph) -> ir.Graph:
    graph = place if isinstance(place, ir.Graph) else place.graph
    assert isinstance(graph, ir.Graph)
    return graph


def initializer_graph(value: ir.Value) -> ir.Graph:
    assert isinstance(value.graph, ir.Graph)
    return value.graph


def initializer(graph: ir.Graph, name: str, array: np.ndarray | Made, dtype: ir.DataType) -> ir.Value:
    if name in graph.initializers:
        number = 2
        while f"{name}_{number}" in graph.initializers:
            number += 1
        name = f"{name}_{number}"

    def tensor(array: np.ndarray) -> ir.TensorProtocol:
        return ir.Tensor(np.ascontiguousarray(array) if array.ndim else array, dtype=dtype, name=name)

    shape = ir.Shape(array.shape)
    content: ir.TensorProtocol
    if isinstance(array, Made):
        make = array.make
        content = ir.LazyTensor(lambda: tensor(make()), dtype, shape, name=name)
    else:
        content = tensor(array)
    value = ir.Value(name=name, const_value=content, shape=shape, type=ir.TensorType(dtype))
    graph.register_initializer(value)
    return value
