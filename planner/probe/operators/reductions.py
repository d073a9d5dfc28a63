"""Reductions over axes."""

from __future__ import annotations

from planner.probe.forms import Form, Forms, Slot, act, given, ints, live
from planner.probe.operators.shapes import RANKS

_REDUCTIONS = (
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceSumSquare",
)  # fmt: skip


def reductions() -> Forms:
    """Reductions, ArgMax, TopK and sums along an axis."""
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
        if op in ("ReduceLogSum", "ReduceLogSumExp"):
            rule = {"min_opset": 28, "inputs": {"1": {"present": True, "constant": True}}}
            yield base.but("opset=28", opset=28).as_rule(rule)
        for axes in ((3,), (-1,), (1,), (0,), (1, 2), (0, 1, 2, 3)):
            yield base.but(f"axes={'x'.join(map(str, axes))}", a(1, 4, 4, 8), ints(*axes))
        yield base.but("axes=all", a(1, 4, 4, 8))
        yield base.but("axes=-1,keepdims=0", a(1, 4, 4, 8), ints(-1), attributes={"keepdims": 0})
        yield base.but("axes=dynamic", a(1, 4, 4, 8), given(1, dtype="int64", low=1, high=2))
        yield base.but("axes=dynamic,stated", a(1, 4, 4, 8), live(1), states=((1, 1, 4, 8),))
        yield base.but("axes=empty,noop", a(1, 4, 4, 8), attributes={"noop_with_empty_axes": 1}).as_rule(
            {"noop_with_empty_axes": 1, "inputs": {"1": {"present": False}}},
            why="it must reduce over some axes",
            do="leave it out, or write what it computes of each number",
        )
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
        if op in ("ReduceLogSum", "ReduceLogSumExp"):
            rule = {"min_opset": 28, "inputs": {"1": {"present": True, "constant": True}}}
            yield base.but("opset=28", opset=28).as_rule(rule)
        yield base.attrs(axis=-1)
        yield base.attrs(axis=0)
        yield base.attrs(select_last_index=1).as_rule(
            why="it finds the first index of equal numbers only",
            do="reverse the axis before it, and count from the end",
        )
        for rank in (1, 2, 3, 5, 6):
            yield base.but(f"rank={rank}", act(*RANKS[rank]), attributes={"axis": -1})
        yield base.but("int32", given(1, 4, 4, 8, dtype="int32", high=5))
    base = Form("CumSum", (act(1, 4, 4, 8), ints(3, shape=())), output=(-6.0, 10.0))
    yield base
    yield base.but("axis=1", act(1, 4, 4, 8), ints(1, shape=()))
    yield base.attrs(exclusive=1).as_rule(why="exclusive must be 0", do="subtract the operand behind it")
    yield base.attrs(reverse=1).as_rule(
        why="reverse must be 0", do="reverse the axis by a Slice of step -1 before and behind it"
    )
    yield base.but("rank=2", act(4, 8), ints(1, shape=()))
    yield base.but("int64", given(1, 8, dtype="int64", high=4), ints(1, shape=()))
    yield base.but("int32", given(1, 8, dtype="int32", high=4), ints(1, shape=()))
    yield base.but("axis=dynamic", act(1, 4, 4, 8), given(dtype="int64", low=1, high=2))
