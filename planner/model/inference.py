"""ONNX's own shape inference, as far as it comes, and silent."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import onnx
import onnx_ir as ir

# Shapes are computed from smaller constants; what a larger one holds decides none.
_MOST_BYTES = 1000


def infer_once(model: ir.Model, *, data_prop: bool = False) -> None:
    """Write down the types and shapes that ONNX infers; what cannot be inferred stays unknown.

    onnx-ir's own pass does the same, and builds the whole model anew for it: several times slower.

    Args:
        model: changed in place.
        data_prop: also follow the numbers that shapes are computed from.
    """
    with quiet(), contextlib.suppress(Exception):
        _write_down(model.graph, onnx.shape_inference.infer_shapes(_without_weights(model), data_prop=data_prop).graph)


def _without_weights(model: ir.Model) -> onnx.ModelProto:
    """The model with its constants as inputs: those that shapes may be computed from keep their numbers."""
    graph = model.graph
    small = []
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None:
            continue
        if value.shape is None or value.dtype is None:
            value.shape, value.dtype = ir.Shape(tensor.shape.numpy()), tensor.dtype
        if tensor.nbytes <= _MOST_BYTES:
            small.append(value)
    constants = (value for value in graph.initializers.values() if not value.is_graph_input())
    view = ir.GraphView(
        (*graph.inputs, *constants), graph.outputs, nodes=graph, initializers=small, opset_imports=graph.opset_imports
    )
    proto = onnx.ModelProto(ir_version=model.ir_version, graph=ir.serde.serialize_graph(view))  # type: ignore[arg-type]
    proto.opset_import.extend(onnx.helper.make_opsetid(*entry) for entry in model.opset_imports.items())
    proto.functions.extend(map(ir.serde.serialize_function, model.functions.values()))
    return proto


def _write_down(graph: ir.Graph, inferred: onnx.GraphProto) -> None:
    infos = {info.name: info for info in (*inferred.input, *inferred.output, *inferred.value_info)}
    for value in (*graph.inputs, *(out for node in graph for out in node.outputs)):
        info = infos.get(value.name or "")
        if info is None or _is_known(value, info.type.tensor_type):
            continue
        try:
            found = ir.serde.deserialize_value_info_proto(info, None)
        except ir.serde.SerdeError:
            continue  # a map, of which onnx-ir (1.1) has no type
        if found.shape is not None:
            value.shape = found.shape
        if found.dtype is not None:
            value.type = found.type
    for node, proto in zip(graph, inferred.node, strict=True):
        for attribute in proto.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _write_down(node.attributes[attribute.name].as_graph(), attribute.g)
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                for inner, body in zip(node.attributes[attribute.name].as_graphs(), attribute.graphs, strict=True):
                    _write_down(inner, body)


def _is_known(value: ir.Value, found: onnx.TypeProto.Tensor) -> bool:
    """Whether the value has this very type and shape."""
    if value.dtype != found.elem_type or value.shape is None or not found.HasField("shape"):
        return False
    return value.shape == [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in found.shape.dim]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence, since the libraries' own log lines are about their passes, not about the user's model."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
