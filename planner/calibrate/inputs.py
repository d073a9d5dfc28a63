"""Calibration and evaluation inputs: from .npz files, a folder of them, a Python function, or, failing all, synthetic.

A sample is one feed of the model: a mapping from input name to an array of the model's own dtype and shape.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from planner.errors import RequestError
from planner.model.read import Model

Sample = Mapping[str, np.ndarray]
SYNTHETIC_SAMPLES = 8
# Samples held apart for judging: a quarter, at most this many (a simulated run takes seconds a sample).
_MOST_HELD_APART = 8


@dataclass(frozen=True)
class InputSpec:
    """One model input: numpy dtype and shape (None where a dimension is not fixed)."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Inputs:
    """Samples with their provenance.

    Attributes:
        calibration: samples that quantization parameters are taken from.
        evaluation: samples held apart, that the result is judged on.
        source: what the user gave, or "synthetic".
        held_apart: false where a single sample had to serve both purposes.
        sha256: of every sample's names, dtypes, shapes and bytes, in order.
    """

    calibration: tuple[Sample, ...]
    evaluation: tuple[Sample, ...]
    source: str
    synthetic: bool
    held_apart: bool
    sha256: str
    seed: int | None = field(default=None)

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "synthetic": self.synthetic,
            "seed": self.seed,
            "sha256": self.sha256,
            "calibration_samples": len(self.calibration),
            "evaluation_samples": len(self.evaluation),
            "held_apart": self.held_apart,
        }


def input_specs(model: Model) -> tuple[InputSpec, ...]:
    """The inputs that a run of the model must be fed."""
    assert model.ir is not None
    specs = []
    for value in model.ir.graph.inputs:
        if value.dtype is None or value.shape is None:
            raise RequestError(f"{model.path}: input {value.name!r} is no tensor of known type and rank")
        try:
            dtype = value.dtype.numpy()
        except TypeError:
            raise RequestError(
                f"{model.path}: input {value.name!r} has type {value.dtype.name}, which cannot be fed"
            ) from None
        shape = tuple(d if isinstance(d, int) else None for d in value.shape)
        specs.append(InputSpec(value.name or "", np.dtype(dtype), shape))
    return tuple(specs)


