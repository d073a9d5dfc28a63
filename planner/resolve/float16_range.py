"""Which nodes float16 cannot hold, by what calibration saw.

Float16 (IEEE 754 binary16) ends at 65504, and below 2^-14 its numbers lose digits until, at 2^-25, nothing is left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx_ir as ir

from planner.calibrate.ranges import HEADROOM, MASK_MAGNITUDE, Range
from planner.dtypes import FLOAT16_LARGEST, FLOAT16_SMALLEST, FLOAT16_SMALLEST_NORMAL
from planner.model.node import Node
from planner.model.read import Model
from planner.model.values import constant_array, tensor_dtype
from planner.operators import Role

# Operands that the node divides by, and operators that have no result for a zero.
_DIVISORS = frozenset({("Div", 1), ("Mod", 1)})
_DIVERGES_AT_ZERO = frozenset({"Log", "Reciprocal", "Div by it", "Mod by it"})
# What a small value is added to hides the digits that it lost.
_ADDITIVE = frozenset({"Add", "Sub", "Sum"})


def unsafe_in_float16(model: Model, ranges: Mapping[str, Range]) -> dict[str, str]:
    """Nodes whose results or inputs float16 would not hold, each with the reason.

    A node is unsafe where a tensor that it reads or computes went beyond 65504 while calibrating (less the headroom
    that unseen inputs may need), or never rose above 2^-14 though it was not zero, unless it is only added to others; where
    a logarithm or a division reads what stayed above zero but would become zero; and where a constant that it reads would
    wholly become zero, or holds numbers beyond 65504 that are no masks.

    Args:
        model: as it was calibrated.
        ranges: what calibration saw of each float tensor, by name.
    """
    assert model.ir is not None
    readers = _readers(model.nodes)
    results = {o.name or "" for graph in (model.ir.graph, *model.ir.graph.subgraphs()) for o in graph.outputs}
    tensors = {
        name: problem
        for name, seen in ranges.items()
        if (problem := _tensor_problem(name, seen, readers.get(name, set()), is_result=name in results))
    }
    # Masks among them are as good clamped to float16's largest number.
    constants = {name: array for name, array in _constants(model.ir).items() if name not in ranges}
    problems: dict[str, str] = {}
    for node in model.nodes:
        if node.has_precision and (problem := next(_problems(node, tensors, constants), None)) is not None:
            problems[node.name] = problem
    return problems


def _problems(node: Node, tensors: Mapping[str, str], constants: Mapping[str, np.ndarray]) -> Iterator[str]:
    operands = [o for o in node.inputs if o is not None]
    for name in (*(o.name for o in operands if not o.constant), *node.outputs):
        if name in tensors:
            yield tensors[name]
    for operand in operands:
        if _computes_with(node, operand.name, constants):
            problem = _constant_problem(operand.name, constants[operand.name])
            if problem is not None:
                yield problem


def _readers(nodes: Collection[Node]) -> dict[str, set[str]]:
    """By tensor, the operators that read it; "Div by it" where the tensor is the divisor."""
    readers: dict[str, set[str]] = {}
    for node in nodes:
        for position, operand in enumerate(node.inputs):
            if operand is not None:
                op = f"{node.op_type} by it" if (node.op_type, position) in _DIVISORS else node.op_type
                readers.setdefault(operand.name, set()).add(op)
    return readers


def _tensor_problem(name: str, seen: Range, readers: Collection[str], *, is_result: bool) -> str | None:
    most = max(abs(seen.low), abs(seen.high))
    if most * HEADROOM > FLOAT16_LARGEST:
        return f"{name!r} reaches {most:.3g}; float16 ends at {FLOAT16_LARGEST:g}"
    if 0 < seen.low < FLOAT16_SMALLEST and (diverging := sorted(_DIVERGES_AT_ZERO.intersection(readers))):
        return f"{name!r} goes down to {seen.low:.2g}, which is 0 in float16, and is read by {diverging[0]}"
    hidden = not is_result and _ADDITIVE.issuperset(readers)
    if 0 < most < FLOAT16_SMALLEST_NORMAL and not hidden:
        return f"{name!r} stays below {most:.2g}, where float16 has lost digits"
    return None


def _constants(model: ir.Model) -> dict[str, np.ndarray]:
    found = {}
    for node in model.graph.all_nodes():
        for value in node.inputs:
            if value is None or value.name in found or tensor_dtype(value) != ir.DataType.FLOAT:
                continue
            array = constant_array(value)
            # Weights are many numbers, of which a few may vanish; what is meant here is an epsilon or a factor.
            if array is not None and array.size <= 64:
                found[value.name or ""] = array
    return found


def _computes_with(node: Node, name: str, constants: Mapping[str, np.ndarray]) -> bool:
    roles = {o.role for o in node.inputs if o is not None and o.name == name}
    return name in constants and Role.EXACT not in roles


def _constant_problem(name: str, array: np.ndarray) -> str | None:
    magnitude = np.abs(array[np.abs(array) < MASK_MAGNITUDE].astype(np.float64))
    most = float(magnitude.max(initial=0.0))
    if most > FLOAT16_LARGEST:
        return f"constant {name!r} holds {most:.3g}; float16 ends at {FLOAT16_LARGEST:g}"
    if 0 < most < FLOAT16_SMALLEST:
        return f"constant {name!r} holds {most:.2g}, which is 0 in float16"
    return None
