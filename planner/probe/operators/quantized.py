"""Operators that are themselves quantized: the dynamic quantizer of onnxruntime and the QOperator format make them."""

from __future__ import annotations

from planner.probe.forms import Form, Forms, floats, given, ints


def quantized_operators() -> Forms:
    """Operators that are themselves quantized: the dynamic quantizer of onnxruntime and the QOperator format make them."""
    tenth, zero8 = floats(0.1, shape=()), ints(0, dtype="uint8", shape=())
    yield Form("QuantizeLinear", (given(1, 4, 8, dtype="float32", low=-1, high=2), tenth, zero8))
    yield Form("DequantizeLinear", (given(1, 4, 8, dtype="uint8", high=200), tenth, zero8))
    yield Form("DynamicQuantizeLinear", (given(1, 4, 8, dtype="float32", low=-1, high=2),), outputs=3)
    yield Form(
        "MatMulInteger", (given(1, 4, 8, dtype="uint8", high=200), ints(*range(48), dtype="uint8", shape=(8, 6)))
    )
    yield Form(
        "ConvInteger",
        (given(1, 2, 8, 8, dtype="uint8", high=200), ints(*range(54), dtype="uint8", shape=(3, 2, 3, 3))),
        {"kernel_shape": [3, 3]},
    )
    yield Form(
        "QLinearMatMul",
        (
            given(1, 4, 8, dtype="uint8", high=200),
            tenth,
            zero8,
            ints(*range(48), dtype="uint8", shape=(8, 6)),
            tenth,
            zero8,
            floats(20.0, shape=()),
            zero8,
        ),
    )
    yield Form(
        "QLinearConv",
        (
            given(1, 2, 8, 8, dtype="uint8", high=200),
            tenth,
            zero8,
            ints(*range(54), dtype="uint8", shape=(3, 2, 3, 3)),
            tenth,
            zero8,
            floats(20.0, shape=()),
            zero8,
        ),
        {"kernel_shape": [3, 3]},
    )
