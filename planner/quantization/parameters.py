"""Quantization parameters from ranges, and quantizing arrays with them. Pure numpy.

The formulas are those of ONNX QuantizeLinear: q = saturate(round_half_even(x / scale) + zero_point).
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from planner.calibrate.ranges import HEADROOM, Range
from planner.dtypes import DType

# The smallest scale that is told from zero in float32 arithmetic with 16-bit codes; also what a constant-zero
# tensor gets, so that nothing divides by zero.
_SMALLEST_SCALE = 1e-12

# So many numbers are quantized at once.
_AT_ONCE = 1 << 18
# How far a mask is stored below (or above) what it is added to, and how far beyond the sum's own values the sum's range
# reaches: a softmax gives such an entry at most e^-16 of the largest one's weight.
_MASK_DISTANCE = 128.0
_MASKED_MARGIN = 16.0

_NUMPY = {
    DType.UINT8: np.dtype(np.uint8),
    DType.INT8: np.dtype(np.int8),
    DType.UINT16: np.dtype(np.uint16),
    DType.INT16: np.dtype(np.int16),
    DType.UINT4: np.dtype(ml_dtypes.uint4),
    DType.INT4: np.dtype(ml_dtypes.int4),
}


@dataclass(frozen=True)
class Parameters:
    """Scale (float32; scalar or one per channel) and zero point (code) of a quantized tensor.

    Attributes:
        axis: the axis of the channels; None per tensor.
    """

    dtype: DType
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None = None


def asymmetric(low: float, high: float, dtype: DType) -> Parameters:
    """Parameters that cover [low, high] and represent zero exactly; a signed type gets them as well."""
    low, high = min(low, 0.0), max(high, 0.0)
    smallest, largest = dtype.integer_range
    scale = max((high - low) / (largest - smallest), _SMALLEST_SCALE)
    scale = float(np.float32(scale))
    zero_point = int(np.clip(np.rint(smallest - low / scale), smallest, largest))
    return Parameters(dtype, np.array(scale, np.float32), numpy_codes(np.array(zero_point), dtype))


def activation_parameters(
    observed: Range, dtype: DType, *, bounded: bool = False, zero_at_middle: bool = False
) -> Parameters:
    """Parameters of an activation from what calibration saw of it.

    8-bit codes cover the range that the calibration method chose; 16-bit codes all that was seen, with headroom.

    Args:
        observed: low and high of the tensor, masks apart.
        dtype: of the codes.
        bounded: the tensor cannot leave the observed range by much (a Softmax, say), so that headroom would be wasted.
        zero_at_middle: symmetric around zero, which costs a code range that is not.
    """
    low, high = observed.low, observed.high
    if dtype.bits <= 8:
        low, high = observed.cut or (low, high)
    elif not bounded:
        low, high = low * HEADROOM, high * HEADROOM
    low, high = min(low, 0.0), max(high, 0.0)
    distance = _MASK_DISTANCE if low == high == 0 else _MASKED_MARGIN
    low = low - distance if observed.masked_low else low
    high = high + distance if observed.masked_high else high
    return symmetric(np.array(max(-low, high)), dtype, None) if zero_at_middle else asymmetric(low, high, dtype)


def symmetric(magnitude: np.ndarray, dtype: DType, axis: int | None) -> Parameters:
    """Parameters with zero at the middle code, for weights; the most negative signed codes stay unused, see LARGEST_INT16.

    Args:
        magnitude: largest absolute value; scalar, or one per channel.
        dtype: of the codes.
        axis: of the channels; None per tensor.
    """
    largest = LARGEST_INT16 if dtype is DType.INT16 else dtype.integer_range[1]
    middle = 0 if dtype.is_signed else (largest + 1) // 2
    scale = np.maximum(np.asarray(magnitude, np.float64) / (largest - middle), _SMALLEST_SCALE).astype(np.float32)
    return Parameters(dtype, scale, numpy_codes(np.full(scale.shape, middle), dtype), axis)


def numpy_codes(codes: np.ndarray, dtype: DType) -> np.ndarray:
    """Integer codes as an array of the dtype (4-bit types through ml_dtypes)."""
    return codes.astype(_NUMPY[dtype])


def quantize(array: np.ndarray, parameters: Parameters) -> np.ndarray:
    """The codes of a float array; worked out in pieces, since the arithmetic needs many times the memory of the codes."""
    smallest, largest = parameters.dtype.integer_range
    # Views of the array's shape, which take no memory of their own.
    scale, zero = (np.atleast_1d(np.broadcast_to(v, array.shape)) for v in _broadcast(parameters, array.ndim))
    rows = np.atleast_1d(array)
    codes = np.empty(rows.shape, _NUMPY[parameters.dtype])
    step = max(1, _AT_ONCE * len(rows) // max(1, rows.size))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        numbers = np.rint(rows[part].astype(np.float64) / scale[part]) + zero[part]
        codes[part] = numpy_codes(np.clip(numbers, smallest, largest).astype(np.int64), parameters.dtype)
    return codes.reshape(array.shape)


def dequantize(codes: np.ndarray, parameters: Parameters) -> np.ndarray:
    """The float32 values that codes stand for."""
    scale, zero = _broadcast(parameters, codes.ndim)
    values: np.ndarray = (codes.astype(np.float64) - zero) * scale
    return values.astype(np.float32)


def _broadcast(parameters: Parameters, rank: int) -> tuple[np.ndarray, np.ndarray]:
    scale = parameters.scale.astype(np.float64)
    zero = parameters.zero_point.astype(np.float64)
    if parameters.axis is None:
        return scale, zero
    shape = [1] * rank
    shape[parameters.axis] = -1
    return scale.reshape(shape), zero.reshape(shape)


# The largest code of a weight of 16 bits, and of a second factor. The HTP multiplies its high and its low byte apart, both signed:
# 127 * 2^8 + 127 is the most that they come to, and a larger code counts as that one (onnxruntime-qnn 2.7.0, Conv, Gemm and MatMul at
# w16a16 on soc_model 43, 57, 60, 69, 87 and 88; on 30, 36 and 37 Gemm and MatMul are right). With the largest number of each channel at
# 32767 the HTP came within 21 dB of the file of PP-OCRv4 rec at w16a16, so within 36. Rounding is 0.4 % coarser for it.
LARGEST_INT16 = 127 * 2**8 + 127

# How many times the largest scale of a weight's channels may exceed the smallest. A channel of almost no weights needs no
# fine scale, and at a wider spread the HTP may lose the whole result: on soc_model 60 (onnxruntime-qnn 2.7.0), w8a16, a Conv
# goes wrong where its smallest rescaling factor (input scale x weight scale / output scale) lies between 2^-16 and 2^-15,
# and in other cases beyond a spread of 2^12. Of the file as the CPU EP computes it, the HTP keeps (dB): PP-OCRv6 det 0 without
# a limit, 54 with 2^8 to 2^12; table-cls 23 without, 28 with 2^10, 46 with 2^8; layout 10 with 2^12, 19 with 2^10, 29 with 2^8
# (its worst output). On the CPU EP 2^8 costs none of them more than 0.1 dB; 2^6 costs layout 2.
WIDEST_SPREAD = 2.0**8


def weight_parameters(
    weight: np.ndarray, dtype: DType, axis: int | None, *, widest_spread: float | None = None
) -> Parameters:
    """Parameters of a constant weight: symmetric per channel or for a signed type, else the whole range per tensor.

    The scales of one weight are kept within ``widest_spread`` (WIDEST_SPREAD) of one another. Scales of the least squared error
    instead of the whole range measured no better on the example models, neither with 8 bits nor with 4.
    """
    if axis is not None or dtype.is_signed:
        others = None if axis is None else tuple(i for i in range(weight.ndim) if i != axis)
        # Not the maximum of the magnitudes, which would be as large as the weight.
        magnitude = np.maximum(weight.max(axis=others, initial=0.0), -weight.min(axis=others, initial=0.0))
        spread = WIDEST_SPREAD if widest_spread is None else widest_spread
        return symmetric(np.maximum(magnitude, np.max(magnitude) / spread), dtype, axis)
    return asymmetric(float(weight.min(initial=0.0)), float(weight.max(initial=0.0)), dtype)


def bias_parameters(activation_scale: float, weight_scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(scale, zero point) of an int32 bias: the accumulator's own scale, as every EP's integer kernels expect."""
    scale = (np.float64(activation_scale) * weight_scale.astype(np.float64)).astype(np.float32)
    return scale, np.zeros(scale.shape, np.int32)


def scale_for_bias(bias: np.ndarray, activation_scale: float, weight_scale: np.ndarray) -> np.ndarray:
    """The weight scale, raised where the bias would not fit int32 at activation_scale * weight_scale.

    A channel whose weights are nearly zero has a tiny scale; its bias would overflow the accumulator.
    """
    least = np.abs(bias.astype(np.float64)) / (activation_scale * (2.0**31 - 2**8))
    if weight_scale.ndim == 0:
        least = least.max(initial=0.0)
    return np.maximum(weight_scale.astype(np.float64), least).astype(np.float32)
