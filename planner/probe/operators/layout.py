"""Operators that move data: shapes, slices, joins."""

from __future__ import annotations

from planner.probe.forms import Form, Forms, act, const, given, ints, live, plain
from planner.probe.operators.shapes import RANKS, at_ranks, without


def layout() -> Forms:
    """Reshape, Transpose and others that move data."""
    x = act(1, 4, 4, 8)
    base = Form("Reshape", (x, ints(1, 16, 8)), same_scale=True)
    yield base
    for shape in ((8, 16), (128,), (2, 2, 4, 8), (2, 2, 2, 2, 8), (2, 2, 2, 2, 2, 4), (2, 2, 2, 2, 2, 2, 2)):
        yield base.but(f"to-rank={len(shape)}", x, ints(*shape))
    for rank in (1, 2, 3, 5, 6):
        yield base.but(f"rank={rank}", act(*RANKS[rank]), ints(-1, 4))
    yield base.but("shape=0,-1", x, ints(0, -1, 8))
    yield base.but("shape=dynamic", x, live(1, 16, 8))
    yield base.but("shape=dynamic,stated", x, live(1, 16, 8), states=((1, 16, 8),))
    yield base.but("dynamic-batch", x, ints(-1, 16, 8), dynamic=(0,))
    yield base.but("different-scale", same_scale=False)
    for dtype in ("int64", "int32", "bool"):
        yield base.but(dtype, given(1, 4, 4, 8, dtype=dtype), ints(1, 16, 8))
    base = Form("Flatten", (x,), same_scale=True)
    yield base
    for axis in (0, 2, 3, -1):
        yield base.attrs(axis=axis)
    yield from at_ranks(base, 2, 3, 5, 6)
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
    yield without(base.but("perm=default"), "perm")
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
    yield base.but("empty-operand", x, act(1, 0, 4, 8)).as_rule(
        {"empty": True}, why="no operand may be empty", do="leave the empty operand out"
    )
    for rank in (1, 2, 3, 5, 6):
        yield base.but(f"rank={rank}", act(*RANKS[rank]), act(*RANKS[rank]), attributes={"axis": rank - 1})
    for dtype in ("int64", "int32", "bool"):
        whole = given(1, 4, dtype=dtype)
        yield base.but(dtype, whole, whole)
    yield base.but("int64-constant", given(1, 4, dtype="int64"), ints(1, shape=(1, 1)))
    yield base.but("dynamic-batch", dynamic=(0,))
    yield base.but("different-scale", same_scale=False)
