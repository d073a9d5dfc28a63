"""Open dimensions: each is taken from what was asked for, from samples, or, where it counts samples, is 1."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

By = Literal["inputs", "option", "default"]
Dims = tuple[int | None, ...]
# Of the inputs with open dimensions: the dimensions that their samples have, None where samples differ.
Seen = Callable[[Mapping[str, Dims]], Mapping[str, Dims]]

# A dimension that counts samples, by the names that exporters give it.
_BATCH = re.compile(r"n|b|bs|(.*_)?batch(_?size|_?dim|_?\d+)?|(num_?|n_)?samples?", re.IGNORECASE)
# A name that says nothing: from a counter of the exporter.
_ANONYMOUS = re.compile(r"|\?|none|-1|(unk_*|dim_?|dynamic_axes_|s|d|n)\d+", re.IGNORECASE)


@dataclass(frozen=True)
class BoundShape:
    """What became of an input's open dimensions.

    Attributes:
        dims: the dimensions; None where one is still open.
        by: what said so: the samples, --shape, or, for a dimension that counts samples, the default of 1.
    """

    dims: Dims
    by: By

    @property
    def known(self) -> tuple[int, ...] | None:
        """The dimensions; None where one is still open."""
        dims = tuple(d for d in self.dims if d is not None)
        return dims if len(dims) == len(self.dims) else None


def bind_open(model: ir.Model, asked: Mapping[str, Sequence[int]], seen: Seen | None) -> dict[str, BoundShape]:
    """What each input with open dimensions is bound to, as far as anything says so. Inputs of no open dimension are left out.

    A name that two inputs share stands for one number: binding one binds the other.

    Args:
        model: as it was read; nothing is changed.
        asked: by --shape.
        seen: asked for the samples' dimensions; None: only what was asked for is bound.
    """
    values = {
        v.name or "": v for v in model.graph.inputs if v.shape is not None and isinstance(v.type, ir.TensorType | None)
    }
    opened = {name: v for name, v in values.items() if not all(isinstance(d, int) for d in _dims(v))}
    found = {name: BoundShape(tuple(dims), "option") for name, dims in asked.items()}
    if seen is None:
        return found
    numbers: dict[str, tuple[int, By]] = {}
    for name, shape in found.items():
        if name in values:
            _learn(numbers, _dims(values[name]), shape)
    left = {name: _numbers(_dims(v)) for name, v in opened.items() if name not in asked}
    samples = seen(left) if left else {}
    for name, dims in samples.items():
        if len(dims) == len(left[name]):
            _learn(numbers, _dims(opened[name]), BoundShape(dims, "inputs"))
    for name in left:
        made = _bound(_dims(opened[name]), samples.get(name), numbers)
        if made is not None:
            found[name] = made
            _learn(numbers, _dims(opened[name]), made)
    return found


def with_names(model: ir.Model, bound: Mapping[str, BoundShape]) -> dict[str, list[int | str | None]]:
    """The dimensions to write into the model: what is still open keeps its name."""
    values = {v.name or "": v for v in model.graph.inputs}
    return {
        name: [
            dim if dim is not None else str(values[name].shape[axis].value)  # type: ignore[index,union-attr]
            for axis, dim in enumerate(shape.dims)
        ]
        for name, shape in bound.items()
    }


def tell(bound: Mapping[str, BoundShape]) -> list[str]:
    """What was bound without being asked for, in words, a line an input."""
    why = {"inputs": "as in --inputs", "default": "a dimension that counts samples is 1"}
    return [
        f"shape of input {name!r}: {','.join('?' if d is None else str(d) for d in shape.dims)} ({why[shape.by]}; "
        "--shape overrides it)"
        for name, shape in bound.items()
        if shape.by in why
    ]


def _bound(dims: Sequence[int | str], sample: Dims | None, numbers: Mapping[str, tuple[int, By]]) -> BoundShape | None:
    result: list[int | None] = []
    sources: list[By] = []
    for axis, dim in enumerate(dims):
        if isinstance(dim, int):
            result.append(dim)
            continue
        value: int | None = None
        by: By = "default"
        if sample is not None and len(sample) == len(dims) and sample[axis] is not None:
            value, by = sample[axis], "inputs"
        elif dim in numbers:
            value, by = numbers[dim]
        elif _counts_samples(dim, axis, len(dims)):
            value = 1
        result.append(value)
        if value is not None:
            sources.append(by)
    if not sources:
        return None
    order: tuple[By, ...] = ("inputs", "option", "default")
    return BoundShape(tuple(result), min(sources, key=order.index))


def _counts_samples(dim: str, axis: int, rank: int) -> bool:
    """Whether a dimension is the batch, by its name, or by its place where it has no name that says anything."""
    if _ANONYMOUS.fullmatch(dim):
        return axis == 0 and rank > 1
    return _BATCH.fullmatch(dim) is not None


def _dims(value: ir.Value) -> list[int | str]:
    """The dimensions; the name of one that is open, empty where it has none (some exporters write -1)."""
    assert value.shape is not None
    return [(d if d >= 0 else "") if isinstance(d, int) else d.value or "" for d in value.shape]


def _numbers(dims: Sequence[int | str]) -> Dims:
    return tuple(d if isinstance(d, int) else None for d in dims)


def _learn(numbers: dict[str, tuple[int, By]], dims: Sequence[int | str], shape: BoundShape) -> None:
    """Remember what each name stands for."""
    for dim, value in zip(dims, shape.dims, strict=False):
        if isinstance(dim, str) and dim and value is not None:
            numbers.setdefault(dim, (value, shape.by))
