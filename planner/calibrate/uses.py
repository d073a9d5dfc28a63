"""What a model does with each of its inputs: what made-up values must be like, so that it can take them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from planner.model.values import constant_array
from planner.operators import Keeps, operator

# A factor that turns a mask into an addend: what it multiplies is 0 or 1.
_MASKING = 1e3


@dataclass
class Use:
    """What is known of an input.

    Attributes:
        limit: it looks something up in a table of so many entries; None: in none.
        mask: it is 0 or 1.
        ascends: it counts positions.
        value: the only value that is sure to fit: an axis, a size.
    """

    limit: int | None = None
    mask: bool = False
    ascends: bool = False
    value: np.ndarray | None = field(default=None)

    @property
    def known(self) -> bool:
        """Whether anything is."""
        return self.limit is not None or self.mask or self.ascends or self.value is not None


def find_uses(model: ir.Model) -> dict[str, Use]:
    """The use of each graph input, by the nodes that read it and by its name."""
    found = {}
    for value in model.graph.inputs:
        name = (value.name or "").lower()
        use = Use(mask="mask" in name, ascends="position" in name)
        readers = list(_readers(value))
        for node, index in readers:
            _read(use, value, node, index)
        if not readers and _is_one_float(value):
            # Its reader was folded away; an EP that keeps it may still look at the number: the share that Dropout drops.
            use.value = np.full(tuple(value.shape.numpy()) if value.shape is not None else (), 0.5)
        found[value.name or ""] = use
    return found


def _is_one_float(value: ir.Value) -> bool:
    shape, dtype = value.shape, value.dtype
    one = shape is not None and shape.is_static() and math.prod(shape.numpy()) == 1
    return one and dtype is not None and dtype.is_floating_point()


def _readers(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """The nodes that read the values of an input, wherever they were moved or cast before, and at which position."""
    seen, pending = set[ir.Value](), [value]
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        for use in current.uses():
            yield use.node, use.idx
            if use.idx == 0 and (
                use.node.op_type == "Cast" or operator(use.node.op_type).keeps in (Keeps.ALL, Keeps.SOME)
            ):
                pending += use.node.outputs


def _read(use: Use, value: ir.Value, node: ir.Node, index: int) -> None:
    """What one reader says."""
    is_float = value.dtype is not None and value.dtype.is_floating_point()
    if (limit := _table(node, index)) is not None:
        use.limit = limit if use.limit is None else min(use.limit, limit)
    if _masks(node, index, is_float=is_float):
        use.mask = True
    if use.value is None and value.shape is not None and value.shape.is_static():
        use.value = _argument(node, index, tuple(value.shape.numpy()))


def _table(node: ir.Node, index: int) -> int | None:
    """Entries of the table that an operand looks something up in; None where it looks nothing up, or it is not known."""
    if node.op_type == "EmbedLayerNormalization":
        tables = {0: 2, 1: 4, 8: 3}
        return _dim(node.inputs[tables[index]], 0) if index in tables else None
    if node.op_type == "OneHot" and index == 0:
        depth = constant_array(node.inputs[1])
        return None if depth is None else int(depth.ravel()[0])
    if index != 1:
        return None
    if node.op_type in ("Gather", "GatherElements", "ScatterElements", "Scatter"):
        axis = node.attributes.get("axis")
        return _dim(node.inputs[0], 0 if axis is None else axis.as_int())
    if node.op_type in ("GatherND", "ScatterND"):
        dims = node.inputs[0].shape if node.inputs[0] is not None else None
        known = [d for d in dims or () if isinstance(d, int)]
        return min(known, default=None)
    return None


def _dim(value: ir.Value | None, axis: int) -> int | None:
    if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    dim = value.shape[axis]
    return dim if isinstance(dim, int) and dim > 0 else None


def _masks(node: ir.Node, index: int, *, is_float: bool) -> bool:
    """Whether a reader takes an operand for a mask."""
    if is_float:
        return _turned_round(node, index) and any(
            (factor := constant_array(v)) is not None and factor.size and np.abs(factor).max() >= _MASKING
            for out in node.outputs
            for use in out.uses()
            if use.node.op_type == "Mul"
            for v in use.node.inputs
        )
    return (
        (node.op_type == "Where" and index == 0) or node.op_type in ("Not", "And", "Or") or _turned_round(node, index)
    )


def _turned_round(node: ir.Node, index: int) -> bool:
    """Whether it is 1 - x."""
    one = constant_array(node.inputs[0]) if node.op_type == "Sub" and index == 1 else None
    return one is not None and one.size == 1 and float(one.ravel()[0]) == 1


def _argument(node: ir.Node, index: int, shape: tuple[int, ...]) -> np.ndarray | None:
    """A value for an operand that says where or how far an operator works, of the operand's shape; None for others."""
    count = math.prod(shape)
    fill = _ARGUMENTS.get((node.op_type, index))
    if node.op_type.startswith("Reduce") and index == 1:
        fill = "axes"
    if fill is None:
        return None
    if fill == "sizes":
        return _sizes(node, count, shape)
    return (np.arange(count) if fill == "axes" else np.full(count, fill)).reshape(shape)


def _sizes(node: ir.Node, count: int, shape: tuple[int, ...]) -> np.ndarray | None:
    """The dimensions of the first operand, or for another rank all of it in the last one."""
    first = node.inputs[0]
    if first is None or first.shape is None or not first.shape.is_static():
        return None
    dims = tuple(first.shape.numpy())
    if len(dims) != count:
        dims = (*[1] * (count - 1), math.prod(dims) if node.op_type == "Reshape" else dims[-1])
    return np.array(dims[:count]).reshape(shape)


# (operator, position): a number, the axes 0, 1, ..., or the sizes of the first operand.
_ARGUMENTS: dict[tuple[str, int], float | str] = {
    ("Reshape", 1): "sizes",
    ("Expand", 1): "sizes",
    ("Slice", 1): 0,
    ("Slice", 2): "sizes",
    ("Slice", 3): "axes",
    ("Slice", 4): 1,
    ("Squeeze", 1): "axes",
    ("Unsqueeze", 1): "axes",
    ("Resize", 2): 1,
    ("Resize", 3): "sizes",
    ("Pad", 1): 0,
    ("Tile", 1): 1,
    ("TopK", 1): 1,
    ("CumSum", 1): 0,
    ("Trilu", 1): 0,
    ("ConstantOfShape", 0): 1,
    ("Range", 0): 0,
    ("Range", 1): 4,
    ("Range", 2): 1,
    ("Dropout", 1): 0.5,
    ("NonMaxSuppression", 2): 10,
    ("NonMaxSuppression", 3): 0.5,
    ("NonMaxSuppression", 4): 0,
}
