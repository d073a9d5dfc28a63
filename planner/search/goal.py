"""What a search is to reach, and what its plans come to. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from planner.codec import HIDDEN
from planner.search.sensitivity import NOISE_LIMIT
from planner.verification.floor import Floor

# A mix of precisions stays this far above a floor in dB while it is searched for: the samples held apart, which have the last
# word, differ from those of the calibration.
_MARGIN_DB = 1.0
# Noises that add up to so many times as much as a plan can bear are tried nevertheless: errors may cancel out.
_CANCELLED = 10.0


@dataclass(frozen=True)
class Measured:
    """What one plan came to.

    Attributes:
        score: what the floor is compared with; -inf where the plan is not wholly on the EP, or has no finite result.
        noise: error energy relative to the signal's, of the worst output. problem: why the score is -inf.
    """

    score: float
    noise: float = field(metadata=HIDDEN)
    problem: str | None = None

    SHOWN = ("sqnr_db",)

    @property
    def sqnr_db(self) -> float:
        """SQNR of the worst output."""
        return decibels(self.noise)


@dataclass(frozen=True)
class Goal:
    """What is asked for.

    Attributes:
        value: least score. slack: an emulated score lower than the value by more than this is hopeless.
        noise: error energy, relative to the signal's, that corresponds to the value, as far as any does.
        margin: how far above the value a mix stays: it spends all the error that it may on the samples it is measured on.
    """

    value: float
    slack: float
    noise: float
    margin: float = 0.0

    @classmethod
    def of(cls, floor: Floor, value: float) -> Goal:
        """A floor as a search takes it, at a value of its own."""
        if floor.kind == "sqnr":
            return cls(value, 3.0, 10 ** (-value / 10), _MARGIN_DB)
        # No energy corresponds to a share of right answers: 20 dB is where they begin to suffer.
        return cls(value, 0.05 * max(1.0, abs(value)), 0.01)

    def spare_noise(self, score: float, known: Measured) -> tuple[float, float]:
        """The noise that a mix may have beyond a plan that is known, and still has this score: about, and at most.

        What the score falls below the SQNR by in the one it does in the other, and noises add up, unless errors cancel out.
        """
        if not self.margin:
            return self.noise, math.inf
        spare = known.noise * (10 ** ((known.score - score) / 10) - 1)
        return spare, _CANCELLED * spare


def decibels(noise: float) -> float:
    """SQNR of an error energy that is relative to the signal's."""
    if noise <= 0:
        return 200.0
    return min(200.0, max(-200.0, -10 * math.log10(min(noise, NOISE_LIMIT))))
