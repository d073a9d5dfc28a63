"""How far a candidate's outputs are from the reference's: pure arithmetic, one sample at a time, in flat memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from planner.codec import HIDDEN
from planner.errors import EPError
from planner.verification.parts import Parts

# SQNR is kept within these bounds, in dB, so that every number is finite.
BEST, WORST = 200.0, -200.0
# The interval by bootstrap: its lower end, from that many resamplings, of this many samples at least.
_LOW_QUANTILE, _RESAMPLINGS, _LEAST_SAMPLES, _SEED = 0.05, 1000, 4, 0
# From so many samples on the interval is worth something: a floor is compared with its lower end.
ENOUGH_SAMPLES = 8
# What a tail of errors that no sample showed may take off it, in dB: see `benchmarks/low_end.py`.
_MOST_TAIL_DB = 9.0
# Elements that are compared at once.
_PIECE = 1 << 13


@dataclass(frozen=True)
class PartFidelity:
    """One part of an output that joins several tensors, over all samples.

    Attributes:
        name: of the tensor that it comes from.
        sqnr_db, low_db: as an output's.
        dead: zero throughout where the reference is not.
    """

    name: str
    sqnr_db: float
    low_db: float | None = None
    dead: bool = field(default=False, metadata=HIDDEN)


@dataclass(frozen=True)
class Fidelity:
    """One output, over all samples.

    Attributes:
        sqnr_db: 10 log10(sum ref^2 / sum (ref - out)^2), within -200..200; 200 for identical outputs, -200 where
            either holds a NaN or infinity, an error stands against a reference of zeros, or the candidate is zero
            throughout and the reference is not (contract of the JSON).
        cosine: of the two as flat vectors; None where it is undefined (a zero vector, or a value that is not finite).
        max_abs_error: None where either is not finite.
        top1_agreement: share of rows of equal argmax, for outputs that look like class scores; None for others.
        finite: whether both are finite throughout, and of one shape.
        reshaped: the two shapes in words, where they differ in a sample; empty otherwise.
        samples: how many were compared.
        worst_sample_db: least SQNR of a single sample.
        low_db: lower end of the 90 % interval of sqnr_db, by bootstrap over the samples; None below 4 samples. Less, by at most
            9 dB, where these differ so much that worse ones than any of them must be expected.
        parts: each tensor that the output joins, judged by itself; none where it joins none.
        dead: zero throughout where the reference is not.
    """

    output: str
    sqnr_db: float
    cosine: float | None = None
    max_abs_error: float | None = None
    top1_agreement: float | None = None
    finite: bool = True
    samples: int = 0
    worst_sample_db: float | None = None
    low_db: float | None = None
    parts: tuple[PartFidelity, ...] = ()
    dead: bool = field(default=False, metadata=HIDDEN)
    reshaped: str = field(default="", metadata=HIDDEN)

    @property
    def is_dead(self) -> bool:
        """Whether it, or a part of it, is zero throughout where the reference is not: no floor is met then."""
        return self.dead or any(part.dead for part in self.parts)

    @property
    def weakest_part(self) -> PartFidelity | None:
        """The least faithful part, where it is less faithful than the output as a whole."""
        least = min(self.parts, key=lambda part: part.sqnr_db, default=None)
        return least if least is not None and least.sqnr_db < self.sqnr_db else None

    @property
    def least_db(self) -> float:
        """The SQNR of the output, or of its weakest part."""
        return min([self.sqnr_db, *(part.sqnr_db for part in self.parts)])

    @property
    def judged_db(self) -> float:
        """What a floor is compared with: least_db, or the lower end of its interval where there are samples enough."""
        if self.samples < ENOUGH_SAMPLES:
            return self.least_db
        ends = [end for end in (self.low_db, *(part.low_db for part in self.parts)) if end is not None]
        return min([self.least_db, *ends])


@dataclass(frozen=True)
class SampleFidelity:
    """One sample by itself, in dB.

    Attributes:
        least_db: the SQNR of the output, or of its weakest part.
        sqnr_db: of the output as a whole.
    """

    least_db: float
    sqnr_db: float


@dataclass
class Accumulator:
    """Sums over the samples of one output, in float64."""

    output: str
    parts: Parts | None = None
    # Of each sample: energies of reference and error.
    energies: list[tuple[float, float]] = field(default_factory=list)
    # Of each sample, energies of reference, candidate and error of each part: arrays of shape (3, parts).
    part_energies: list[np.ndarray[Any, Any]] = field(default_factory=list)
    candidate_energy: float = 0.0
    product: float = 0.0
    max_abs_error: float = 0.0
    samples: int = 0
    rows: int = 0
    agreeing_rows: int = 0
    ranks_like_scores: bool = True
    finite: bool = True
    reshaped: str = ""

    def add(self, reference: np.ndarray[Any, Any], candidate: np.ndarray[Any, Any]) -> SampleFidelity:
        """Take one sample's output in, and say what it has by itself.

        Integers and booleans are compared as numbers, texts as equal (0) or not (1). Where the shapes differ (other boxes were kept,
        say), nothing is like the reference.
        """
        self.samples += 1
        if reference.shape != candidate.shape:
            self.reshaped = f"has shape {list(candidate.shape)}, not the reference's {list(reference.shape)}"
            self.finite = self.ranks_like_scores = False
            return SampleFidelity(WORST, WORST)
        if reference.dtype.kind in "OUS" or candidate.dtype.kind in "OUS":
            reference, candidate = np.ones(reference.shape), (reference == candidate).astype(np.float64)
            self.ranks_like_scores = False
        is_float = reference.dtype.kind == "f" and candidate.dtype.kind == "f"
        if reference.ndim == 2 and reference.shape[-1] >= 2 and is_float and self.ranks_like_scores:
            self.rows += reference.shape[0]
            agree = reference.argmax(axis=-1) == candidate.argmax(axis=-1)
            # argmax of NaN is the NaN's place: no class at all
            self.agreeing_rows += int((agree & ~np.isnan(candidate).any(axis=-1)).sum())
        else:
            self.ranks_like_scores = False
        # With another shape than was expected, where each part lies is not known.
        parts = self.parts if self.parts is not None and self.parts.labels.shape == reference.shape else None
        sums = _sums(reference, candidate, parts)
        if sums is None:
            self.finite = False
            return SampleFidelity(WORST, WORST)
        self.energies.append((sums.reference, sums.error))
        self.candidate_energy += sums.candidate
        self.product += sums.product
        self.max_abs_error = max(self.max_abs_error, sums.max_abs_error)
        whole = least = _of_sums(sums.reference, sums.candidate, sums.error)
        if sums.parts is not None:
            self.part_energies.append(sums.parts)
            least = min([whole, *(_of_sums(*part) for part in sums.parts.T.tolist())])
        return SampleFidelity(least, whole)

    def result(self) -> Fidelity:
        """What the sums come to."""
        reference_energy, error_energy = (sum(pair[i] for pair in self.energies) for i in range(2))
        norm = math.sqrt(reference_energy) * math.sqrt(self.candidate_energy)
        cosine = None if not self.finite or norm == 0 or not math.isfinite(norm) else self.product / norm
        return Fidelity(
            self.output,
            _of_sums(reference_energy, self.candidate_energy, error_energy) if self.finite else WORST,
            None if cosine is None or not math.isfinite(cosine) else min(1.0, max(-1.0, cosine)),
            self.max_abs_error if self.finite and math.isfinite(self.max_abs_error) else None,
            self.agreeing_rows / self.rows if self.ranks_like_scores and self.rows else None,
            self.finite,
            self.samples,
            min((sqnr(*pair) for pair in self.energies), default=WORST) if self.finite else WORST,
            low_end(self.energies) if self.finite else None,
            self._part_results(),
            self.finite and _is_dead(reference_energy, self.candidate_energy),
            self.reshaped,
        )

    def _part_results(self) -> tuple[PartFidelity, ...]:
        if self.parts is None or not self.part_energies or not self.finite:
            return ()
        energies = np.array(self.part_energies)
        return tuple(
            PartFidelity(
                name,
                _of_sums(*map(float, own.sum(axis=0))),
                low_end(own[:, ::2].tolist()),
                _is_dead(*map(float, own.sum(axis=0)[:2])),
            )
            for name, own in zip(self.parts.names, np.moveaxis(energies, 2, 0), strict=True)
        )


@dataclass
class Comparison:
    """Accumulators for all outputs of a model.

    Attributes:
        parts: of the outputs that join several tensors, by name.
    """

    parts: Mapping[str, Parts] = field(default_factory=dict)
    outputs: dict[str, Accumulator] = field(default_factory=dict)

    def add(
        self, reference: Mapping[str, np.ndarray[Any, Any]], candidate: Mapping[str, np.ndarray[Any, Any]]
    ) -> SampleFidelity:
        """Take one sample in, and say what its worst output has.

        Raises:
            EPError: the candidate lacks an output of the reference.
        """
        alone = SampleFidelity(BEST, BEST)
        for name, value in reference.items():
            if name not in candidate:
                raise EPError(f"the candidate has no output {name!r}", f"it has {', '.join(candidate)}")
            own = self.outputs.setdefault(name, Accumulator(name, self.parts.get(name))).add(value, candidate[name])
            alone = SampleFidelity(min(alone.least_db, own.least_db), min(alone.sqnr_db, own.sqnr_db))
        return alone

    def results(self) -> tuple[Fidelity, ...]:
        return tuple(accumulator.result() for accumulator in self.outputs.values())

    def signals(self) -> dict[str, float]:
        """Energy of each finite output of the reference over all samples."""
        return {name: sum(pair[0] for pair in found.energies) for name, found in self.outputs.items() if found.finite}

    def least_with(self, others: Comparison, places: Sequence[int]) -> float:
        """What a floor is compared with, of each finite output, were the others at these places added: the least, in dB."""
        known = [
            [*found.energies, *(others.outputs[name].energies[place] for place in places)]
            for name, found in self.outputs.items()
            if found.finite and name in others.outputs and others.outputs[name].finite
        ]
        totals = [sqnr(*(sum(pair[i] for pair in energies) for i in range(2))) for energies in known]
        lows = [low_end(energies) for energies in known if len(energies) >= ENOUGH_SAMPLES]
        return min([*totals, *(low for low in lows if low is not None)], default=BEST)


@dataclass(frozen=True)
class _Sums:
    """Of one sample of an output: energies of reference, candidate and error, their product, and the parts' energies.

    Attributes:
        parts: shape (3, parts), float64.
    """

    reference: float
    candidate: float
    error: float
    product: float
    max_abs_error: float
    parts: np.ndarray[Any, Any] | None


def _sums(reference: np.ndarray[Any, Any], candidate: np.ndarray[Any, Any], parts: Parts | None) -> _Sums | None:
    """The sums in float64; None where either holds a value that is not finite."""
    flat, other = reference.ravel(), candidate.ravel()
    totals, greatest = np.zeros(4), 0.0
    of_parts = None if parts is None else np.zeros((3, len(parts.names)))
    labels = None if parts is None else parts.labels.ravel()
    # By pieces that stay in the processor's cache: four times as fast as whole outputs.
    for start in range(0, flat.size, _PIECE):
        piece = slice(start, start + _PIECE)
        ref, out = flat[piece].astype(np.float64), other[piece].astype(np.float64)
        if not (np.isfinite(ref).all() and np.isfinite(out).all()):
            return None
        error = ref - out
        totals += (ref @ ref, out @ out, error @ error, ref @ out)
        greatest = max(greatest, float(error.max()), -float(error.min()))
        if of_parts is not None and labels is not None:
            of_parts += [np.bincount(labels[piece], values**2, of_parts.shape[1]) for values in (ref, out, error)]
    own, candidates, errors, product = totals.tolist()
    return _Sums(own, candidates, errors, product, greatest, of_parts)


def low_end(energies: Sequence[Sequence[float]]) -> float | None:
    """Lower end of the 90 % interval of the SQNR over the samples, in dB; the same samples give the same figure.

    By bootstrap, which knows no sample worse than the worst. From 8 samples on it is less, by at most 9 dB, where a log-normal
    distribution through their worse half has a greater mean.

    Args:
        energies: of each sample, those of the reference and of the error.

    Returns:
        None below 4 samples.
    """
    if len(energies) < _LEAST_SAMPLES:
        return None
    sums = ordered(energies)
    low = bootstrap(sums)
    return low if len(sums) < ENOUGH_SAMPLES else max(low - _MOST_TAIL_DB, min(low, _expected(sums)))


def ordered(energies: Sequence[Sequence[float]]) -> np.ndarray[Any, Any]:
    """The samples in order of size, float64[samples, 2]: a file's order decides nothing."""
    return np.array(sorted(energies, key=tuple))


