"""Nodes that no calibration sample reached: in a branch that was never taken, in a loop that never ran.

Nothing is known of what such a node computes, so there is no range to store it over. It stays float, where the EP takes that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import onnx_ir as ir

from planner.calibrate.ranges import Range
from planner.dtypes import DType, Pair
from planner.errors import RequestError
from planner.model.node import Node
from planner.model.read import Model
from planner.model.values import constant_array
from planner.profiles.schema import Profile
from planner.resolve.legality import judge
from planner.resolve.plan import Plan, PlanNode

# What the line of such a node says in a plan, and the note on it.
_UNREACHED = "no calibration sample reached it"


def unreached(model: Model, ranges: Mapping[str, Range]) -> dict[str, str]:
    """Nodes of which calibration did not see all that they read and compute, each with the place where it lies
    ("then_branch of If 'verify'")."""
    assert model.ir is not None
    found: dict[str, str] = {}
    for node, place in _places(model.ir.graph, "the main graph"):
        computed = [out for out in node.outputs if out.name and (out.uses() or out.is_graph_output())]
        read = [v for v in node.inputs if v is not None and _flows(v)]
        if not all(_was_seen(v, ranges) for v in (*read, *computed) if v.dtype == ir.DataType.FLOAT):
            found[node.name or ""] = place
    return found


def _flows(value: ir.Value) -> bool:
    """Whether the value is one that calibration looks at."""
    producer = value.producer()
    return constant_array(value) is None and (producer is None or producer.op_type != "DequantizeLinear")


def _places(graph: ir.Graph, place: str) -> Iterator[tuple[ir.Node, str]]:
    for node in graph:
        yield node, place
        for name, attribute in node.attributes.items():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _places(attribute.as_graph(), f"{name} of {node.op_type} {node.name!r}")


def _was_seen(value: ir.Value, ranges: Mapping[str, Range]) -> bool:
    """Whether the value has a range: its own, or that of the one Relu or Clip that reads it."""
    return value.name in ranges or any(
        use.node.op_type in ("Relu", "Clip") and use.idx == 0 and use.node.outputs[0].name in ranges
        for use in value.uses()
    )


def without_unreached(
    model: Model, profile: Profile, plan: Plan, ranges: Mapping[str, Range], *, allow_fallback: bool = False
) -> Plan:
    """The plan with those nodes float that it would store over a range which calibration did not see.

    Args:
        allow_fallback: a node of which the EP takes no float form is left to the CPU EP.

    Raises:
        RequestError: the EP takes no float form of such a node.
    """
    places = unreached(model, ranges)
    nodes = {node.name: node for node in model.nodes}
    elsewhere = {line.name for line in plan.nodes if line.rule is None}
    lines = tuple(
        _as_float(line, nodes[line.name], places[line.name], profile, plan, elsewhere, allow_fallback)
        if line.name in places and line.name in nodes and _needs_range(line)
        else line
        for line in plan.nodes
    )
    return plan if lines == plan.nodes else replace(plan, nodes=lines, precision="mixed")


def _needs_range(line: PlanNode) -> bool:
    stored = line.pair.stored_activation
    return stored is not None and not stored.is_float


def _as_float(
    line: PlanNode,
    node: Node,
    place: str,
    profile: Profile,
    plan: Plan,
    elsewhere: Collection[str],
    allow_fallback: bool,
) -> PlanNode:
    device = plan.target.device
    in_float32 = Pair(None if node.weight is None else DType.FLOAT32, DType.FLOAT32)
    if outer := next((name for name in node.scope if name in elsewhere), None):
        return _float_line(line, in_float32, None, f"left to the CPU EP with {outer!r}: {_UNREACHED} ({place})")
    # A device may take float32 graphs and compute them in float16: its profile never prefers fp32.
    has_float32 = any(DType.FLOAT32 in precision.activations for precision in profile.prefer[device])
    kinds = (DType.FLOAT32, DType.FLOAT16) if has_float32 else (DType.FLOAT16, DType.FLOAT32)
    refused = ""
    for kind in kinds:
        pair = Pair(None if node.weight is None else kind, kind)
        ruling = judge(node, pair, False, profile, device, plan.opset)
        if ruling.legal:
            return _float_line(line, pair, ruling.rule, f"left {kind}: {_UNREACHED} ({place})")
        refused = refused or ruling.reason or f"no rule of the profile speaks of {node.op_type} in {kind}"
    if allow_fallback:
        return _float_line(line, in_float32, None, f"left to the CPU EP (--allow-fallback): {_UNREACHED} ({place})")
    raise RequestError(
        f"{node.op_type} {node.name!r} in {place} has no range, since {_UNREACHED}, and cannot stay float on "
        f"{plan.target.ep}, {device}: {refused}",
        "give --inputs that reach this part of the model, or leave it to the CPU EP: `planner target --allow-fallback`",
    )


def _float_line(line: PlanNode, pair: Pair, rule: str | None, reason: str) -> PlanNode:
    return replace(
        line,
        weight=pair.weight,
        activation=pair.activation,
        per_channel=False,
        fixed=None,
        block_size=None,
        dynamic=False,
        replacement=None,
        rule=rule,
        reason=reason,
    )


def notes_on_unreached(plan: Plan) -> tuple[str, ...]:
    """A line that says how many nodes stayed float because calibration did not reach them."""
    islands = [line for line in plan.nodes if _UNREACHED in line.reason]
    if not islands:
        return ()
    first = islands[0]
    return (
        f"{len(islands)} of {len(plan.nodes)} nodes are not quantized, first {first.name!r}: {first.reason}; "
        "--inputs that reach them would quantize them",
    )
