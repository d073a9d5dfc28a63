"""Laying inner tensors of a model open, as further outputs, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import onnx_ir as ir

T = TypeVar("T")


def exposed(model: ir.Model, names: Iterable[str]) -> ir.Model:
    """A copy of the model that gives these values of its main graph out as well; what it already gives out, or takes in, stays as it is.

    Args:
        model: left untouched.
        names: of results of its nodes, or of its inputs. One of unknown type is taken for float32.
    """
    copy = model.clone()
    known = {value.name for value in (*copy.graph.outputs, *copy.graph.inputs)}
    values = {out.name: out for node in copy.graph for out in node.outputs}
    for name in dict.fromkeys(names):
        if name not in known:
            value = values[name]
            if value.type is None:
                value.type = ir.TensorType(ir.DataType.FLOAT)
            copy.graph.outputs.append(value)
    return copy


def in_batches(items: Iterable[T], size: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """The items in their order, as many together as their sizes come to at most ``most``; one alone may be larger."""
    batch: list[T] = []
    total = 0
    for item in items:
        own = size(item)
        if batch and total + own > most:
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += own
    if batch:
        yield batch
