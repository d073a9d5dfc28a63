"""The numbers a verdict rests on: signal to noise, cosine, worst error, agreement of the first class."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from planner.errors import EPError
from planner.verification.fidelity import Accumulator, Comparison, Fidelity
from planner.verification.floor import parse_floor


def compare(*pairs: tuple[object, object], dtype: type = np.float32) -> Fidelity:
    accumulator = Accumulator("y")
    for reference, candidate in pairs:
        accumulator.add(np.asarray(reference, dtype), np.asarray(candidate, dtype))
    return accumulator.result()


def test_sqnr_is_ten_log10_of_signal_over_noise() -> None:
    result = compare(([3.0, 4.0], [3.0, 4.5]))
    assert result.sqnr_db == pytest.approx(10 * math.log10(25 / 0.25))
    assert result.max_abs_error == 0.5


def test_sqnr_sums_over_all_samples_and_is_no_mean_of_ratios() -> None:
    result = compare(([1.0], [1.0]), ([1.0], [0.0]))
    assert result.sqnr_db == pytest.approx(10 * math.log10(2 / 1))


def test_identical_outputs_have_200_db() -> None:
    result = compare(([1.0, -2.0], [1.0, -2.0]))
    assert (result.sqnr_db, result.max_abs_error) == (200.0, 0.0)
    assert result.cosine == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_ruins_the_output_for_good(bad: float) -> None:
    result = compare(([1.0, 2.0], [1.0, bad]), ([1.0, 2.0], [1.0, 2.0]))
    assert not result.finite
    assert (result.sqnr_db, result.cosine, result.max_abs_error) == (-200.0, None, None)


def test_an_infinity_of_the_reference_counts_whether_the_candidate_has_it_or_not() -> None:
    assert compare(([1.0, -np.inf], [1.0, -3.0])).sqnr_db == -200.0
    assert compare(([1.0, -np.inf], [1.0, -np.inf])).sqnr_db == -200.0


def test_an_error_against_zeros_is_minus_200_and_zeros_against_zeros_are_equal() -> None:
    assert compare(([0.0, 0.0], [0.0, 0.1])).sqnr_db == -200.0
    nothing = compare(([0.0, 0.0], [0.0, 0.0]))
    assert (nothing.sqnr_db, nothing.cosine) == (200.0, None)


def test_top1_agreement_is_over_the_last_axis_of_scores() -> None:
    result = compare(([[0.1, 0.9], [0.8, 0.2]], [[0.2, 0.7], [0.4, 0.6]]))
    assert result.top1_agreement == 0.5
    assert compare(([[np.nan, 0.0]], [[np.nan, 0.0]])).top1_agreement == 0.0


@pytest.mark.parametrize("shape", [(4,), (2, 1), (1, 3, 4)])
def test_outputs_that_are_no_class_scores_have_no_top1_agreement(shape: tuple[int, ...]) -> None:
    assert compare((np.ones(shape), np.ones(shape))).top1_agreement is None


def test_integers_and_booleans_give_the_same_fields() -> None:
    result = compare(([[3, 4]], [[3, 5]]), dtype=np.int64)
    assert result.sqnr_db == pytest.approx(10 * math.log10(25))
    assert (result.max_abs_error, result.top1_agreement) == (1.0, None)
    assert compare(([True, False], [True, True]), dtype=np.bool_).sqnr_db == pytest.approx(0.0)


def test_texts_are_equal_or_not() -> None:
    accumulator = Accumulator("y")
    accumulator.add(np.array(["a", "b"], object), np.array(["a", "c"], object))
    assert accumulator.result().max_abs_error == 1.0


def test_another_shape_is_like_nothing_and_meets_no_floor() -> None:
    """A detector that keeps other boxes gives fewer or more of them: that is a candidate's fault, not the EP's."""
    result = compare(([1.0, 2.0], [1.0, 2.0]), ([1.0], [1.0, 2.0]))
    assert (result.sqnr_db, result.finite, result.samples) == (-200, False, 2)
    floor = parse_floor("20")
    assert not floor.passes([result])
    assert list(floor.shortfalls([result])) == ["output 'y' has shape [2], not the reference's [1]"]


def test_a_missing_output_cannot_be_compared() -> None:
    with pytest.raises(EPError, match="no output 'y'"):
        Comparison().add({"y": np.ones(1)}, {"z": np.ones(1)})


def test_an_empty_output_is_identical() -> None:
    assert compare((np.ones((0, 3)), np.ones((0, 3)))).sqnr_db == 200.0


floats = hnp.arrays(np.float32, 6, elements=st.floats(width=32, allow_nan=True, allow_infinity=True))


@given(st.lists(st.tuples(floats, floats), min_size=1, max_size=4))
def test_every_number_is_finite_or_none_and_within_its_bounds(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    result = compare(*pairs)
    for value in (result.sqnr_db, result.cosine, result.max_abs_error, result.top1_agreement):
        assert value is None or math.isfinite(value)
    assert -200 <= result.sqnr_db <= 200
    assert result.cosine is None or -1 <= result.cosine <= 1


@given(st.lists(st.tuples(floats, floats), min_size=2, max_size=4))
def test_the_order_of_samples_does_not_matter(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    forward, backward = compare(*pairs), compare(*reversed(pairs))
    assert forward.sqnr_db == pytest.approx(backward.sqnr_db, abs=1e-6)
    assert forward.finite == backward.finite
