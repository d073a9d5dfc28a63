"""The operators that are probed, each in its base form and in the forms that real models use it in.

Shapes are tiny: legality hardly ever depends on sizes, and a session on a tiny model takes milliseconds. Conditions
vary one factor at a time from the base form.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onnx import TensorProto, helper

from planner.probe.forms import (
    Form,
    Forms,
    Kind,
    Shape,
    Slot,
    act,
    bias,
    const,
    floats,
    given,
    ints,
    live,
    plain,
    sequence,
    weight,
)

RANKS: dict[int, Shape] = {
    0: (),
    1: (8,),
    2: (4, 8),
    3: (2, 4, 8),
    4: (1, 4, 4, 8),
    5: (1, 2, 4, 2, 8),
    6: (1, 2, 2, 2, 2, 4),
}


def all_forms() -> Forms:
    """Every form, operators in a fixed order."""
    yield from _unary()
    yield from _binary()
    yield from _logic()
    yield from _reductions()
    yield from _convolutions()
    yield from _matrix_products()
    yield from _pooling()
    yield from _normalizations()
    yield from _recurrent()
    yield from _spatial()
    yield from _layout()
    yield from _indexing()
    yield from _exact()
    yield from _quantized_operators()
    yield from _control_flow()
    yield from _contributed()
    yield from _losses()
    yield from _sequences()
    yield from _strings()
    yield from _newest()
    yield from _machine_learning()


# -- elementwise ----------------------------------------------------------------------------------------------------

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


def _ranks(base: Form, *ranks: int, last: tuple[Slot | None, ...] = ()) -> Forms:
    """The base form with its first operand at other ranks."""
    first = base.slots[0]
    assert first is not None
    for rank in ranks or (0, 1, 2, 3, 5, 6):
        yield base.but(f"rank={rank}", act(*RANKS[rank], low=first.low, high=first.high), *last)


def _unary() -> Forms:
    for op, attributes in _UNARY.items():
        low, high = _RANGES.get(op, (-1.0, 1.5))
        base = Form(op, (act(1, 4, 4, 8, low=low, high=high),), attributes, output=_OUTPUTS.get(op, (-2.0, 2.5)))
        yield base
        softmax_like = op in ("Softmax", "LogSoftmax", "Hardmax")
        yield from _ranks(base, *((1, 2, 3, 5, 6) if softmax_like else ()))
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
        yield base.but("free-output-range", output=(-0.3, 0.9))
    clip = Form("Clip", (act(1, 4, 4, 8), plain(-0.5), plain(0.5)))
    yield clip
    yield from _ranks(clip, last=clip.slots[1:])
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
    yield from _ranks(swish, 2, 3)


_BINARY = {
    "Add": (-1.0, 1.5), "Sub": (-1.0, 1.5), "Mul": (-1.0, 1.5), "Div": (0.5, 1.5), "Pow": (0.5, 1.5),
    "Min": (-1.0, 1.5), "Max": (-1.0, 1.5), "Sum": (-1.0, 1.5), "Mean": (-1.0, 1.5),
}  # fmt: skip


def _binary() -> Forms:
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
            yield base.but("operands=1", a(1, 4, 4, 8))
            yield base.but("operands=3", a(1, 4, 4, 8), a(1, 4, 4, 8), a(1, 4, 4, 8))
    power = Form("Pow", (act(1, 4, 4, 8, low=0.5),), output=(-2.0, 3.0))
    for exponent in (2.0, 3.0, 0.5, -0.5):
        yield power.but(f"exponent={exponent}", act(1, 4, 4, 8, low=0.5), const(data=(exponent,)))
        yield power.but(f"exponent={exponent},plain", act(1, 4, 4, 8, low=0.5), plain(exponent))
    yield power.but("exponent=float32", act(1, 4, 4, 8, low=0.5), floats(2.0, shape=()))
    yield power.but("exponent=int64", act(1, 4, 4, 8, low=0.5), ints(2, shape=()))
    prelu = Form("PRelu", (act(1, 4, 4, 8), weight(4, 1, 1, axis=0, low=0.1, high=0.3)))
    yield prelu
    yield prelu.but("slope=scalar", act(1, 4, 4, 8), weight(1, axis=None, low=0.1, high=0.3))
    yield prelu.but("slope=vector", act(1, 4, 4, 8), weight(8, axis=0, low=0.1, high=0.3))
    yield prelu.but("slope=whole", act(1, 4, 4, 8), weight(1, 4, 4, 8, axis=None, low=0.1, high=0.3))
    yield prelu.but("slope=dynamic", act(1, 4, 4, 8), act(4, 1, 1, low=0.1, high=0.3))
    yield prelu.but("rank=3", act(1, 4, 8), weight(4, 1, axis=0, low=0.1, high=0.3))
    yield prelu.but("rank=2", act(4, 8), weight(8, axis=0, low=0.1, high=0.3))
    yield prelu.but("rank=5", act(1, 4, 2, 2, 8), weight(4, 1, 1, 1, axis=0, low=0.1, high=0.3))
    mod = Form("Mod", (act(1, 4, 4, 8, low=1.0, high=4.0), act(1, 4, 4, 8, low=1.0, high=4.0)), {"fmod": 1})
    yield mod
    yield mod.but("opset=28,fmod=0", attributes={"fmod": 0}, opset=28)
    for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"):
        whole = given(1, 4, 4, 8, dtype=dtype, low=1, high=5)
        yield mod.but(dtype, whole, whole, attributes={"fmod": 0})
        yield mod.but(f"{dtype},fmod=1", whole, whole)
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


def _logic() -> Forms:
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


# -- reductions -----------------------------------------------------------------------------------------------------

_REDUCTIONS = (
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceSumSquare",
)  # fmt: skip


def _reductions() -> Forms:
    for op in _REDUCTIONS:
        low, high = (0.1, 1.5) if op == "ReduceLogSum" else (-1.0, 1.5)

        def a(*shape: int, low: float = low, high: float = high) -> Slot:
            return act(*shape, low=low, high=high)

        base = Form(
            op,
            (a(1, 4, 4, 8), ints(2, 3)),
            {"keepdims": 1},
            output=(-4.0, 6.0),
            same_scale=op in ("ReduceMax", "ReduceMin"),
        )
        yield base
        yield base.attrs(keepdims=0)
        for axes in ((3,), (-1,), (1,), (0,), (1, 2), (0, 1, 2, 3)):
            yield base.but(f"axes={'x'.join(map(str, axes))}", a(1, 4, 4, 8), ints(*axes))
        yield base.but("axes=all", a(1, 4, 4, 8))
        yield base.but("axes=-1,keepdims=0", a(1, 4, 4, 8), ints(-1), attributes={"keepdims": 0})
        yield base.but("axes=dynamic", a(1, 4, 4, 8), given(1, dtype="int64", low=1, high=2))
        yield base.but("axes=dynamic,stated", a(1, 4, 4, 8), live(1), states=((1, 1, 4, 8),))
        yield base.but("axes=empty,noop", a(1, 4, 4, 8), attributes={"noop_with_empty_axes": 1})
        for rank in (1, 2, 3, 5, 6):
            yield base.but(f"rank={rank}", a(*RANKS[rank]), ints(-1))
        for dtype in ("int64", "int32"):
            if op in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceProd"):
                yield base.but(dtype, given(1, 4, 4, 8, dtype=dtype, high=4), ints(-1))
        axes_attribute = {"ReduceSum": (11,), "ReduceMax": (11, 12, 13), "ReduceMin": (11, 12, 13)}
        for opset in axes_attribute.get(op, (11, 13)):
            yield Form(
                op,
                (a(1, 4, 4, 8),),
                {"axes": [2, 3], "keepdims": 1},
                f"opset={opset}",
                opset=opset,
                output=(-4.0, 6.0),
                same_scale=op in ("ReduceMax", "ReduceMin"),
            )
    for op in ("ArgMax", "ArgMin"):
        base = Form(op, (act(1, 4, 4, 8),), {"axis": 1})
        yield base
        yield base.attrs(keepdims=0)
        yield base.attrs(axis=-1)
        yield base.attrs(axis=0)
        yield base.attrs(select_last_index=1)
        for rank in (1, 2, 3, 5, 6):
            yield base.but(f"rank={rank}", act(*RANKS[rank]), attributes={"axis": -1})
        yield base.but("int32", given(1, 4, 4, 8, dtype="int32", high=5))
    base = Form("CumSum", (act(1, 4, 4, 8), ints(3, shape=())), output=(-6.0, 10.0))
    yield base
    yield base.but("axis=1", act(1, 4, 4, 8), ints(1, shape=()))
    yield base.attrs(exclusive=1)
    yield base.attrs(reverse=1)
    yield base.but("rank=2", act(4, 8), ints(1, shape=()))
    yield base.but("int64", given(1, 8, dtype="int64", high=4), ints(1, shape=()))
    yield base.but("int32", given(1, 8, dtype="int32", high=4), ints(1, shape=()))
    yield base.but("axis=dynamic", act(1, 4, 4, 8), given(dtype="int64", low=1, high=2))


# -- operators with weights -----------------------------------------------------------------------------------------


def _convolutions() -> Forms:
    x = act(1, 4, 8, 8)
    base = Form("Conv", (x, weight(6, 4, 3, 3, axis=0), bias(6)), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})
    yield base
    yield base.but("no-bias", x, weight(6, 4, 3, 3, axis=0))
    yield base.but(
        "kernel=1", x, weight(6, 4, 1, 1, axis=0), bias(6), attributes={"kernel_shape": [1, 1], "pads": [0] * 4}
    )
    yield base.but(
        "kernel=7", x, weight(6, 4, 7, 7, axis=0), bias(6), attributes={"kernel_shape": [7, 7], "pads": [3] * 4}
    )
    yield base.but(
        "kernel=1x3", x, weight(6, 4, 1, 3, axis=0), bias(6), attributes={"kernel_shape": [1, 3], "pads": [0, 1, 0, 1]}
    )
    yield base.attrs(strides=[2, 2])
    yield base.attrs(dilations=[2, 2])
    yield base.attrs(pads=[0, 0, 0, 0])
    yield base.but("pads=uneven", attributes={"pads": [0, 1, 2, 1]})
    for auto in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        form = base.but(f"auto_pad={auto}", attributes={"auto_pad": auto})
        yield _without(form, "pads")
    yield base.but("group=2", x, weight(6, 2, 3, 3, axis=0), bias(6), attributes={"group": 2})
    yield base.but("group=4", x, weight(8, 1, 3, 3, axis=0), bias(8), attributes={"group": 4})
    yield base.but("depthwise", x, weight(4, 1, 3, 3, axis=0), bias(4), attributes={"group": 4})
    yield base.but(
        "depthwise,strides=2x2", x, weight(4, 1, 3, 3, axis=0), bias(4), attributes={"group": 4, "strides": [2, 2]}
    )
    yield base.but(
        "depthwise,dilations=2x2", x, weight(4, 1, 3, 3, axis=0), bias(4), attributes={"group": 4, "dilations": [2, 2]}
    )
    yield base.but("batch=2", act(2, 4, 8, 8), *base.slots[1:])
    yield base.but("channels=1", act(1, 1, 8, 8), weight(6, 1, 3, 3, axis=0), bias(6))
    yield base.but("large", act(1, 64, 4, 4), weight(32, 64, 3, 3, axis=0), bias(32))
    yield base.but("weight=dynamic", x, act(6, 4, 3, 3, low=-0.5, high=0.6))
    yield base.but("weight=dynamic,bias", x, act(6, 4, 3, 3, low=-0.5, high=0.6), bias(6))
    yield base.but("bias=dynamic", x, base.slots[1], act(6))
    yield base.but("dynamic-batch", dynamic=(0,))
    yield base.but("dynamic-size", dynamic=(2, 3))
    yield base.but("symmetric", symmetric=True)
    yield _without(base.but("no-kernel_shape"), "kernel_shape")
    one = {"kernel_shape": [3], "pads": [1, 1]}
    yield base.but("1d", act(1, 4, 8), weight(6, 4, 3, axis=0), bias(6), attributes=one)
    yield base.but("1d,strides=2", act(1, 4, 8), weight(6, 4, 3, axis=0), bias(6), attributes={**one, "strides": [2]})
    yield base.but(
        "1d,dilations=2", act(1, 4, 8), weight(6, 4, 3, axis=0), bias(6), attributes={**one, "dilations": [2]}
    )
    yield base.but("1d,depthwise", act(1, 4, 8), weight(4, 1, 3, axis=0), bias(4), attributes={**one, "group": 4})
    three = {"kernel_shape": [3, 3, 3], "pads": [1] * 6}
    yield base.but("3d", act(1, 4, 4, 4, 4), weight(6, 4, 3, 3, 3, axis=0), bias(6), attributes=three)
    yield base.but(
        "3d,depthwise", act(1, 4, 4, 4, 4), weight(4, 1, 3, 3, 3, axis=0), bias(4), attributes={**three, "group": 4}
    )
    yield base.but(
        "3d,strides=2x2x2",
        act(1, 4, 4, 4, 4),
        weight(6, 4, 3, 3, 3, axis=0),
        bias(6),
        attributes={**three, "strides": [2] * 3},
    )
    up = Form("ConvTranspose", (x, weight(4, 6, 2, 2, axis=1), bias(6)), {"kernel_shape": [2, 2], "strides": [2, 2]})
    yield up
    yield up.but("no-bias", x, weight(4, 6, 2, 2, axis=1))
    yield up.but("large", act(1, 64, 4, 4), weight(64, 32, 2, 2, axis=1), bias(32))
    yield up.but(
        "kernel=3", x, weight(4, 6, 3, 3, axis=1), bias(6), attributes={"kernel_shape": [3, 3], "pads": [1] * 4}
    )
    yield up.but(
        "kernel=3,output_padding=1x1",
        x,
        weight(4, 6, 3, 3, axis=1),
        bias(6),
        attributes={"kernel_shape": [3, 3], "pads": [1] * 4, "output_padding": [1, 1]},
    )
    yield up.but(
        "kernel=4", x, weight(4, 6, 4, 4, axis=1), bias(6), attributes={"kernel_shape": [4, 4], "pads": [1] * 4}
    )
    yield up.but("strides=1x1", attributes={"strides": [1, 1]})
    yield up.but("group=2", x, weight(4, 3, 2, 2, axis=None), bias(6), attributes={"group": 2})
    yield up.but("depthwise", x, weight(4, 1, 2, 2, axis=None), bias(4), attributes={"group": 4})
    yield up.but(
        "dilations=2x2",
        x,
        weight(4, 6, 3, 3, axis=1),
        bias(6),
        attributes={"kernel_shape": [3, 3], "dilations": [2, 2]},
    )
    yield up.but("output_shape", attributes={"output_shape": [16, 16]})
    yield up.but("auto_pad=SAME_UPPER", attributes={"auto_pad": "SAME_UPPER"})
    yield up.but("weight=dynamic", x, act(4, 6, 2, 2, low=-0.5, high=0.6))
    yield up.but("1d", act(1, 4, 8), weight(4, 6, 2, axis=1), bias(6), attributes={"kernel_shape": [2], "strides": [2]})
    yield up.but(
        "3d",
        act(1, 4, 4, 4, 4),
        weight(4, 6, 2, 2, 2, axis=1),
        bias(6),
        attributes={"kernel_shape": [2] * 3, "strides": [2] * 3},
    )
    deform = Form(
        "DeformConv",
        (x, weight(6, 4, 3, 3, axis=0), act(1, 18, 6, 6, low=-0.5, high=0.5), bias(6)),
        {"kernel_shape": [3, 3]},
        opset=19,
    )
    yield deform


def _without(form: Form, attribute: str) -> Form:
    """The form with an attribute left out, its condition kept."""
    kept = {k: v for k, v in form.attributes.items() if k != attribute}
    return Form(**{**form.__dict__, "attributes": kept})


def _matrix_products() -> Forms:
    base = Form("MatMul", (act(1, 4, 8), weight(8, 6, axis=1)))
    yield base
    yield base.but("rank=2", act(4, 8), weight(8, 6, axis=1))
    yield base.but("rank=4", act(1, 2, 4, 8), weight(8, 6, axis=1))
    yield base.but("rank=5", act(1, 2, 2, 4, 8), weight(8, 6, axis=1))
    yield base.but("rank=6", act(1, 2, 1, 2, 4, 8), weight(8, 6, axis=1))
    yield base.but("rank=1", act(8), weight(8, 6, axis=1))
    yield base.but("batch=3", act(3, 4, 8), weight(8, 6, axis=1))
    yield base.but("weight-rank=1", act(1, 4, 8), weight(8, axis=None))
    yield base.but("weight-rank=3", act(2, 4, 8), weight(2, 8, 6, axis=2))
    yield base.but("weight-rank=4", act(1, 2, 4, 8), weight(1, 2, 8, 6, axis=3))
    yield base.but("constant-first", weight(4, 8, axis=None), act(1, 8, 6))
    yield base.but("dynamic", act(1, 2, 4, 8), act(1, 2, 8, 6))
    yield base.but("dynamic,rank=2", act(4, 8), act(8, 6))
    yield base.but("dynamic,rank=3", act(2, 4, 8), act(2, 8, 6))
    yield base.but("dynamic,rank=5", act(1, 2, 2, 4, 8), act(1, 2, 2, 8, 6))
    yield base.but("dynamic,rank=6", act(1, 1, 2, 2, 4, 8), act(1, 1, 2, 2, 8, 6))
    yield base.but("dynamic,broadcast", act(2, 2, 4, 8), act(8, 6))
    yield base.but("dynamic,broadcast-batch", act(1, 2, 4, 8), act(3, 1, 8, 6))
    yield base.but("dynamic,vector", act(1, 4, 8), act(8))
    yield base.but("dynamic-batch", dynamic=(0,))
    yield base.but("symmetric", symmetric=True)
    yield base.but("large", act(1, 16, 64), weight(64, 32, axis=1))
    gemm = Form("Gemm", (act(4, 8), weight(8, 6, axis=1), bias(6)))
    yield gemm
    yield gemm.but("transB=1", act(4, 8), weight(6, 8, axis=0), bias(6), attributes={"transB": 1})
    yield gemm.but("transB=1,batch=1", act(1, 8), weight(6, 8, axis=0), bias(6), attributes={"transB": 1})
    yield gemm.but("transA=1", act(8, 4), weight(8, 6, axis=1), bias(6), attributes={"transA": 1})
    yield gemm.but("large", act(4, 64), weight(64, 32, axis=1), bias(32))
    yield gemm.but("no-bias", act(4, 8), weight(8, 6, axis=1))
    yield gemm.but("bias=scalar", act(4, 8), weight(8, 6, axis=1), bias())
    yield gemm.but("bias=one", act(4, 8), weight(8, 6, axis=1), bias(1))
    yield gemm.but("bias=row", act(4, 8), weight(8, 6, axis=1), bias(1, 6))
    yield gemm.but("bias=matrix", act(4, 8), weight(8, 6, axis=None), bias(4, 6))
    yield gemm.but("bias=dynamic", act(4, 8), weight(8, 6, axis=1), act(6))
    yield gemm.attrs(alpha=0.5)
    yield gemm.attrs(beta=0.5)
    yield gemm.but("weight=dynamic", act(4, 8), act(8, 6))
    yield gemm.but("weight=dynamic,bias", act(4, 8), act(8, 6), bias(6))
    yield gemm.but("weight=dynamic,transB=1", act(4, 8), act(6, 8), attributes={"transB": 1})
    yield gemm.but("constant-first", weight(4, 8, axis=None), act(8, 6))
    yield gemm.but("symmetric", symmetric=True)
    yield gemm.but("dynamic-batch", dynamic=(0,))
    einsum = Form("Einsum", (act(1, 2, 4, 8), act(1, 2, 8, 6)), {"equation": "bhij,bhjk->bhik"})
    yield einsum
    yield einsum.but("equation=ij,jk->ik", act(4, 8), act(8, 6), attributes={"equation": "ij,jk->ik"})
    yield einsum.but("equation=bij,bjk->bik", act(2, 4, 8), act(2, 8, 6), attributes={"equation": "bij,bjk->bik"})
    yield einsum.but(
        "equation=bij,jk->bik,constant", act(2, 4, 8), weight(8, 6, axis=1), attributes={"equation": "bij,jk->bik"}
    )
    yield einsum.but(
        "equation=bhwc,hkc->bhwk", act(1, 2, 4, 8), act(2, 6, 8), attributes={"equation": "bhwc,hkc->bhwk"}
    )
    yield einsum.but("equation=bid,bjd->bij", act(2, 4, 8), act(2, 6, 8), attributes={"equation": "bid,bjd->bij"})
    yield einsum.but("equation=ij->ji", act(4, 8), attributes={"equation": "ij->ji"})
    attention = Form("Attention", (act(1, 2, 4, 8), act(1, 2, 4, 8), act(1, 2, 4, 8)), opset=23)
    yield attention
    rotary = Form("RotaryEmbedding", (act(1, 2, 4, 8), const(1, 4, 4), const(1, 4, 4)), opset=23)
    yield rotary


def _pooling() -> Forms:
    x = act(1, 4, 8, 8)
    for op in ("MaxPool", "AveragePool", "LpPool"):
        base = Form(op, (x,), {"kernel_shape": [2, 2], "strides": [2, 2]}, same_scale=op != "LpPool", opset=21)
        yield base
        yield base.but(
            "kernel=3,strides=1x1,pads=1", attributes={"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1] * 4}
        )
        yield base.but(
            "kernel=3,strides=2x2,pads=1", attributes={"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
        )
        yield base.but("kernel=2x1", attributes={"kernel_shape": [2, 1], "strides": [2, 1]})
        yield base.but("ceil_mode=1", attributes={"kernel_shape": [3, 3], "ceil_mode": 1})
        yield base.but("dilations=2x2", attributes={"dilations": [2, 2]})
        yield base.but("auto_pad=SAME_UPPER", attributes={"auto_pad": "SAME_UPPER"})
        yield base.but("auto_pad=SAME_LOWER", attributes={"auto_pad": "SAME_LOWER"})
        yield base.but("kernel=whole", attributes={"kernel_shape": [8, 8], "strides": [1, 1]})
        yield base.but("1d", act(1, 4, 8), attributes={"kernel_shape": [2], "strides": [2]})
        yield base.but("3d", act(1, 4, 4, 4, 4), attributes={"kernel_shape": [2] * 3, "strides": [2] * 3})
        yield base.but("dynamic-batch", dynamic=(0,))
        if op == "MaxPool":
            yield base.but("indices-output", outputs=2)
            yield base.attrs(storage_order=1)
        if op == "AveragePool":
            yield base.but(
                "count_include_pad=1", attributes={"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1}
            )
        if op == "LpPool":
            for p in (1, 3, 4):
                yield base.attrs(p=p)
    for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
        base = Form(op, (x,), same_scale=op == "GlobalMaxPool")
        yield base
        yield base.but("rank=3", act(1, 4, 8))
        yield base.but("rank=5", act(1, 4, 4, 4, 4))
        yield base.but("batch=2", act(2, 4, 8, 8))
    yield Form("MaxRoiPool", (x, floats(0, 0, 0, 4, 4, shape=(1, 5))), {"pooled_shape": [2, 2]})
    yield Form(
        "MaxUnpool",
        (act(1, 1, 2, 2), ints(5, 7, 13, 15, shape=(1, 1, 2, 2))),
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        same_scale=True,
    )


def _normalizations() -> Forms:
    def scale(*shape: int) -> Slot:
        return weight(*shape, axis=0, low=0.5, high=1.5)

    x = act(1, 4, 8, 8)
    mean, variance = plain(0.1, -0.1, 0.2, 0.0, shape=(4,)), plain(0.9, 1.1, 0.7, 1.3, shape=(4,))
    base = Form("BatchNormalization", (x, scale(4), bias(4), mean, variance))
    yield base
    yield base.but("all-quantized", x, scale(4), bias(4), const(4, low=-0.2, high=0.2), const(4, low=0.5, high=1.5))
    yield base.but("rank=2", act(2, 4), *base.slots[1:])
    yield base.but("rank=3", act(1, 4, 8), *base.slots[1:])
    yield base.but("rank=5", act(1, 4, 2, 4, 4), *base.slots[1:])
    yield base.but("scale=dynamic", x, act(4, low=0.5), act(4), mean, variance)
    yield base.but("mean=dynamic", x, scale(4), bias(4), act(4, low=-0.2, high=0.2), variance)
    yield base.but("variance=dynamic", x, scale(4), bias(4), mean, act(4, low=0.5))
    yield base.but("opset=11", opset=11)
    yield base.but("opset=14", opset=14)
    base = Form("InstanceNormalization", (x, scale(4), bias(4)))
    yield base
    yield base.but("rank=3", act(1, 4, 8), scale(4), bias(4))
    yield base.but("rank=5", act(1, 4, 2, 4, 4), scale(4), bias(4))
    yield base.but("batch=2", act(2, 4, 8, 8), scale(4), bias(4))
    yield base.but("scale=dynamic", x, act(4, low=0.5), act(4))
    base = Form("LayerNormalization", (act(1, 4, 8), scale(8), bias(8)), {"axis": -1})
    yield base
    yield base.but("no-bias", act(1, 4, 8), scale(8))
    yield base.but("rank=2", act(4, 8), scale(8), bias(8))
    yield base.but("rank=4", act(1, 2, 4, 8), scale(8), bias(8))
    yield base.but("rank=5", act(1, 2, 2, 4, 8), scale(8), bias(8))
    yield base.but("axis=2", attributes={"axis": 2})
    yield base.but("axis=1", act(1, 4, 8), scale(4, 8), bias(4, 8), attributes={"axis": 1})
    yield base.but("rank=4,axis=1", act(1, 2, 4, 8), scale(2, 4, 8), bias(2, 4, 8), attributes={"axis": 1})
    yield base.but("scale=dynamic", act(1, 4, 8), act(8, low=0.5), act(8))
    yield base.but("scale=dynamic,no-bias", act(1, 4, 8), act(8, low=0.5))
    yield base.but("outputs=3", outputs=3)
    yield base.but("bias=activation", act(1, 4, 8), scale(8), const(8))
    yield base.but("opset=17", opset=17)
    base = Form("GroupNormalization", (x, scale(4), bias(4)), {"num_groups": 2})
    yield base
    yield base.but("stated", states=((1, 4, 8, 8),))
    yield base.but("opset=18", x, scale(2), bias(2), opset=18)
    yield base.but("opset=18,stated", x, scale(2), bias(2), opset=18, states=((1, 4, 8, 8),))
    base = Form("RMSNormalization", (act(1, 4, 8), scale(8)), {"axis": -1}, opset=23)
    yield base
    yield base.but("rank=4", act(1, 2, 4, 8), scale(8))
    base = Form("LpNormalization", (act(1, 4, 4, 8),), {"axis": -1, "p": 2}, output=(-1.0, 1.0))
    yield base
    yield base.attrs(p=1)
    yield base.attrs(axis=1)
    yield base.but("rank=2", act(4, 8))
    yield base.but("rank=3", act(2, 4, 8))
    base = Form("LRN", (x,), {"size": 3})
    yield base
    yield base.attrs(size=5)
    yield base.attrs(alpha=0.001)
    yield base.but("rank=3", act(1, 4, 8))
    base = Form("MeanVarianceNormalization", (x,))
    yield base


def _recurrent() -> Forms:
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        outputs = 3 if op == "LSTM" else 2

        def parts(directions: int, gates: int = gates) -> tuple[Slot, Slot, Slot]:
            return (
                weight(directions, gates * 5, 6, axis=None),
                weight(directions, gates * 5, 5, axis=None),
                bias(directions, 2 * gates * 5),
            )

        x = act(3, 1, 6)
        base = Form(op, (x, *parts(1)), {"hidden_size": 5}, outputs=outputs, output=(-1.0, 1.0))
        yield base
        yield base.but("no-bias", x, *parts(1)[:2])
        yield base.but("direction=reverse", attributes={"direction": "reverse"})
        yield base.but("direction=bidirectional", x, *parts(2), attributes={"direction": "bidirectional"})
        states = (None, act(1, 1, 5)) if op != "LSTM" else (None, act(1, 1, 5), act(1, 1, 5))
        yield base.but("initial-state", x, *parts(1), *states)
        yield base.but("first-output-only", outputs=1)
        yield base.but("layout=1", act(1, 3, 6), *parts(1), attributes={"layout": 1})
        yield base.but("steps=1", act(1, 1, 6), *parts(1))
        yield base.but("sequence_lens", x, *parts(1), ints(3, dtype="int32"))
        yield base.but("batch=2", act(3, 2, 6), *parts(1))
        if op == "GRU":
            yield base.attrs(linear_before_reset=1)


# -- space and layout -----------------------------------------------------------------------------------------------


def _spatial() -> Forms:
    x = act(1, 4, 4, 4)
    twice = floats(1, 1, 2, 2)
    base = Form(
        "Resize",
        (x, None, twice),
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    )
    yield base
    coordinates = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    for coordinate in coordinates:
        for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
            if (coordinate, nearest) != ("asymmetric", "floor"):
                yield base.attrs(coordinate_transformation_mode=coordinate, nearest_mode=nearest)
    for mode in ("linear", "cubic"):
        for coordinate in coordinates:
            yield base.attrs(mode=mode, coordinate_transformation_mode=coordinate)
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    yield base.attrs(mode="linear", coordinate_transformation_mode="half_pixel_symmetric")
    crop = floats(0, 0, 0.2, 0.2, 1, 1, 0.8, 0.8)
    yield base.but(
        "mode=linear,coordinate_transformation_mode=tf_crop_and_resize",
        x,
        crop,
        None,
        ints(1, 4, 3, 3),
        attributes={"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"},
    )
    yield base.but("scales=uneven", x, None, floats(1, 1, 3, 2))
    yield base.but("scales=half", x, None, floats(1, 1, 0.5, 0.5))
    yield base.but("scales=fraction", x, None, floats(1, 1, 1.5, 1.5))
    yield base.but("linear,scales=half", x, None, floats(1, 1, 0.5, 0.5), attributes=linear)
    yield base.but("linear,scales=fraction", x, None, floats(1, 1, 1.5, 1.5), attributes=linear)
    yield base.but("sizes", x, None, None, ints(1, 4, 8, 8))
    yield base.but("linear,sizes", x, None, None, ints(1, 4, 8, 8), attributes=linear)
    yield base.but("linear,sizes=uneven", x, None, None, ints(1, 4, 7, 9), attributes=linear)
    yield base.but("scales=channels", x, None, floats(1, 2, 2, 2))
    yield base.but("linear,scales=last", x, None, floats(1, 1, 1, 2), attributes=linear)
    yield base.but("linear,antialias=1", attributes={**linear, "antialias": 1})
    yield base.but("roi", x, floats(shape=(0,)), twice)
    yield base.but("rank=3", act(1, 4, 8), None, floats(1, 1, 2))
    yield base.but("linear,rank=3", act(1, 4, 8), None, floats(1, 1, 2), attributes=linear)
    yield base.but("rank=5", act(1, 4, 2, 4, 4), None, floats(1, 1, 2, 2, 2))
    yield base.but("linear,rank=5", act(1, 4, 2, 4, 4), None, floats(1, 1, 2, 2, 2), attributes=linear)
    yield base.but("dynamic-batch", dynamic=(0,))
    yield base.but("sizes=dynamic", x, None, None, given(4, dtype="int64", low=4, high=5))
    for mode in ("nearest", "linear", "cubic"):
        yield base.but(
            f"{mode},sizes=dynamic,stated",
            x,
            None,
            None,
            live(1, 4, 8, 8),
            attributes={"mode": mode},
            states=((1, 4, 8, 8),),
        )
        yield base.but(
            f"{mode},scales=dynamic,stated",
            x,
            None,
            Slot(Kind.EXACT, (4,), data=(1.0, 1.0, 2.0, 2.0), constant=False),
            attributes={"mode": mode},
            states=((1, 4, 8, 8),),
        )
    yield base.but("opset=11", x, floats(shape=(0,)), twice, opset=11)
    yield base.but("opset=13", opset=13)
    up = Form("Upsample", (x, twice), {"mode": "nearest"}, opset=9)
    yield up
    yield up.but("linear", attributes={"mode": "linear"})
    doubled = Slot(Kind.EXACT, (4,), data=(1.0, 1.0, 2.0, 2.0), constant=False)
    yield up.but("scales=dynamic,stated", x, doubled, states=((1, 4, 8, 8),))
    base = Form("GridSample", (x, act(1, 4, 4, 2, low=-1.0, high=1.0)), {"mode": "linear"}, same_scale=True)
    yield base
    yield base.attrs(mode="nearest")
    yield base.attrs(mode="cubic")
    yield base.attrs(padding_mode="border")
    yield base.attrs(padding_mode="reflection")
    yield base.attrs(align_corners=1)
    yield base.but("rank=5", act(1, 2, 4, 4, 4), act(1, 4, 4, 4, 3, low=-1.0, high=1.0))
    yield base.but("opset=16", attributes={"mode": "bilinear"}, opset=16)
    base = Form(
        "RoiAlign",
        (x, given(2, 4, dtype="float32", low=0, high=3), ints(0, 0)),
        {"output_height": 2, "output_width": 2},
    )
    yield base
    yield base.attrs(mode="max")
    yield base.attrs(coordinate_transformation_mode="output_half_pixel")
    yield base.attrs(sampling_ratio=2)
    for op in ("DepthToSpace", "SpaceToDepth"):
        base = Form(op, (x,), {"blocksize": 2}, same_scale=True)
        yield base
        if op == "DepthToSpace":
            yield base.attrs(mode="CRD")
        yield base.but("batch=2", act(2, 4, 4, 4))
    yield Form("AffineGrid", (act(1, 2, 3), ints(1, 4, 4, 4)), opset=20)
    yield Form("Col2Im", (act(1, 16, 4), ints(4, 4), ints(2, 2)), {"strides": [2, 2]}, opset=18)
    yield Form("CenterCropPad", (x, ints(1, 4, 2, 2)), opset=18)
    yield Form("Det", (act(2, 3, 3),))
    yield Form("DFT", (act(1, 8, 1), None, ints(1, shape=())), opset=20, output=(-8.0, 8.0))
    yield Form("DFT", (act(1, 8, 1),), {"axis": 1}, "opset=17", opset=17, output=(-8.0, 8.0))
    yield Form("STFT", (act(1, 32, 1), ints(8, shape=()), None, ints(16, shape=())), opset=17, output=(-16.0, 16.0))


def _layout() -> Forms:
    x = act(1, 4, 4, 8)
    base = Form("Reshape", (x, ints(1, 16, 8)), same_scale=True)
    yield base
    for shape in ((8, 16), (128,), (2, 2, 4, 8), (2, 2, 2, 2, 8), (2, 2, 2, 2, 2, 4), (2, 2, 2, 2, 2, 2, 2)):
        yield base.but(f"to-rank={len(shape)}", x, ints(*shape))
    for rank in (1, 2, 3, 5, 6):
        yield base.but(f"rank={rank}", act(*RANKS[rank]), ints(-1, 4))
    yield base.but("shape=0,-1", x, ints(0, -1, 8))
    yield base.but("shape=dynamic", x, given(3, dtype="int64", low=-1, high=0))
    yield base.but("shape=dynamic,stated", x, live(1, 16, 8), states=((1, 16, 8),))
    yield base.but("dynamic-batch", x, ints(-1, 16, 8), dynamic=(0,))
    yield base.but("different-scale", same_scale=False)
    for dtype in ("int64", "int32", "bool"):
        yield base.but(dtype, given(1, 4, 4, 8, dtype=dtype), ints(1, 16, 8))
    base = Form("Flatten", (x,), same_scale=True)
    yield base
    for axis in (0, 2, 3, -1):
        yield base.attrs(axis=axis)
    yield from _ranks(base, 2, 3, 5, 6)
    base = Form("Squeeze", (x, ints(0)), same_scale=True)
    yield base
    yield base.but("axes=all", x)
    yield base.but("axes=-1", act(4, 8, 1), ints(-1))
    yield base.but("rank=5", act(1, 2, 4, 2, 8), ints(0))
    yield base.but("rank=6", act(1, 2, 2, 2, 2, 4), ints(0))
    yield base.but("rank=2", act(1, 8), ints(0))
    yield base.but("int64", given(1, 4, dtype="int64"), ints(0))
    yield Form("Squeeze", (x,), {"axes": [0]}, "opset=11", opset=11, same_scale=True)
    base = Form("Unsqueeze", (act(4, 4, 8), ints(0)), same_scale=True)
    yield base
    yield base.but("axes=-1", act(4, 4, 8), ints(-1))
    yield base.but("axes=0x2", act(4, 8), ints(0, 2))
    yield base.but("rank=1", act(8), ints(0))
    yield base.but("rank=4", x, ints(0))
    yield base.but("rank=5", act(*RANKS[5]), ints(0))
    yield base.but("int64", given(4, dtype="int64"), ints(0))
    yield Form("Unsqueeze", (act(4, 4, 8),), {"axes": [0]}, "opset=11", opset=11, same_scale=True)
    base = Form("Transpose", (x,), {"perm": [0, 2, 3, 1]}, same_scale=True)
    yield base
    yield base.attrs(perm=[0, 3, 1, 2])
    yield base.attrs(perm=[0, 2, 1, 3])
    yield base.attrs(perm=[3, 2, 1, 0])
    yield _without(base.but("perm=default"), "perm")
    for rank in (2, 3, 5, 6):
        yield base.but(f"rank={rank}", act(*RANKS[rank]), attributes={"perm": list(reversed(range(rank)))})
    yield base.but("dynamic-batch", dynamic=(0,))
    yield base.but("different-scale", same_scale=False)
    for dtype in ("int64", "int32", "bool"):
        yield base.but(dtype, given(1, 4, 4, 8, dtype=dtype))
    yield from _slices()
    yield from _joins()
    base = Form("Expand", (act(1, 4, 1, 8), ints(1, 4, 4, 8)), same_scale=True)
    yield base
    yield base.but("rank=2", act(1, 8), ints(4, 8))
    yield base.but("rank=3", act(1, 4, 8), ints(2, 4, 8))
    yield base.but("rank=5", act(1, 2, 1, 2, 8), ints(1, 2, 4, 2, 8))
    yield base.but("raises-rank", act(1, 8), ints(2, 4, 8))
    yield base.but("shape=dynamic", act(1, 4, 1, 8), given(4, dtype="int64", low=1, high=2))
    yield base.but("shape=dynamic,stated", act(1, 4, 1, 8), live(1, 4, 4, 8), states=((1, 4, 4, 8),))
    yield base.but("int64", given(1, 4, 1, 8, dtype="int64"), ints(1, 4, 4, 8))
    yield base.but("int32", given(1, 4, 1, 8, dtype="int32"), ints(1, 4, 4, 8))
    yield base.but("bool", given(1, 4, 1, 8, dtype="bool"), ints(1, 4, 4, 8))
    base = Form("Tile", (x, ints(1, 2, 1, 2)), same_scale=True)
    yield base
    for rank in (1, 2, 3, 5, 6):
        yield base.but(f"rank={rank}", act(*RANKS[rank]), ints(*([2] + [1] * (rank - 1))))
    yield base.but("repeats=dynamic", x, given(4, dtype="int64", low=1, high=2))
    yield base.but("repeats=dynamic,stated", x, live(1, 2, 1, 2), states=((1, 8, 4, 16),))
    yield base.but("int64", given(1, 4, dtype="int64"), ints(1, 2))
    base = Form("Pad", (x, ints(0, 0, 1, 1, 0, 0, 1, 1)), {"mode": "constant"}, same_scale=True)
    yield base
    for mode in ("reflect", "edge", "wrap"):
        yield base.attrs(mode=mode)
    yield base.but("value=plain", x, base.slots[1], plain(0.5))
    yield base.but("value=quantized", x, base.slots[1], const(data=(0.5,)))
    yield base.but("value=zero,plain", x, base.slots[1], plain(0.0))
    yield base.but("pads=negative", x, ints(0, 0, -1, 0, 0, 0, 0, -1))
    yield base.but("pads=channels", x, ints(0, 1, 0, 0, 0, 1, 0, 0))
    yield base.but("pads=dynamic", x, given(8, dtype="int64", low=0, high=1))
    yield base.but("pads=dynamic,stated", x, live(0, 0, 1, 1, 0, 0, 1, 1), states=((1, 4, 6, 10),))
    yield base.but("rank=2", act(4, 8), ints(0, 1, 0, 1))
    yield base.but("rank=3", act(2, 4, 8), ints(0, 0, 1, 0, 0, 1))
    yield base.but("reflect,rank=3", act(2, 4, 8), ints(0, 0, 1, 0, 0, 1), attributes={"mode": "reflect"})
    yield base.but("edge,rank=3", act(2, 4, 8), ints(0, 0, 1, 0, 0, 1), attributes={"mode": "edge"})
    yield base.but("rank=5", act(*RANKS[5]), ints(0, 0, 1, 1, 0, 0, 0, 1, 1, 0))
    yield base.but("axes", x, ints(1, 1), None, ints(2))
    yield base.but("int64", given(4, 8, dtype="int64"), ints(0, 1, 0, 1))
    base = Form("Trilu", (act(1, 4, 8, 8),), same_scale=True)
    yield base
    yield base.attrs(upper=0)
    yield base.but("k=1", act(1, 4, 8, 8), ints(1, shape=()))
    yield base.but("int64", given(8, 8, dtype="int64"))
    base = Form("ReverseSequence", (act(4, 2, 8), ints(2, 4)), same_scale=True)
    yield base


def _slices() -> Forms:
    x = act(1, 4, 4, 8)
    base = Form("Slice", (x, ints(1), ints(3), ints(2)), same_scale=True)
    yield base
    yield base.but("axes=none", x, ints(0, 0, 1, 0), ints(1, 4, 3, 8))
    yield base.but("steps=2", x, ints(0), ints(8), ints(3), ints(2))
    yield base.but("steps=-1", x, ints(-1), ints(-9), ints(3), ints(-1))
    yield base.but("negative-ends", x, ints(0), ints(-1), ints(3))
    yield base.but("ends=max", x, ints(1), ints(9223372036854775807), ints(3))
    yield base.but("two-axes", x, ints(1, 2), ints(3, 6), ints(2, 3))
    for rank in (1, 2, 3, 5, 6):
        yield base.but(f"rank={rank}", act(*RANKS[rank]), ints(0), ints(2), ints(-1))
    yield base.but("starts=dynamic", x, given(1, dtype="int64", low=0, high=1), ints(3), ints(2))
    yield base.but("starts=dynamic,stated", x, live(1), ints(3), ints(2), states=((1, 4, 2, 8),))
    yield base.but("empty", x, ints(2), ints(2), ints(2))
    yield base.but("int32-indices", x, ints(1, dtype="int32"), ints(3, dtype="int32"), ints(2, dtype="int32"))
    yield base.but("different-scale", same_scale=False)
    for dtype in ("int64", "int32", "bool"):
        yield base.but(dtype, given(8, dtype=dtype), ints(1), ints(3), ints(0))
    yield base.but("dynamic-batch", dynamic=(0,))
    base = Form("Split", (x, ints(2, 2)), {"axis": 1}, outputs=2, same_scale=True)
    yield base
    yield base.but("uneven", x, ints(1, 3))
    yield base.but("num_outputs=2", x, attributes={"num_outputs": 2})
    yield base.but("num_outputs=3", act(1, 6, 4, 8), attributes={"num_outputs": 3}, outputs=3)
    yield base.but("num_outputs=3,last-smaller", act(1, 8, 4, 8), attributes={"num_outputs": 3}, outputs=3)
    yield base.but("empty", x, ints(4, 0))
    yield base.but("split=dynamic", x, live(2, 2))
    yield base.but("split=dynamic,stated", x, live(2, 2), states=((1, 2, 4, 8), (1, 2, 4, 8)))
    yield base.but("axis=-1", x, ints(4, 4), attributes={"axis": -1})
    yield base.but("axis=0", act(4, 4, 4, 8), ints(2, 2), attributes={"axis": 0})
    yield base.but("rank=2", act(4, 8), ints(4, 4))
    yield base.but("rank=3", act(2, 4, 8), ints(2, 2))
    yield base.but("rank=5", act(*RANKS[5]), ints(1, 1))
    yield base.but("int64", given(4, 8, dtype="int64"), ints(4, 4))
    yield Form("Split", (x,), {"axis": 1, "split": [2, 2]}, "opset=11", opset=11, outputs=2, same_scale=True)
    yield Form("Split", (x, ints(2, 2)), {"axis": 1}, "opset=13", opset=13, outputs=2, same_scale=True)
    yield Form("Split", (x,), {"axis": 1}, "opset=13,no-split", opset=13, outputs=2, same_scale=True)


def _joins() -> Forms:
    x = act(1, 4, 4, 8)
    base = Form("Concat", (x, act(1, 2, 4, 8)), {"axis": 1}, same_scale=True)
    yield base
    yield base.but("axis=-1", x, x, attributes={"axis": -1})
    yield base.but("axis=0", x, x, attributes={"axis": 0})
    yield base.but("operands=1", x)
    yield base.but("operands=3", x, x, x)
    yield base.but("constant-second", x, const(1, 2, 4, 8))
    yield base.but("constant-first", const(1, 2, 4, 8), x)
    yield base.but("empty-operand", x, act(1, 0, 4, 8))
    for rank in (1, 2, 3, 5, 6):
        yield base.but(f"rank={rank}", act(*RANKS[rank]), act(*RANKS[rank]), attributes={"axis": rank - 1})
    for dtype in ("int64", "int32", "bool"):
        whole = given(1, 4, dtype=dtype)
        yield base.but(dtype, whole, whole)
    yield base.but("int64-constant", given(1, 4, dtype="int64"), ints(1, shape=(1, 1)))
    yield base.but("dynamic-batch", dynamic=(0,))
    yield base.but("different-scale", same_scale=False)


def _indexing() -> Forms:
    x = act(1, 4, 4, 8)
    base = Form("Gather", (x, ints(0, 2)), {"axis": 1}, same_scale=True)
    yield base
    for axis, picked in ((0, (0,)), (2, (1, 3)), (3, (0, 7)), (-1, (5, 1))):
        yield base.but(f"axis={axis}", x, ints(*picked), attributes={"axis": axis})
    yield base.but("indices=scalar", x, ints(1, shape=()))
    yield base.but("indices=matrix", x, ints(0, 1, 2, 3, shape=(2, 2)))
    yield base.but("indices=negative", x, ints(-1, 0))
    yield base.but("indices=scalar-negative", x, ints(-1, shape=()))
    yield base.but("indices=int32", x, ints(0, 2, dtype="int32"))
    yield base.but("indices=dynamic", x, given(2, dtype="int64", high=4))
    yield base.but("indices=dynamic-int32", x, given(2, dtype="int32", high=4))
    table = const(16, 8)
    yield base.but("table,indices=dynamic", table, given(1, 4, dtype="int64", high=16), attributes={"axis": 0})
    yield base.but("table,indices=dynamic-int32", table, given(1, 4, dtype="int32", high=16), attributes={"axis": 0})
    for rank in (1, 2, 3, 5, 6):
        yield base.but(f"rank={rank}", act(*RANKS[rank]), ints(0, 1), attributes={"axis": rank - 1})
    yield base.but("rank=5,indices=scalar", act(*RANKS[5]), ints(1, shape=()))
    yield base.but("rank=6,indices=scalar", act(*RANKS[6]), ints(1, shape=()))
    for dtype in ("int64", "int32", "bool"):
        yield base.but(dtype, given(1, 4, dtype=dtype), ints(0, 2))
    yield base.but("different-scale", same_scale=False)
    base = Form("GatherElements", (act(4, 8), ints(*[0, 1, 2, 3] * 4, shape=(2, 8))), {"axis": 0}, same_scale=True)
    yield base
    yield base.but("indices=dynamic", act(4, 8), given(2, 8, dtype="int64", high=4))
    yield base.but("axis=1", act(4, 8), ints(0, 1, 2, 3, shape=(4, 1)), attributes={"axis": 1})
    yield base.but("rank=3", act(2, 4, 8), ints(*[0, 1] * 16, shape=(1, 4, 8)))
    yield base.but("rank=4", act(1, 2, 4, 8), ints(*[0] * 64, shape=(1, 2, 4, 8)))
    yield base.but("indices=int32", act(4, 8), ints(*[0, 1, 2, 3] * 4, shape=(2, 8), dtype="int32"))
    base = Form("GatherND", (act(4, 4, 8), ints(0, 1, 2, 3, shape=(2, 2))), same_scale=True)
    yield base
    yield base.but("indices=dynamic", act(4, 4, 8), given(2, 2, dtype="int64", high=4))
    yield base.but("batch_dims=1", act(2, 4, 8), ints(1, 3, shape=(2, 1)), attributes={"batch_dims": 1})
    yield base.but("rank=4", act(1, 4, 4, 8), ints(0, 1, 0, 2, shape=(2, 2)))
    for op in ("ScatterND", "ScatterElements"):
        nd = op == "ScatterND"
        indices = ints(0, 2, shape=(2, 1)) if nd else ints(*[0, 1, 2, 3] * 4, shape=(2, 8))
        base = Form(op, (act(4, 8), indices, act(2, 8)), {}, same_scale=True)
        yield base
        yield base.attrs(reduction="add")
        yield base.attrs(reduction="mul")
        yield base.attrs(reduction="max")
        yield base.attrs(reduction="min")
        flowing = given(2, 1, dtype="int64", high=4) if nd else given(2, 8, dtype="int64", high=4)
        yield base.but("indices=dynamic", act(4, 8), flowing, act(2, 8))
        yield base.but("data=constant", const(4, 8), indices, act(2, 8))
        if nd:
            yield base.but("rank=3", act(2, 4, 8), ints(0, 1, 1, 2, shape=(2, 2)), act(2, 8))
            yield base.but("rank=4", act(1, 2, 4, 8), ints(0, 1, shape=(1, 2)), act(1, 4, 8))
        else:
            yield base.attrs(axis=1)
        yield base.but("int64", given(4, 8, dtype="int64"), indices, given(2, 8, dtype="int64"))
    base = Form("TopK", (act(1, 4, 4, 8), ints(3)), {"axis": -1}, outputs=2, same_scale=True)
    yield base
    yield base.attrs(largest=0)
    yield base.attrs(sorted=0)
    yield base.attrs(axis=1)
    yield base.but("k=dynamic", act(1, 4, 4, 8), given(1, dtype="int64", low=2, high=3))
    yield base.but("k=dynamic,stated", act(1, 4, 4, 8), live(3), states=((1, 4, 4, 3), (1, 4, 4, 3)))
    for rank in (1, 2, 3, 5):
        yield base.but(f"rank={rank}", act(*RANKS[rank]), ints(2))
    yield base.but("int64", given(4, 8, dtype="int64", high=9), ints(2))
    yield Form("Scatter", (act(4, 8), ints(*[0, 1, 2, 3] * 4, shape=(2, 8)), act(2, 8)), opset=10, same_scale=True)
    base = Form("Compress", (act(4, 8), ints(1, 0, 1, 1, dtype="bool")), {"axis": 0}, same_scale=True)
    yield base
    base = Form("NonZero", (act(4, 8),))
    yield base
    yield base.but("stated", states=((2, 32),))
    yield base.but("bool,stated", given(4, 8, dtype="bool", low=1), states=((2, 32),))
    yield base.but("bool", given(4, 8, dtype="bool"))
    yield base.but("int64", given(4, 8, dtype="int64"))
    base = Form("OneHot", (given(1, 4, dtype="int64", high=5), ints(5, shape=()), plain(0.0, 1.0, shape=(2,))))
    yield base
    yield base.attrs(axis=1)
    yield base.but("int64", given(1, 4, dtype="int64", high=5), ints(5, shape=()), ints(0, 1))
    yield base.but("depth=dynamic", base.slots[0], live(5, shape=()), base.slots[2])
    yield base.but("depth=dynamic,stated", base.slots[0], live(5, shape=()), base.slots[2], states=((1, 4, 5),))
    base = Form(
        "NonMaxSuppression",
        (
            given(1, 6, 4, dtype="float32", high=3),
            given(1, 2, 6, dtype="float32"),
            ints(3, shape=()),
            floats(0.5, shape=()),
            floats(0.1, shape=()),
        ),
    )
    yield base
    yield Form("Unique", (act(8),), outputs=4)


def _exact() -> Forms:
    float_input = given(1, 4, 4, 8, dtype="float32", low=-1, high=2)
    names = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int64": TensorProto.INT64, "int32": TensorProto.INT32,
             "bool": TensorProto.BOOL, "uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "float64": TensorProto.DOUBLE,
             "uint16": TensorProto.UINT16, "int16": TensorProto.INT16, "uint32": TensorProto.UINT32}  # fmt: skip
    pairs = [
        ("float32", "float16"), ("float16", "float32"), ("float32", "int64"), ("int64", "float32"), ("float32", "int32"),
        ("int32", "float32"), ("float32", "bool"), ("bool", "float32"), ("int64", "int32"), ("int32", "int64"),
        ("bool", "int64"), ("bool", "int32"), ("int64", "bool"), ("uint8", "float32"), ("int8", "float32"),
        ("float32", "uint8"), ("float32", "int8"), ("float32", "float64"), ("float64", "float32"), ("float32", "float32"),
        ("int64", "float16"), ("float16", "int64"), ("float16", "int32"), ("int32", "float16"), ("bool", "float16"),
        ("float16", "bool"), ("int32", "bool"), ("int64", "uint8"), ("uint8", "int64"), ("int32", "uint8"), ("uint8", "int32"),
        ("int32", "uint32"), ("bool", "uint8"), ("uint8", "bool"),
    ]  # fmt: skip
    for source, to in pairs:
        yield Form("Cast", (given(1, 4, 4, 8, dtype=source, high=3),), {"to": names[to]}, f"{source}-to-{to}")
    yield Form("Cast", (act(1, 4, 4, 8),), {"to": names["int32"]}, "activation-to-int32")
    yield Form("Cast", (act(1, 4, 4, 8),), {"to": names["float32"]}, "activation-to-float32")
    yield Form(
        "Cast", (given(1, 4, 4, 8, dtype="int64", high=3),), {"to": names["int32"]}, "int64-to-int32,opset=11", opset=11
    )
    for opset in (13, 19, 23, 24, 25, 28):
        yield Form("Cast", (float_input,), {"to": names["int32"]}, f"float32-to-int32,opset={opset}", opset=opset)
    yield Form("CastLike", (float_input, ints(1, dtype="int32", shape=())))
    shape = Form("Shape", (act(1, 4, 4, 8),))
    yield shape
    yield shape.but("dynamic-batch", dynamic=(0,))
    yield Form("Size", (act(1, 4, 4, 8),))
    yield Form("Size", (act(1, 4, 4, 8),), condition="dynamic-batch", dynamic=(0,))
    yield Form("ConstantOfShape", (given(2, dtype="int64", low=2, high=3),))
    yield Form("ConstantOfShape", (ints(2, 3),), condition="shape=constant")
    for dtype in ("int64", "float32", "int32"):
        scalars = tuple(given(dtype=dtype, low=low, high=low + 1) for low in (0, 6, 1))
        yield Form("Range", scalars, condition=dtype)
        yield Form("Range", scalars, condition=f"{dtype},stated", states=((6,),))
    yield Form(
        "Range", tuple(given(dtype="int64", low=v, high=v + 1) for v in (0, 6, 1)), condition="opset=27", opset=27
    )
    yield Form("EyeLike", (given(4, 4, dtype="float32"),))
    yield Form("RandomNormalLike", (given(4, 4, dtype="float32"),), {"seed": 1.0})
    yield Form("RandomUniformLike", (given(4, 4, dtype="float32"),), {"seed": 1.0})
    yield Form("Bernoulli", (given(4, 4, dtype="float32"),), {"seed": 1.0})
    for op in ("RandomNormalLike", "RandomUniformLike", "Bernoulli", "EyeLike"):
        base = Form(op, (given(4, 4, dtype="float32"),), {} if op == "EyeLike" else {"seed": 1.0})
        yield base.attrs(dtype=int(TensorProto.DOUBLE))
    for op in ("HannWindow", "HammingWindow", "BlackmanWindow"):
        yield Form(op, (ints(8, shape=()),), condition="" if op == "HannWindow" else "size=constant")
        yield Form(op, (given(dtype="int64", low=8, high=9),), condition="size=dynamic")
        yield Form(op, (given(dtype="int64", low=8, high=9),), condition="size=dynamic,stated", states=((8,),))
    mel = tuple(live(v, shape=()) for v in (8, 16, 8192))
    edges = tuple(given(dtype="float32", low=v, high=v + 1) for v in (0, 4096))
    yield Form("MelWeightMatrix", (*mel, *edges))
    for dtype in ("int64", "int32", "bool"):
        yield Form("Identity", (given(1, 4, dtype=dtype),), condition=dtype)


def _quantized_operators() -> Forms:
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


# -- control flow ---------------------------------------------------------------------------------------------------


def _branch(op: str) -> Any:
    out = helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, [1, 8])
    return helper.make_graph([helper.make_node(op, ["x1"], [f"{op}_out"], name=f"{op}_inner")], op, [], [out])


def _sequence_branch(op: str) -> Any:
    out = helper.make_tensor_sequence_value_info(f"{op}_out", TensorProto.FLOAT, [1, 8])
    nodes = [
        helper.make_node(op, ["x1"], [f"{op}_inner"], name=f"{op}_inner"),
        helper.make_node("SequenceConstruct", [f"{op}_inner"], [f"{op}_out"], name=f"{op}_sequence"),
    ]
    return helper.make_graph(nodes, op, [], [out])


def _loop_body() -> Any:
    nodes = [
        helper.make_node("Identity", ["condition_in"], ["condition_out"], name="body_condition"),
        helper.make_node("Relu", ["state_in"], ["state_out"], name="body_relu"),
    ]
    inputs = [
        helper.make_tensor_value_info("count", TensorProto.INT64, []),
        helper.make_tensor_value_info("condition_in", TensorProto.BOOL, []),
        helper.make_tensor_value_info("state_in", TensorProto.FLOAT, [1, 8]),
    ]
    outputs = [
        helper.make_tensor_value_info("condition_out", TensorProto.BOOL, []),
        helper.make_tensor_value_info("state_out", TensorProto.FLOAT, [1, 8]),
    ]
    return helper.make_graph(nodes, "body", inputs, outputs)


def _scan_body() -> Any:
    nodes = [
        helper.make_node("Add", ["sum_in", "next"], ["sum_out"], name="body_add"),
        helper.make_node("Identity", ["sum_out"], ["part"], name="body_part"),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [8]) for n in ("sum_in", "next")]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [8]) for n in ("sum_out", "part")]
    return helper.make_graph(nodes, "body", inputs, outputs)


def _control_flow() -> Forms:
    x = given(1, 8, dtype="float32", low=-1, high=2)
    yield Form(
        "If",
        (given(dtype="bool"), x),
        body={"then_branch": lambda: _branch("Relu"), "else_branch": lambda: _branch("Neg")},
    )
    yield Form(
        "If",
        (given(dtype="bool"), x),
        condition="sequence",
        body={"then_branch": lambda: _sequence_branch("Relu"), "else_branch": lambda: _sequence_branch("Neg")},
    )
    yield Form(
        "Loop", (given(dtype="int64", low=2, high=3), ints(1, dtype="bool", shape=()), x), body={"body": _loop_body}
    )
    for opset in (11, 13, 16, 19, 23, 24, 25):
        yield Form(
            "Loop",
            (given(dtype="int64", low=2, high=3), ints(1, dtype="bool", shape=()), x),
            condition=f"opset={opset}",
            opset=opset,
            body={"body": _loop_body},
        )
    yield Form(
        "Scan",
        (given(8, dtype="float32"), given(4, 8, dtype="float32")),
        {"num_scan_inputs": 1},
        outputs=2,
        body={"body": _scan_body},
    )


# -- ONNX Runtime's own operators ------------------------------------------------------------------------------------


def _contributed() -> Iterator[Form]:
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


# -- what models for training, text and tables are made of -----------------------------------------------------------


def _losses() -> Forms:
    labels = given(3, dtype="int64", high=5)
    for op in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"):
        base = Form(op, (act(3, 5), labels), {"reduction": "mean"})
        yield base
        yield base.attrs(reduction="sum")
        yield base.attrs(reduction="none")
        yield base.attrs(ignore_index=1)
        yield base.but("reduction=none,ignore_index=-1", attributes={"reduction": "none", "ignore_index": -1})
        yield base.but("weight", act(3, 5), labels, act(5, low=0.1))
        yield base.but("labels=int32", act(3, 5), given(3, dtype="int32", high=5))
        for dims in ((2,), (2, 2), (2, 2, 2)):
            rank = 2 + len(dims)
            yield base.but(f"rank={rank}", act(3, 5, *dims), given(3, *dims, dtype="int64", high=5))


def _sequences() -> Forms:
    x = given(2, 3, dtype="float32")
    several = sequence(2, 3)
    yield Form("SequenceConstruct", (x, x))
    yield Form("SequenceEmpty", ())
    yield Form("SequenceInsert", (several, x))
    yield Form("SequenceErase", (several, ints(0, shape=())))
    yield Form("SequenceAt", (several, ints(0, shape=())))
    yield Form("SequenceLength", (several,))
    yield Form("SplitToSequence", (given(4, 3, dtype="float32"), ints(2, shape=())))
    yield Form("ConcatFromSequence", (several,), {"axis": 0})
    yield Form("Identity", (several,), condition="sequence")
    yield Form("Optional", (x,))
    yield Form("OptionalHasElement", (x,), opset=18)
    yield Form("OptionalGetElement", (x,), opset=18)


def _strings() -> Forms:
    words = given(3, dtype="object")
    yield Form("StringConcat", (words, words))
    yield Form("StringSplit", (words,), {"delimiter": "."}, outputs=2)
    yield Form("StringNormalizer", (words,), {"case_change_action": "LOWER"})
    yield Form("RegexFullMatch", (words,), {"pattern": "a.*"})
    yield Form("Identity", (words,), condition="string")
    yield Form(
        "TfIdfVectorizer",
        (given(2, 6, dtype="int32", high=9),),
        {
            "max_gram_length": 2, "max_skip_count": 0, "min_gram_length": 2, "mode": "TF", "ngram_counts": [0, 4],
            "ngram_indexes": [0, 1, 2, 3, 4, 5, 6], "pool_int64s": [2, 3, 5, 4, 5, 6, 7, 8, 6, 7],
        },
    )  # fmt: skip
    yield Form("ImageDecoder", (given(64, dtype="uint8", high=255),), {"pixel_format": "RGB"})


def _newest() -> Forms:
    """Operators that came with opset 24 or later, before runtimes had kernels for them."""
    yield Form("TensorScatter", (act(2, 1, 4, 8), act(2, 1, 1, 8), ints(1, 2)), {"mode": "linear"}, opset=24)
    yield Form("BitCast", (given(2, 4, dtype="float32"),), {"to": int(TensorProto.INT32)}, opset=26)
    yield Form("CumProd", (act(4, 8), ints(1, dtype="int32", shape=())), opset=26)
    x = act(2, 1, 32)
    yield Form(
        "LinearAttention",
        (x, x, x, act(2, 4, 8, 8)),
        {"q_num_heads": 4, "kv_num_heads": 4, "update_rule": "linear"},
        opset=27,
        outputs=2,
    )
    yield Form("CausalConvWithState", (act(1, 4, 6), weight(4, 1, 3, axis=0)), opset=27, outputs=2)
    yield Form("SwiGLU", (act(2, 8), act(2, 8)), opset=28)


def _machine_learning() -> Forms:
    """Tables and trees, as scikit-learn's converters write them."""
    ml: dict[str, Any] = {"domain": "ai.onnx.ml"}
    x = given(3, 4, dtype="float32", low=-1, high=2)
    yield Form("ArrayFeatureExtractor", (x, ints(0, 2)), **ml)
    yield Form("ArrayFeatureExtractor", (x, given(2, dtype="int64", high=4)), condition="indices=dynamic", **ml)
    yield Form("Binarizer", (x,), {"threshold": 0.5}, **ml)
    yield Form("Normalizer", (x,), {"norm": "L2"}, **ml)
    yield Form("Scaler", (x,), {"offset": [0.1] * 4, "scale": [2.0] * 4}, **ml)
    yield Form("Imputer", (x,), {"imputed_value_floats": [0.0], "replaced_value_float": 1.0}, **ml)
    yield Form("FeatureVectorizer", (x, x), {"inputdimensions": [4, 4]}, **ml)
    yield Form("LinearRegressor", (x,), {"coefficients": [0.1, 0.2, 0.3, 0.4], "intercepts": [0.5], "targets": 1}, **ml)
    yield Form(
        "LabelEncoder", (given(5, dtype="int64", high=3),), {"keys_int64s": [0, 1], "values_int64s": [1, 0]}, **ml
    )
    yield Form("OneHotEncoder", (given(5, dtype="int64", high=3),), {"cats_int64s": [0, 1, 2]}, **ml)
    yield Form(
        "TreeEnsembleRegressor",
        (x,),
        {
            "n_targets": 1, "nodes_falsenodeids": [2, 0, 0], "nodes_featureids": [0, 0, 0], "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
            "nodes_nodeids": [0, 1, 2], "nodes_treeids": [0, 0, 0], "nodes_truenodeids": [1, 0, 0], "nodes_values": [0.5, 0.0, 0.0],
            "target_ids": [0, 0], "target_nodeids": [1, 2], "target_treeids": [0, 0], "target_weights": [1.0, -1.0],
        },
        **ml,
    )  # fmt: skip
    yield Form(
        "TreeEnsemble",
        (x,),
        {
            "leaf_targetids": [0, 0], "leaf_weights": helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, -1.0]), "n_targets": 1,
            "nodes_falseleafs": [1], "nodes_falsenodeids": [1], "nodes_featureids": [0],
            "nodes_modes": helper.make_tensor("m", TensorProto.UINT8, [1], [0]),
            "nodes_splits": helper.make_tensor("s", TensorProto.FLOAT, [1], [0.5]), "nodes_trueleafs": [1],
            "nodes_truenodeids": [0], "tree_roots": [0],
        },
        **ml,
    )  # fmt: skip
