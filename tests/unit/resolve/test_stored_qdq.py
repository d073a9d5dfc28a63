"""What QNN's profile says of Q/DQ files as they stand: each answer is that of onnxruntime-qnn 2.7.0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ml_dtypes import int4

from planner.resolve.choose import check_model
from planner.resolve.target import Target
from tests.unit.small_models import f32, graph, save

DEVICES = ("snapdragon-x-elite", "snapdragon-8cx-gen3")


def unit(
    operator: str,
    data: tuple[int, ...],
    weight: tuple[int, ...],
    kind: type,
    *,
    by: type = np.int8,
    axis: int | None = None,
    zeros: Sequence[int] = (0,),
    rank: int | None = None,
    more: str = "",
) -> object:
    """A file of one node with a weight, all of it between Q and DQ.

    Args:
        operator: with its attributes. data, weight: shapes.
        kind: type of the activations. by: type of the weight.
        axis: of one scale and zero point per channel; None: one of them.
        zeros: zero points of the weight.
        rank: of the result. more: operands behind the weight; `b` is an int32 bias.
    """
    many = 1 if axis is None else weight[axis]
    constants = {
        "s": f32(0.02), "z": kind(0), "w": np.ones(weight, by),
        "ws": f32(0.01) if axis is None else f32(np.full(many, 0.01)),
        "wz": np.asarray(zeros[0], by) if axis is None else np.resize(np.array(zeros), many).astype(by),
    }  # fmt: skip
    if more:
        constants |= {"bq": np.ones(weight[0], np.int32), "bs": f32(0.02 * 0.01)}
    name, _, attributes = operator.partition("<")
    attributes = f"<{attributes}" if attributes else ""
    along = "" if axis is None else f"<axis = {axis}>"
    body = (
        f"q = QuantizeLinear(x, s, z)\nd = DequantizeLinear(q, s, z)\nv = DequantizeLinear{along}(w, ws, wz)\n"
        f"{'b = DequantizeLinear(bq, bs)' if more else ''}\nh = {name}{attributes}(d, v{more})\np = QuantizeLinear(h, s, z)\ny = DequantizeLinear(p, s, z)"
    )
    result = ",".join("ABCDE"[: rank or len(data)])
    dims = ",".join(map(str, data))
    return graph(f"(float[{dims}] x) => (float[{result}] y)", body, constants, opset=21, check=False)


def legal(made: object, folder: Path, device: str = DEVICES[0]) -> bool | None:
    target = Target.open("qnn", device)
    return check_model(target, target.read(save(made, folder), stored=True), None, stored=True).legal  # type: ignore[arg-type]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("operator", "data", "weight", "kind", "taken"),
    [
        ("Conv<group = 4>", (1, 4, 8, 8), (4, 1, 3, 3), np.int16, False),
        ("Conv<group = 4>", (1, 4, 8), (4, 1, 3), np.int16, False),
        ("Conv<group = 4>", (1, 4, 8, 8), (4, 1, 3, 3), np.uint16, True),
        ("Conv<group = 4>", (1, 4, 8, 8), (8, 1, 3, 3), np.int16, True),
        ("Conv<group = 2>", (1, 4, 8, 8), (4, 2, 3, 3), np.int16, True),
        ("Conv", (1, 4, 8, 8, 8), (4, 4, 3, 3, 3), np.int16, False),
        ("Conv", (1, 4, 8, 8, 8), (4, 4, 3, 3, 3), np.uint16, True),
        ("ConvTranspose", (1, 4, 8, 8, 8), (4, 4, 3, 3, 3), np.int16, False),
        ("MatMul", (1, 2, 3, 4, 8), (8, 6), np.int16, False),
        ("MatMul", (2, 3, 4, 8), (8, 6), np.int16, True),
    ],
)
def test_what_int16_is_refused_for(
    operator: str, data: tuple[int, ...], weight: tuple[int, ...], kind: type, taken: bool, device: str, tmp_path: Path
) -> None:
    assert legal(unit(operator, data, weight, kind), tmp_path, device) is taken


@pytest.mark.parametrize(
    ("operator", "data", "weight", "axis"),
    [
        ("Conv", (1, 4, 8, 8), (6, 4, 3, 3), 0), ("ConvTranspose", (1, 4, 8, 8), (4, 6, 3, 3), 1),
        ("MatMul", (1, 5, 8), (8, 6), 1), ("Gemm<transB = 1>", (5, 8), (6, 8), 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("by", "zeros", "taken"),
    [
        (np.uint8, (128,), True), (np.uint8, (0,), False), (np.uint8, (120, 128), False),
        (np.int8, (0,), True), (np.int8, (0, 3), False),
    ],
)  # fmt: skip
def test_scales_per_channel_want_the_middle_as_zero_point(
    by: type, zeros: Sequence[int], taken: bool, operator: str, data: tuple[int, ...], weight: tuple[int, ...], axis: int,
    tmp_path: Path,
) -> None:  # fmt: skip
    made = unit(operator, data, weight, np.uint8, by=by, axis=axis, zeros=zeros)
    assert legal(made, tmp_path) is taken
    assert legal(unit(operator, data, weight, np.uint8, by=by, zeros=(3,)), tmp_path)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("data", "taken"), [((1, 4, 8), True), ((1, 4, 8, 8), False)])
def test_four_bits_by_one_scale_are_taken_in_one_dimension(
    data: tuple[int, ...], taken: bool, device: str, tmp_path: Path
) -> None:
    weight = (6, 4, *(3 for _ in data[2:]))
    made = unit("Conv", data, weight, np.uint8, by=int4, more=", b")
    assert legal(made, tmp_path, device) is taken


@pytest.mark.parametrize(("scales", "taken"), [((1, 2, 2, 1), False), ((1, 1, 2, 2), True)])
def test_a_resize_of_a_picture_with_its_channels_last_is_refused(
    scales: tuple[int, ...], taken: bool, tmp_path: Path
) -> None:
    result = ",".join(str(8 * scale) for scale in scales)
    made = graph(f"(float[8,8,8,8] x) => (float[{result}] y)", "y = Resize(x, , s)", {"s": f32(scales)}, opset=17)
    assert legal(made, tmp_path) is taken


@pytest.mark.parametrize(("dims", "taken"), [("1,4,8", False), ("1,4,8,8", True)])
def test_a_dynamic_convolution_is_taken_in_two_dimensions_alone(dims: str, taken: bool, tmp_path: Path) -> None:
    body = "q, s, z = DynamicQuantizeLinear(x)\nc = ConvInteger(q, w, z, wz)\nf = Cast<to = 1>(c)\nt = Mul(s, ws)\ny = Mul(f, t)"
    constants = {"w": np.ones((6, 4, *(3 for _ in dims.split(",")[2:])), np.int8), "wz": np.int8(0), "ws": f32(0.02)}
    result = ",".join("ABCD"[: len(dims.split(","))])
    made = graph(f"(float[{dims}] x) => (float[{result}] y)", body, constants, opset=17, check=False)
    assert legal(made, tmp_path) is taken


@pytest.mark.parametrize(
    ("equation", "shapes", "taken"),
    [
        ("bij,bjk->bik", ("2,3,4", "2,4,5", "2,3,5"), True),
        ("abc, acd -> abd", ("2,3,4", "2,4,5", "2,3,5"), True),
        ("bchq,bkhc->bkhq", ("1,2,3,4", "1,5,3,2", "1,5,3,4"), True),
        ("bqhd,bkhd->bhqk", ("1,2,3,4", "1,5,3,4", "1,3,2,5"), False),
        ("bij,jk->bik", ("2,3,4", "4,5", "2,3,5"), False),
        ("abc,cd->abd", ("2,3,4", "4,5", "2,3,5"), False),
    ],
)
def test_equations_are_told_apart_by_what_they_say_and_not_by_their_letters(
    equation: str, shapes: tuple[str, str, str], taken: bool, tmp_path: Path
) -> None:
    left, right, result = shapes
    made = graph(
        f"(float[{left}] x, float[{right}] z) => (float[{result}] y)",
        f'y = Einsum<equation: string = "{equation}">(x, z)',
        opset=17,
    )
    assert legal(made, tmp_path) is taken
