"""Where to cut a tensor's range for 8-bit codes: histograms that grow with their data, and what is read from them.

A cut trades the error of the values beyond it, which are clipped, for a finer step for all the others. It pays with 256
codes; 16-bit codes have room for the whole range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
_BINS = 2048
_LEVELS = 256
# Fractions of the observed range that are tried as cuts.
_FRACTIONS = np.concatenate([np.linspace(0.02, 0.3, 8), np.linspace(0.34, 1.0, 23)])
_PERCENTILE = 99.99
# A bin without mass in the coarse distribution, as in TensorRT's and onnxruntime's own smoothing.
_TINY = 1e-10


class Histogram:
    """Counts over [-limit, limit), limit a power of two that doubles when the data outgrow it.

    Doubling merges pairs of bins exactly, so one pass is enough and the order of the data does not matter. Exact zeros
    are counted apart: they cost no error at any step, and after a Relu they are most of the data.
    """

    def __init__(self) -> None:
        self.limit = 0.0
        self.counts = np.zeros(_BINS, np.int64)
        self.zeros = 0

    def add(self, values: Floats) -> None:
        """Count finite values."""
        total = values.size
        values = values[values != 0]
        self.zeros += total - values.size
        if values.size:
            most = float(np.abs(values).max())
            limit = 2.0 ** (np.floor(np.log2(most)) + 1)
            if self.limit == 0:
                self.limit = limit
            while self.limit < limit:
                self._double()
            bins = ((values + self.limit) * (_BINS / (2 * self.limit))).astype(np.int64)
            self.counts += np.bincount(np.minimum(bins, _BINS - 1), minlength=_BINS)

    def join(self, other: Histogram) -> None:
        """Count what another one counted."""
        self.zeros += other.zeros
        if other.limit:
            added = Histogram()
            added.limit, added.counts = other.limit, other.counts
            self.limit = self.limit or other.limit
            while self.limit < added.limit:
                self._double()
            while added.limit < self.limit:
                added._double()
            self.counts = self.counts + added.counts

    def _double(self) -> None:
        quarter = _BINS // 4
        counts = np.zeros_like(self.counts)
        counts[quarter : 3 * quarter] = self.counts.reshape(-1, 2).sum(1)
        self.counts, self.limit = counts, self.limit * 2

    @property
    def centres(self) -> Floats:
        return (np.arange(_BINS) + 0.5) * (2 * self.limit / _BINS) - self.limit


def cut_percentile(histogram: Histogram, low: float, high: float) -> tuple[float, float]:
    """The range that leaves 0.01 % of the values beyond each end."""
    counts = histogram.counts.copy()
    counts[_BINS // 2] += histogram.zeros
    share = np.cumsum(counts) / max(1, counts.sum())
    tail = 1 - _PERCENTILE / 100
    width = 2 * histogram.limit / _BINS
    first = int(np.searchsorted(share, tail, side="right"))
    last = int(np.searchsorted(share, 1 - tail, side="left"))
    return max(low, first * width - histogram.limit), min(high, (last + 1) * width - histogram.limit)


def cut_mse(histogram: Histogram, low: float, high: float) -> tuple[float, float]:
    """The range with the least mean squared error: clipping beyond it, and step^2 / 12 of rounding within it."""
    counts, centres = _occupied(histogram)

    def error(first: float, last: float) -> float:
        step = (max(last, 0.0) - min(first, 0.0)) / (_LEVELS - 1)
        beyond = np.maximum(first - centres, 0) + np.maximum(centres - last, 0)
        return float((counts * (beyond**2 + step**2 / 12)).sum())

    return _least(error, low, high)


def cut_entropy(histogram: Histogram, low: float, high: float) -> tuple[float, float]:
    """The range whose 256-level distribution differs least from the data's (Kullback-Leibler; TensorRT's method)."""
    counts, centres = _occupied(histogram)

    def divergence(first: float, last: float) -> float:
        first, last = min(first, 0.0), max(last, 0.0)
        inside = (centres >= first) & (centres <= last)
        if not inside.any():
            return np.inf
        kept = counts[inside]
        reference = kept.copy()
        # What is clipped piles up at the ends; the coarse distribution knows nothing of it.
        reference[0] += counts[centres < first].sum()
        reference[-1] += counts[centres > last].sum()
        level = np.minimum(((centres[inside] - first) * (_LEVELS / max(last - first, 1e-30))).astype(int), _LEVELS - 1)
        occupied = reference > 0
        mass = np.bincount(level, kept, _LEVELS)
        bins = np.bincount(level, occupied, _LEVELS)
        coarse = np.where(occupied, (mass / np.maximum(bins, 1))[level], 0)
        p = reference / max(reference.sum(), 1)
        q = np.maximum(coarse / max(coarse.sum(), 1), _TINY)
        return float((p[occupied] * np.log(p[occupied] / q[occupied])).sum())

    return _least(divergence, low, high)


def _occupied(histogram: Histogram) -> tuple[Floats, Floats]:
    """(counts, centres) of the bins from the first to the last that holds anything."""
    held = np.flatnonzero(histogram.counts)
    part = slice(held[0], held[-1] + 1) if held.size else slice(0, 1)
    return histogram.counts[part].astype(np.float64), histogram.centres[part]


def _least(cost: Callable[[float, float], float], low: float, high: float) -> tuple[float, float]:
    """The best pair of cuts: both ends together, then each end alone, and once more where that moved one.

    A range ends at 0 at least, so that of data with one sign, such as a Relu's, has one end alone.
    """
    best = min((cost(low * f, high * f), low * f, high * f) for f in _FRACTIONS)
    for _ in range(2 if low < 0 < high else 0):
        before = best
        best = min([best, *((cost(low * f, best[2]), low * f, best[2]) for f in _FRACTIONS)])
        best = min([best, *((cost(best[1], high * f), best[1], high * f) for f in _FRACTIONS)])
        if best == before:
            break
    return best[1], best[2]
