"""Weights in blocks: quantized, and laid out as DequantizeLinear, MatMulNBits and GatherBlockQuantized want them. Pure numpy.

A block is a run of numbers along the dimension summed over that shares a scale and a zero point. The layouts are those of
the operators' own definitions: ONNX DequantizeLinear (opset 21, block_size); onnxruntime's contrib operators MatMulNBits
and GatherBlockQuantized (the text of their schemas, onnxruntime 1.32: codes packed low-order bits first).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.dtypes import DType
from planner.quantization.parameters import numpy_codes

# Parts of the full range that a block of 4 bits may be cut to, the least squared error wins: 0.3 dB on the weights of a
# sentence encoder, of a text recognizer and of magika. With 8 bits nothing is won.
_CUTS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
# So many numbers are worked on at once: temporary arrays are several times as large as they.
_AT_ONCE = 1 << 21


@dataclass(frozen=True)
class Blocks:
    """A matrix in blocks, a row for each output channel (or row of a table).

    Attributes:
        codes: int16[rows, blocks, block_size], in the dtype's range; those behind the row's last number stand for zero.
        scale: float[rows, blocks]. zero_point: int16[rows, blocks].
        numbers: of a row.
    """

    dtype: DType
    codes: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    numbers: int

    @property
    def block_size(self) -> int:
        return int(self.codes.shape[2])


def quantize_blocks(rows: np.ndarray, dtype: DType, block_size: int, kind: type[np.floating] = np.float32) -> Blocks:
    """Quantize each row of a float matrix in blocks: a signed type around zero, an unsigned one over the block's own range.

    Args:
        rows: float[rows, numbers], finite.
        dtype: of the codes.
        block_size: numbers that share a scale.
        kind: type of the scales.
    """
    count, numbers = rows.shape
    blocks = -(-numbers // block_size)
    codes = np.empty((count, blocks, block_size), np.int16)
    scale = np.empty((count, blocks), kind)
    zero = np.empty((count, blocks), np.int16)
    step = max(1, _AT_ONCE // max(1, blocks * block_size))
    for start in range(0, count, step):
        part = slice(start, start + step)
        padded = np.zeros((len(rows[part]), blocks * block_size), np.float32)
        padded[:, :numbers] = rows[part]
        codes[part], scale[part], zero[part] = _quantize(padded.reshape(-1, blocks, block_size), dtype, kind)
    return Blocks(dtype, codes, scale, zero, numbers)


def _quantize(values: np.ndarray, dtype: DType, kind: type[np.floating]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    smallest, largest = dtype.integer_range
    best: list[np.ndarray] | None = None
    for cut in _CUTS if dtype.bits == 4 else (1.0,):
        if dtype.is_signed:
            # The number of the largest magnitude gets the code that lies farthest from zero, whatever its sign.
            index = np.abs(values).argmax(axis=2)[..., None]
            extreme = np.take_along_axis(values, index, axis=2)[..., 0]
            step = extreme * np.float32(cut / smallest)
            zero = np.zeros(step.shape, np.float32)
        else:
            low = np.minimum(values.min(axis=2), 0) * np.float32(cut)
            high = np.maximum(values.max(axis=2), 0) * np.float32(cut)
            step = (high - low) / np.float32(largest)
            zero = low
        # Rounded to its own type first: the codes belong to the scale that is stored.
        with np.errstate(over="ignore", under="ignore"):
            scale = step.astype(kind)
        used = scale.astype(np.float32)
        scale, used = np.where(used == 0, kind(1), scale), np.where(used == 0, np.float32(1), used)
        point = np.clip(np.rint(-zero / used), smallest, largest)
        codes = np.clip(np.rint(values / used[..., None]) + point[..., None], smallest, largest)
        error = np.square((codes - point[..., None]) * used[..., None] - values).sum(axis=2)
        if best is None:
            best = [codes, scale, point, error]
            continue
        better = error < best[3]
        best = [
            np.where(better[..., None] if new.ndim == 3 else better, new, old)
            for new, old in zip((codes, scale, point, error), best, strict=True)
        ]
    assert best is not None
    return best[0].astype(np.int16), best[1], best[2].astype(np.int16)


def unsigned(blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
    """(codes, zero points) as uint8, a signed type moved up by half its range: what the contrib operators store."""
    middle = -blocks.dtype.integer_range[0]
    return (blocks.codes + middle).astype(np.uint8), (blocks.zero_point + middle).astype(np.uint8)


def packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """uint8 codes along the last axis, two to a byte where they have 4 bits, the first in the lower half; an odd last one
    stands alone in its byte.
    """
    if bits == 8:
        return codes
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], 1), np.uint8)], axis=-1)
    joined: np.ndarray = codes[..., 0::2] | (codes[..., 1::2] << 4)
    return joined


def for_matmul_nbits(blocks: Blocks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(B uint8[rows, blocks, block_size x bits / 8], scales [rows, blocks], zero points uint8[rows, ceil(blocks x bits / 8)]).

    Zero points are always given: DirectML subtracts none where they are missing, though the definition says 2^(bits-1).
    """
    codes, zero = unsigned(blocks)
    return packed(codes, blocks.dtype.bits), blocks.scale, packed(zero, blocks.dtype.bits)


def for_gather(blocks: Blocks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(data uint8[rows, numbers x bits / 8], scales [rows, blocks], zero points uint8[rows, ceil(blocks x bits / 8)])."""
    codes, zero = unsigned(blocks)
    flat = codes.reshape(len(codes), -1)[:, : blocks.numbers]
    return packed(flat, blocks.dtype.bits), blocks.scale, packed(zero, blocks.dtype.bits)


def for_dequantize_linear(blocks: Blocks, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(codes, scales, zero points) of a two-dimensional constant whose blocks run along ``axis``, in the blocks' own type."""
    flat = blocks.codes.reshape(len(blocks.codes), -1)[:, : blocks.numbers]
    arrays = (numpy_codes(flat, blocks.dtype), blocks.scale, numpy_codes(blocks.zero_point, blocks.dtype))
    return arrays if axis == 1 else (arrays[0].T, arrays[1].T, arrays[2].T)
