"""Observing every float tensor while the float32 model runs, one sample at a time.

The runtime itself reduces each tensor (planner/calibrate/extend.py): memory stays that of a bare run, whatever the number
and size of the samples, and only scalars travel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import onnx_ir as ir

from planner.calibrate.extend import Array, Observed, extend
from planner.calibrate.histogram import Histogram, cut_entropy, cut_mse, cut_percentile
from planner.calibrate.masks import limit_of, mask_limits
from planner.calibrate.ranges import MASK_MAGNITUDE, Range, constant_range
from planner.errors import RequestError
from planner.model.values import constant_array

# Parts that samples are cut into, so that each can be judged by ranges that the others gave.
FOLDS = 4

Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]


class Method(StrEnum):
    """How the range of an 8-bit activation is chosen. 16-bit ones always get all that was seen, and room to spare.

    MINMAX: all that was seen. AVERAGE: the mean of the samples' own extremes. PERCENTILE: all but 0.01 % at each end.
    ENTROPY: least Kullback-Leibler divergence. MSE: least squared error.
    """

    MINMAX = "minmax"
    AVERAGE = "average"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"

    @property
    def needs_histogram(self) -> bool:
        return self in (Method.PERCENTILE, Method.ENTROPY, Method.MSE)


@dataclass
class _Seen:
    """What is kept of one tensor while samples go by: a few numbers, whatever the number of samples."""

    low: float = math.inf
    high: float = -math.inf
    masked_low: bool = False
    masked_high: bool = False
    nan: bool = False
    lows: float = 0.0
    highs: float = 0.0
    runs: int = 0
    means: Array | None = None
    histogram: Histogram | None = None

    def add(self, low: float, high: float) -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.lows, self.highs, self.runs = self.lows + low, self.highs + high, self.runs + 1

    def join(self, other: _Seen) -> None:
        """Take over what other samples showed."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.lows, self.highs, self.runs = self.lows + other.lows, self.highs + other.highs, self.runs + other.runs
        self.masked_low |= other.masked_low
        self.masked_high |= other.masked_high
        self.nan |= other.nan
        if other.means is not None:
            self.means = other.means if self.means is None else self.means + other.means
        if other.histogram is not None:
            self.histogram = self.histogram or Histogram()
            self.histogram.join(other.histogram)


@dataclass(frozen=True)
class Observations:
    """What a run of the samples showed, kept apart for each fold: every `FOLDS`-th sample is of the same.

    Attributes:
        folds: by tensor, what the samples of each showed.
        constants: ranges of constants that hold masks.
        same: tensors that hold what another one does, by name.
        method: how ends are chosen.
    """

    folds: tuple[dict[str, _Seen], ...]
    constants: Mapping[str, Range]
    same: Mapping[str, str]
    method: Method

    def ranges(self, without: int | None = None) -> dict[str, Range]:
        """The range of each tensor that was computed at least once, by the samples of all folds, or of all but one."""
        total: dict[str, _Seen] = {}
        for place, fold in enumerate(self.folds):
            if place != without:
                for name, seen in fold.items():
                    total.setdefault(name, _Seen()).join(seen)
        ranges = {
            name: Range(s.low, s.high, s.masked_low, s.masked_high, _cut(s, self.method), _means(s), s.nan)
            for name, s in total.items()
        }
        ranges |= self.constants
        for name, source in self.same.items():
            if source in ranges:
                own = ranges.get(name)  # observed itself for its channels, which another shape has elsewhere
                ranges[name] = replace(ranges[source], means=None if own is None else own.means)
        return ranges


def collect(
    model: ir.Model,
    start: Callable[[ir.Model], Run],
    samples: Iterable[Mapping[str, Array]],
    method: Method = Method.MINMAX,
    progress: Callable[[], None] | None = None,
) -> Observations:
    """Run the float32 model on each sample.

    Where a sample shows masks, the model is extended anew, to look beside them, and the sample is run again: most models
    that have any show them in the first.

    Args:
        model: the float32 model, left untouched.
        start: makes ready to run an extended model, in place of the one before.
        samples: the inputs of one run each, by name.
        method: how the ends of 8-bit ranges are chosen.
        progress: called after each sample.

    Raises:
        RequestError: an output held NaN; the message names the first node that gave one.
    """
    limits = mask_limits(model)
    results = [out.name or "" for out in model.graph.outputs]
    observed = extend(model, sample=method.needs_histogram)
    run = start(observed.model)
    folds: tuple[dict[str, _Seen], ...] = tuple({} for _ in range(FOLDS))
    for i, sample in enumerate(samples):
        values = run(sample)
        ends = dict(_ends(observed, values))
        while new := {n for n, e in ends.items() if _is_masked(e, limit_of(limits, n)) and n not in observed.beside}:
            _refuse_nan(results, ends, observed, i)
            masked = {name: limit_of(limits, name) for name in (*observed.beside, *new)}
            observed = extend(model, sample=method.needs_histogram, masked=masked)
            run = start(observed.model)
            values = run(sample)
            ends = dict(_ends(observed, values))
        _refuse_nan(results, ends, observed, i)
        for name, found in ends.items():
            _look(name, found, limit_of(limits, name), observed, values, folds[i % FOLDS])
        if progress is not None:
            progress()
    return Observations(folds, _mask_constants(model, limits), observed.same, method)


