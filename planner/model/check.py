"""What a file must hold to before it is believed: text that is text, values computed once, tensors as large as they say,
weights that lie where they may lie.

ONNX's own checker also refuses what runs well (contrib operators, a missing type); it is asked only for a reason where
reading fails.
"""

from __future__ import annotations

import functools
import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import TensorProto

from planner.errors import RequestError, first_line
from planner.files import Snapshot

# The typed field of a TensorProto that holds each element type, where it holds one entry an element (onnx.proto).
_FIELDS = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT64: "uint64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.STRING: "string_data",
    **dict.fromkeys(
        (
            TensorProto.INT32, TensorProto.INT16, TensorProto.INT8, TensorProto.UINT16, TensorProto.UINT8,
            TensorProto.BOOL, TensorProto.FLOAT16, TensorProto.BFLOAT16,
        ),
        "int32_data",
    ),
}  # fmt: skip
_BITS = {
    TensorProto.DOUBLE: 64, TensorProto.INT64: 64, TensorProto.UINT64: 64, TensorProto.COMPLEX64: 64,
    TensorProto.COMPLEX128: 128, TensorProto.FLOAT: 32, TensorProto.INT32: 32, TensorProto.UINT32: 32,
    TensorProto.FLOAT16: 16, TensorProto.BFLOAT16: 16, TensorProto.INT16: 16, TensorProto.UINT16: 16,
    TensorProto.INT8: 8, TensorProto.UINT8: 8, TensorProto.BOOL: 8, TensorProto.FLOAT8E4M3FN: 8,
    TensorProto.FLOAT8E4M3FNUZ: 8, TensorProto.FLOAT8E5M2: 8, TensorProto.FLOAT8E5M2FNUZ: 8, TensorProto.FLOAT8E8M0: 8,
    TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.FLOAT4E2M1: 4, TensorProto.INT2: 2, TensorProto.UINT2: 2,
}  # fmt: skip
# Onnxruntime reads a location of this form as an address in memory (onnxruntime, core/framework/tensorprotoutils.h).
_ADDRESS = "_ORT_MEM_ADDR_"
# Data of an attribute is read with the graph, which protobuf keeps below 2 GiB.
_MOST_IN_GRAPH = (1 << 31) - 1


class BrokenGraphError(ValueError):
    """What the file says cannot be meant; whoever knows the file's name tells it (read_model)."""


class Place(NamedTuple):
    """Where the external data of a tensor lies."""

    location: str
    offset: int
    length: int


class _Tensor(NamedTuple):
    """A tensor of the model.

    Attributes:
        what: what it is, in words. stays: whether it may stay in its file, as initializers do. position: among the main
            graph's initializers, if it is one.
    """

    proto: TensorProto
    what: str
    stays: bool = False
    position: int | None = None


def check_proto(proto: onnx.ModelProto, path: Path, own: Collection[int] = ()) -> dict[str, Snapshot]:
    """Check a model as it was parsed, and every file that a tensor of it names, before any of it is read.

    External data of attributes (of Constant nodes, of function bodies) is then read into the model; that of initializers
    stays in its file.

    Args:
        proto: the model.
        path: its file.
        own: positions of initializers of the main graph whose bytes stayed in the model's own file.

    Returns:
        The files with external data, by location.

    Raises:
        RequestError: a name that is no text, a value computed twice in one graph, a tensor whose shape and bytes differ,
            external data that lies outside the model's folder, behind a link, or in no plain file.
    """
    files: dict[str, Snapshot] = {}
    for graph in _main_graphs(proto):
        for inner in graphs(graph):
            _check_graph(inner, path)
    _check_operators(proto, path)
    for function in proto.functions:
        _check_nodes(function.node, path)
    for tensor in _tensors(proto):
        _check_tensor(tensor.proto, path, tensor.what)
        if tensor.proto.data_location != TensorProto.EXTERNAL or (
            tensor.position is not None and tensor.position in own
        ):
            continue
        place = _place(tensor.proto, path, tensor.what)
        source = files.get(place.location)
        if source is None:
            source = files[place.location] = _file(place.location, path)
        if source.size < place.offset + place.length:
            raise _broken(
                path,
                f"external data file {place.location!r} is truncated: {place.offset + place.length} bytes expected, "
                f"it has {source.size}",
            )
        if not tensor.stays:
            _embed(tensor.proto, source, place, path, tensor.what)
    return files


def _broken(path: object, problem: str) -> RequestError:
    return RequestError(f"{path}: broken ONNX model: {problem}", "the file may be damaged; check how it was exported")


# -- graphs, nodes, names ---------------------------------------------------------------------------------------------


