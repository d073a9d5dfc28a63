"""What calibration changes in a plan: nodes that it did not reach, and float16 nodes whose values float16 would not hold.

Each such node gets the first other config that the profile allows. Its line says so in its basis and its reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from planner.calibrate.ranges import Range
from planner.dtypes import PER_CHANNEL, DType, QuantConfig, in_float
from planner.errors import RangeMissingError
from planner.model.node import Node
from planner.model.read import Model
from planner.resolve.choose import float32
from planner.resolve.float16_range import unsafe_in_float16
from planner.resolve.legality import Ruling, judge
from planner.resolve.plan import Basis, Plan, PlanNode
from planner.resolve.target import Target
from planner.resolve.uncalibrated import uncalibrated


def without_uncalibrated(
    target: Target, model: Model, plan: Plan, ranges: Mapping[str, Range], *, allow_fallback: bool = False
) -> Plan:
    """The plan with those nodes float that it would store over a range which calibration did not see.

    Args:
        target: of the plan.
        model: of the plan.
        plan: quantized.
        ranges: what calibration saw of each float tensor, by name.
        allow_fallback: a node of which the EP takes no float form is left to the CPU EP.

    Raises:
        RangeMissingError: the EP takes no float form of such a node.
    """
    places = uncalibrated(model, ranges)
    nodes = {node.name: node for node in model.nodes}
    elsewhere = {line.name for line in plan.nodes if line.on_target is not True}
    lines = []
    for line in plan.nodes:
        place = places.get(line.name)
        if place is not None and line.name in nodes and _needs_range(line):
            node = nodes[line.name]
            outer = next((name for name in node.scope if name in elsewhere), None)
            line = _as_float(target, plan, line, node, place, outer, allow_fallback)
        lines.append(line)
    return plan if tuple(lines) == plan.nodes else replace(plan, nodes=tuple(lines), precision="mixed")


def _needs_range(line: PlanNode) -> bool:
    stored = line.config.stored_activation
    return stored is not None and not stored.is_float


def _as_float(
    target: Target, plan: Plan, line: PlanNode, node: Node, place: str, outer: str | None, allow_fallback: bool
) -> PlanNode:
    """The line in float; ``outer`` names the node around it that is not on the target."""
    why = f"no calibration sample reached it ({place})"
    if outer is not None:
        return _left_to_cpu(line, node, f"left to the CPU EP with {outer!r}: {why}")
    kinds = (DType.FLOAT32, DType.FLOAT16) if target.computes_float32 else (DType.FLOAT16, DType.FLOAT32)
    options = [in_float(kind, has_weight=node.weight is not None) for kind in kinds]
    config, ruling = _first_taken(target, node, options, plan.opset)
    if config is not None:
        return _revised(line, config, ruling, Basis.UNCALIBRATED, f"left {config.activation}: {why}")
    if allow_fallback:
        return _left_to_cpu(line, node, f"left to the CPU EP (--allow-fallback): {why}")
    refused = ruling.reason or f"no rule of the profile speaks of {node.op_type} in {kinds[0]}"
    raise RangeMissingError(
        f"{node.op_type} {node.name!r} in {place} has no range, since no calibration sample reached it, and cannot stay "
        f"float on {target.ep}, {target.device}: {refused}",
        "give --inputs that reach this part of the model, or leave it to the CPU EP: `planner target --allow-fallback`",
    )


def _left_to_cpu(line: PlanNode, node: Node, reason: str) -> PlanNode:
    left = _revised(line, float32(node), Ruling(True, None), Basis.UNCALIBRATED, reason)
    return replace(left, on_target=False)


def without_unsafe_float16(target: Target, model: Model, plan: Plan, ranges: Mapping[str, Range]) -> Plan:
    """The plan with its unsafe float16 nodes at the best other type that the profile allows.

    That is float32, where the device computes in it, else 16-bit integers. A node that may take neither stays float16.
    The reason stands in the node's line.

    Args:
        target: of the plan.
        model: of the plan.
        plan: with float16 nodes or without.
        ranges: what calibration saw of each float tensor, by name.
    """
    if not plan.has_float16:
        return plan
    unsafe = unsafe_in_float16(model, ranges)
    nodes = {node.name: node for node in model.nodes}
    lines = tuple(
        _out_of_float16(target, plan, line, nodes[line.name], unsafe[line.name])
        if line.activation is DType.FLOAT16 and line.name in unsafe
        else line
        for line in plan.nodes
    )
    changed = any(line.activation not in (DType.FLOAT16, None) for line in lines)
    return replace(plan, nodes=lines, precision="mixed" if changed else plan.precision)


def _out_of_float16(target: Target, plan: Plan, line: PlanNode, node: Node, why: str) -> PlanNode:
    options = _beside_float16(node, in_float32=target.computes_float32)
    config, ruling = _first_taken(target, node, options, plan.opset)
    if config is None:
        return replace(line, reason=f"{line.reason}; WARNING: {why}, and nothing else is legal")
    return _revised(line, config, ruling, Basis.RANGE, f"{config} instead of float16: {why}")


def _beside_float16(node: Node, *, in_float32: bool) -> Iterator[QuantConfig]:
    if in_float32:
        yield in_float(DType.FLOAT32, has_weight=node.weight is not None)
    if node.weight is None:
        yield from (QuantConfig(None, activation) for activation in (DType.UINT16, DType.INT16))
        return
    yield from (
        QuantConfig(DType.INT16, DType.UINT16),
        QuantConfig(DType.INT16, DType.INT16),
        QuantConfig(DType.INT8, DType.UINT16, PER_CHANNEL),
        QuantConfig(DType.UINT8, DType.UINT16),
    )


def _first_taken(
    target: Target, node: Node, options: Iterable[QuantConfig], opset: int
) -> tuple[QuantConfig | None, Ruling]:
    """The first config that is legal, and its ruling; None and the ruling on the first one where none is."""
    first: Ruling | None = None
    for config in options:
        ruling = judge(target, node, config, opset)
        if ruling.legal:
            return config, ruling
        first = first or ruling
    assert first is not None, "there is always one to try"
    return None, first


def _revised(line: PlanNode, config: QuantConfig, ruling: Ruling, basis: Basis, reason: str) -> PlanNode:
    return replace(
        line,
        config=config,
        replacement=ruling.replacement,
        fixed=ruling.fixed,
        symmetric=ruling.symmetric,
        factor=ruling.factor,
        rule=ruling.rule,
        basis=basis,
        on_target=ruling.legal,
        reason=reason,
    )


def notes_on_revisions(plan: Plan) -> tuple[str, ...]:
    """A line on the float16 nodes that became something else, one on the nodes that calibration did not reach, one on those that
    are kept from a defect of the EP.
    """
    notes = []
    for basis, what, advice in (
        (Basis.RANGE, "not float16", ""),
        (Basis.DEFECT, "kept from a known defect of the EP", ""),
        (Basis.UNCALIBRATED, "not quantized", "; --inputs that reach them would quantize them"),
    ):
        lines = [line for line in plan.nodes if line.basis is basis]
        if lines:
            first = lines[0]
            notes.append(
                f"{len(lines)} of {len(plan.nodes)} nodes are {what}, first {first.name!r}: {first.reason}{advice}"
            )
    return tuple(notes)
