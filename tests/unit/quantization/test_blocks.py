"""Weights in blocks: the error that quantizing leaves, and the layouts of the operators that read them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from planner.dtypes import DType
from planner.quantization import blocks as b

KINDS = (DType.INT4, DType.UINT4, DType.INT8, DType.UINT8)
MATRICES = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 100)),
    elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False),
)


def unpacked(codes: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Bytes to codes, low-order bits first: the definition, written the other way round."""
    if bits == 8:
        return codes
    return np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:-1], -1)[..., :count]


def dequantized(blocks: b.Blocks) -> np.ndarray:
    """float32[rows, numbers]: what the codes stand for."""
    centred = (blocks.codes - blocks.zero_point[..., None]).astype(np.float32)
    values: np.ndarray = centred * blocks.scale.astype(np.float32)[..., None]
    return values.reshape(len(values), -1)[:, : blocks.numbers]


@settings(max_examples=60, deadline=None)
@given(MATRICES, st.sampled_from(KINDS), st.sampled_from((16, 32)))
def test_no_number_is_further_off_than_half_a_step_of_the_whole_range(rows: np.ndarray, kind: DType, size: int) -> None:
    found = dequantized(b.quantize_blocks(rows, kind, size))
    assert found.shape == rows.shape
    for start in range(0, rows.shape[1], size):
        part = rows[:, start : start + size]
        error = np.square(found[:, start : start + size] - part).sum(axis=1)
        low, high = np.minimum(part.min(axis=1), 0), np.maximum(part.max(axis=1), 0)
        # A signed block spans what its largest magnitude needs on both sides, an unsigned one its own range, whose ends are
        # rounded to whole steps. Cutting the range may clip some numbers, but never makes the block's error larger.
        span = (high - low) if not kind.is_signed else 2 * np.maximum(-low, high)
        step = span / (2**kind.bits - 1)
        half = step * (0.5 if kind.is_signed else 1.0)
        clipped = step if kind.is_signed else 0.0  # the code opposite to the farthest does not exist
        assert (error <= part.shape[1] * np.square(np.maximum(half, clipped)) * 1.02 + 1e-30).all()


@settings(max_examples=40, deadline=None)
@given(MATRICES, st.sampled_from(KINDS))
def test_the_contrib_layouts_hold_the_same_codes_low_bits_first(rows: np.ndarray, kind: DType) -> None:
    blocks = b.quantize_blocks(rows, kind, 16)
    codes, zero = b.unsigned(blocks)
    data, scale, points = b.for_matmul_nbits(blocks)
    count = codes.shape[1]
    assert data.shape == (len(rows), count, 16 * kind.bits // 8) and scale.shape == (len(rows), count)
    assert points.shape == (len(rows), -(-count * kind.bits // 8))
    assert (unpacked(data, kind.bits, 16) == codes).all()
    assert (unpacked(points, kind.bits, count) == zero).all()
    table, _, points = b.for_gather(blocks)
    assert (unpacked(table, kind.bits, rows.shape[1]) == codes.reshape(len(rows), -1)[:, : rows.shape[1]]).all()
    assert (unpacked(points, kind.bits, count) == zero).all()


def test_what_pads_the_last_block_stands_for_zero() -> None:
    blocks = b.quantize_blocks(np.full((2, 20), 3.0, np.float32), DType.UINT4, 16)
    tail = (blocks.codes - blocks.zero_point[..., None])[:, 1, 4:]
    assert tail.shape == (2, 12) and not tail.any()


def test_zeros_stay_zeros_and_nothing_divides_by_them() -> None:
    for kind in KINDS:
        blocks = b.quantize_blocks(np.zeros((3, 33), np.float32), kind, 32)
        assert not dequantized(blocks).any() and np.isfinite(blocks.scale).all() and (blocks.scale != 0).all()


def test_float16_scales_are_the_ones_the_codes_were_made_with() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    blocks = b.quantize_blocks(rows, DType.UINT4, 32, np.float16)
    assert blocks.scale.dtype == np.float16
    noise = np.square(dequantized(blocks) - rows).sum() / np.square(rows).sum()
    assert 10 * np.log10(noise) < -20


@pytest.mark.parametrize(
    ("kind", "least"), [(DType.INT4, 20.5), (DType.UINT4, 21), (DType.INT8, 44), (DType.UINT8, 45)]
)
def test_an_unsigned_block_uses_its_range_better_than_a_signed_one(kind: DType, least: float) -> None:
    rows = np.random.default_rng(1).normal(size=(64, 256)).astype(np.float32)
    noise = np.square(dequantized(b.quantize_blocks(rows, kind, 32)) - rows).sum() / np.square(rows).sum()
    assert least < -10 * np.log10(noise) < least + 2


def test_four_bits_cut_a_block_where_that_lowers_the_error() -> None:
    rows = np.random.default_rng(2).normal(size=(64, 32)).astype(np.float32)
    low, high = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
    step = (high - low) / 15
    zero = np.rint(-low / step)
    plain = np.square((np.clip(np.rint(rows / step) + zero, 0, 15) - zero) * step - rows).sum(axis=1)
    blocks = b.quantize_blocks(rows, DType.UINT4, 32)
    found = np.square(dequantized(blocks) - rows).sum(axis=1)
    assert (found <= plain * 1.0001).all() and found.sum() < 0.97 * plain.sum()
    assert (blocks.scale < step * 0.99).any()
