"""Weights that stay in their file: a model is parsed without copying them, and each is read when it is asked for.

A protobuf message holds each weight as one run of bytes, so its place in the file is all that has to be known. The pieces between
the weights are merged one after the other, which protobuf defines to be the same as parsing them at once
(protobuf.dev, "Encoding", section on last one wins and concatenation).

Files are read, not mapped into memory: one that somebody cuts while it is mapped ends the process without a word.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from planner.files import Snapshot

# Smaller tensors are not worth a reference: they are read with the graph.
_LEAST_BYTES = 4096
_BLOCK = 1 << 20
# The location of what stayed in the model's own file; no external data can have it.
OWN = ""
# Field numbers of onnx.proto.
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5


class Weight(ir.LazyTensor):
    """A tensor whose bytes lie in a file, read anew whenever nobody holds its array any more.

    Attributes:
        source: the file, as it was when the model was read. offset: where the bytes begin in it.
    """

    def __init__(self, source: Snapshot, offset: int, dtype: ir.DataType, shape: ir.Shape, name: str | None) -> None:
        super().__init__(self._tensor_of_file, dtype, shape, name=name)
        self.source = source
        self.offset = offset
        self._array: weakref.ref[np.ndarray[Any, Any]] | None = None

    def _tensor_of_file(self) -> ir.TensorProtocol:
        if self.dtype.bitwidth < 8:
            codes = np.frombuffer(self.tobytes(), np.uint8)
            return ir.PackedTensor(codes, self.dtype, shape=self.shape, name=self.name)
        held = None if self._array is None else self._array()
        if held is None:
            held = np.frombuffer(self.tobytes(), self.dtype.numpy()).reshape(self.shape.numpy())
            self._array = weakref.ref(held)
        return ir.Tensor(held, self.dtype, shape=self.shape, name=self.name)

    def __repr__(self) -> str:
        return f"{self._repr_base()}(name={self.name!r}, source={self.source.path.name!r}, offset={self.offset})"

    def tobytes(self) -> bytes:
        """The bytes as they lie in the file.

        Raises:
            RequestError: the file is gone, or is no longer what it was.
        """
        return self.source.read(self.offset, self.nbytes)

    def tofile(self, file: BinaryIO) -> None:
        """Copy the bytes to a file, a block at a time."""
        end = self.offset + self.nbytes
        for start in range(self.offset, end, _BLOCK):
            file.write(self.source.read(start, min(_BLOCK, end - start)))


class _Field(NamedTuple):
    """A field of a message: its number, where it begins with its tag, where its content begins, and where it ends."""

    number: int
    start: int
    content: int
    end: int


class Parsed(NamedTuple):
    """A model file as it was parsed.

    Attributes:
        proto: the model; the tensors of `own` have no data in it.
        own: positions of initializers of the main graph whose bytes stayed in the file, with the offset of the bytes.
    """

    proto: onnx.ModelProto
    own: dict[int, int]


def parse(source: Snapshot) -> Parsed:
    """Parse a model; large initializers of its main graph stay in the file.

    Raises:
        DecodeError: no valid protobuf, or too deep for it.
        RequestError: the file cannot be read.
    """
    model, own = onnx.ModelProto(), dict[int, int]()
    with source.open() as stream:
        data = _Bytes(source, stream)
        start = 0
        for field in _fields(data, 0, source.size):
            if field.number == _GRAPH:
                model.MergeFromString(data.read(start, field.start))
                _merge_graph(model.graph, data, field, own)
                start = field.end
        model.MergeFromString(data.read(start, source.size))
    return Parsed(model, own)


def _merge_graph(graph: onnx.GraphProto, data: _Bytes, place: _Field, own: dict[int, int]) -> None:
    graph.SetInParent()
    start = place.content
    for field in _fields(data, place.content, place.end):
        if field.number != _INITIALIZER or field.end - field.content < _LEAST_BYTES:
            continue
        raw = [f for f in _fields(data, field.content, field.end) if f.number == _RAW_DATA]
        if len(raw) != 1 or raw[0].end - raw[0].content < _LEAST_BYTES:
            continue
        graph.MergeFromString(data.read(start, field.start))
        tensor = graph.initializer.add()
        tensor.MergeFromString(data.read(field.content, raw[0].start))
        tensor.MergeFromString(data.read(raw[0].end, field.end))
        refer(tensor, OWN, raw[0].content, raw[0].end - raw[0].content)
        own[len(graph.initializer) - 1] = raw[0].content
        start = field.end
    graph.MergeFromString(data.read(start, place.end))


def refer(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    """Let a tensor's bytes lie elsewhere."""
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in {"location": location, "offset": offset, "length": length}.items():
        tensor.external_data.add(key=key, value=str(value))


class _Bytes:
    """A file by position: a window of it lies in memory, so that a message's many small fields cost no call each."""

    def __init__(self, source: Snapshot, stream: BinaryIO) -> None:
        self._source = source
        self._stream = stream
        self._start = 0
        self._window = b""

    def byte(self, at: int) -> int:
        index = at - self._start
        if not 0 <= index < len(self._window):
            self._start, index = at, 0
            self._window = self.read(at, min(at + (1 << 16), self._source.size))
        return self._window[index]

    def read(self, start: int, end: int) -> bytes:
        return self._source.read_from(self._stream, start, end - start)


def _fields(data: _Bytes, start: int, end: int) -> Iterator[_Field]:
    """The fields of a message in order."""
    at = start
    while at < end:
        tag, content = _varint(data, at, end)
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            length, content = _varint(data, content, end)
            stop = content + length
        elif kind == _VARINT:
            _, stop = _varint(data, content, end)
        elif kind == _FIXED64:
            stop = content + 8
        elif kind == _FIXED32:
            stop = content + 4
        else:
            raise DecodeError(f"wire type {kind} at byte {at}")
        if stop > end:
            raise DecodeError(f"the field at byte {at} is longer than what holds it")
        yield _Field(tag >> 3, at, content, stop)
        at = stop


def _varint(data: _Bytes, at: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data.byte(at)
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise DecodeError(f"no whole number before byte {at}")
