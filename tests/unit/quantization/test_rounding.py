"""Weights whose codes are learned together: the product is less far off on data like that which taught."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.calibrate.moments import Moments, _Product, collect_moments, teaching
from planner.calibrate.run import calibrate
from planner.dtypes import DType, parse_precision
from planner.model.read import read_model
from planner.quantization.parameters import Parameters, dequantize, quantize, weight_parameters
from planner.quantization.rounding import Rounding, learn
from planner.quantization.walk import LEARNS, apply_plan
from planner.resolve.choose import make_plan, resolve
from planner.resolve.target import Target
from tests.unit.small_models import f32, graph, run, save


def moments_of(rows: np.ndarray, groups: int = 1) -> Moments:
    """Of float[rows, groups * k]."""
    split = rows.reshape(len(rows), groups, -1).transpose(1, 0, 2)
    mean = split.mean(axis=1)
    beside = split - mean[:, None]
    return Moments(len(rows), mean, beside.transpose(0, 2, 1) @ beside / len(rows))


def mixed(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    """Data whose channels hang together, as those of images and hidden states do."""
    few = rng.normal(size=(count, max(1, width // 4)))
    return few @ rng.normal(size=(few.shape[1], width)) + 0.1 * rng.normal(size=(count, width)) + 0.5


def lost(weight: np.ndarray, codes: np.ndarray, parameters: Parameters, rows: np.ndarray) -> float:
    """Energy of the product's error."""
    return float((((dequantize(codes.astype(np.int8), parameters) - weight) @ rows.T) ** 2).sum())


def kept(seed: int, width: int) -> float:
    """What learning leaves of the error of rounding one by one, on data like that which taught."""
    rng = np.random.default_rng(seed)
    weight, rows = rng.normal(size=(6, width)), mixed(rng, 4000, width)
    parameters = weight_parameters(weight, DType.INT8, 0)
    learned = learn(weight, parameters, moments_of(rows[:2000]), centred=False)
    assert np.abs(learned).max() <= 127
    one_by_one = quantize(weight, parameters)
    return lost(weight, learned, parameters, rows[2000:]) / lost(weight, one_by_one, parameters, rows[2000:])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([40, 150]))
def test_on_data_like_that_which_taught_the_product_is_less_far_off(seed: int, width: int) -> None:
    assert kept(seed, width) < 0.8


def test_a_product_of_few_numbers_is_less_far_off_nearly_always() -> None:
    """Of 48 numbers that are rounded one after the other, one in some thousand draws ends worse."""
    ratios = [kept(seed, 8) for seed in range(200)]
    assert np.median(ratios) < 0.5 and np.mean(np.array(ratios) < 1) > 0.98


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_where_nothing_hangs_together_each_number_is_rounded_by_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(5, 12))
    parameters = weight_parameters(weight, DType.INT8, 0)
    apart = Moments(1000, np.zeros((1, 12)), np.diag(rng.uniform(0.1, 9, 12))[None])
    assert np.array_equal(learn(weight, parameters, apart, centred=False), quantize(weight, parameters))


def test_a_group_learns_from_its_own_data() -> None:
    rng = np.random.default_rng(2)
    weight, rows = rng.normal(size=(4, 9)), np.hstack([mixed(rng, 500, 9), mixed(rng, 500, 9)])
    parameters = weight_parameters(weight, DType.INT8, 0)
    both = learn(weight, parameters, moments_of(rows, groups=2), centred=False)
    for group in (0, 1):
        part = slice(2 * group, 2 * group + 2)
        own = replace(parameters, scale=parameters.scale[part], zero_point=parameters.zero_point[part])
        alone = moments_of(rows[:, 9 * group : 9 * group + 9])
        assert np.array_equal(both[part], learn(weight[part], own, alone, centred=False))


def test_what_a_bias_takes_back_is_left_out() -> None:
    energies = np.zeros(2)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        weight, rows = rng.normal(size=(6, 30)), mixed(rng, 1000, 30) + np.linspace(10, 30, 30)
        parameters = weight_parameters(weight, DType.INT8, 0)
        for at, centred in enumerate((True, False)):
            learned = learn(weight, parameters, moments_of(rows), centred=centred)
            energies[at] += lost(weight, learned, parameters, rows - rows.mean(axis=0))
    assert energies[0] < 0.7 * energies[1]


def test_data_that_was_never_there_teaches_nothing() -> None:
    weight = np.random.default_rng(0).normal(size=(3, 7))
    parameters = weight_parameters(weight, DType.UINT8, None)
    dead = Moments(10, np.zeros((1, 7)), np.zeros((1, 7, 7)))
    assert np.array_equal(learn(weight, parameters, dead, centred=True), quantize(weight, parameters))


@pytest.mark.parametrize("summed", [0, 1])
def test_codes_have_the_form_of_the_weight(summed: int) -> None:
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(12, 5) if summed == 0 else (5, 12)).astype(np.float32)
    parameters = weight_parameters(weight, DType.INT8, 1 - summed)
    rounding = Rounding({"m": moments_of(mixed(rng, 400, 12))})
    codes = rounding.codes("m", weight, parameters, summed=summed, centred=False)
    assert codes is not None and codes.shape == weight.shape and codes.dtype == np.int8
    assert np.abs(codes.astype(int) - quantize(weight, parameters)).max() <= 12
    assert (
        rounding.codes("m", weight, weight_parameters(weight, DType.INT16, None), summed=summed, centred=False) is None
    )
    assert rounding.codes("other", weight, parameters, summed=summed, centred=False) is None


