"""Whether the Direct3D of this machine computes: small models whose answers are known without it.

Debian 12's Wine runs DirectML's shaders and returns zeros, newer ones have gaps. So numbers are taken from a machine only after it
has answered these rightly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from .. import witness
from .asker import Asker, Died, NotDone
from .server import with_witnesses

# What an answer may be off by: float16 has eleven bits.
_TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float16): 4e-3, np.dtype(np.int8): 0.0}
Arrays = Mapping[str, np.ndarray[Any, Any]]


def computes(asker: Asker, folder: Path) -> bool:
    """Whether every known answer comes out right.

    Args:
        asker: a running program; its session is replaced. It may be dead afterwards.
        folder: any that exists.
    """
    try:
        for model, feed, expected in questions():
            asker.open(with_witnesses(model), folder, optimize=True)
            ran, _ = asker.run({**feed, **witness.feed()})
            if not _is_right(ran["y"], expected):
                return False
    except (Died, NotDone):
        return False
    return True


def questions() -> Iterator[tuple[onnx.ModelProto, Arrays, np.ndarray[Any, Any]]]:
    """Models with one output "y", their inputs, and what comes out: by arithmetic, not by another run."""
    rows = np.arange(12, dtype=np.float32).reshape(3, 4) - 5
    columns = np.arange(8, dtype=np.float32).reshape(4, 2) - 3
    for dtype in (np.float32, np.float16):
        a, b = rows.astype(dtype), columns.astype(dtype)
        yield _model(("MatMul", "Relu"), a, b), {"x": a}, np.maximum(rows @ columns, 0).astype(dtype)
        powers = np.exp(rows / 8)
        share = (powers / powers.sum(axis=-1, keepdims=True)).astype(dtype)
        yield _model(("Mul", "Softmax"), a, np.array([0.125], dtype)), {"x": a}, share
    image = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    kernel = np.ones((1, 1, 3, 3), np.float32)
    sums = np.array([[[[45, 54], [81, 90]]]], np.float32)
    yield _model(("Conv",), image, kernel), {"x": image}, sums
    yield _quantized(rows), {"x": rows}, np.clip(np.rint(rows / 0.5), -128, 127).astype(np.int8)


def _model(operators: tuple[str, ...], x: np.ndarray[Any, Any], constant: np.ndarray[Any, Any]) -> onnx.ModelProto:
    """The first operator takes x and the constant, each further one what the one before gave."""
    names = ["x", *(f"h{i}" for i in range(1, len(operators))), "y"]
    nodes = [
        helper.make_node(op, [names[i], *(["c"] if i == 0 else [])], [names[i + 1]], name=op)
        for i, op in enumerate(operators)
    ]
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    return _whole(nodes, x, kind, [onnx.numpy_helper.from_array(constant, "c")])


def _quantized(x: np.ndarray[Any, Any]) -> onnx.ModelProto:
    node = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"], name="Q")
    scale, zero = np.array(0.5, np.float32), np.array(0, np.int8)
    constants = [onnx.numpy_helper.from_array(scale, "scale"), onnx.numpy_helper.from_array(zero, "zero")]
    return _whole([node], x, TensorProto.INT8, constants)


def _whole(
    nodes: list[onnx.NodeProto], x: np.ndarray[Any, Any], result: int, constants: list[onnx.TensorProto]
) -> onnx.ModelProto:
    source = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
    graph = helper.make_graph(nodes, "known", [source], [helper.make_tensor_value_info("y", result, None)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _is_right(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> bool:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    off = np.abs(found.astype(np.float64) - expected.astype(np.float64)).max()
    return bool(off <= _TOLERANCE[expected.dtype] * max(1.0, float(np.abs(expected).max())))


__all__ = ["computes", "questions"]
