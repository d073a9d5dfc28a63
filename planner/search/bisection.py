"""Bisecting for the largest number that passes a test. Pure."""

from __future__ import annotations

import operator
from collections.abc import Callable


def bisect(
    most: int, passes: Callable[[int], bool], guess: int | None = None, alike: Callable[[int, int], bool] = operator.eq
) -> tuple[int, int]:
    """Between which two numbers up to ``most`` the largest that passes lies, as far as passing is monotone.

    The first passes, or is 0, which is not asked; the second is the first again, unless the two are alike.

    Args:
        most: the largest number that may pass.
        passes: whether a number does.
        guess: about where it lies; None: unknown.
        alike: whether it does not matter which of two numbers it is.
    """
    low, high = 0, most
    near = most // 8 + 1
    probes = [] if guess is None else [guess, guess + 1, guess + near, guess - near]
    while low < high and not alike(low, high):
        probe = next((p for p in probes if low < p <= high), None)
        probes = [p for p in probes if p != probe]
        middle = (low + high + 1) // 2 if probe is None else probe
        if passes(middle):
            low = middle
        else:
            high = middle - 1
    return low, high