@pytest.mark.parametrize(
    ("attributes", "shape", "weight"),
    [
        ("<strides=[2,1], pads=[1,0,1,2], dilations=[1,2]>", (2, 4, 9, 8), (3, 4, 3, 2)),
        ("<group=2, pads=[1,1,1,1]>", (1, 4, 6, 6), (6, 2, 3, 3)),
        ("<strides=[2]>", (1, 3, 11), (2, 3, 4)),
    ],
)
def test_rows_are_what_a_conv_multiplies(
    attributes: str, shape: tuple[int, ...], weight: tuple[int, ...], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    w, x = f32(rng.normal(size=weight)), f32(rng.normal(size=shape))
    dims = ",".join(map(str, shape))
    proto = graph(f"(float[{dims}] x) => (float y)", f"y = Conv {attributes}(x, w)", {"w": w})
    (node,) = ir.from_proto(proto).graph
    node.name = "c"
    product = _Product.of(node)
    assert product is not None
    rows = product.rows(x, 10**6, rng)
    expected = run(save(proto, tmp_path), {"x": x})[0]  # batch, outputs, places
    per_group = w.reshape(product.groups, -1, product.length)
    found = np.einsum("gok,grk->gor", per_group, rows).reshape(weight[0], shape[0], -1).transpose(1, 0, 2)
    assert np.allclose(found, expected.reshape(found.shape), atol=1e-4)


def test_data_far_from_zero_keeps_its_covariance(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    path = save(
        graph("(float[64,6] x) => (float[64,4] y)", "y = MatMul(x, w)", {"w": f32(rng.normal(size=(6, 4)))}), tmp_path
    )
    data = 1000 + 0.1 * rng.normal(size=(8, 64, 6)) @ rng.normal(size=(6, 6))
    (moments,) = collect_moments(read_model(path), [{"x": f32(sample)} for sample in data], tmp_path).values()
    taught = f32(data[teaching(8)[0]]).reshape(-1, 6).astype(np.float64)
    assert moments.rows == len(taught)
    assert np.allclose(moments.mean[0], taught.mean(axis=0), rtol=1e-6)
    assert np.allclose(moments.covariance[0], np.cov(taught.T, bias=True), rtol=1e-3, atol=1e-4)


def test_numbers_whose_squares_overflow_teach_nothing() -> None:
    weight = np.ones((2, 3))
    beyond = Moments(9, np.zeros((1, 3)), np.full((1, 3, 3), np.inf))
    assert (
        Rounding({"m": beyond}).codes("m", weight, weight_parameters(weight, DType.INT8, 0), summed=1, centred=False)
        is None
    )


def test_samples_that_judge_teach_nothing() -> None:
    for count in range(60):
        teach, judge = teaching(count)
        assert not set(teach) & set(judge)
        assert set(teach) | set(judge) <= set(range(count))
    assert teaching(7) == ([], list(range(7)))
    assert len(teaching(16)[1]) == 4


def test_a_plan_that_wants_it_has_its_weights_learned_and_its_biases_corrected_for_that(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    constants = {
        "w": f32(rng.normal(size=(12, 9))),
        "b": f32(rng.normal(size=12)),
        "k": f32(rng.normal(size=(5, 3, 3, 3))),
    }
    body = (
        "c = Conv <pads=[1,1,1,1]>(x, k)\nf = Flatten(c)\ns = Slice(f, zero, nine, one)\ny = Gemm <transB=1>(s, w, b)"
    )
    numbers = {name: np.array([value]) for name, value in (("zero", 0), ("nine", 9), ("one", 1))}
    path = save(graph("(float[1,3,8,8] x) => (float[1,12] y)", body, {**constants, **numbers}), tmp_path)
    model = read_model(path)
    assert model.ir is not None
    smooth = np.cumsum(rng.normal(size=(48, 1, 3, 8, 8)), axis=-1)
    samples = [{"x": f32(sample)} for sample in smooth + rng.normal(size=(48, 1, 3, 1, 1))]
    moments = collect_moments(model, samples, tmp_path)
    assert {m.covariance.shape for m in moments.values()} == {(1, 27, 27), (1, 9, 9)}
    target = Target.open("cpu")
    plan = make_plan(target, model, resolve(target, model, parse_precision("w8a16")))
    plan = replace(plan, inputs={LEARNS: True})
    ranges = calibrate(model, samples[:36])
    energies = []
    for rounding in (None, Rounding(moments)):
        file = save(ir.to_proto(apply_plan(model, plan, ranges, rounding).model), tmp_path, "q.onnx")
        off = [run(file, sample)[0] - run(path, sample)[0] for sample in samples[36:]]
        energies.append(float(np.square(off).sum()))
    assert energies[1] < 0.7 * energies[0]
