"""What rounding a weight adds to a node's results on average, to be taken off its bias. Pure numpy.

A rounded weight is off by an error D, so a product with data x is off by D x, on average by D times the mean of x: a
constant for each output channel, which the bias can take back (Nagel et al. 2019, Data-Free Quantization, section 4.2;
here the means are observed while calibrating). Measured with benchmarks/bias.py: docs/choosing-a-precision.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from planner.quantize.parameters import Parameters, dequantize, quantize


def mean_error(
    op_type: str,
    attributes: Mapping[str, object],
    weight: np.ndarray,
    parameters: Parameters,
    means: Sequence[float] | None,
) -> np.ndarray | None:
    """What the weight's rounding adds to each output channel of a Conv, Gemm or MatMul on average; None where that is not known.

    Padding is taken for data: at the borders a little too much is taken off.

    Args:
        weight: float. means: of the data, a channel each.
    """
    if means is None or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        return None
    mean = np.asarray(means)
    if op_type == "Conv" and weight.ndim > 2:
        group = int(str(attributes.get("group", 1)))
        outputs, inputs = weight.shape[:2]
        if outputs % group or len(mean) != inputs * group:
            return None
        error = _error(weight, parameters).reshape(outputs, inputs, -1).sum(axis=2)
        spread = np.repeat(mean.reshape(group, inputs), outputs // group, axis=0)
        result: np.ndarray = (error * spread).sum(axis=1)
        return result
    if op_type not in ("Gemm", "MatMul") or weight.ndim != 2:
        return None
    summed = 1 if op_type == "Gemm" and attributes.get("transB", 0) else 0
    if weight.shape[summed] != len(mean):
        return None
    error = _error(weight, parameters)
    shift: np.ndarray = error @ mean if summed == 1 else mean @ error
    return shift


def _error(weight: np.ndarray, parameters: Parameters) -> np.ndarray:
    difference: np.ndarray = dequantize(quantize(weight, parameters), parameters).astype(np.float64) - weight
    return difference
