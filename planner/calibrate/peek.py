"""The shapes of samples, before a model is read for good: they say what its open dimensions are."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from planner.calibrate.inputs import UNREADABLE, call, read_header
from planner.errors import RequestError
from planner.files import exists, open_plain
from planner.model.binding import Dims


def sample_shapes(source: str | None, inputs: Mapping[str, Dims]) -> dict[str, Dims]:
    """The dimensions that every sample has, by input.

    What cannot be read is passed over: loading the samples says what is wrong with them.

    Args:
        source: as for --inputs; None for none.
        inputs: the model's inputs that leave dimensions open, with those that are known.

    Returns:
        One sample's dimensions, None where samples differ.
    """
    found: dict[str, Dims] = {}
    for name, shape in () if source is None else _shapes(source, inputs):
        known = found.get(name, shape)
        found[name] = tuple(a if a == b else None for a, b in zip(known, shape, strict=True))
    return found


def _shapes(source: str, inputs: Mapping[str, Dims]) -> Iterator[tuple[str, Dims]]:
    path = Path(source)
    if exists(path):
        for file in sorted(path.glob("*.npz")) if path.is_dir() else [path]:
            yield from _in_file(file, inputs)
    elif ":" in source and path.suffix != ".npz":
        for sample in call(source):
            for name, dims in inputs.items():
                shape = _shape(sample.get(name))
                if shape is not None and len(shape) == len(dims):
                    yield name, shape


def _shape(value: Any) -> Dims | None:
    """The dimensions of what a function yields; None where it is no array."""
    try:
        return None if value is None else tuple(np.shape(value))
    except Exception:
        return None


def _in_file(file: Path, inputs: Mapping[str, Dims]) -> Iterator[tuple[str, Dims]]:
    """By the headers of an .npz file's arrays, whose leading axis counts samples."""
    try:
        with open_plain(file) as opened, zipfile.ZipFile(opened) as archive:
            for name, dims in inputs.items():
                if f"{name}.npy" not in archive.namelist():
                    continue
                with archive.open(f"{name}.npy") as stream:
                    shape = read_header(stream)[0]
                if len(shape) == len(dims) + 1:
                    yield name, shape[1:]
                elif len(shape) == len(dims) and dims:
                    yield name, (dims[0] or 1, *shape[1:])
    except (RequestError, *UNREADABLE):
        return