def load_inputs(source: str | None, model: Model, *, seed: int = 0) -> Inputs:
    """Load samples and split them into calibration and evaluation.

    Every fourth sample is held apart for evaluation, at most eight; a single sample serves both, and says so.

    Args:
        source: an .npz file (one array per model input, leading axis = samples), a directory of such files, or
            "package.module:function" yielding dicts of one sample each; None for seeded synthetic data.
        seed: of the synthetic data.

    Raises:
        RequestError: nothing found, names, dtypes or shapes that do not fit the model (named), NaN in an input.
    """
    specs = input_specs(model)
    if source is None:
        calibration = synthetic(specs, SYNTHETIC_SAMPLES, seed)
        evaluation = synthetic(specs, max(2, SYNTHETIC_SAMPLES // 4), seed + 1)
        digest = _hash((*calibration, *evaluation))
        return Inputs(calibration, evaluation, "synthetic", True, True, digest, seed)
    samples = tuple(_check(s, specs, f"{source}: sample {i}") for i, s in enumerate(_read(source, specs)))
    if not samples:
        raise RequestError(f"{source}: no samples", "give at least two: some are held apart to judge the result")
    if len(samples) == 1:
        return Inputs(samples, samples, source, False, False, _hash(samples))
    apart = set(range(3, len(samples), 4)) or {len(samples) - 1}
    apart = set(sorted(apart)[:_MOST_HELD_APART])
    return Inputs(
        tuple(s for i, s in enumerate(samples) if i not in apart),
        tuple(s for i, s in enumerate(samples) if i in apart),
        source,
        False,
        True,
        _hash(samples),
    )


def synthetic(specs: Sequence[InputSpec], count: int, seed: int) -> tuple[Sample, ...]:
    """Seeded stand-ins: standard normal floats, integers 0 to 9, random booleans. They prove nothing about accuracy."""
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        sample: dict[str, np.ndarray] = {}
        for spec in specs:
            shape = tuple(d or 1 for d in spec.shape)
            if spec.dtype.kind == "f":
                sample[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
            elif spec.dtype.kind in "iu":
                sample[spec.name] = rng.integers(0, 10, shape).astype(spec.dtype)
            elif spec.dtype.kind == "b":
                sample[spec.name] = rng.random(shape) < 0.5
            else:
                raise RequestError(
                    f"no synthetic data can stand in for input {spec.name!r} of type {spec.dtype}", "give real --inputs"
                )
        samples.append(sample)
    return tuple(samples)


def _read(source: str, specs: Sequence[InputSpec]) -> Iterable[Mapping[str, Any]]:
    path = Path(source)
    if path.is_dir():
        files = sorted(path.glob("*.npz"))
        if not files:
            raise RequestError(f"{source}: the directory holds no .npz file")
        return [s for file in files for s in _read_npz(file, specs)]
    if path.is_file():
        return _read_npz(path, specs)
    if ":" in source and not path.suffix == ".npz":
        return _call(source)
    raise RequestError(
        f"{source}: no such file", "--inputs takes an .npz file, a directory of them, or package.module:function"
    )


def _read_npz(path: Path, specs: Sequence[InputSpec]) -> list[dict[str, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise ValueError("not an archive")
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise RequestError(f"{path}: not a readable .npz file: {str(error).splitlines()[0]}") from None
    missing = [s.name for s in specs if s.name not in arrays]
    extra = sorted(set(arrays) - {s.name for s in specs})
    if missing:
        known = f"it has {', '.join(sorted(arrays)) or 'nothing'}"
        raise RequestError(f"{path}: no array for model input {missing[0]!r}", known)
    if extra:
        raise RequestError(
            f"{path}: array {extra[0]!r} is no input of the model", f"inputs: {', '.join(s.name for s in specs)}"
        )
    split = {s.name: _split(arrays[s.name], s, path) for s in specs}
    counts = {name: len(parts) for name, parts in split.items()}
    if len(set(counts.values())) > 1:
        raise RequestError(f"{path}: the arrays hold different numbers of samples: {counts}")
    return [{name: parts[i] for name, parts in split.items()} for i in range(next(iter(counts.values()), 0))]


def _split(array: np.ndarray, spec: InputSpec, path: Path) -> list[np.ndarray]:
    """Cut along the leading axis: whole batches where the model's own leading axis is the batch, else one by one."""
    rank = len(spec.shape)
    if array.ndim == rank + 1:
        return list(array)
    if array.ndim == rank and rank > 0:
        batch = spec.shape[0] or 1
        if len(array) % batch:
            raise RequestError(
                f"{path}: {spec.name!r} holds {len(array)} samples, which is no multiple of the model's batch of {batch}"
            )
        return [array[i : i + batch] for i in range(0, len(array), batch)]
    raise RequestError(
        f"{path}: {spec.name!r} has {array.ndim} dimensions; the model's input has {rank}: "
        f"give shape (samples, {', '.join('?' if d is None else str(d) for d in spec.shape[1:])})"
    )


def _call(source: str) -> list[Mapping[str, Any]]:
    module_name, _, function_name = source.partition(":")
    # The user's own module lies where the command is run, as with pytest and python -m.
    sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module_name), function_name)
        samples = list(function())
    except Exception as error:
        raise RequestError(f"--inputs {source}: {type(error).__name__}: {error}") from None
    finally:
        sys.path.pop(0)
    for i, sample in enumerate(samples):
        if not isinstance(sample, Mapping):
            raise RequestError(f"--inputs {source}: item {i} is a {type(sample).__name__}, expected a dict of arrays")
    return samples


def _check(sample: Mapping[str, Any], specs: Sequence[InputSpec], where: str) -> Sample:
    checked: dict[str, np.ndarray] = {}
    for spec in specs:
        if spec.name not in sample:
            raise RequestError(f"{where}: no array for model input {spec.name!r}", f"it has {', '.join(sample)}")
        array = np.asarray(sample[spec.name])
        if array.dtype != spec.dtype:
            if not (array.dtype.kind in "fiub" and np.can_cast(array.dtype, spec.dtype, casting="same_kind")):
                raise RequestError(f"{where}: {spec.name!r} has dtype {array.dtype}, the model takes {spec.dtype}")
            array = array.astype(spec.dtype)
        fits = len(array.shape) == len(spec.shape) and all(
            want is None or have == want for have, want in zip(array.shape, spec.shape, strict=True)
        )
        if not fits:
            wanted = tuple("?" if d is None else d for d in spec.shape)
            raise RequestError(
                f"{where}: {spec.name!r} has shape {array.shape}, the model takes {wanted}",
                "fix the model's shape with --shape, or the inputs",
            )
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise RequestError(f"{where}: {spec.name!r} holds NaN")
        checked[spec.name] = np.ascontiguousarray(array)
    return checked


def _hash(samples: Sequence[Sample]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        for name in sorted(sample):
            array = sample[name]
            digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


__all__ = ["InputSpec", "Inputs", "Sample", "input_specs", "load_inputs", "synthetic"]
