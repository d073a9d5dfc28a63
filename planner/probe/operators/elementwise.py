"""Elementwise operators: one operand, two, and comparisons."""

from __future__ import annotations

from typing import Any

from planner.probe.forms import Form, Forms, Slot, act, const, floats, given, ints, plain, weight
from planner.probe.operators.shapes import RANKS, at_ranks

_RANGES: dict[str, tuple[float, float]] = {
    "Acos": (-0.9, 0.9),
    "Asin": (-0.9, 0.9),
    "Atanh": (-0.9, 0.9),
    "Acosh": (1.1, 3.0),
    "Log": (0.1, 3.0),
    "Sqrt": (0.1, 3.0),
    "Reciprocal": (0.5, 3.0),
    "Exp": (-1.0, 0.8),
}


_OUTPUTS: dict[str, tuple[float, float]] = {
    "Sigmoid": (0.0, 1.0),
    "Tanh": (-1.0, 1.0),
    "HardSigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Hardmax": (0.0, 1.0),
    "LogSoftmax": (-6.0, 0.0),
    "Relu": (0.0, 1.5),
    "Acosh": (0.0, 2.0),
    "Acos": (0.0, 3.2),
}


_UNARY: dict[str, dict[str, Any]] = {
    "Abs": {}, "Acos": {}, "Acosh": {}, "Asin": {}, "Asinh": {}, "Atan": {}, "Atanh": {}, "Ceil": {},
    "Celu": {"alpha": 1.5}, "Cos": {}, "Cosh": {}, "Elu": {}, "Erf": {}, "Exp": {}, "Floor": {}, "Gelu": {},
    "HardSigmoid": {}, "HardSwish": {}, "Hardmax": {}, "Identity": {}, "LeakyRelu": {}, "Log": {}, "LogSoftmax": {},
    "Mish": {}, "Neg": {}, "Reciprocal": {}, "Relu": {}, "Round": {}, "Selu": {}, "Shrink": {}, "Sigmoid": {},
    "Sign": {}, "Sin": {}, "Sinh": {}, "Softmax": {}, "Softplus": {}, "Softsign": {}, "Sqrt": {}, "Tan": {}, "Tanh": {},
    "ThresholdedRelu": {},
}  # fmt: skip


_VARIED: dict[str, list[dict[str, Any]]] = {
    "Elu": [{"alpha": 0.5}],
    "Gelu": [{"approximate": "tanh"}],
    "HardSigmoid": [{"alpha": 1 / 6}],
    "LeakyRelu": [{"alpha": 0.2}],
    "LogSoftmax": [{"axis": 1}, {"axis": 0}, {"axis": 3}],
    "Softmax": [{"axis": 1}, {"axis": 2}, {"axis": 0}, {"axis": 3}],
    "Hardmax": [{"axis": 1}],
    "Selu": [{"alpha": 1.0}],
    "ThresholdedRelu": [{"alpha": 0.5}],
}


