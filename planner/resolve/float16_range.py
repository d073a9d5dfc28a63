"""Which nodes float16 cannot hold, by what calibration saw; and a plan that gives those nodes another type.

Float16 (IEEE 754 binary16) ends at 65504, and below 2^-14 its numbers lose digits until, at 2^-25, nothing is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from planner.calibrate.ranges import MASK_MAGNITUDE, Range
from planner.dtypes import FLOAT16_LARGEST, DType, Pair
from planner.model.node import Node
from planner.model.read import Model
from planner.model.values import constant_array
from planner.operators import Role
from planner.profiles.schema import Profile
from planner.quantization.parameters import HEADROOM
from planner.resolve.legality import judge
from planner.resolve.plan import Plan

SMALLEST_NORMAL = 2.0**-14
SMALLEST = 2.0**-25
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
    """
    assert model.ir is not None
    consumers: dict[str, set[str]] = {}
    for node in model.nodes:
        for position, operand in enumerate(node.inputs):
            if operand is not None:
                op = f"{node.op_type} by it" if (node.op_type, position) in _DIVISORS else node.op_type
                consumers.setdefault(operand.name, set()).add(op)
    results = {o.name or "" for graph in (model.ir.graph, *model.ir.graph.subgraphs()) for o in graph.outputs}

    def tensor_problem(name: str) -> str | None:
        seen = ranges.get(name)
        if seen is None:
            return None
        most = max(abs(seen.low), abs(seen.high))
        if most * HEADROOM > FLOAT16_LARGEST:
            return f"{name!r} reaches {most:.3g}; float16 ends at {FLOAT16_LARGEST:g}"
        readers = consumers.get(name, set())
        if 0 < seen.low < SMALLEST and (diverging := sorted(readers & _DIVERGES_AT_ZERO)):
            return f"{name!r} goes down to {seen.low:.2g}, which is 0 in float16, and is read by {diverging[0]}"
        hidden = name not in results and readers <= _ADDITIVE
        if 0 < most < SMALLEST_NORMAL and not hidden:
            return f"{name!r} stays below {most:.2g}, where float16 has lost digits"
        return None

    constants = _constants(model.ir)
    problems: dict[str, str] = {}
    for node in model.nodes:
        if not node.has_precision:
            continue
        operands = [o for o in node.inputs if o is not None]
        found = [
            tensor_problem(name) for name in (*(o.name for o in operands if not o.constant), *node.outputs) if name
        ]
        found += [
            _constant_problem(o.name, constants[o.name]) for o in operands if _computes_with(node, o.name, constants)
        ]
        problem = next((p for p in found if p is not None), None)
        if problem is not None:
            problems[node.name] = problem
    return problems


def _constants(model: ir.Model) -> dict[str, np.ndarray]:
    found = {}
    for node in model.graph.all_nodes():
        for value in node.inputs:
            if value is None or value.name in found or value.dtype != ir.DataType.FLOAT:
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
    if 0 < most < SMALLEST:
        return f"constant {name!r} holds {most:.2g}, which is 0 in float16"
    return None


def without_unsafe_float16(
    model: Model, profile: Profile, plan: Plan, ranges: Mapping[str, Range], unsafe: Mapping[str, str] | None = None
) -> Plan:
    """The plan with its unsafe float16 nodes at the best other type that the profile allows: float32 (where
    the device computes in it), else 16-bit integers.

    A node that may take neither stays float16. The reason stands in the node's line.
    """
    if not any(n.activation is DType.FLOAT16 for n in plan.nodes):
        return plan
    unsafe = unsafe_in_float16(model, ranges) if unsafe is None else unsafe
    by_name = {n.name: n for n in model.nodes}
    # A device may take float32 graphs and compute them in float16: its profile never prefers fp32.
    preferred = profile.prefer[plan.target.device]
    has_float32 = any(DType.FLOAT32 in p.activations for p in preferred)
    lines = []
    for line in plan.nodes:
        if line.activation is DType.FLOAT16 and line.name in unsafe:
            node = by_name[line.name]
            for pair, per_channel in _alternatives(node, has_float32):
                ruling = judge(node, pair, per_channel, profile, plan.target.device, plan.opset)
                if ruling.legal:
                    line = replace(
                        line,
                        weight=pair.weight,
                        activation=pair.activation,
                        per_channel=per_channel,
                        block_size=pair.block_size,
                        dynamic=pair.dynamic,
                        replacement=ruling.replacement,
                        fixed=ruling.fixed,
                        rule=ruling.rule,
                        reason=f"{pair} instead of float16: {unsafe[line.name]}",
                    )
                    break
            else:
                line = replace(line, reason=f"{line.reason}; WARNING: {unsafe[line.name]}, and nothing else is legal")
        lines.append(line)
    changed = [line for line in lines if line.activation is not DType.FLOAT16 and line.activation is not None]
    return replace(plan, nodes=tuple(lines), precision="mixed" if changed else plan.precision)


def _alternatives(node: Node, has_float32: bool) -> Iterator[tuple[Pair, bool]]:
    if has_float32:
        yield Pair(None if node.weight is None else DType.FLOAT32, DType.FLOAT32), False
    if node.weight is None:
        yield from ((Pair(None, a), False) for a in (DType.UINT16, DType.INT16))
        return
    yield from (
        (Pair(DType.INT16, DType.UINT16), False),
        (Pair(DType.INT16, DType.INT16), False),
        (Pair(DType.INT8, DType.UINT16), True),
        (Pair(DType.UINT8, DType.UINT16), False),
    )


def notes_on_float16(plan: Plan) -> tuple[str, ...]:
    """A line that says how many nodes of a float16 plan are something else, and in how many islands they lie."""
    moved = [n for n in plan.nodes if "instead of float16" in n.reason]
    if not moved:
        return ()
    first = moved[0]
    return (f"{len(moved)} of {len(plan.nodes)} nodes are not float16, first {first.name!r}: {first.reason}",)