def _means(seen: _Seen) -> tuple[float, ...] | None:
    if seen.means is None or seen.masked_low or seen.masked_high or seen.nan:
        return None
    return tuple(float(m) for m in seen.means / seen.runs)


def _ends(observed: Observed, values: Mapping[str, Array]) -> Iterator[tuple[str, tuple[float, float]]]:
    """Each tensor that was computed with its least and largest value, masks among them, NaN where it held one."""
    for name, (low, high, total) in observed.outputs.items():
        # Most are scalars, for which numpy's reductions take ten times as long as these.
        least, most = values[low], values[high]
        if least.size == 1:
            ends = least.item(), most.item()
        else:
            ends = float(least.min(initial=np.inf)), float(most.max(initial=-np.inf))
        # Empty, the other branch of an If, a Loop that ran no iteration: nothing was computed.
        if not ends[0] > ends[1]:
            sums = values[total]
            # A sum over -inf and inf is NaN as well.
            infinite = ends == (-math.inf, math.inf)
            nan = not infinite and (math.isnan(sums.item()) if sums.size == 1 else bool(np.isnan(sums).any()))
            yield name, (math.nan, math.nan) if nan else ends


def _is_masked(ends: tuple[float, float], limit: float) -> bool:
    """Whether the tensor holds what is no data: masks, or NaN."""
    return math.isnan(ends[0]) or ends[0] <= -limit or ends[1] >= MASK_MAGNITUDE


def _refuse_nan(
    results: Sequence[str], ends: Mapping[str, tuple[float, float]], observed: Observed, sample: int
) -> None:
    """Raise where an output of the model holds NaN. One that no output shows is of no account: rows of padding have it."""
    if any(math.isnan(ends.get(observed.same.get(name, name), (0.0, 0.0))[0]) for name in results):
        raise _nan(next(name for name, (least, _) in ends.items() if math.isnan(least)), observed, sample)


def _look(
    name: str,
    ends: tuple[float, float],
    limit: float,
    observed: Observed,
    values: Mapping[str, Array],
    seen: dict[str, _Seen],
) -> None:
    """Add what one run says of one tensor."""
    least, most = ends
    entry = seen.setdefault(name, _Seen())
    entry.nan |= math.isnan(least)
    entry.masked_low |= least <= -limit
    entry.masked_high |= most >= MASK_MAGNITUDE
    if (names := observed.beside.get(name)) is not None:
        least, most = float(values[names[0]].min()), float(values[names[1]].max())
    entry.add(least, most)
    if name in observed.averaged:
        total = values[observed.outputs[name][2]].astype(np.float64)
        entry.means = total if entry.means is None else entry.means + total
    if (source := observed.sampled.get(name)) is not None:
        taken = values[source]
        # NaN stands for a value that is not there.
        entry.histogram = entry.histogram or Histogram()
        entry.histogram.add(taken[(np.abs(taken) < MASK_MAGNITUDE) & (taken > -limit)])


def _mask_constants(model: ir.Model, limits: Mapping[str, float]) -> dict[str, Range]:
    """Constants that hold finite masks, as they are to be stored: with their masks apart."""
    found = {}
    for graph in (model.graph, *model.graph.subgraphs()):
        for name, value in graph.initializers.items():
            array = constant_array(value) if name in limits else None
            if array is not None and (array <= -limits[name]).any():
                found[name] = constant_range(array, limits[name])
    return found


def _nan(name: str, observed: Observed, sample: int) -> RequestError:
    node = observed.producers.get(name)
    who = f"node {node!r} computes NaN (tensor {name!r})" if node is not None else f"input {name!r} holds NaN"
    return RequestError(
        f"{who} on calibration sample {sample}",
        "no range can be taken from it: check the inputs, and the model's own float32 result",
    )


def _cut(seen: _Seen, method: Method) -> tuple[float, float] | None:
    if method is Method.MINMAX:
        return None
    if method is Method.AVERAGE:
        return seen.lows / seen.runs, seen.highs / seen.runs
    if seen.histogram is None or seen.histogram.counts.sum() == 0:
        return None
    cut = {Method.PERCENTILE: cut_percentile, Method.ENTROPY: cut_entropy, Method.MSE: cut_mse}[method]
    low, high = max(seen.low, -seen.histogram.limit), min(seen.high, seen.histogram.limit)
    return cut(seen.histogram, low, high)
