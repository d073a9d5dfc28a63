"""Writing a model: the same graph gives the same bytes; above protobuf's 2 GB the weights lie beside it.

Weights are written one after the other, each made or read when its turn comes: however large the model, only one of them is
in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir

from planner.errors import planner_error_in

# Protobuf refuses messages of 2 GiB; the graph itself needs room beside the weights.
_EMBEDDED_LIMIT = 1_800_000_000
# Smaller weights are serialized with the graph.
_LEAST_BYTES = 1 << 16
# Tags of onnx.proto's length-delimited fields: number << 3 | 2.
_GRAPH, _INITIALIZER, _RAW_DATA = b"\x3a", b"\x2a", b"\x4a"


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers."""
    return sum(
        value.const_value.nbytes
        for graph in (model.graph, *model.graph.subgraphs())
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def save(model: ir.Model, path: Path, *, embed: bool = True) -> None:
    """Save to ``path``; weights go to ``path`` + ".data" where they do not fit the file itself.

    Args:
        model: the graph, its weights read or made when they are asked for.
        path: where to write; nothing may lie there.
        embed: false to put the weights beside the file whatever their size: whoever loads the model can map them.

    Raises:
        RequestError: the file that a weight is read from is gone, or is no longer what it was.
        OSError: the disk is full, or nothing may be written there.
    """
    try:
        if embed and weight_bytes(model) <= _EMBEDDED_LIMIT:
            with path.open("wb") as stream:
                _write(model, stream)
        else:
            ir.save(model, path, external_data=f"{path.name}.data")
    except ir.serde.SerdeError as error:
        raise planner_error_in(error) or error from None
    except OSError as error:
        # Writing, unlike opening, does not name the file; whose disk is full has to be said.
        raise OSError(error.errno, error.strerror, error.filename or str(path)) from None


def _write(model: ir.Model, stream: BinaryIO) -> None:
    """Write one protobuf message. It may hold its fields in any order, so the large weights can follow all the rest."""
    weights, proto = _without_weights(model)
    graph = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    heads = [_head(tensor) for tensor in weights]
    length = len(graph) + sum(len(h) + t.nbytes for h, t in zip(heads, weights, strict=True))
    stream.write(proto.SerializeToString(deterministic=True))
    stream.write(_GRAPH + _varint(length))
    end = stream.tell() + length
    stream.write(graph)
    for head, tensor in zip(heads, weights, strict=True):
        stream.write(head)
        tensor.tofile(stream)  # type: ignore[attr-defined]  # every tensor class of onnx-ir has it
    assert stream.tell() == end, "a weight has another size than it says"


def _without_weights(model: ir.Model) -> tuple[list[ir.TensorProtocol], onnx.ModelProto]:
    """The weights of the main graph that are large or lie in files of others, and the message without them."""
    weights: list[ir.TensorProtocol] = []
    large: list[ir.Value] = []
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.dtype == ir.DataType.STRING:
            continue
        if tensor.nbytes >= _LEAST_BYTES or isinstance(tensor, ir.ExternalTensor):
            tensor.name = value.name
            weights.append(tensor)
            large.append(value)
    try:
        for value, tensor in zip(large, weights, strict=True):
            value.const_value = ir.ExternalTensor(
                "", None, None, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=value.name or ""
            )
        proto = ir.serde.serialize_model(model)
    finally:
        for value, tensor in zip(large, weights, strict=True):
            value.const_value = tensor
    names = {value.name for value in large}
    kept = [t for t in proto.graph.initializer if t.name not in names]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    return weights, proto


def _head(tensor: ir.TensorProtocol) -> bytes:
    """What stands before a weight's own bytes."""
    described = onnx.TensorProto(name=tensor.name, data_type=int(tensor.dtype), dims=tensor.shape.numpy())
    fields = b"".join([described.SerializeToString(deterministic=True), _RAW_DATA, _varint(tensor.nbytes)])
    return b"".join([_INITIALIZER, _varint(len(fields) + tensor.nbytes), fields])


def _varint(number: int) -> bytes:
    """A number of seven bits a byte, lowest first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
