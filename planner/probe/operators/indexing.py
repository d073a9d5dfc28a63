"""Operators that compute on indices, types and shapes."""

from __future__ import annotations

from onnx import TensorProto

from planner.probe.forms import Form, Forms, act, const, floats, given, ints, live, plain
from planner.probe.operators.shapes import RANKS


def indexing() -> Forms:
    """Gather, Scatter and others that go by indices."""
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
    yield base.but("batch_dims=1", act(2, 4, 8), ints(1, 3, shape=(2, 1)), attributes={"batch_dims": 1}).as_rule(
        {"batch_dims": {"not": 0}}, why="batch_dims must be 0", do="write the batch into the indices"
    )
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


def exact() -> Forms:
    """Operators that compute on types and shapes."""
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
    yield Form("Cast", (act(1, 4, 4, 8),), {"to": names["int32"]}, "activation-to-int32").as_rule(expressible=False)
    yield Form("Cast", (act(1, 4, 4, 8),), {"to": names["float32"]}, "activation-to-float32").as_rule(expressible=False)
    yield Form(
        "Cast", (given(1, 4, 4, 8, dtype="int64", high=3),), {"to": names["int32"]}, "int64-to-int32,opset=11", opset=11
    ).as_rule(expressible=False)
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
        yield base.attrs(dtype=int(TensorProto.DOUBLE)).as_rule(
            why="it gives no float64", do="set dtype to float32, and cast behind it"
        )
    for op in ("HannWindow", "HammingWindow", "BlackmanWindow"):
        yield Form(op, (ints(8, shape=()),), condition="" if op == "HannWindow" else "size=constant")
        yield Form(op, (given(dtype="int64", low=8, high=9),), condition="size=dynamic")
        yield Form(op, (given(dtype="int64", low=8, high=9),), condition="size=dynamic,stated", states=((8,),))
    mel = tuple(live(v, shape=()) for v in (8, 16, 8192))
    edges = tuple(given(dtype="float32", low=v, high=v + 1) for v in (0, 4096))
    yield Form("MelWeightMatrix", (*mel, *edges))
    for dtype in ("int64", "int32", "bool"):
        yield Form("Identity", (given(1, 4, dtype=dtype),), condition=dtype)
