"""What a small file can ask for that is not small: counted before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir

from planner.errors import RequestError

# Nodes of a graph whose functions are all written out. The largest published models have some ten thousand.
_MOST_NODES = 1_000_000
# The names of nodes grow with every call that they are written out of: 5,000 deep, that takes half a minute. Exporters nest ten.
_DEEPEST_CALLS = 1_000
# Numbers that a shape or an index is computed from. A shape has some ten.
_MOST_NUMBERS = 1 << 18
# Operators whose number of results, or of steps, is a number that they are given.
_COUNTED = ("Range", "HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix", "Pad", "CenterCropPad")
_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)


def check_calls(model: ir.Model, path: Path) -> None:
    """Refuse functions that call themselves, or that write out to more nodes than any model has.

    Raises:
        RequestError: with the name of the function.
    """
    if not model.functions:
        return
    sizes: dict[ir.OperatorIdentifier, int] = {}
    depths: dict[ir.OperatorIdentifier, int] = {}
    for first in model.functions:
        # Depth first without recursion: a function is counted after those that it calls.
        pending: list[tuple[ir.OperatorIdentifier, bool]] = [(first, False)]
        open_now: set[ir.OperatorIdentifier] = set()
        while pending:
            key, counted = pending.pop()
            if counted:
                open_now.discard(key)
                sizes[key] = _written_out(model.functions[key].all_nodes(), sizes)
                inner = (depths.get(node.op_identifier(), 0) for node in model.functions[key].all_nodes())
                depths[key] = 1 + max(inner, default=0)
                continue
            if key in sizes:
                continue
            open_now.add(key)
            pending.append((key, True))
            for node in model.functions[key].all_nodes():
                called = node.op_identifier()
                if called in open_now:
                    raise RequestError(f"{path}: broken ONNX model: function {called[1]!r} calls itself")
                if called in model.functions and called not in sizes:
                    pending.append((called, False))
    problem = ""
    if _written_out(model.graph.all_nodes(), sizes) > _MOST_NODES:
        problem = f"write out to more than {_MOST_NODES:,} nodes"
    elif max(depths.values()) > _DEEPEST_CALLS:
        problem = f"call one another more than {_DEEPEST_CALLS:,} deep"
    if problem:
        raise RequestError(f"{path}: its functions {problem}", "export the model without functions, or in parts")


def _written_out(nodes: Iterable[ir.Node], sizes: dict[ir.OperatorIdentifier, int]) -> int:
    return min(_MOST_NODES + 1, sum(sizes.get(node.op_identifier(), 1) for node in nodes))


def is_data_small(model: ir.Model) -> bool:
    """Whether what shapes are computed from is as small as it is in any model that is meant.

    ONNX's shape inference follows such numbers one by one, however many there are: a Range to 10^12, a Concat of itself forty
    times over, an index input of 2^40 numbers.
    """
    length: dict[ir.Value, int] = {}
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        # Of other types, constants are followed as well.
        followed = value.dtype in _INTEGERS or value.is_initializer()
        if followed and value.shape is not None and len(value.shape) == 1:
            first = value.shape[0]
            length[value] = first if isinstance(first, int) else 0
    for node in model.graph.all_nodes():
        known = [length.get(value, 0) for value in node.inputs if value is not None]
        most = sum(known) if node.op_type == "Concat" else max(known, default=0)
        if node.op_type == "Shape":
            most = 8
        elif node.op_type in ("Gather", "Concat") or not known:
            most = max(most, 1)
        if node.op_type in _COUNTED and any(_is_large(value) for value in node.inputs):
            return False
        if most > _MOST_NUMBERS and (node.op_type == "Concat" or _takes_integers(node)):
            return False
        for out in node.outputs:
            length[out] = most
    return True


def _takes_integers(node: ir.Node) -> bool:
    return any(value is not None and value.dtype in _INTEGERS for value in node.inputs)


def _is_large(value: ir.Value | None) -> bool:
    """Whether a constant of a few numbers holds one that counts more than any shape does."""
    tensor = None if value is None else value.const_value
    if tensor is None or tensor.size > 64 or tensor.dtype == ir.DataType.STRING:
        return False
    return any(not abs(float(number)) <= _MOST_NUMBERS for number in tensor.numpy().ravel())


def is_result_small(node: ir.Node, most: int) -> bool:
    """Whether no result of the node is known to hold more numbers than that, and than the node is given."""
    given = sum(v.const_value.size for v in node.inputs if v is not None and v.const_value is not None)
    for out in node.outputs:
        if out.shape is not None and out.shape.is_static():
            count = math.prod(d for d in out.shape if isinstance(d, int))
            if count > max(most, given):
                return False
    return True
