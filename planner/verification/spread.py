"""Which samples an EP runs that takes seconds for each: the hardest ones, and others of every kind. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def spread(scores: Sequence[float], count: int) -> list[int]:
    """Indices of so many samples at even distances from the hardest to the easiest; the hardest first.

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
