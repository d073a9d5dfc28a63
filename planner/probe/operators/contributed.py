"""ONNX Runtime's own operators."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from planner.probe.forms import Form, act, bias, const, floats, given, ints, plain, weight


def contributed() -> Iterator[Form]:
    """Operators of com.microsoft."""
    ms: dict[str, Any] = {"domain": "com.microsoft"}
    x = act(1, 4, 8)
    for op in ("Gelu", "FastGelu", "QuickGelu"):
        yield Form(op, (x,), **ms)
        yield Form(op, (act(1, 2, 4, 8),), condition="rank=4", **ms)
    yield Form("BiasGelu", (x, const(8)), **ms)
    yield Form("FastGelu", (x, const(8)), condition="bias", **ms)
    yield Form("FusedMatMul", (act(1, 4, 8), act(1, 6, 8)), {"transB": 1, "alpha": 0.5}, **ms)
    yield Form("FusedMatMul", (act(1, 4, 8), weight(8, 6, axis=1)), {"alpha": 0.5}, "constant", **ms)
    ones = weight(8, axis=0, low=0.5, high=1.5)
    yield Form("SkipLayerNormalization", (x, x, ones, bias(8)), **ms)
    yield Form("SkipSimplifiedLayerNormalization", (x, x, ones), **ms)
    yield Form("SimplifiedLayerNormalization", (x, ones), {"axis": -1})
    yield Form(
        "FusedConv",
        (act(1, 4, 8, 8), weight(6, 4, 3, 3, axis=0), bias(6)),
        {"kernel_shape": [3, 3], "activation": "Relu"},
        **ms,
    )
    yield Form("MultiHeadAttention", (act(1, 4, 16), act(1, 4, 16), act(1, 4, 16)), {"num_heads": 2}, **ms)
    yield Form("Attention", (act(1, 4, 16), weight(16, 48, axis=None), bias(48)), {"num_heads": 2}, **ms)
    yield Form(
        "RotaryEmbedding",
        (act(1, 2, 4, 8), ints(0, 1, 2, 3, shape=(1, 4)), const(8, 4), const(8, 4)),
        **ms,
    )
    yield Form(
        "MatMulNBits",
        (
            act(1, 4, 32),
            ints(*[(37 * i) % 256 for i in range(6 * 16)], dtype="uint8", shape=(6, 1, 16)),
            plain(*[0.05] * 6, shape=(6,)),
        ),
        {"K": 32, "N": 6, "bits": 4, "block_size": 32},
        **ms,
    )
    codes = [(37 * i) % 256 - 128 for i in range(120)]
    one, none = floats(0.01, shape=(1,)), ints(0, dtype="int8", shape=(1,))
    yield Form(
        "DynamicQuantizeLSTM",
        (
            given(3, 1, 6, dtype="float32"),
            ints(*codes, dtype="int8", shape=(1, 6, 20)),
            ints(*codes[:100], dtype="int8", shape=(1, 5, 20)),
            *[None] * 5,
            one,
            none,
            one,
            none,
        ),
        {"hidden_size": 5},
        **ms,
    )
    yield Form(
        "DynamicQuantizeMatMul",
        (given(1, 4, 8, dtype="float32"), ints(*range(48), dtype="uint8", shape=(8, 6)), floats(0.1)),
        **ms,
    )
