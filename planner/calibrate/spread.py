"""Which samples are run where all would take too long. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def spread(scores: Sequence[float], count: int) -> list[int]:
    """Indices of so many samples at even distances from the hardest to the easiest, for an EP that takes seconds for each.

    The hardest comes first.

    Args:
        scores: of each sample, in dB, as far as they are known without the EP.
        count: how many; all of them where there are no more.
    """
    ranked = sorted(range(len(scores)), key=lambda index: scores[index])
    if count >= len(ranked):
        return ranked
    if count < 2:
        return ranked[: max(0, count)]
    return [ranked[round(place * (len(ranked) - 1) / (count - 1))] for place in range(count)]


def evenly(samples: Sequence[T], count: int) -> list[T]:
    """So many samples at even distances, the first among them; all where there are no more."""
    count = min(count, len(samples))
    return [samples[i * len(samples) // count] for i in range(count)]
