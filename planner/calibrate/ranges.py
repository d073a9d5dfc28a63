"""What calibration saw of a tensor."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

# Values beyond this are masks (attention adds -3.4e38 where it must not look), not data.
MASK_MAGNITUDE = 1e30
# 16-bit activations are stored over a range this much wider than what calibration saw: a third of 16 bits, against clipping
# on inputs that it did not see. Measured on the example models at w8a16: gains up to 1.5 dB where inputs clip, costs 0.4 dB
# where resolution is short (1.0 and 1.7 dB on two that stay below 10 dB either way); 1.5 and 2 gain little more and cost more.
HEADROOM = 1.25


@dataclass(frozen=True)
class Range:
    """What a tensor took.

    Attributes:
        low, high: smallest and largest value, masks (beyond 1e30, or of a Softmax: calibrate/masks.py) left out.
        masked: whether it also held masks, below or above: they must stay far from the values, not merely clip to them.
        cut: the ends that the calibration method chose for 8-bit codes; None for the whole range.
        means: the mean of each channel, where a Conv, Gemm or MatMul with a constant weight reads the tensor: channels
            are the dimension that it sums over. None elsewhere, and where the tensor holds masks.
        nan: whether it also held NaN, which no output of the model shows.
    """

    low: float
    high: float
    masked_low: bool = False
    masked_high: bool = False
    cut: tuple[float, float] | None = None
    means: tuple[float, ...] | None = field(default=None, repr=False)
    nan: bool = False


def constant_range(array: np.ndarray, limit: float = MASK_MAGNITUDE) -> Range:
    """What a constant holds, as calibration would have seen it, masks apart.

    Args:
        array: float, of any shape.
        limit: numbers below minus this are masks.
    """
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if -min(limit, MASK_MAGNITUDE) < low and high < MASK_MAGNITUDE:
        return Range(min(low, 0.0), max(high, 0.0))  # no mask, and no NaN: two passes, and no copy
    values = array[(np.abs(array) < MASK_MAGNITUDE) & (array > -limit)].astype(np.float64)
    return Range(
        float(values.min(initial=0.0)),
        float(values.max(initial=0.0)),
        bool((array <= -limit).any()),
        bool((array >= MASK_MAGNITUDE).any()),
    )
