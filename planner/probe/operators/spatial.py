"""Operators that resize, sample or transform images and signals."""

from __future__ import annotations

from planner.probe.forms import Form, Forms, Kind, Slot, act, floats, given, ints, live


def spatial() -> Forms:
    """Resize, GridSample and others on images and signals."""
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
    yield base.attrs(mode="linear", coordinate_transformation_mode="half_pixel_symmetric").as_rule(
        {"coordinate_transformation_mode": "half_pixel_symmetric"}
    )
    crop = floats(0, 0, 0.2, 0.2, 1, 1, 0.8, 0.8)
    yield base.but(
        "mode=linear,coordinate_transformation_mode=tf_crop_and_resize",
        x,
        crop,
        None,
        ints(1, 4, 3, 3),
        attributes={"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"},
    ).as_rule(
        {"coordinate_transformation_mode": "tf_crop_and_resize"},
        why="coordinate_transformation_mode must not be tf_crop_and_resize",
        do="write it as Slice and Resize",
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
    yield base.but("linear,antialias=1", attributes={**linear, "antialias": 1}).as_rule({"antialias": 1})
    yield base.but("roi", x, floats(shape=(0,)), twice)
    yield base.but("rank=3", act(1, 4, 8), None, floats(1, 1, 2))
    yield base.but("linear,rank=3", act(1, 4, 8), None, floats(1, 1, 2), attributes=linear)
    yield base.but("rank=5", act(1, 4, 2, 4, 4), None, floats(1, 1, 2, 2, 2)).as_rule(
        {"min_rank": 5, "mode": "nearest"}
    )
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
