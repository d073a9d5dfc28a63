"""Scales and zero points: what is represented exactly, what is covered, and the bounds of the error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.calibrate.ranges import HEADROOM, Range, constant_range
from planner.dtypes import DType
from planner.quantization.parameters import (
    WIDEST_SPREAD,
    activation_parameters,
    asymmetric,
    bias_parameters,
    dequantize,
    quantize,
    scale_for_bias,
    symmetric,
    weight_parameters,
)

ACTIVATIONS = st.sampled_from([DType.UINT8, DType.INT8, DType.UINT16, DType.INT16])
NUMBERS = st.floats(-1e6, 1e6, width=32)


@settings(deadline=None)
@given(ACTIVATIONS, NUMBERS, NUMBERS)
def test_zero_is_exact_and_the_range_is_covered_within_a_step(dtype: DType, a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    parameters = asymmetric(low, high, dtype)
    values = np.array([0, low, high], np.float32)
    back = dequantize(quantize(values, parameters), parameters)
    assert back[0] == 0
    assert np.abs(back - values).max() <= 1.01 * float(parameters.scale)


# High and low byte are multiplied apart, both signed: a larger code counts as this one.
LARGEST = {DType.INT16: 0x7F7F}


@pytest.mark.parametrize("dtype", [DType.INT4, DType.UINT4, DType.INT8, DType.UINT8, DType.INT16])
def test_symmetric_codes_are_balanced(dtype: DType) -> None:
    parameters = symmetric(np.array(2.0), dtype, None)
    codes = quantize(np.array([-2, 0, 2], np.float32), parameters).astype(int)
    assert (
        codes[1] - codes[0]
        == codes[2] - codes[1]
        == LARGEST.get(dtype, dtype.integer_range[1]) - int(parameters.zero_point)
    )


def test_values_beyond_the_range_saturate() -> None:
    parameters = asymmetric(0, 1, DType.UINT8)
    assert quantize(np.array([-5, 9], np.float32), parameters).tolist() == [0, 255]


def test_a_range_of_nothing_but_zero_has_a_usable_scale() -> None:
    for dtype in (DType.UINT8, DType.INT16):
        assert float(asymmetric(0, 0, dtype).scale) > 0
    assert float(symmetric(np.array(0.0), DType.INT8, None).scale) > 0


def test_16_bits_get_headroom_and_8_bits_the_cut() -> None:
    seen = Range(-1, 3, cut=(-0.5, 2))
    assert float(activation_parameters(seen, DType.UINT16).scale) == pytest.approx(4 * HEADROOM / 65535)
    assert float(activation_parameters(seen, DType.UINT16, bounded=True).scale) == pytest.approx(4 / 65535)
    assert float(activation_parameters(seen, DType.UINT8).scale) == pytest.approx(2.5 / 255)


@pytest.mark.parametrize("dtype", [DType.UINT8, DType.UINT16])
def test_masks_lie_far_from_the_values(dtype: DType) -> None:
    parameters = activation_parameters(Range(-4, 4, masked_low=True), dtype)
    lowest = dequantize(quantize(np.array(-3.4e38, np.float32), parameters), parameters)
    assert -24 < lowest < -19
    alone = activation_parameters(Range(0, 0, masked_low=True), dtype)
    assert dequantize(quantize(np.array([-3.4e38, 0], np.float32), alone), alone) == pytest.approx([-128, 0], abs=0.01)


def test_the_range_of_a_constant_leaves_masks_out() -> None:
    held = constant_range(np.array([1, -2, -np.inf, 3.4e38], np.float32))
    assert held == Range(-2, 1, masked_low=True, masked_high=True)


def test_a_bias_is_stored_at_the_accumulators_scale_and_fits() -> None:
    weight_scale = np.array([1e-12, 0.01], np.float32)
    bias = np.array([300.0, 1.0])
    raised = scale_for_bias(bias, 0.1, weight_scale)
    assert raised[1] == weight_scale[1] and raised[0] > weight_scale[0]
    scale, zero = bias_parameters(0.1, raised)
    assert (np.abs(bias / scale) < 2**31).all() and not zero.any()


def test_a_channel_of_almost_no_weights_keeps_a_scale_that_an_integer_multiplier_can_reach() -> None:
    weight = np.array([[1.0, -0.5], [1e-9, 0.0], [0.0, 0.0]], np.float32)
    scale = weight_parameters(weight, DType.INT8, 0).scale
    assert scale.max() / scale.min() == pytest.approx(WIDEST_SPREAD, rel=1e-6)
    assert scale[0] == pytest.approx(1 / 127, rel=1e-6)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_codes_do_not_depend_on_the_pieces_in_which_they_are_made(
    monkeypatch: pytest.MonkeyPatch, axis: int | None
) -> None:
    weight = np.random.default_rng(3).normal(size=(37, 11, 3)).astype(np.float32)
    found = weight_parameters(weight, DType.INT8, axis)
    whole = quantize(weight, found)
    monkeypatch.setattr("planner.quantization.parameters._AT_ONCE", 100)
    assert (quantize(weight, found) == whole).all()