def bootstrap(sums: np.ndarray[Any, Any]) -> float:
    """Lower end of the 90 % interval of the SQNR by bootstrap over `ordered` samples, in dB."""
    rng, count = np.random.default_rng(_SEED), len(sums)
    even = np.full(count, 1 / count)
    drawn = np.concatenate([rng.multinomial(count, even, _RESAMPLINGS // 10) @ sums for _ in range(10)])
    return float(np.quantile([sqnr(*pair) for pair in drawn.tolist()], _LOW_QUANTILE))


def _expected(sums: np.ndarray[Any, Any]) -> float:
    """SQNR in dB by the mean of a log-normal distribution of the samples' error energies, in units of their mean signal.

    Its median is theirs, its width that of those above it: the others may lie anywhere. Samples that are exact stay apart, and as
    frequent as they are. None counts for more than the signal. The mean is a sum over the normal distribution, in steps of a
    hundredth of its deviation, up to 8 of them.
    """
    signal = sums[:, 0].mean()
    if not 0 < signal < math.inf or not np.isfinite(sums).all():
        return BEST
    errors = sums[:, 1] / signal
    errors = np.log(errors[errors > 10 ** (-BEST / 10)])
    if not len(errors):
        return BEST
    median = np.median(errors)
    width = np.sqrt(np.mean((errors[errors >= median] - median) ** 2))
    places = np.linspace(-8, 8, 1601)
    odds = np.exp(-(places**2) / 2)
    mean = odds @ np.exp(np.minimum(0.0, median + width * places)) / odds.sum()
    return sqnr(1.0, float(mean) * len(errors) / len(sums))


def _of_sums(reference_energy: float, candidate_energy: float, error_energy: float) -> float:
    """The SQNR; that of a candidate that is zero throughout is the worst, where the reference is not."""
    return WORST if _is_dead(reference_energy, candidate_energy) else sqnr(reference_energy, error_energy)


def _is_dead(reference_energy: float, candidate_energy: float) -> bool:
    return candidate_energy == 0 < reference_energy


def sqnr(reference_energy: float, error_energy: float) -> float:
    """Signal to quantization noise ratio in dB from the two sums of squares, within -200..200."""
    if error_energy == 0:
        return BEST
    if reference_energy == 0 or not math.isfinite(error_energy):
        return WORST
    if not math.isfinite(reference_energy):
        return WORST
    # Of logarithms, not of the ratio, which may overflow or vanish.
    return min(BEST, max(WORST, 10 * (math.log10(reference_energy) - math.log10(error_energy))))
