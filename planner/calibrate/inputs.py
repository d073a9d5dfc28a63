"""Calibration and evaluation inputs: from .npz files, a folder of them, a Python function, or, failing all, synthetic.

A sample is one feed of the model: a mapping from input name to an array of the model's own dtype and shape. Samples are
read, checked and hashed one by one, and kept on disk beyond a few megabytes: memory does not grow with their number.
"""

from __future__ import annotations

import hashlib
import lzma
import math
import struct
import tempfile
import tokenize
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, overload

import numpy as np
import onnx_ir as ir

from planner.calibrate.synthetic import made_up, make_samples
from planner.errors import RequestError, first_line
from planner.files import exists, open_plain
from planner.model.read import Model
from planner.user_code import load_function, running

Sample = Mapping[str, np.ndarray]
SYNTHETIC_SAMPLES = 8
# Samples held apart for judging: a quarter, at most this many (a simulated run takes seconds a sample).
_MOST_HELD_APART = 8
# Samples above this many bytes in all lie in a temporary file.
_IN_MEMORY = 1 << 26
_MOST_SAMPLE = 1 << 34
_TAKES = "--inputs takes an .npz file, a directory of them, or package.module:function"


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
        method: how ranges are taken from them: a `calibrate.observe.Method`.
    """

    calibration: Sequence[Sample]
    evaluation: Sequence[Sample]
    source: str
    synthetic: bool
    held_apart: bool
    sha256: str
    seed: int | None = None
    method: str = "minmax"

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "synthetic": self.synthetic,
            "seed": self.seed,
            "sha256": self.sha256,
            "calibration_samples": len(self.calibration),
            "evaluation_samples": len(self.evaluation),
            "held_apart": self.held_apart,
            "calibration": self.method,
        }


def input_specs(model: Model) -> tuple[InputSpec, ...]:
    """The inputs that a run of the model must be fed."""
    assert model.ir is not None
    specs = []
    for value in model.ir.graph.inputs:
        if value.dtype is None or value.shape is None or not isinstance(value.type, ir.TensorType):
            raise RequestError(f"{model.path}: input {value.name!r} is no tensor of known type and rank")
        try:
            dtype = np.dtype(value.dtype.numpy())
            # float8 and its like are added to numpy by another package; onnxruntime takes none of them.
            if dtype.kind not in "fiubcOSU" or dtype.type.__module__ != "numpy":
                raise TypeError
        except TypeError:
            raise RequestError(
                f"{model.path}: input {value.name!r} has type {value.dtype.name}, which cannot be fed"
            ) from None
        shape = tuple(d if isinstance(d, int) else None for d in value.shape)
        specs.append(InputSpec(value.name or "", np.dtype(dtype), shape))
    return tuple(specs)


def load_inputs(
    source: str | None, model: Model, *, seed: int = 0, method: str = "minmax", may_run: bool = True
) -> Inputs:
    """Load samples and split them into calibration and evaluation.

    Every fourth sample is held apart for evaluation, at most eight; a single sample serves both, and says so.

    Args:
        model: the model that they are for; its shapes decide what fits.
        source: an .npz file (one array per model input, leading axis = samples), a directory of such files, or
            "package.module:function" yielding dicts of one sample each; None for seeded synthetic data.
        seed: of the synthetic data.
        method: how ranges are to be taken: minmax, average, percentile, entropy, mse.
        may_run: whether the source may name a function. False for a source that a file names: files run no code.

    Raises:
        RequestError: nothing found, names, dtypes or shapes that do not fit the model (named), NaN in an input.
    """
    specs = input_specs(model)
    if source is None:
        made, way = made_up(model, [(s.name, s.dtype, tuple(1 if d is None else d for d in s.shape)) for s in specs])
        calibration = make_samples(made, SYNTHETIC_SAMPLES, seed, way)
        evaluation = make_samples(made, max(2, SYNTHETIC_SAMPLES // 4), seed + 1, way)
        digest = hashlib.sha256()
        for made_sample in (*calibration, *evaluation):
            _hash(made_sample, digest)
        return Inputs(calibration, evaluation, "synthetic", True, True, digest.hexdigest(), seed, method)
    digest = hashlib.sha256()
    store = Store()
    for i, given in enumerate(_read(source, specs, may_run)):
        sample = _check(given, specs, f"{source}: sample {i}")
        _hash(sample, digest)
        store.append(sample)
    count = len(store)
    if not count:
        raise RequestError(f"{source}: no samples", "give at least two: some are held apart to judge the result")
    if count == 1:
        return Inputs(store.part((0,)), store.part((0,)), source, False, False, digest.hexdigest(), None, method)
    apart = sorted(set(range(3, count, 4)) or {count - 1})[:_MOST_HELD_APART]
    rest = sorted(set(range(count)) - set(apart))
    return Inputs(store.part(rest), store.part(apart), source, False, True, digest.hexdigest(), None, method)


def data_beside(folder: Path, text: str) -> str:
    """The path of inputs that a file names: data, relative to the file's folder. Code comes from the command line alone.

    Args:
        folder: of the file.
        text: what the file says.

    Raises:
        RequestError: there is no such file or folder; a function, above all.
    """
    path = folder / text
    if exists(path):
        return str(path)
    if ":" in text and path.suffix != ".npz":
        raise RequestError(
            f"{text} is a function; a file may name data, but has no code run",
            f"save its samples as an .npz file, or name one model on the command line, with --inputs {text}",
        )
    raise RequestError(f"{text}: no such file or folder", "give an .npz file or a folder of such files")


class Store:
    """Samples one after another in a file that stays in memory while it is small. Texts stay in memory."""

    def __init__(self) -> None:
        # Lives as long as the store: deleted by the operating system when it is closed.
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self._file.close)  # it warns where it is left to be closed by itself
        self._index: list[dict[str, tuple[int, np.dtype[Any], tuple[int, ...]]]] = []
        self._texts: dict[tuple[int, str], np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._index)

    def append(self, sample: Sample) -> None:
        entry = {}
        self._file.seek(0, 2)
        for name, array in sample.items():
            entry[name] = (self._file.tell(), array.dtype, array.shape)
            if array.dtype.hasobject:
                self._texts[len(self._index), name] = array
            else:
                self._file.write(array.tobytes())
        self._index.append(entry)

    def read(self, position: int) -> Sample:
        sample = {}
        for name, (offset, dtype, shape) in self._index[position].items():
            if dtype.hasobject:
                sample[name] = self._texts[position, name]
                continue
            self._file.seek(offset)
            data = self._file.read(math.prod(shape) * dtype.itemsize)
            sample[name] = np.frombuffer(data, dtype).reshape(shape)
        return sample

    def part(self, positions: Sequence[int]) -> Sequence[Sample]:
        return _Part(self, tuple(positions))


class _Part(Sequence[Sample]):
    """Some samples of a store, each read when it is asked for."""

    def __init__(self, store: Store, positions: tuple[int, ...]) -> None:
        self._store = store
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return _Part(self._store, self._positions[index])
        return self._store.read(self._positions[index])


def _read(source: str, specs: Sequence[InputSpec], may_run: bool) -> Iterator[Mapping[str, Any]]:
    path = Path(source)
    found = exists(path)
    if found and path.is_dir():
        files = sorted(path.glob("*.npz"))
        if not files:
            raise RequestError(f"{source}: the directory holds no .npz file", _TAKES)
        for file in files:
            yield from _read_npz(file, specs)
    elif found:
        yield from _read_npz(path, specs)
    elif ":" in source and path.suffix != ".npz":
        if not may_run:
            raise RequestError(
                f"the inputs were made by the function {source}, which a file may name but not run",
                f"if you trust that function, say so yourself: --inputs {source}",
            )
        yield from call(source)
    else:
        raise RequestError(f"{source}: no such file", _TAKES)


# What zipfile and numpy raise on damaged, encrypted and hostile archives. RuntimeError: encrypted, or nested too deep.
UNREADABLE = (
    ValueError, OSError, zipfile.BadZipFile, EOFError, KeyError, zlib.error, lzma.LZMAError, RuntimeError, SyntaxError,
    TypeError, OverflowError, MemoryError, struct.error, tokenize.TokenError,
)  # fmt: skip


def _read_npz(path: Path, specs: Sequence[InputSpec]) -> Iterator[dict[str, np.ndarray]]:
    """The samples of one file, the arrays read in step and a sample at a time."""
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(open_plain(path))))
            members = {n.removesuffix(".npy"): _Member(archive, n, stack) for n in archive.namelist()}
        except UNREADABLE as error:
            hint = (
                "give arrays their inputs' names: numpy.savez('x.npz', NAME=array)" if path.suffix == ".npy" else _TAKES
            )
            raise RequestError(f"{path}: not a readable .npz file: {first_line(error)}", hint) from None
        missing = [s.name for s in specs if s.name not in members]
        extra = sorted(set(members) - {s.name for s in specs})
        if missing:
            known = f"it has {', '.join(sorted(members)) or 'nothing'}; numpy.savez(file, {missing[0]}=...) gives an array its name"
            raise RequestError(f"{path}: no array for model input {missing[0]!r}", known)
        if extra:
            raise RequestError(
                f"{path}: array {extra[0]!r} is no input of the model", f"inputs: {', '.join(s.name for s in specs)}"
            )
        batches = {s.name: _batch(members[s.name].shape, s, path) for s in specs}
        for spec in specs:
            _check_fits(members[spec.name].shape, spec, batches[spec.name], f"{path}: sample 0")
        counts = {s.name: members[s.name].shape[0] // (batches[s.name] or 1) for s in specs}
        if len(set(counts.values())) > 1:
            raise RequestError(f"{path}: the arrays hold different numbers of samples: {counts}")
        for _ in range(next(iter(counts.values()), 0)):
            try:
                yield {name: members[name].take(batch) for name, batch in batches.items()}
            except UNREADABLE as error:
                raise RequestError(f"{path}: not a readable .npz file: {first_line(error)}", _TAKES) from None


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and type of an array, by the head of its .npy file."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)


class _Member:
    """One array of an .npz file, read row by row (an array in Fortran order, whole)."""

    def __init__(self, archive: zipfile.ZipFile, name: str, stack: ExitStack) -> None:
        self._stream = stack.enter_context(archive.open(name))
        self.shape, fortran, self._dtype = read_header(self._stream)
        if self._dtype.hasobject:
            raise ValueError("it holds Python objects")
        if any(not 0 <= d < 1 << 62 for d in self.shape):
            raise ValueError(f"it says that its shape is {self.shape}")
        self._whole: np.ndarray | None = None
        self._next = 0
        self._fortran = fortran and len(self.shape) > 1
        self._reopen: Callable[[], Any] = lambda: archive.open(name)

    def take(self, batch: int | None) -> np.ndarray:
        """The next ``batch`` rows; for None the next row without its leading axis."""
        rows = batch or 1
        if self._fortran and self._whole is None:
            with self._reopen() as stream:
                self._whole = np.lib.format.read_array(stream)
        if self._whole is not None:
            array = self._whole[self._next : self._next + rows]
            self._next += rows
        else:
            shape = (rows, *self.shape[1:])
            wanted = math.prod(shape) * self._dtype.itemsize
            if wanted > _MOST_SAMPLE:
                raise ValueError(f"a sample of it takes {wanted >> 20:,} MiB")
            data = self._stream.read(wanted)
            if len(data) < wanted:
                raise ValueError("the file is truncated")
            array = np.frombuffer(data, self._dtype).reshape(shape)
        return array[0] if batch is None else array


def _batch(shape: tuple[int, ...], spec: InputSpec, path: Path) -> int | None:
    """How many rows of the array make a sample: the model's batch where its leading axis is one; None for one whole input."""
    rank = len(spec.shape)
    if len(shape) == rank + 1:
        return None
    if len(shape) == rank and rank > 0:
        batch = spec.shape[0] or 1
        if shape[0] % batch:
            raise RequestError(
                f"{path}: {spec.name!r} holds {shape[0]} samples, which is no multiple of the model's batch of {batch}"
            )
        return batch
    raise RequestError(
        f"{path}: {spec.name!r} has {len(shape)} dimensions; the model's input has {rank}: "
        f"give shape (samples, {', '.join('?' if d is None else str(d) for d in spec.shape[1:])})"
    )


