"""Convolutions and pooling."""

from __future__ import annotations

from planner.probe.forms import Form, Forms, act, bias, floats, ints, weight
from planner.probe.operators.shapes import without

# What a rule says of a form with dilations.
_DILATED = {"dilations": {"not": [[1], [1, 1], [1, 1, 1]]}}


def convolutions() -> Forms:
    """Conv, ConvTranspose and DeformConv."""
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
        yield without(form, "pads")
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
    yield base.but("large", act(1, 64, 4, 4), weight(32, 64, 3, 3, axis=0), bias(32)).as_rule({"blocked": True})
    yield base.but("weight=dynamic", x, act(6, 4, 3, 3, low=-0.5, high=0.6))
    yield base.but("weight=dynamic,bias", x, act(6, 4, 3, 3, low=-0.5, high=0.6), bias(6)).as_rule(
        {"weight": False, "inputs": {"2": {"present": True, "constant": True}}},
        why="a Conv of a computed weight takes no constant bias",
        do="add the bias by an Add behind it",
    )
    yield base.but("bias=dynamic", x, base.slots[1], act(6)).as_rule(
        why="the bias must be constant", do="add the bias by an Add behind it"
    )
    yield base.but("dynamic-batch", dynamic=(0,))
    yield base.but("dynamic-size", dynamic=(2, 3))
    yield base.but("symmetric", symmetric=True)
    yield without(base.but("no-kernel_shape"), "kernel_shape")
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
    yield up.but("large", act(1, 64, 4, 4), weight(64, 32, 2, 2, axis=1), bias(32)).as_rule({"blocked": True})
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
    ).as_rule(_DILATED, why="dilations must be 1", do="spread the kernel with zeros")
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


def pooling() -> Forms:
    """Pooling over windows and over whole images."""
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
        yield base.but("ceil_mode=1", attributes={"kernel_shape": [3, 3], "ceil_mode": 1}).as_rule(
            {"ceil_mode": 1},
            why="ceil_mode must be 0",
            do="pad the input so that no window is cut, and leave ceil_mode out",
        )
        yield base.but("dilations=2x2", attributes={"dilations": [2, 2]}).as_rule(
            _DILATED, why="dilations must be 1", do="pool without dilation"
        )
        yield base.but("auto_pad=SAME_UPPER", attributes={"auto_pad": "SAME_UPPER"})
        yield base.but("auto_pad=SAME_LOWER", attributes={"auto_pad": "SAME_LOWER"})
        yield base.but("kernel=whole", attributes={"kernel_shape": [8, 8], "strides": [1, 1]})
        yield base.but("1d", act(1, 4, 8), attributes={"kernel_shape": [2], "strides": [2]})
        yield base.but("3d", act(1, 4, 4, 4, 4), attributes={"kernel_shape": [2] * 3, "strides": [2] * 3})
        yield base.but("dynamic-batch", dynamic=(0,))
        if op == "MaxPool":
            yield base.but("indices-output", outputs=2).as_rule(
                why="it gives no indices", do="leave the output of indices unused"
            )
            yield base.attrs(storage_order=1)
        if op == "AveragePool":
            yield base.but(
                "count_include_pad=1", attributes={"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1}
            )
        if op == "LpPool":
            for p in (1, 3, 4):
                rule = {"p": {"not": [1, 2]}} if p > 2 else None
                yield base.attrs(p=p).as_rule(rule)
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