def _main_graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    yield proto.graph
    for training in proto.training_info:
        yield training.initialization
        yield training.algorithm


def _check_operators(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse what ONNX does not define at the model's opset, as onnxruntime does: attributes (some tools raise the number alone), too
    few inputs, too many inputs or outputs.
    """
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    own = {(f.domain, f.name) for f in proto.functions}
    if not 0 < opset <= onnx.defs.onnx_opset_version():
        return
    for node in (node for graph in graphs(proto.graph) for node in graph.node):
        if node.domain not in ("", "ai.onnx") or (node.domain, node.op_type) in own:
            continue
        allowed = _allowed(node.op_type, opset)
        if allowed is None:
            continue
        what = f"{path}: broken ONNX model: {node.op_type} {node.name!r}"
        given, made = len(node.input), len(node.output)
        if not allowed.least_inputs <= given <= allowed.most_inputs or made > allowed.most_outputs:
            counted = f"{given} inputs and {made} outputs"
            raise RequestError(
                f"{what} has {counted}, which ONNX does not allow at opset {opset}", "check how it was exported"
            )
        for name in (a.name for a in node.attribute if a.name not in allowed.attributes):
            if name and not name.startswith("_"):
                raise RequestError(
                    f"{what} has an attribute {name!r}, which ONNX does not define at opset {opset}",
                    "export the model anew; some tools raise the opset and leave the nodes as they were",
                )


class _Allowed(NamedTuple):
    """What ONNX allows a node of one of its own operators."""

    least_inputs: int
    most_inputs: int
    most_outputs: int
    attributes: frozenset[str]


@functools.cache
def _allowed(op_type: str, opset: int) -> _Allowed | None:
    """What ONNX allows at an opset; None where it has no such operator."""
    try:
        schema = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
    return _Allowed(schema.min_input, schema.max_input, schema.max_output, frozenset(schema.attributes))


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and every graph within it."""
    pending = [graph]
    while pending:
        current = pending.pop()
        yield current
        pending.extend(_bodies(current.node))


def _bodies(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def _check_graph(graph: onnx.GraphProto, path: Path) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        if not isinstance(value.name, str):
            raise _broken(path, f"a name of a value is no text: {value.name!r}")
    for tensor in graph.initializer:
        if not isinstance(tensor.name, str):
            raise _broken(path, f"a name of an initializer is no text: {tensor.name!r}")
    inputs, constants = [v.name for v in graph.input], [t.name for t in graph.initializer]
    for what, names in (("input", inputs), ("initializer", constants)):
        if (twice := next((name for name, count in Counter(names).items() if count > 1), None)) is not None:
            raise _broken(path, f"{what} {twice!r} is there twice")
    _check_nodes(graph.node, path, {*inputs, *constants})


def _check_nodes(nodes: Iterable[onnx.NodeProto], path: Path, given: Collection[str] = ()) -> None:
    seen: set[str] = set()
    for node in nodes:
        for text in (node.name, node.op_type, node.domain, *node.input, *node.output):
            if not isinstance(text, str):
                raise _broken(path, f"a name of a node is no text: {text!r}")
        for attribute in node.attribute:
            if not isinstance(attribute.name, str):
                raise _broken(path, f"a name of an attribute is no text: {attribute.name!r}")
        for name in node.output:
            if name and name in seen:
                raise _broken(path, f"value {name!r} is computed twice")
            if name and name in given:
                raise _broken(path, f"value {name!r} is given, as an input or initializer, and computed")
            seen.add(name)


# -- tensors ----------------------------------------------------------------------------------------------------------


def _tensors(proto: onnx.ModelProto) -> Iterator[_Tensor]:
    """Every tensor of every graph, function body and attribute."""
    for graph in _main_graphs(proto):
        for inner in graphs(graph):
            main = inner is proto.graph
            for i, tensor in enumerate(inner.initializer):
                yield _Tensor(tensor, f"initializer {tensor.name!r}", True, i if main else None)
            for sparse in inner.sparse_initializer:
                yield from _parts(sparse, f"sparse initializer {sparse.values.name!r}")
            yield from _of_nodes(inner.node)
    for function in proto.functions:
        for attribute in function.attribute_proto:
            yield from _of_attribute(attribute, f"function {function.name!r}")
        yield from _of_nodes(function.node)
        for body in _bodies(function.node):
            for inner in graphs(body):
                for tensor in inner.initializer:
                    yield _Tensor(tensor, f"initializer {tensor.name!r}")
                for sparse in inner.sparse_initializer:
                    yield from _parts(sparse, f"sparse initializer {sparse.values.name!r}")
                yield from _of_nodes(inner.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[_Tensor]:
    for node in nodes:
        for attribute in node.attribute:
            yield from _of_attribute(attribute, f"{node.op_type} {node.name!r}")


def _of_attribute(attribute: onnx.AttributeProto, owner: str) -> Iterator[_Tensor]:
    what = f"attribute {attribute.name!r} of {owner}"
    if attribute.HasField("t"):
        yield _Tensor(attribute.t, what)
    for tensor in attribute.tensors:
        yield _Tensor(tensor, what)
    for sparse in (
        *((attribute.sparse_tensor,) if attribute.HasField("sparse_tensor") else ()),
        *attribute.sparse_tensors,
    ):
        yield from _parts(sparse, what)


def _parts(sparse: onnx.SparseTensorProto, what: str) -> Iterator[_Tensor]:
    yield _Tensor(sparse.values, f"values of {what}")
    yield _Tensor(sparse.indices, f"indices of {what}")


def _check_tensor(tensor: TensorProto, path: Path, what: str) -> None:
    dims = list(tensor.dims)
    if tensor.data_type not in TensorProto.DataType.values():
        raise _broken(path, f"{what} has the unknown element type {tensor.data_type}")
    if any(d < 0 for d in dims):
        raise _broken(path, f"{what} has the shape {dims}")
    if tensor.data_location == TensorProto.EXTERNAL:
        return  # _place asks for the rest
    count, size = math.prod(dims), _size(tensor)
    if tensor.HasField("raw_data"):
        if size is not None and len(tensor.raw_data) != size:
            raise _broken(path, f"{what} of shape {dims} takes {size} bytes, the file has {len(tensor.raw_data)}")
    elif (field := _FIELDS.get(tensor.data_type)) is not None:
        found = len(getattr(tensor, field))
        if found != count:
            raise _broken(path, f"{what} of shape {dims} takes {count} numbers, the file has {found}")


def _size(tensor: TensorProto) -> int | None:
    """Bytes that the shape takes; None for strings and what has no fixed size."""
    bits = _BITS.get(tensor.data_type)
    return None if bits is None else (math.prod(tensor.dims) * bits + 7) // 8


# -- external data ----------------------------------------------------------------------------------------------------


def _place(tensor: TensorProto, path: Path, what: str) -> Place:
    """Where the tensor says that its data lies, as far as that can be true."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location, offset, length = (entries.get(key, "") for key in ("location", "offset", "length"))
    numbers = [text for text in (offset, length) if text]
    if not location or len(entries) < len(tensor.external_data) or not all(_is_count(text) for text in numbers):
        raise _broken(path, f"{what} does not say where its external data lies")
    size = _size(tensor)
    if size is None:
        raise _broken(path, f"{what} has external data, which its element type cannot have")
    if length and int(length) != size:
        raise _broken(path, f"{what} of shape {list(tensor.dims)} takes {size} bytes, its external data has {length}")
    return Place(location, int(offset or 0), size)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20


def _file(location: str, path: Path) -> Snapshot:
    """The file of that name beside the model: a plain file within its folder, reached by no link."""

    def refused(problem: str) -> RequestError:
        return RequestError(
            f"{path}: external data {location!r} {problem}",
            "external data must be a plain file in the model's own folder: copy it there",
        )

    # Backslashes part folders on one platform only; a file that is safe on one only is not safe.
    parts = location.replace("\\", "/").split("/")
    if Path(location).is_absolute() or ".." in parts or ":" in parts[0] or "\0" in location or _ADDRESS in location:
        raise refused("lies outside the model's own folder")
    file, folder = path.parent / location, path.parent
    if not os.path.lexists(file):
        raise refused("is missing beside the model")
    for part in Path(location).parts[:-1]:
        folder = folder / part
        if folder.is_symlink():
            raise refused("may lie outside the model's own folder: a folder on its way is a symbolic link")
    if file.is_symlink():
        raise refused("may lie outside the model's own folder: it is a symbolic link")
    try:
        return Snapshot.of(file, follow=False)
    except RequestError as error:
        raise refused(str(error).removeprefix(f"{file}: ")) from None


def _embed(tensor: TensorProto, source: Snapshot, place: Place, path: Path, what: str) -> None:
    """Read a tensor's external data into it."""
    if place.length > _MOST_IN_GRAPH:
        raise _broken(path, f"{what} has {place.length} bytes, an attribute can have {_MOST_IN_GRAPH}")
    tensor.raw_data = source.read(place.offset, place.length)
    tensor.ClearField("data_location")
    del tensor.external_data[:]


def complaint(proto: onnx.ModelProto) -> str | None:
    """What ONNX's own checker finds wrong with the model, in one line; None where it finds nothing."""
    try:
        onnx.checker.check_model(proto)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    except Exception as error:
        return first_line(error)
    return None
