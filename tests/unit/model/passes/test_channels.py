"""A convolution with as many input channels as the target computes rightly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from planner.model.read import Model, read_model
from tests.unit.small_models import f32, graph, run, save

RNG = np.random.default_rng(5)


def odd_channels(weight: tuple[int, ...], attributes: Mapping[str, object], bias: bool) -> bool:
    return weight[1] % 4 != 0


def read(path: Path) -> Model:
    return read_model(path, misconvolves=odd_channels)


@pytest.mark.parametrize(
    ("weight", "shape", "result"),
    [
        ((4, 9, 3, 3), "N,9,5,5", "N,4,3,3"),
        ((4, 3, 3), "1,3,5", "1,4,3"),
        ((4, 6, 1, 1), "1,6,5,5", "1,4,5,5"),
    ],
)
def test_a_convolution_that_comes_out_wrong_gets_channels_of_zeros(
    weight: tuple[int, ...], shape: str, result: str, tmp_path: Path
) -> None:
    constants = {"w": f32(RNG.normal(size=weight)), "b": f32(RNG.normal(size=4))}
    proto = graph(f"(float[{shape}] x) => (float[{result}] y)", "r = Relu(x)\ny = Conv(r, w, b)", constants)
    model = read(save(proto, tmp_path))
    assert model.ir is not None
    assert [node.op_type for node in model.nodes] == ["Relu", "Pad", "Conv"]
    data, kernel = model.nodes[-1].inputs[:2]
    assert data is not None and kernel is not None and data.shape is not None and kernel.shape is not None
    assert data.shape[1] == kernel.shape[1] == -(-weight[1] // 4) * 4
    feed = {"x": f32(RNG.normal(size=[int(d) for d in shape.replace("N", "2").split(",")]))}
    np.testing.assert_allclose(run(proto, feed)[0], run(model.ir, feed)[0], rtol=1e-5)


def test_a_convolution_that_comes_out_right_or_whose_weight_is_computed_stays(tmp_path: Path) -> None:
    right = graph(
        "(float[1,4,5,5] x) => (float[1,2,3,3] y)", "y = Conv(x, w)", {"w": f32(RNG.normal(size=(2, 4, 3, 3)))}
    )
    computed = graph("(float[1,9,5,5] x, float[2,9,3,3] w) => (float[1,2,3,3] y)", "y = Conv(x, w)")
    for i, proto in enumerate((right, computed)):
        assert [node.op_type for node in read(save(proto, tmp_path, f"{i}.onnx")).nodes] == ["Conv"]
