"""What rounding the weights adds on average is taken off the bias, from the channel means that calibration saw."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.calibrate.observe import Run, collect
from planner.calibrate.ranges import Range
from planner.dtypes import DType, parse_precision
from planner.model.read import Model, read_model
from planner.quantization.bias import mean_error
from planner.quantization.parameters import dequantize, quantize, weight_parameters
from planner.quantization.walk import CORRECTS, apply_plan
from planner.resolve.choose import make_plan, resolve
from planner.resolve.plan import Plan
from planner.resolve.target import Target
from tests.unit.small_models import Array, f32, graph, run, save

RNG = np.random.default_rng(3)
# A rectified signal: its channels have means far from zero, all different.
MEANS = np.linspace(0.2, 3, 12)


def model_of(signature: str, body: str, constants: Mapping[str, Array]) -> Model:
    with tempfile.TemporaryDirectory() as folder:
        return read_model(save(graph(signature, body, constants), Path(folder)))


def observe(model: Model, samples: Sequence[Mapping[str, Array]]) -> dict[str, Range]:
    assert model.ir is not None

    def start(extended: ir.Model) -> Run:
        names = [str(o.name) for o in extended.graph.outputs]
        return lambda sample: dict(zip(names, run(extended, sample), strict=True))

    return collect(model.ir, start, samples).ranges()


def drift(model: Model, precision: str, samples: Sequence[Mapping[str, Array]], ranges: Mapping[str, Range]) -> Array:
    """Mean error of each channel of the output."""
    target = Target.open("cpu")
    found = resolve(target, model, parse_precision(precision))
    plan = make_plan(target, model, found)
    made = apply_plan(model, plan, ranges).model
    assert model.ir is not None
    errors = [run(made, s)[0].astype(np.float64) - run(model.ir, s)[0] for s in samples]
    stacked = np.concatenate(errors)
    axis = 1 if stacked.ndim == 4 else stacked.ndim - 1
    return np.asarray(stacked.mean(axis=tuple(i for i in range(stacked.ndim) if i != axis)))


def weights(*shape: int) -> Array:
    return f32(RNG.normal(size=shape))


GRAPHS = {
    "Conv": ("(float[1,12,6,6] x) => (float[1,8,4,4] y)", "y = Conv(x, w, b)", {"w": weights(8, 12, 3, 3), "b": weights(8)}),
    "Conv without a bias": ("(float[1,12,6,6] x) => (float[1,8,4,4] y)", "y = Conv(x, w)", {"w": weights(8, 12, 3, 3)}),
    "grouped Conv": (
        "(float[1,12,6,6] x) => (float[1,6,4,4] y)", "y = Conv<group = 3>(x, w, b)", {"w": weights(6, 4, 3, 3), "b": weights(6)},
    ),
    "Gemm": ("(float[4,12] x) => (float[4,8] y)", "y = Gemm(x, w, b)", {"w": weights(12, 8), "b": weights(8)}),
    "transposed Gemm": ("(float[4,12] x) => (float[4,8] y)", "y = Gemm<transB = 1>(x, w, b)", {"w": weights(8, 12), "b": weights(8)}),
    "MatMul and Add": ("(float[2,4,12] x) => (float[2,4,8] y)", "h = MatMul(x, w)\ny = Add(h, b)", {"w": weights(12, 8), "b": weights(8)}),
    "Add and MatMul": ("(float[2,4,12] x) => (float[2,4,8] y)", "h = MatMul(x, w)\ny = Add(b, h)", {"w": weights(12, 8), "b": weights(1, 1, 8)}),
}  # fmt: skip


@pytest.mark.parametrize("kind", GRAPHS)
def test_the_mean_error_of_every_channel_goes(kind: str) -> None:
    model = model_of(*GRAPHS[kind])
    first = model.nodes[0].inputs[0]
    assert first is not None
    shape = [d for d in first.shape or () if d is not None]
    spread = MEANS.reshape((1, 12, 1, 1) if len(shape) == 4 else (12,))
    samples = [{"x": f32(np.abs(RNG.normal(size=shape)) * spread)} for _ in range(40)]
    ranges = observe(model, samples)
    assert ranges["x"].means is not None and len(ranges["x"].means) == 12
    without = {name: replace(seen, means=None) for name, seen in ranges.items()}
    # 16-bit activations and 4-bit weights: the weights' rounding is all there is. Small matrices are not cut into blocks.
    before = np.abs(drift(model, "w4a16", samples, without)).mean()
    after = np.abs(drift(model, "w4a16", samples, ranges)).mean()
    assert after < before / 20


@pytest.mark.parametrize("before", ["fp16", "w8a8"])
def test_the_mean_error_goes_where_data_comes_in_another_type_as_well(before: str) -> None:
    body = "r = Relu(x)\nh = MatMul(r, w)\ny = Add(h, b)"
    model = model_of("(float[2,4,12] x) => (float[2,4,8] y)", body, {"w": weights(12, 8), "b": weights(8)})
    ranges = observe(model, [{"x": f32(np.abs(RNG.normal(size=(2, 4, 12))) * MEANS)} for _ in range(10)])
    target = Target.open("cpu")
    first, rest = (make_plan(target, model, resolve(target, model, parse_precision(p))) for p in (before, "w4a16"))
    plan = replace(rest, nodes=(first.nodes[0], *rest.nodes[1:]))

    def bias(ranges: Mapping[str, Range]) -> Array:
        return next(
            v.const_value.numpy()
            for v in apply_plan(model, plan, ranges).model.graph.initializers.values()
            if v.const_value is not None and (v.name or "").startswith("b_") and "quantized" in (v.name or "")
        )

    assert (bias(ranges) != bias({name: replace(seen, means=None) for name, seen in ranges.items()})).any()


def test_nothing_is_taken_off_where_another_reader_sees_the_product() -> None:
    model = model_of(
        "(float[4,12] x) => (float[4,8] y, float[4,8] h)",
        "h = MatMul(x, w)\ny = Add(h, b)",
        {"w": weights(12, 8), "b": weights(8)},
    )
    samples = [{"x": f32(np.abs(RNG.normal(size=(4, 12))) + 1)} for _ in range(10)]
    ranges = observe(model, samples)
    without = {name: replace(seen, means=None) for name, seen in ranges.items()}
    assert (drift(model, "w4a16", samples, ranges) == drift(model, "w4a16", samples, without)).all()


def test_a_plan_that_says_so_leaves_the_biases_as_they_are() -> None:
    model = model_of("(float[4,12] x) => (float[4,8] y)", "y = Gemm(x, w, b)", {"w": weights(12, 8), "b": weights(8)})
    ranges = observe(model, [{"x": f32(np.abs(RNG.normal(size=(4, 12))) + 1)} for _ in range(10)])
    without = {name: replace(seen, means=None) for name, seen in ranges.items()}
    plan = make_plan(Target.open("cpu"), model, resolve(Target.open("cpu"), model, parse_precision("w4a16")))
    off = replace(plan, inputs={CORRECTS: False})

    def biases(plan: Plan, ranges: Mapping[str, Range]) -> list[bytes]:
        graph = apply_plan(model, plan, ranges).model.graph
        return [v.const_value.numpy().tobytes() for v in graph.initializers.values() if v.const_value is not None]

    assert biases(off, ranges) == biases(plan, without) != biases(plan, ranges)


def test_means_are_of_each_channel_over_all_samples_and_of_nothing_else() -> None:
    model = model_of(
        "(float[N,3] x, float[2,3] u) => (float[N,5] y, float[2,3] v)",
        "y = MatMul(x, w)\nv = Relu(u)",
        {"w": weights(3, 5)},
    )
    samples = [
        {"x": f32([[1, 2, 3], [3, 2, 1]]), "u": f32(np.ones((2, 3)))},
        {"x": f32([[0, 0, 6]]), "u": f32(np.ones((2, 3)))},
    ]
    ranges = observe(model, samples)
    assert ranges["x"].means == pytest.approx((1, 1, 4))  # each sample counts once
    assert ranges["u"].means is None and ranges["v"].means is None


def test_a_tensor_that_only_has_another_shape_has_means_of_its_own() -> None:
    body = "h = Transpose<perm = [0, 2, 1]>(x)\ny = MatMul(h, w)"
    model = model_of("(float[1,2,4] x) => (float[1,4,3] y)", body, {"w": weights(2, 3)})
    ranges = observe(model, [{"x": f32([[[1, 1, 1, 1], [2, 2, 2, 6]]])}])
    assert ranges["h"].means == pytest.approx((1, 3)) and ranges["x"].means is None
    assert (ranges["h"].low, ranges["h"].high) == (ranges["x"].low, ranges["x"].high) == (1, 6)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from((DType.INT8, DType.INT4)),
    st.integers(0, 99),
)
def test_the_mean_error_of_a_conv_is_that_of_constant_data(
    outputs: int, inputs: int, group: int, kind: DType, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = f32(rng.normal(size=(outputs * group, inputs, 2, 3)))
    means = rng.normal(size=inputs * group)
    parameters = weight_parameters(weight, kind, 0)
    error = dequantize(quantize(weight, parameters), parameters).astype(np.float64) - weight
    expected = [
        sum(error[o, c].sum() * means[o // outputs * inputs + c] for c in range(inputs)) for o in range(outputs * group)
    ]
    found = mean_error("Conv", {"group": group}, weight, parameters, means.tolist())
    assert found is not None and np.allclose(found, expected)


def test_what_is_not_known_is_left_alone() -> None:
    weight = weights(12, 8)
    parameters = weight_parameters(weight, DType.INT8, 1)
    assert mean_error("MatMul", {}, weight, parameters, None) is None
    assert mean_error("MatMul", {}, weight, parameters, [0.0] * 11) is None
    assert mean_error("Gemm", {"alpha": 0.5}, weight, parameters, [0.0] * 12) is None
    assert mean_error("LSTM", {}, weight, parameters, [0.0] * 12) is None
