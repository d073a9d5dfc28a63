"""Tensors as bytes, in the form that the program reads and writes; `ask.c` says what it is."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

_HEAD = struct.Struct("<QIIII")
_BOUNDARY = 64


def pack(tensors: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """Tensors by name as bytes.

    Raises:
        KeyError: an array is of a type that ONNX does not have.
    """
    parts: list[bytes] = []
    for name, array in tensors.items():
        data, text = np.ascontiguousarray(array).tobytes(), name.encode()
        kind = int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
        head = _HEAD.pack(len(data), kind, array.ndim, len(text), 0)
        parts += [_padded(head + struct.pack(f"<{array.ndim}q", *array.shape) + text), _padded(data)]
    return b"".join(parts)


def unpack(content: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """The inverse of `pack`.

    Raises:
        ValueError, struct.error: the bytes are cut short.
    """
    found: dict[str, np.ndarray[Any, Any]] = {}
    at = 0
    while at < len(content):
        size, kind, rank, length, _ = _HEAD.unpack_from(content, at)
        shape = struct.unpack_from(f"<{rank}q", content, at + _HEAD.size)
        first = at + _HEAD.size + 8 * rank
        start = at + _up(_HEAD.size + 8 * rank + length)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
        name = content[first : first + length].decode()
        found[name] = np.frombuffer(content[start : start + size], dtype).reshape(shape)
        at = start + _up(size)
    return found


def _up(size: int) -> int:
    return -(-size // _BOUNDARY) * _BOUNDARY


def _padded(data: bytes) -> bytes:
    return data.ljust(_up(len(data)), b"\0")


__all__ = ["pack", "unpack"]
