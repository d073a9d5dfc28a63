"""Models on their way to a run: read, fed in their own types, written out as the CPU EP must compute them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from planner.calibrate.inputs import Sample
from planner.errors import RequestError
from planner.files import temporary_folder
from planner.model.load import load as load  # what runs is read as strictly as what is planned
from planner.model.read import Model
from planner.model.write import save
from planner.resolve.quantized import quantized_form
from planner.verification.emulation import emulate_float16, uses_float16

_log = logging.getLogger("planner")
# Onnxruntime would fuse Q/DQ into kernels with arithmetic of their own (a w8a16 MatMul into MatMulNBits, 90 times as
# far from the HTP as the plain computation): on the CPU EP, as a yardstick, the file is computed as it is written.
# Its threads do not wait by spinning: whoever compares what they computed needs the cores.
AS_WRITTEN = {"session.disable_quant_qdq": "1", "session.intra_op.allow_spinning": "0"}


def input_dtypes(model: ir.Model) -> dict[str, np.dtype[Any]]:
    """The numpy dtype of each graph input that must be fed: one that has an initializer need not be (IR version 3)."""
    return {
        v.name or "": np.dtype(v.dtype.numpy())
        for v in model.graph.inputs
        if v.dtype is not None and not v.is_initializer()
    }


def warn_of_quantized(reference: Model) -> None:
    """Say so where the reference is no float32 model: it may have changed places with the candidate."""
    if (found := quantized_form(reference)) is not None:
        _log.warning(
            "the reference %s is quantized itself (%s): the result says nothing of what quantizing costs\n"
            "  give the float32 model with --reference",
            reference.path,
            found[0],
        )


def shapes_of_candidate(
    candidate: Path, reference: Path, asked: Mapping[str, Sequence[int]] | None
) -> dict[str, Sequence[int]]:
    """The shapes to run a reference at: those that were asked for, and where it leaves an input open, the candidate's own."""
    asked = dict(asked or {})
    if "" in asked:
        return asked
    opened = {v.name for v in load(reference).graph.inputs if v.shape is None or not v.shape.is_static()}
    fixed = {
        v.name or "": tuple(int(d) for d in v.shape.numpy())
        for v in load(candidate).graph.inputs
        if v.name in opened and v.shape is not None and v.shape.is_static()
    }
    return {**fixed, **asked}


def cast_feed(sample: Sample, dtypes: Mapping[str, np.dtype[Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """A sample as the candidate takes it: its inputs, in its types (float32 to float16 where it has float16 inputs)."""
    missing = sorted(set(dtypes) - set(sample))
    if missing:
        raise RequestError(f"no sample for the candidate's input {missing[0]!r}", f"samples have {', '.join(sample)}")
    return {name: np.asarray(sample[name]).astype(dtype, copy=False) for name, dtype in dtypes.items()}


@contextlib.contextmanager
def as_written(path: Path, model: ir.Model) -> Iterator[Path]:
    """The file that the CPU EP computes as the candidate says: itself, or its float16 emulation in a temporary file."""
    if not uses_float16(model):
        yield path
        return
    with temporary_folder() as folder:
        emulated = Path(folder) / "emulated.onnx"
        save(emulate_float16(model), emulated)
        yield emulated


def sample_at(place: int, samples: Sequence[Sample], more: Sequence[Sample]) -> Sample:
    """The sample at a place, the further ones counted behind the others."""
    return samples[place] if place < len(samples) else more[place - len(samples)]


def check_fits(model: ir.Model, sample: Sample) -> None:
    """Compare a sample, which the reference takes, with the inputs of a candidate.

    Raises:
        RequestError: it has an input of another shape.
    """
    for value in model.graph.inputs:
        array = sample.get(value.name or "")
        if array is None or not value.shape:
            continue  # onnxruntime does not look at the shape of a scalar
        dims = [dim if isinstance(dim, int) else None for dim in value.shape]
        if len(dims) != array.ndim or any(d not in (None, n) for d, n in zip(dims, array.shape, strict=True)):
            raise RequestError(
                f"input {value.name!r} is {value.shape} in the candidate, and {list(array.shape)} in the samples of the reference",
                "give the model that the candidate was made of (--reference), or samples of this shape",
            )