def unary() -> Forms:
    """Operators of one operand, Clip and Dropout."""
    for op, attributes in _UNARY.items():
        low, high = _RANGES.get(op, (-1.0, 1.5))
        base = Form(op, (act(1, 4, 4, 8, low=low, high=high),), attributes, output=_OUTPUTS.get(op, (-2.0, 2.5)))
        yield base
        softmax_like = op in ("Softmax", "LogSoftmax", "Hardmax")
        yield from at_ranks(base, *((1, 2, 3, 5, 6) if softmax_like else ()))
        for varied in _VARIED.get(op, []):
            yield base.attrs(**varied)
        if softmax_like:
            # Below opset 13 the default axis is 1, and all dimensions from the axis on are one.
            for axis in (0, 1, 2, 3):
                yield base.but(f"opset=11,axis={axis}", attributes={"axis": axis}, opset=11)
            yield base.but("opset=11,rank=2", act(4, 8), opset=11)
            yield base.but("opset=11,rank=3", act(2, 4, 8), opset=11)
        if op in ("Relu", "Sigmoid", "Softmax"):
            yield base.but("dynamic-batch", dynamic=(0,))
            yield base.but("dynamic-inner", dynamic=(2,))
        if op in ("Abs", "Neg", "Sign"):
            for dtype in ("int64", "int32"):
                yield base.but(dtype, given(1, 4, 4, 8, dtype=dtype, high=5))
        yield base.but("symmetric", symmetric=True)
    for op in ("Sigmoid", "Tanh"):
        # The 16-bit form of these has fixed output parameters in QNN's op definition; a range of its own tests it.
        base = Form(op, (act(1, 4, 4, 8),))
        yield base.but("free-output-range", output=(-0.3, 0.9)).as_rule(expressible=False)
    clip = Form("Clip", (act(1, 4, 4, 8), plain(-0.5), plain(0.5)))
    yield clip
    yield from at_ranks(clip, last=clip.slots[1:])
    yield clip.but("bounds=0..6", act(1, 4, 4, 8), plain(0.0), plain(6.0))
    yield clip.but("bounds=min", act(1, 4, 4, 8), plain(0.0))
    yield clip.but("bounds=max", act(1, 4, 4, 8), None, plain(0.5))
    yield clip.but("bounds=none", act(1, 4, 4, 8))
    yield clip.but("bounds=quantized", act(1, 4, 4, 8), const(data=(-0.5,)), const(data=(0.5,)))
    yield clip.but(
        "bounds=dynamic", act(1, 4, 4, 8), given(dtype="float32", low=-1, high=0), given(dtype="float32", low=0, high=1)
    )
    yield clip.but("int64", given(1, 4, 4, 8, dtype="int64", high=5), ints(0, shape=()), ints(3, shape=()))
    yield clip.but("opset=11", opset=11)
    yield clip.but("opset=12", opset=12)
    dropout = Form("Dropout", (act(1, 4, 4, 8),), same_scale=True)
    yield dropout
    yield dropout.but("ratio", act(1, 4, 4, 8), plain(0.3), ints(0, dtype="bool", shape=()))
    yield dropout.but("mask-output", outputs=2)
    swish = Form("Swish", (act(1, 4, 4, 8),), opset=24)
    yield swish
    yield from at_ranks(swish, 2, 3)


_BINARY = {
    "Add": (-1.0, 1.5), "Sub": (-1.0, 1.5), "Mul": (-1.0, 1.5), "Div": (0.5, 1.5), "Pow": (0.5, 1.5),
    "Min": (-1.0, 1.5), "Max": (-1.0, 1.5), "Sum": (-1.0, 1.5), "Mean": (-1.0, 1.5),
}  # fmt: skip