def _check_fits(shape: tuple[int, ...], spec: InputSpec, batch: int | None, where: str) -> None:
    """Refuse rows of another shape before any of them is unpacked."""
    one = shape[1:] if batch is None else (batch, *shape[1:])
    if any(want is not None and have != want for have, want in zip(one, spec.shape, strict=True)):
        raise _misfit(one, spec, where)


def _misfit(shape: tuple[int, ...], spec: InputSpec, where: str) -> RequestError:
    wanted = tuple("?" if d is None else d for d in spec.shape)
    return RequestError(
        f"{where}: {spec.name!r} has shape {shape}, the model takes {wanted}",
        "fix the model's shape with --shape, or the inputs",
    )


def call(source: str) -> Iterator[Mapping[str, Any]]:
    """The samples of a function of the user's, "package.module:function".

    Raises:
        RequestError: there is none, it fails, or what it yields is no dict.
    """
    function = load_function(source, "--inputs")
    with running(source, "--inputs"):
        samples = enumerate(function())
    while True:
        with running(source, "--inputs"):
            i, sample = next(samples, (-1, None))
        if i < 0:
            return
        if not isinstance(sample, Mapping):
            raise RequestError(f"--inputs {source}: item {i} is a {type(sample).__name__}, expected a dict of arrays")
        yield sample


