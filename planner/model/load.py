"""An ONNX file as a graph: parsed, checked for what every later step relies on, its weights left in their files."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from planner import limits
from planner.errors import RequestError, first_line
from planner.files import Snapshot
from planner.model.bounds import check_calls
from planner.model.check import check_proto, graphs
from planner.model.inference import quiet
from planner.model.weights import OWN, Weight, parse


def load(path: Path) -> ir.Model:
    """The file as an onnx-ir model, checked for what every later step relies on."""
    return load_with_sources(path)[0]


def load_with_sources(path: Path) -> tuple[ir.Model, tuple[Snapshot, ...]]:
    """As `load`, and the files that the model is made of."""
    own = source_of(path)
    with limits.reading(path, own.size):
        return load_source(own)


def source_of(path: Path) -> Snapshot:
    """The model's own file, as it is now."""
    try:
        return Snapshot.of(path)
    except RequestError as error:
        raise RequestError(str(error), "give the path of an .onnx file") from None


# How files begin that are taken for ONNX models, from which byte on.
_FORMATS = (
    (4, b"ORTM", "it is in onnxruntime's own format: give the .onnx file that it was made of"),
    (0, b"PK", "it is a zip archive: unpack it, and give the .onnx file in it"),
    (0, b"\x1f\x8b", "it is compressed by gzip: unpack it"),
    (4, b"TFL3", "it is a TFLite model: convert it with tf2onnx"),
)


def _format_of(path: Path) -> str:
    """What the file seems to be instead of an ONNX model, and what to do."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        head = file.read(8)
        for start, magic, hint in _FORMATS:
            if head[start:].startswith(magic):
                return hint
    return "the file may be truncated, or of another format"


def load_source(own: Snapshot) -> tuple[ir.Model, tuple[Snapshot, ...]]:
    """The model, and the files that it is made of."""
    path = own.path
    try:
        proto, positions = parse(own)
    except (DecodeError, ValueError, RuntimeError) as error:
        if re.search("alloc|memory", str(error), re.IGNORECASE):
            raise MemoryError from None  # protobuf has no error of its own for it
        raise RequestError(
            f"{path}: not an ONNX model (no valid protobuf, or nested more than 100 deep)", _format_of(path)
        ) from None
    if not proto.HasField("graph") or not proto.opset_import or not proto.graph.output:
        raise RequestError(f"{path}: not an ONNX model (no graph, no opset or no output)", _format_of(path))
    files = check_proto(proto, path, positions)
    _check_kinds(proto, path)
    try:
        _forget_maps(proto.graph)
        with quiet():
            model: ir.Model = ir.from_proto(proto)
        check_calls(model, path)
        _leave_in_files(model, {OWN: own, **files})
        # Onnxruntime takes nodes in any order, and some converters write them so; a cycle has none.
        for graph in (model.graph, *model.graph.subgraphs()):
            graph.sort()
    except (RequestError, MemoryError):
        raise
    except Exception as error:
        raise RequestError(f"{path}: broken ONNX model: {first_line(_cause(error))}") from None
    _check_graph(model, path)
    return model, (own, *(files[name] for name in sorted(files)))


def _cause(error: BaseException) -> BaseException:
    """What the library's own error, which names one of its functions, is about."""
    while isinstance(error, ir.serde.SerdeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _check_kinds(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse what onnxruntime takes and planner cannot read: maps, and weights that list what is not zero."""
    for value in proto.graph.input:
        if _has_map(value):
            raise RequestError(f"{path}: input {value.name!r} is a map", "export the model with tensors as its inputs")
    for graph in graphs(proto.graph):
        for sparse in graph.sparse_initializer:
            raise RequestError(
                f"{path}: initializer {sparse.values.name!r} is sparse, which planner does not read",
                "write it as a dense tensor",
            )


def _has_map(value: onnx.ValueInfoProto) -> bool:
    kind = value.type
    if kind.WhichOneof("value") == "sequence_type":
        kind = kind.sequence_type.elem_type
    return bool(kind.WhichOneof("value") == "map_type")


def _forget_maps(graph: onnx.GraphProto) -> None:
    """Leave the type of a map open, as ZipMap gives it: onnx-ir (1.1) has none, and onnxruntime infers it."""
    for value in (*graph.output, *graph.value_info):
        if _has_map(value):
            value.ClearField("type")


def _leave_in_files(model: ir.Model, files: Mapping[str, Snapshot]) -> None:
    """Let every weight that lies in a file be read from there."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                source = files[str(tensor.location)]
                value.const_value = Weight(source, tensor.offset or 0, tensor.dtype, tensor.shape, tensor.name)


def _check_graph(model: ir.Model, path: Path) -> None:
    """Every operand must come from somewhere: a truncated file may still parse."""
    if next(iter(model.graph), None) is None:
        raise RequestError(f"{path}: the model has no nodes")
    for value in _all_inputs(model):
        if value.producer() is None and not value.is_graph_input() and value.const_value is None:
            raise RequestError(
                f"{path}: broken ONNX model: value {value.name!r} is used but never computed",
                "the file may be truncated; check how it was exported",
            )
    for out in model.graph.outputs:
        if out.producer() is None and not out.is_graph_input() and out.const_value is None:
            raise RequestError(f"{path}: broken ONNX model: output {out.name!r} is never computed")


def _all_inputs(model: ir.Model) -> list[ir.Value]:
    return [v for node in model.graph.all_nodes() for v in node.inputs if v is not None]
