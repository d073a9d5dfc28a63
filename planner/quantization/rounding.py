"""Learning how to round a weight: its codes are chosen together, so that the product's error on real data is small.

Rounded one by one, each number's error stands for itself. Here columns are rounded one after another, and what a column's
rounding adds to the product is taken back, as far as it can be, by those that are not rounded yet (GPTQ: Frantar et al. 2023, after
Hassibi and Stork's optimal brain surgeon: in closed form, by the Cholesky factor of the inverse of the data's second moments).
Few rows of data say little of long ones: so much is added to the diagonal as rows of that length need. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from planner.calibrate.moments import Moments
from planner.quantization.parameters import Parameters, numpy_codes

# Columns whose errors are handed on together.
_BLOCK = 128
_LEAST_DAMPING = 0.01


class Rounding:
    """The codes of a model's weights, each learned once."""

    def __init__(self, moments: Mapping[str, Moments]) -> None:
        """Keep what calibration saw.

        Args:
            moments: of the data of each product, by name of the node.
        """
        self._moments = moments
        self._known: dict[tuple[object, ...], np.ndarray] = {}

    def codes(
        self, node: str, weight: np.ndarray, parameters: Parameters, *, summed: int, centred: bool
    ) -> np.ndarray | None:
        """The codes of a product's weight, of the weight's shape; None where they are to be rounded one by one.

        Args:
            node: name of the Conv, Gemm or MatMul.
            weight: float; of a Conv channels first, of the others a matrix.
            parameters: that it is stored with: 8 bits at most, a scale for all or one for each output.
            summed: the axis of a matrix that is summed over.
            centred: the bias takes back what the codes add on average.
        """
        moments = self._moments.get(node)
        outputs = 0 if weight.ndim > 2 else 1 - summed
        if moments is None or parameters.dtype.bits > 8 or parameters.axis not in (None, outputs):
            return None
        key = (node, parameters.dtype, parameters.axis, parameters.scale.tobytes(), centred)
        if key not in self._known:
            rows = weight.reshape(len(weight), -1) if weight.ndim > 2 else weight if summed == 1 else weight.T
            groups, length = moments.mean.shape
            # Numbers beyond float32's squares have no covariance.
            if rows.shape[1] != length or len(rows) % groups or not np.isfinite(moments.covariance).all():
                return None
            codes = numpy_codes(learn(rows, parameters, moments, centred=centred), parameters.dtype)
            self._known[key] = codes.T if weight.ndim == 2 and summed == 0 else codes.reshape(weight.shape)
        return self._known[key]


def learn(weight: np.ndarray, parameters: Parameters, moments: Moments, *, centred: bool) -> np.ndarray:
    """Codes for the rows of a weight: int64[outputs, k].

    Args:
        weight: float[outputs, k], the outputs of one group after those of another.
        parameters: a scale for all or one for each output.
        moments: of the data, for each group.
        centred: leave out what the mean of the data makes of the error.
    """
    groups, length = moments.mean.shape
    # Columns, each of which is worked on as a whole, lie in memory as rows: float64[groups, k, outputs].
    rest = weight.astype(np.float64).reshape(groups, -1, length).transpose(0, 2, 1)
    scale, zero = (
        np.broadcast_to(v.astype(np.float64).reshape(-1), (len(weight),)).reshape(groups, -1)
        for v in (parameters.scale, parameters.zero_point)
    )
    smallest, largest = parameters.dtype.integer_range
    if parameters.dtype.is_signed:
        smallest = -largest  # the most negative code stays unused
    second = moments.covariance.astype(np.float64)
    if not centred:
        second += moments.mean[:, :, None].astype(np.float64) * moments.mean[:, None, :]
    diagonal = np.einsum("gkk->gk", second)
    order = np.argsort(-diagonal, axis=1, kind="stable")
    damping = max(_LEAST_DAMPING, length / moments.rows) * diagonal.mean(axis=1, keepdims=True)
    diagonal += damping + (diagonal + damping <= 0)
    second = np.take_along_axis(np.take_along_axis(second, order[:, :, None], 1), order[:, None, :], 2)
    rest = np.take_along_axis(rest, order[:, :, None], 1)
    # Row j of the factor says how what column j is off spreads over the columns after it.
    factor = np.linalg.cholesky(np.linalg.inv(second)).transpose(0, 2, 1)
    codes = np.empty(rest.shape, np.int64)
    for start in range(0, length, _BLOCK):
        end = min(start + _BLOCK, length)
        errors = np.empty((groups, end - start, rest.shape[2]))
        for j in range(start, end):
            codes[:, j] = np.clip(np.rint(rest[:, j] / scale) + zero, smallest, largest)
            off = (rest[:, j] - (codes[:, j] - zero) * scale) / factor[:, j, j, None]
            rest[:, j + 1 : end] -= factor[:, j, j + 1 : end, None] * off[:, None]
            errors[:, j - start] = off
        rest[:, end:] -= factor[:, start:end, end:].transpose(0, 2, 1) @ errors
    learned = np.empty_like(codes)
    np.put_along_axis(learned, np.broadcast_to(order[:, :, None], codes.shape), codes, 1)
    return learned.transpose(0, 2, 1).reshape(weight.shape)
