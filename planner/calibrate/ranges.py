"""What calibration saw of a tensor."""

from __future__ import annotations

from dataclasses import dataclass, field

# Values beyond this are masks (attention adds -3.4e38 where it must not look), not data.
MASK_MAGNITUDE = 1e30


@dataclass(frozen=True)
class Range:
    """What a tensor took.

    Attributes:
        low, high: smallest and largest value, masks (beyond 1e30) left out.
        masked: whether it also held masks, below or above: they must stay far from the values, not merely clip to them.
        cut: the ends that the calibration method chose for 8-bit codes; None for the whole range.
        means: the mean of each channel, where a Conv, Gemm or MatMul with a constant weight reads the tensor: channels
            are the dimension that it sums over. None elsewhere, and where the tensor holds masks.
    """

    low: float
    high: float
    masked_low: bool = False
    masked_high: bool = False
    cut: tuple[float, float] | None = None
    means: tuple[float, ...] | None = field(default=None, repr=False)
