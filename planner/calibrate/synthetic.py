"""Samples that planner makes up where the user gives none: seeded, and such that the float32 model itself can take them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from planner.calibrate.uses import Use, find_uses
from planner.errors import EPError, RequestError
from planner.files import temporary_folder
from planner.model.read import Model
from planner.model.write import save
from planner.runtime.client import RunFailed, Worker, WorkerCrashed
from planner.runtime.registry import CPU

Array = np.ndarray[Any, Any]
_Fill = Callable[[np.random.Generator, tuple[int, ...]], Array]

# What is tried, in this order, for numbers of which nothing is known.
_INTEGERS: tuple[_Fill, ...] = (
    lambda rng, shape: rng.integers(0, 10, shape),
    lambda _, shape: np.ones(shape),
    lambda _, shape: np.zeros(shape),
    lambda _, shape: np.arange(int(np.prod(shape))).reshape(shape),
    lambda _, shape: np.full(shape, -1),
)
_FLOATS: tuple[_Fill, ...] = (
    lambda rng, shape: rng.standard_normal(shape),
    lambda rng, shape: rng.uniform(0.05, 1, shape),
)
# Operators that have no result for some numbers: the values are tried before they are used.
_PARTIAL = frozenset(("Log", "Sqrt", "Pow", "Acos", "Asin", "Acosh", "Atanh"))
# Of a mask, so much is 1.
_SHOWN = 0.85
_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Way:
    """How values are made of which the model does not tell enough.

    Attributes:
        integers, floats: which of the ways to make them.
        hides: whether 1 in a mask says that an element is left out, as PyTorch's key_padding_mask has it.
    """

    integers: int = 0
    floats: int = 0
    hides: bool = False


@dataclass(frozen=True)
class Made:
    """One input to make up: its name, dtype and shape, and what the model does with it."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    use: Use


def make_samples(made: Sequence[Made], count: int, seed: int, way: Way = Way()) -> tuple[dict[str, Array], ...]:
    """Seeded samples. They prove nothing about accuracy.

    Args:
        made: the inputs.
        count: of samples.
        seed: of the random generator.
        way: to make them.

    Raises:
        RequestError: an input of a type for which nothing can stand in.
    """
    rng = np.random.default_rng(seed)
    return tuple({one.name: _values(one, rng, way).astype(one.dtype) for one in made} for _ in range(count))


def _values(one: Made, rng: np.random.Generator, way: Way) -> Array:
    use, kind = one.use, one.dtype.kind
    if kind not in "fiub":
        raise RequestError(
            f"no synthetic data can stand in for input {one.name!r} of type {one.dtype}", "give real --inputs"
        )
    # numpy has no array of a huge dimension beside one of 0 either.
    size = math.prod(max(d, 1) for d in one.shape) * one.dtype.itemsize
    if size > _MOST_BYTES:
        raise RequestError(
            f"no synthetic data is made up for input {one.name!r} of shape {one.shape}: it takes {size >> 20:,} MiB a sample",
            "give real --inputs, or a smaller --shape",
        )
    if use.value is not None:
        return use.value
    if use.mask or kind == "b":
        mask = _mask(rng, one.shape, _SHOWN if use.mask else 0.5)
        return ~mask if way.hides and use.mask else mask
    if use.ascends and kind in "iu":
        return np.arange(one.shape[-1] if one.shape else 1) % (use.limit or 1 << 30) + np.zeros(one.shape, int)
    if use.limit is not None and kind in "iu":
        return rng.integers(0, use.limit, one.shape)
    return (_FLOATS[way.floats] if kind == "f" else _INTEGERS[way.integers])(rng, one.shape)


def _mask(rng: np.random.Generator, shape: tuple[int, ...], shown: float) -> Array:
    """Zeros and ones; the first of each row is 1, so that no row is masked whole."""
    mask = rng.random(shape) < shown
    if shape and shown > 0.5:
        mask[..., 0] = True
    return mask


def made_up(model: Model, inputs: Sequence[tuple[str, np.dtype[Any], tuple[int, ...]]]) -> tuple[tuple[Made, ...], Way]:
    """The inputs with their uses, and the first way to make them on which the float32 model computes finite numbers.

    The model is run only where it may not take what is made up: for integers, and where it computes with partial functions.

    Args:
        model: float32, in the form in which it is calibrated.
        inputs: name, dtype and shape of each.

    Raises:
        RequestError: it runs on none of them. The values are planner's own, and real ones are needed.
    """
    assert model.ir is not None
    uses = find_uses(model.ir)
    made = tuple(Made(name, dtype, shape, uses.get(name, Use())) for name, dtype, shape in inputs)
    partial = any(node.op_type in _PARTIAL for node in model.ir.graph.all_nodes())
    if not partial and not any(one.dtype.kind in "iub" or one.use.mask for one in made):
        return made, Way()
    open_integers = any(one.dtype.kind in "iu" and not one.use.known for one in made)
    ways = [
        Way(i, f, hides)
        for hides, f, i in itertools.product(
            [False, True] if any(one.use.mask for one in made) else [False],
            range(len(_FLOATS)) if any(one.dtype.kind == "f" for one in made) else [0],
            range(len(_INTEGERS)) if open_integers else [0],
        )
    ]
    with temporary_folder() as folder:
        path = Path(folder) / "float32.onnx"
        save(model.ir, path)
        return made, _first_that_runs(path, made, ways)


def _first_that_runs(path: Path, made: Sequence[Made], ways: Sequence[Way]) -> Way:
    """The first way on which a model computes finite numbers, else the first on which it runs."""
    running: list[Way] = []
    failure = ""
    with Worker(CPU) as worker:
        for way in ways:
            try:
                # After a crash the next session starts a new process.
                worker.open(path, {})
            except EPError:
                return way  # no session for the float32 model: whoever runs it next says why
            (sample,) = make_samples(made, 1, 0, way)
            try:
                ran = [worker.run(feed).outputs for feed in (sample, *_all_shown(sample, made, way))]
            except (RunFailed, WorkerCrashed) as error:
                failure = failure or str(error)
                continue
            running.append(way)
            if all(map(_finite, ran)):
                return way
    if not running:
        raise RequestError(
            f"the float32 model does not run on the inputs that planner made up for it: {failure}",
            "give real ones with --inputs",
        )
    return running[0]


def _all_shown(sample: Mapping[str, Array], made: Sequence[Made], way: Way) -> list[dict[str, Array]]:
    """The sample with masks that leave nothing out, where it has masks: they leave all out where they are read the other way."""
    masks = {one.name for one in made if one.use.mask and one.use.value is None}
    full = {
        name: np.full_like(array, 0 if way.hides else 1) if name in masks else array for name, array in sample.items()
    }
    return [full] if masks else []


def _finite(outputs: Mapping[str, Array]) -> bool:
    return all(np.isfinite(a).all() for a in outputs.values() if a.dtype.kind == "f")
