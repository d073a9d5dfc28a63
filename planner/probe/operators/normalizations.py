"""Normalizations."""

from __future__ import annotations

from planner.probe.forms import Form, Forms, Slot, act, bias, const, plain, weight

# What a rule says of a normalization over more than the last axis.
_MANY_AXES = {"inputs": {"1": {"present": True, "min_rank": 2}}}
_LAST_AXIS = "it normalizes over the last axis only"
_MERGE = "merge the axes that are normalized by a Reshape before it"


def normalizations() -> Forms:
    """Normalizations over channels and over axes."""

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
    yield base.but("axis=1", act(1, 4, 8), scale(4, 8), bias(4, 8), attributes={"axis": 1}).as_rule(
        _MANY_AXES, why=_LAST_AXIS, do=_MERGE
    )
    yield base.but("rank=4,axis=1", act(1, 2, 4, 8), scale(2, 4, 8), bias(2, 4, 8), attributes={"axis": 1}).as_rule(
        _MANY_AXES, why=_LAST_AXIS, do=_MERGE
    )
    yield base.but("scale=dynamic", act(1, 4, 8), act(8, low=0.5), act(8))
    yield base.but("scale=dynamic,no-bias", act(1, 4, 8), act(8, low=0.5))
    yield base.but("outputs=3", outputs=3).as_rule(
        why="it gives neither mean nor deviation", do="leave the outputs of mean and deviation unused"
    )
    yield base.but("bias=activation", act(1, 4, 8), scale(8), const(8))
    yield base.but("opset=17", opset=17)
    base = Form("GroupNormalization", (x, scale(4), bias(4)), {"num_groups": 2})
    yield base
    yield base.but("stated", states=((1, 4, 8, 8),)).as_rule({"static_outputs": True, "min_opset": 21})
    yield base.but("opset=18", x, scale(2), bias(2), opset=18)
    yield base.but("opset=18,stated", x, scale(2), bias(2), opset=18, states=((1, 4, 8, 8),))
    base = Form("RMSNormalization", (act(1, 4, 8), scale(8)), {"axis": -1}, opset=23)
    yield base
    yield base.but("rank=4", act(1, 2, 4, 8), scale(8))
    base = Form("LpNormalization", (act(1, 4, 4, 8),), {"axis": -1, "p": 2}, output=(-1.0, 1.0))
    yield base
    yield base.attrs(p=1).as_rule({"p": {"not": 2}}, why="p must be 2", do="write it as ReduceL1 and Div")
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
