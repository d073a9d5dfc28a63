"""What rounding a weight adds to a node's results on average, to be taken off its bias. Pure numpy.

A rounded weight is off by an error D, so a product with data x is off by D x, on average by D times the mean of x: a
constant for each output channel, which the bias can take back (Nagel et al. 2019, Data-Free Quantization, section 4.2;
here the means are observed while calibrating). Measured with benchmarks/rounding.py: docs/choosing-a-precision.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from planner.operators import summed_axis
from planner.quantization.parameters import Parameters, dequantize, quantize

# So many numbers of a weight are looked at together.
_AT_ONCE = 1 << 18


def mean_error(
    op_type: str,
    attributes: Mapping[str, object],
    weight: np.ndarray,
    parameters: Parameters,
    means: Sequence[float] | None,
    codes: np.ndarray | None = None,
) -> np.ndarray | None:
    """What the weight's rounding adds to each output channel of a Conv, Gemm or MatMul on average; None where that is not known.

    Padding is taken for data: at the borders a little too much is taken off.

    Args:
        op_type: of the node.
        attributes: of the node.
        weight: float.
        parameters: that it is stored with.
        means: of the data, a channel each.
        codes: that it is stored as; None where each number is rounded by itself.
    """
    if means is None or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        return None
    mean = np.asarray(means)
    if op_type == "Conv" and weight.ndim > 2:
        group = int(str(attributes.get("group", 1)))
        outputs, inputs = weight.shape[:2]
        if outputs % group or len(mean) != inputs * group:
            return None
        spread = np.repeat(mean.reshape(group, inputs), outputs // group, axis=0)
        result = np.zeros(outputs)
        for part, error in _errors(weight, parameters, codes):
            result[part] = (error.reshape(len(error), inputs, -1).sum(axis=2) * spread[part]).sum(axis=1)
        return result
    if op_type not in ("Gemm", "MatMul") or weight.ndim != 2:
        return None
    summed = summed_axis(op_type, attributes)
    if weight.shape[summed] != len(mean):
        return None
    result = np.zeros(weight.shape[1 - summed])
    for part, error in _errors(weight, parameters, codes):
        if summed == 1:
            result[part] = error @ mean
        else:
            result += mean[part] @ error
    return result


def _errors(weight: np.ndarray, parameters: Parameters, codes: np.ndarray | None) -> Iterator[tuple[slice, np.ndarray]]:
    """The error of the weight's codes, some of its rows at a time: whole, it would take several times the weight's memory."""
    rows = max(1, _AT_ONCE * len(weight) // max(1, weight.size))
    for start in range(0, len(weight), rows):
        part = slice(start, start + rows)
        own = parameters
        if parameters.axis == 0:
            own = replace(parameters, scale=parameters.scale[part], zero_point=parameters.zero_point[part])
        stored = quantize(weight[part], own) if codes is None else codes[part]
        yield part, dequantize(stored, own).astype(np.float64) - weight[part]
