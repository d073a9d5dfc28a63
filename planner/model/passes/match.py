"""Looking at a graph: what patterns are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable

import onnx_ir as ir

from planner.model.values import constant_array, is_read_once

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
# What a value's `meta` says where it has become float32 since.
WAS_HALF = "planner.was_half"


def own(node: ir.Node) -> bool:
    """Whether the node is one of ONNX's own operators, and still in its graph."""
    return node.domain in ("", "ai.onnx") and node.graph is not None


def scalar_of(value: ir.Value | None) -> float | None:
    """The one number that the value holds, if it is a constant of one number."""
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    array = constant_array(value)
    return None if array is None else float(array.reshape(-1)[0])


def is_number(value: ir.Value | None, number: float) -> bool:
    """Whether the value is this number, but for rounding."""
    scalar = scalar_of(value)
    return scalar is not None and close(scalar, number, value)


def close(number: float, wanted: float, value: ir.Value | None) -> bool:
    """Equal but for rounding: exporters write sqrt(2) with five digits, a float16 file holds three of them, also where it has become a
    float32 model since.
    """
    is_half = value is not None and (value.dtype in HALVES or WAS_HALF in value.meta)
    return math.isclose(number, wanted, rel_tol=2e-3 if is_half else 1e-4)


def only_user(value: ir.Value | None) -> ir.Node | None:
    """The one node that reads the value, if it is all that does."""
    if value is None or not is_read_once(value):
        return None
    usage = next(iter(value.uses()))
    return usage.node


def producer_of(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that computes the value, if it is one of these operators."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type in op_types and own(node) else None


def other_operand(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """The other operand of a binary node."""
    first, second = node.inputs[0], node.inputs[1]
    return second if first is value else first


def both_orders(node: ir.Node) -> Iterable[tuple[ir.Value | None, ir.Value | None]]:
    """Both orders of the operands of a commutative node."""
    a, b = node.inputs[0], node.inputs[1]
    return ((a, b), (b, a))


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute, or its default."""
    return node.attributes[name].as_int() if name in node.attributes else default


def same_shape(a: ir.Shape | None, b: ir.Shape | None) -> bool:
    """Whether two values of equally many elements surely have one shape.

    A single unknown dimension follows from the others, two could be swapped.
    """
    if a is None or b is None or tuple(a) != tuple(b):
        return False
    return sum(1 for d in a if not isinstance(d, int) and d.value is None) <= 1


def before_shape_change(value: ir.Value | None, *, or_clamp: bool = False) -> ir.Value | None:
    """The value before nodes that only change its shape (or, asked for, cut negative values off)."""
    for _ in range(4):
        if (node := producer_of(value, "Reshape", "Squeeze", "Unsqueeze")) is not None or (
            or_clamp and (node := producer_of(value, "Relu")) is not None
        ):
            value = node.inputs[0]
        elif or_clamp and (node := producer_of(value, "Max")) is not None and len(node.inputs) == 2:
            kept = [v for v, c in both_orders(node) if scalar_of(c) == 0.0]
            if not kept:
                return value
            value = kept[0]
        else:
            break
    return value


def reduction_of(reduce: ir.Node) -> tuple[ir.Value, tuple[int, ...]] | None:
    """(x, axes) of a reduction over constant axes whose lengths are known."""
    x = reduce.inputs[0]
    if x is None or x.shape is None:
        return None
    rank = len(x.shape)
    if "axes" in reduce.attributes:
        raw = list(reduce.attributes["axes"].as_ints())
    else:
        array = constant_array(reduce.inputs[1]) if len(reduce.inputs) > 1 else None
        if array is None:
            return None
        raw = [int(a) for a in array.reshape(-1)]
    if not raw or any(not -rank <= a < rank or not isinstance(x.shape[a], int) for a in raw):
        return None
    return x, tuple(sorted(a % rank for a in raw))


def keeps_axes(reduced: ir.Value, x: ir.Value, axes: tuple[int, ...]) -> bool:
    """Whether the reduced value has x's shape with one in the place of each axis, so that it broadcasts as it must."""
    assert x.shape is not None
    return same_shape(reduced.shape, ir.Shape([1 if i in axes else d for i, d in enumerate(x.shape)]))


def is_shared(value: ir.Value | None) -> bool:
    """Whether more than one operand is the value."""
    return value is not None and len(value.uses()) > 1


def float_attribute(node: ir.Node, name: str, default: float) -> float:
    """A float attribute, or its default."""
    return node.attributes[name].as_float() if name in node.attributes else default


def text_attribute(node: ir.Node, name: str, default: str) -> str:
    """An attribute that is text, or its default."""
    return node.attributes[name].as_string() if name in node.attributes else default


def ints_attribute(node: ir.Node, name: str, default: list[int]) -> list[int]:
    """An attribute of several integers, or its default."""
    return list(node.attributes[name].as_ints()) if name in node.attributes else default


def graph_of(node: ir.Node) -> ir.Graph:
    """The graph that the node stands in."""
    assert isinstance(node.graph, ir.Graph)
    return node.graph