def _check(sample: Mapping[str, Any], specs: Sequence[InputSpec], where: str) -> Sample:
    checked: dict[str, np.ndarray] = {}
    for spec in specs:
        if spec.name not in sample:
            raise RequestError(
                f"{where}: no array for model input {spec.name!r}", f"it has {', '.join(map(str, sample))}"
            )
        array = _as_array(sample[spec.name], f"{where}: {spec.name!r}")
        if array.dtype != spec.dtype:
            array = _as_type(array, spec, where)
        fits = len(array.shape) == len(spec.shape) and all(
            want is None or have == want for have, want in zip(array.shape, spec.shape, strict=True)
        )
        if not fits:
            raise _misfit(array.shape, spec, where)
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise RequestError(f"{where}: {spec.name!r} holds NaN")
        checked[spec.name] = np.ascontiguousarray(array)
    return checked


def _as_array(value: object, where: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except Exception as error:
        # What a function yields may be anything: lists of different lengths, a tensor on another device.
        raise RequestError(f"{where} is no array: {first_line(error)}", "give numpy arrays") from None


def _as_type(array: np.ndarray, spec: InputSpec, where: str) -> np.ndarray:
    """The array in the type that the model takes, if that can hold what is in it."""
    if spec.dtype.hasobject and array.dtype.kind in "SU":
        return (np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array).astype(object)
    if not (array.dtype.kind in "fiub" and np.can_cast(array.dtype, spec.dtype, casting="same_kind")):
        raise RequestError(f"{where}: {spec.name!r} has dtype {array.dtype}, the model takes {spec.dtype}")
    with np.errstate(over="ignore"):
        cast = array.astype(spec.dtype)
    kept = np.isfinite(cast) | ~np.isfinite(array) if cast.dtype.kind == "f" else cast == array
    if not kept.all():
        raise RequestError(
            f"{where}: {spec.name!r} holds {array[~kept].flat[0]}, which {spec.dtype} cannot hold",
            f"give the array as {spec.dtype}, scaled as the model expects it",
        )
    return cast


def _hash(sample: Sample, digest: Any) -> None:
    for name in sorted(sample):
        array = sample[name]
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())


__all__ = ["InputSpec", "Inputs", "Sample", "Store", "data_beside", "input_specs", "load_inputs"]
