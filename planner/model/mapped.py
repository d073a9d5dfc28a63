"""Parsing a model file without copying its weights: the large initializers stay in the file, mapped into memory.

A protobuf message holds each weight as one run of bytes, so its place in the file is all that has to be known. The pieces between
the weights are merged one after the other, which protobuf defines to be the same as parsing them at once
(protobuf.dev, "Encoding", section on last one wins and concatenation).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import onnx
from google.protobuf.message import DecodeError

# Smaller tensors are not worth a reference: they are read with the graph.
_LEAST_BYTES = 4096
# Field numbers of onnx.proto.
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5


class _Field(NamedTuple):
    """A field of a message: its number, where it begins with its tag, where its content begins, and where it ends."""

    number: int
    start: int
    content: int
    end: int


def parse_mapped(path: Path) -> onnx.ModelProto:
    """Parse a model; large initializers of its main graph become external data that lies in the file itself.

    Raises:
        DecodeError: no valid protobuf, or too deep for it.
        OSError: the file cannot be read.
    """
    model = onnx.ModelProto()
    if path.stat().st_size == 0:
        return model
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = 0
        for field in _fields(data, 0, len(data)):
            if field.number == _GRAPH:
                model.MergeFromString(data[start : field.start])
                _merge_graph(model.graph, data, field, path.name)
                start = field.end
        model.MergeFromString(data[start:])
    return model


def _merge_graph(graph: onnx.GraphProto, data: mmap.mmap, place: _Field, name: str) -> None:
    graph.SetInParent()
    start = place.content
    for field in _fields(data, place.content, place.end):
        if field.number != _INITIALIZER or field.end - field.content < _LEAST_BYTES:
            continue
        raw = [f for f in _fields(data, field.content, field.end) if f.number == _RAW_DATA]
        if len(raw) != 1 or raw[0].end - raw[0].content < _LEAST_BYTES:
            continue
        graph.MergeFromString(data[start : field.start])
        tensor = graph.initializer.add()
        tensor.MergeFromString(data[field.content : raw[0].start])
        tensor.MergeFromString(data[raw[0].end : field.end])
        _refer(tensor, name, raw[0])
        start = field.end
    graph.MergeFromString(data[start : place.end])


def _refer(tensor: onnx.TensorProto, name: str, raw: _Field) -> None:
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in {"location": name, "offset": raw.content, "length": raw.end - raw.content}.items():
        tensor.external_data.add(key=key, value=str(value))


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[_Field]:
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


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise DecodeError(f"no whole number before byte {at}")
