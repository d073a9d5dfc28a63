"""What a file must hold to before it is believed: text that is text, values computed once, tensors as large as they say.

ONNX's own checker also refuses what runs well (contrib operators, a missing type); it is asked only for a reason where
reading fails.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx
from onnx import TensorProto

from planner.errors import RequestError

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
    TensorProto.INT8: 8, TensorProto.UINT8: 8, TensorProto.BOOL: 8, TensorProto.INT4: 4, TensorProto.UINT4: 4,
}  # fmt: skip


def check_proto(proto: onnx.ModelProto, path: object) -> None:
    """Check a model as it was parsed.

    Raises:
        RequestError: a name that is no text, a value computed twice in one graph, a tensor whose shape and bytes differ.
    """
    for graph in _graphs(proto.graph):
        seen: set[str] = set()
        for node in graph.node:
            for text in (node.name, node.op_type, node.domain, *node.input, *node.output):
                if not isinstance(text, str):
                    raise _broken(path, f"a name of a node is no text: {text!r}")
            for attribute in node.attribute:
                if not isinstance(attribute.name, str):
                    raise _broken(path, f"a name of an attribute is no text: {attribute.name!r}")
                for tensor in (*((attribute.t,) if attribute.HasField("t") else ()), *attribute.tensors):
                    _check_tensor(tensor, path, f"attribute {attribute.name!r} of {node.op_type} {node.name!r}")
            for name in node.output:
                if name and name in seen:
                    raise _broken(path, f"value {name!r} is computed twice")
                seen.add(name)
        for value in (*graph.input, *graph.output, *graph.value_info):
            if not isinstance(value.name, str):
                raise _broken(path, f"a name of a value is no text: {value.name!r}")
        for tensor in graph.initializer:
            if not isinstance(tensor.name, str):
                raise _broken(path, f"a name of an initializer is no text: {tensor.name!r}")
            _check_tensor(tensor, path, f"initializer {tensor.name!r}")


def _broken(path: object, problem: str) -> RequestError:
    return RequestError(f"{path}: broken ONNX model: {problem}", "the file may be damaged; check how it was exported")


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    pending = [graph]
    while pending:
        current = pending.pop()
        yield current
        for node in current.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    pending.append(attribute.g)
                pending.extend(attribute.graphs)


def _check_tensor(tensor: onnx.TensorProto, path: object, what: str) -> None:
    dims = list(tensor.dims)
    if tensor.data_type not in TensorProto.DataType.values():
        raise _broken(path, f"{what} has the unknown element type {tensor.data_type}")
    if any(d < 0 for d in dims):
        raise _broken(path, f"{what} has the shape {dims}")
    count, bits = math.prod(dims), _BITS.get(tensor.data_type)
    bytes_ = None if bits is None else (count * bits + 7) // 8
    if tensor.data_location == TensorProto.EXTERNAL:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        length, offset = entries.get("length"), entries.get("offset", "0")
        if not entries.get("location") or not offset.isdecimal() or not (length or "0").isdecimal():
            raise _broken(path, f"{what} does not say where its external data lies")
        if length and bytes_ is not None and int(length) != bytes_:
            raise _broken(path, f"{what} of shape {dims} takes {bytes_} bytes, its external data has {length}")
    elif tensor.HasField("raw_data"):
        if bytes_ is not None and len(tensor.raw_data) != bytes_:
            raise _broken(path, f"{what} of shape {dims} takes {bytes_} bytes, the file has {len(tensor.raw_data)}")
    elif (field := _FIELDS.get(tensor.data_type)) is not None:
        found = len(getattr(tensor, field))
        if found != count:
            raise _broken(path, f"{what} of shape {dims} takes {count} numbers, the file has {found}")


def complaint(proto: onnx.ModelProto) -> str | None:
    """What ONNX's own checker finds wrong with the model, in one line; None where it finds nothing."""
    try:
        onnx.checker.check_model(proto)
    except Exception as error:
        return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return None
