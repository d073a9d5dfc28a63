"""A graph that is being rewritten: what was made so far, new values and nodes, where a conversion goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from planner.calibrate.ranges import Range
from planner.dtypes import DType
from planner.model.names import Names
from planner.quantization.parameters import Parameters
from planner.quantization.rounding import Rounding

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
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
NUMPY_FLOATS: dict[DType, type[np.floating]] = {DType.FLOAT32: np.float32, DType.FLOAT16: np.float16}


@dataclass(frozen=True)
class Made:
    """An array that is made while the model is written. Neither it nor what it is made of is kept: weights may be gigabytes."""

    make: Callable[[], np.ndarray]
    shape: tuple[int, ...]


def attributes_of(node: ir.Node) -> dict[str, object]:
    """The node's attributes as plain values."""
    return {name: attribute.value for name, attribute in node.attributes.items()}


def number_of(node: ir.Node, name: str, default: float = 1.0) -> float:
    """A number among the node's attributes."""
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


def graph_of(place: ir.Node | ir.Value | ir.Graph) -> ir.Graph:
    """The graph that a node, or an initializer, belongs to."""
    graph = place if isinstance(place, ir.Graph) else place.graph
    assert isinstance(graph, ir.Graph)
    return graph


@dataclass(frozen=True)
class Stored:
    """A value that comes out of a DequantizeLinear.

    Attributes:
        parameters: what it is stored with.
        source: name of the float tensor that it stands for.
    """

    parameters: Parameters
    source: str


@dataclass
class Rewriting:
    """A model that is being rewritten, and what was made for it so far.

    Attributes:
        names: of its values and nodes.
        ranges: what calibration saw of each float tensor, by name.
        notes: on what had to be done to values.
        stored: what the results of DequantizeLinear nodes are stored as.
        sources: by value that a Cast makes, the name of the tensor that it stands for.
        made: by value and what was made of it, the new value: each is made once.
        packed: the same, where several values are made of one.
        rounding: how weights are rounded to 8 bits and fewer, where that was learned.
        mean_errors: by result of a MatMul, what rounding its weight adds to each channel on average.
    """

    names: Names
    ranges: Mapping[str, Range]
    rounding: Rounding | None = None
    notes: list[str] = field(default_factory=list)
    stored: dict[ir.Value, Stored] = field(default_factory=dict)
    sources: dict[ir.Value, str] = field(default_factory=dict)
    made: dict[tuple[object, ...], ir.Value] = field(default_factory=dict)
    packed: dict[tuple[object, ...], tuple[ir.Value, ...]] = field(default_factory=dict)
    mean_errors: dict[str, np.ndarray] = field(default_factory=dict)

    def source(self, value: ir.Value) -> str:
        """Name of the model's own tensor that a value stands for, however often it was converted."""
        stored = self.stored.get(value)
        return self.sources.get(value, value.name or "") if stored is None else stored.source

    def initializer(self, graph: ir.Graph, name: str, array: np.ndarray | Made, dtype: ir.DataType) -> ir.Value:
        """A new initializer of the graph, under this name or one like it."""
        name = self.names.value(name)

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

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        result: tuple[str, ir.DataType, ir.Shape | None],
        *,
        name: str,
        attributes: Mapping[str, int] | None = None,
    ) -> ir.Node:
        """A new node with one result, not yet in a graph.

        Args:
            op_type: of ai.onnx.
            inputs: its operands.
            result: name, type and shape of what it computes.
            name: of the node.
            attributes: integers, by name.
        """
        made = ir.node(op_type, inputs, attributes or {}, name=self.names.node(name))
        out = made.outputs[0]
        out.name, out.shape, out.type = self.names.value(result[0]), result[2], ir.TensorType(result[1])
        return made


def put(made: ir.Node | Sequence[ir.Node], place: ir.Node | ir.Graph) -> None:
    """Put nodes behind a node, or at the head of a graph."""
    graph = graph_of(place)
    if isinstance(place, ir.Node):
        graph.insert_after(place, made)
    else:
        graph.insert_before(next(iter(graph)), made)
