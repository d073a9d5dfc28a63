"""Bisecting: how few questions it takes, and what is known in the end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from planner.search.bisection import bisect


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000))
def test_the_largest_number_that_passes_is_found_wherever_it_was_guessed(most: int, largest: int, guess: int) -> None:
    assert bisect(most, lambda number: number <= largest, guess) == (min(most, largest),) * 2


def test_numbers_that_are_alike_are_not_told_apart() -> None:
    asked: list[int] = []

    def passes(number: int) -> bool:
        asked.append(number)
        return number <= 300

    low, high = bisect(1000, passes, alike=lambda low, high: high - low < 100)
    assert low <= 300 <= high < low + 100 and len(asked) <= 4


def test_a_right_guess_takes_two_questions() -> None:
    asked: list[int] = []

    def passes(number: int) -> bool:
        asked.append(number)
        return number <= 7

    assert bisect(1000, passes, 7) == (7, 7)
    assert asked == [7, 8]