def binary() -> Forms:
    """Operators of two operands or more."""
    for op, (low, high) in _BINARY.items():

        def a(*shape: int, low: float = low, high: float = high) -> Slot:
            return act(*shape, low=low, high=high)

        def c(*shape: int, low: float = low, high: float = high) -> Slot:
            return const(*shape, low=low, high=high)

        base = Form(op, (a(1, 4, 4, 8), a(1, 4, 4, 8)), output=(-2.0, 3.0))
        yield base
        for rank, shape in RANKS.items():
            if rank != 4:
                yield base.but(f"rank={rank}", a(*shape), a(*shape))
        yield base.but("constant-second", a(1, 4, 4, 8), c(1, 4, 4, 8))
        yield base.but("constant-first", c(1, 4, 4, 8), a(1, 4, 4, 8))
        yield base.but("constant-scalar", a(1, 4, 4, 8), c())
        yield base.but("constant-one", a(1, 4, 4, 8), c(1))
        yield base.but("constant-first-scalar", c(), a(1, 4, 4, 8))
        yield base.but("constant-vector", a(1, 4, 4, 8), c(8))
        yield base.but("constant-channel", a(1, 4, 4, 8), c(1, 4, 1, 1))
        yield base.but("broadcast-vector", a(1, 4, 4, 8), a(8))
        yield base.but("broadcast-channel", a(1, 4, 4, 8), a(1, 4, 1, 1))
        yield base.but("broadcast-both", a(1, 4, 1, 8), a(1, 1, 4, 8))
        yield base.but("broadcast-rank-5", a(1, 2, 4, 2, 8), a(4, 1, 8))
        yield base.but("same-operand-twice-the-batch", a(2, 4, 4, 8), a(2, 4, 4, 8))
        yield base.but("symmetric", symmetric=True)
        if op not in ("Mean", "Sum"):
            for dtype in ("int64", "int32"):
                whole = given(1, 4, 4, 8, dtype=dtype, low=1, high=5)
                yield base.but(dtype, whole, whole)
                yield base.but(f"{dtype}-constant", whole, ints(2, dtype=dtype, shape=()))
        if op in ("Add", "Mul"):
            yield base.but("dynamic-batch", dynamic=(0,))
        if op in ("Min", "Max", "Sum", "Mean"):
            yield base.but("operands=1", a(1, 4, 4, 8)).as_rule(
                why="it must have two operands or more", do="leave it out: with one operand it changes nothing"
            )
            yield base.but("operands=3", a(1, 4, 4, 8), a(1, 4, 4, 8), a(1, 4, 4, 8)).as_rule(
                why="it must have two operands", do="write it as two nodes of two operands"
            )
    yield from _powers()
    yield from _slopes()
    yield from _remainders()
    yield from _choices()


def _powers() -> Forms:
    power = Form("Pow", (act(1, 4, 4, 8, low=0.5),), output=(-2.0, 3.0))
    for exponent in (2.0, 3.0, 0.5, -0.5):
        yield power.but(f"exponent={exponent}", act(1, 4, 4, 8, low=0.5), const(data=(exponent,)))
        yield power.but(f"exponent={exponent},plain", act(1, 4, 4, 8, low=0.5), plain(exponent)).as_rule(
            expressible=False
        )
    yield power.but("exponent=float32", act(1, 4, 4, 8, low=0.5), floats(2.0, shape=())).as_rule(
        float_only=True, why="the exponent must have the type of the base", do="cast the exponent to float16"
    )
    yield power.but("exponent=int64", act(1, 4, 4, 8, low=0.5), ints(2, shape=()))


def _slopes() -> Forms:
    prelu = Form("PRelu", (act(1, 4, 4, 8), weight(4, 1, 1, axis=0, low=0.1, high=0.3)))
    yield prelu
    yield prelu.but("slope=scalar", act(1, 4, 4, 8), weight(1, axis=None, low=0.1, high=0.3))
    yield prelu.but("slope=vector", act(1, 4, 4, 8), weight(8, axis=0, low=0.1, high=0.3))
    yield prelu.but("slope=whole", act(1, 4, 4, 8), weight(1, 4, 4, 8, axis=None, low=0.1, high=0.3))
    yield prelu.but("slope=dynamic", act(1, 4, 4, 8), act(4, 1, 1, low=0.1, high=0.3))
    yield prelu.but("rank=3", act(1, 4, 8), weight(4, 1, axis=0, low=0.1, high=0.3))
    yield prelu.but("rank=2", act(4, 8), weight(8, axis=0, low=0.1, high=0.3))
    yield prelu.but("rank=5", act(1, 4, 2, 2, 8), weight(4, 1, 1, 1, axis=0, low=0.1, high=0.3))


