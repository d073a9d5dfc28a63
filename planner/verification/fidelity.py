"""How far a candidate's outputs are from the reference's: pure arithmetic, one sample at a time, in flat memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from planner.errors import EPError

# SQNR is kept within these bounds, in dB, so that every number is finite.
BEST, WORST = 200.0, -200.0


@dataclass(frozen=True)
class Fidelity:
    """One output, over all samples.

    Attributes:
        sqnr_db: 10 log10(sum ref^2 / sum (ref - out)^2), within -200..200; 200 for identical outputs, -200 where
            either holds a NaN or infinity, or an error stands against a reference of zeros (contract of the JSON).
        cosine: of the two as flat vectors; None where it is undefined (a zero vector, or a value that is not finite).
        max_abs_error: None where either is not finite.
        top1_agreement: share of rows of equal argmax, for outputs that look like class scores; None for others.
        finite: whether both are finite throughout.
    """

    output: str
    sqnr_db: float
    cosine: float | None = None
    max_abs_error: float | None = None
    top1_agreement: float | None = None
    finite: bool = True


@dataclass
class Accumulator:
    """Sums over the samples of one output, in float64."""

    output: str
    reference_energy: float = 0.0
    candidate_energy: float = 0.0
    error_energy: float = 0.0
    product: float = 0.0
    max_abs_error: float = 0.0
    rows: int = 0
    agreeing_rows: int = 0
    ranks_like_scores: bool = True
    finite: bool = True

    def add(self, reference: np.ndarray[Any, Any], candidate: np.ndarray[Any, Any]) -> None:
        """Take one sample's output in.

        Integers and booleans are compared as numbers, texts as equal (0) or not (1).

        Raises:
            EPError: the shapes differ, so that there is nothing to compare.
        """
        if reference.shape != candidate.shape:
            raise EPError(
                f"output {self.output!r} has shape {candidate.shape}, not the reference's {reference.shape}",
                "the candidate computes something else: compare it with the model it was made from",
            )
        if reference.dtype.kind in "OUS" or candidate.dtype.kind in "OUS":
            reference, candidate = np.ones(reference.shape), (reference == candidate).astype(np.float64)
            self.ranks_like_scores = False
        is_float = reference.dtype.kind == "f" and candidate.dtype.kind == "f"
        ref, out = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
        if reference.ndim == 2 and reference.shape[-1] >= 2 and is_float and self.ranks_like_scores:
            self.rows += reference.shape[0]
            agree = reference.argmax(axis=-1) == candidate.argmax(axis=-1)
            # argmax of NaN is the NaN's place: no class at all
            self.agreeing_rows += int((agree & ~np.isnan(candidate).any(axis=-1)).sum())
        else:
            self.ranks_like_scores = False
        if not (np.isfinite(ref).all() and np.isfinite(out).all()):
            self.finite = False
            return
        error = ref - out
        self.reference_energy += float(ref @ ref)
        self.candidate_energy += float(out @ out)
        self.error_energy += float(error @ error)
        self.product += float(ref @ out)
        self.max_abs_error = max(self.max_abs_error, float(np.abs(error).max(initial=0.0)))

    def result(self) -> Fidelity:
        norm = math.sqrt(self.reference_energy) * math.sqrt(self.candidate_energy)
        cosine = None if not self.finite or norm == 0 or not math.isfinite(norm) else self.product / norm
        return Fidelity(
            self.output,
            sqnr(self.reference_energy, self.error_energy) if self.finite else WORST,
            None if cosine is None or not math.isfinite(cosine) else min(1.0, max(-1.0, cosine)),
            self.max_abs_error if self.finite and math.isfinite(self.max_abs_error) else None,
            self.agreeing_rows / self.rows if self.ranks_like_scores and self.rows else None,
            self.finite,
        )


@dataclass
class Comparison:
    """Accumulators for all outputs of a model."""

    outputs: dict[str, Accumulator] = field(default_factory=dict)

    def add(self, reference: Mapping[str, np.ndarray[Any, Any]], candidate: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Take one sample in.

        Raises:
            EPError: the candidate lacks an output of the reference, or shapes differ.
        """
        for name, value in reference.items():
            if name not in candidate:
                raise EPError(f"the candidate has no output {name!r}", f"it has {', '.join(candidate)}")
            self.outputs.setdefault(name, Accumulator(name)).add(value, candidate[name])

    def results(self) -> tuple[Fidelity, ...]:
        return tuple(accumulator.result() for accumulator in self.outputs.values())


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