def _remainders() -> Forms:
    mod = Form("Mod", (act(1, 4, 4, 8, low=1.0, high=4.0), act(1, 4, 4, 8, low=1.0, high=4.0)), {"fmod": 1})
    yield mod
    yield mod.but("opset=28,fmod=0", attributes={"fmod": 0}, opset=28).as_rule(
        {"min_opset": 28, "fmod": 0, "inputs": {"0": {"present": True, "dtype": ["float32", "float16"]}}}
    )
    for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"):
        whole = given(1, 4, 4, 8, dtype=dtype, low=1, high=5)
        yield mod.but(dtype, whole, whole, attributes={"fmod": 0})
        yield mod.but(f"{dtype},fmod=1", whole, whole)


def _choices() -> Forms:
    where = Form("Where", (given(1, 4, 4, 8, dtype="bool"), act(1, 4, 4, 8), act(1, 4, 4, 8)))
    yield where
    for rank in (1, 2, 3, 5, 6):
        shape = RANKS[rank]
        yield where.but(f"rank={rank}", given(*shape, dtype="bool"), act(*shape), act(*shape))
    yield where.but("constant-third", where.slots[0], where.slots[1], const(1, 4, 4, 8))
    yield where.but("constant-scalar-second", where.slots[0], const(), where.slots[2])
    yield where.but("constant-scalar-third", where.slots[0], where.slots[1], const())
    yield where.but("constants-scalar", where.slots[0], const(), const(low=-0.5))
    yield where.but("condition=broadcast", given(1, 1, 4, 8, dtype="bool"), where.slots[1], where.slots[2])
    yield where.but("condition=constant", ints(1, 0, 1, 1, 0, 0, 1, 0, dtype="bool"), where.slots[1], where.slots[2])
    for dtype in ("int64", "int32"):
        whole = given(1, 4, 4, 8, dtype=dtype, high=5)
        yield where.but(dtype, where.slots[0], whole, whole)


def logic() -> Forms:
    """Comparisons and operators on booleans and bits."""
    for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
        base = Form(op, (act(1, 4, 4, 8), act(1, 4, 4, 8)))
        yield base
        for rank in (0, 1, 2, 3, 5, 6):
            yield base.but(f"rank={rank}", act(*RANKS[rank]), act(*RANKS[rank]))
        yield base.but("constant-scalar", act(1, 4, 4, 8), const())
        for dtype in ("int64", "int32"):
            whole = given(1, 4, 4, 8, dtype=dtype, high=5)
            yield base.but(dtype, whole, whole)
            yield base.but(f"{dtype}-constant", whole, ints(2, dtype=dtype, shape=()))
        if op == "Equal":
            yield base.but("bool", given(1, 4, 4, 8, dtype="bool"), given(1, 4, 4, 8, dtype="bool"))
    for op in ("And", "Or", "Xor"):
        base = Form(op, (given(1, 4, 4, 8, dtype="bool"), given(1, 4, 4, 8, dtype="bool")))
        yield base
        yield base.but("broadcast", given(1, 4, 4, 8, dtype="bool"), given(1, 1, 1, 8, dtype="bool"))
        yield base.but("rank=2", given(4, 8, dtype="bool"), given(4, 8, dtype="bool"))
        yield base.but("rank=5", given(*RANKS[5], dtype="bool"), given(*RANKS[5], dtype="bool"))
    base = Form("Not", (given(1, 4, 4, 8, dtype="bool"),))
    yield base
    yield base.but("rank=2", given(4, 8, dtype="bool"))
    yield base.but("rank=5", given(*RANKS[5], dtype="bool"))
    for op in ("IsNaN", "IsInf"):
        yield Form(op, (act(1, 4, 4, 8),))
    for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        yield Form(op, (given(1, 4, 4, 8, dtype="int32", high=5), given(1, 4, 4, 8, dtype="int32", high=5)))
    yield Form("BitwiseNot", (given(1, 4, 4, 8, dtype="int32", high=5),))
    yield Form(
        "BitShift",
        (given(1, 4, 4, 8, dtype="uint32", high=5), given(1, 4, 4, 8, dtype="uint32", high=3)),
        {"direction": "LEFT"},
    )
