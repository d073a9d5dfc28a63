"""Is this pair legal for this node on this device? Pure: a Node, a Pair and a Profile give a Ruling."""

from __future__ import annotations

from dataclasses import dataclass

from planner.dtypes import DType, Pair
from planner.model.node import Node
from planner.model.roles import Role
from planner.profiles.schema import KernelTable, PairRule, Profile, Rule


@dataclass(frozen=True)
class Ruling:
    """The answer for one node and one pair.

    Attributes:
        legal: True, False, or None where no rule speaks of the operator.
        rule: id of the rule that decided; None where none did.
        reason: why not; None where legal.
        suggestion: what to do instead; None where legal or nothing is known to help.
        scale, zero_point: output quantization parameters that the rule demands, where it does.
    """

    legal: bool | None
    rule: str | None
    reason: str | None = None
    suggestion: str | None = None
    fixed: tuple[float, int] | None = None


def judge(node: Node, pair: Pair, per_channel: bool, profile: Profile, device: str, opset: int) -> Ruling:
    """Judge one node at one pair.

    Limits come first (static shapes, rank, opset), then the rules in the profile's order: a refusal that matches ends
    the search, the first rule that allows the pair makes it legal. Where rules speak of the operator but none allows
    the pair, it is illegal and the reason lists what is allowed. Where none speaks of it, the answer is unknown.

    Args:
        per_channel: whether the weight has one scale per output channel.
        opset: ai.onnx opset of the model that is to run.
    """
    limit = _beyond_limits(node, profile)
    if limit is not None:
        return limit
    if not node.known and not _mentions(node, profile, device):
        name = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
        return Ruling(
            False,
            "known-operator",
            f"operator {name} is defined neither by ONNX nor by ONNX Runtime",
            "replace it by standard operators, or register its custom-op library with a profile of your own",
        )
    near_miss: Ruling | None = None
    for rule in profile.rules_for(node.op_type, node.domain, device):
        ruling = _apply(rule, node, pair, per_channel, opset)
        if ruling is None:
            continue
        if ruling.legal or rule.refuse is not None:
            return ruling
        near_miss = near_miss or ruling
    if near_miss is not None:
        return near_miss
    return Ruling(
        None,
        None,
        f"no rule of the profile speaks of {node.op_type}",
        "verify on the EP itself, or add a rule with `--profile`",
    )


def _mentions(node: Node, profile: Profile, device: str) -> bool:
    return any(rule.kernels is None for rule in profile.rules_for(node.op_type, node.domain, device))


def _beyond_limits(node: Node, profile: Profile) -> Ruling | None:
    limits = profile.limits
    if limits.static_shapes:
        for operand in node.inputs:
            if operand is not None and operand.shape is not None and None in operand.shape:
                return Ruling(
                    False,
                    "static-shapes",
                    f"input {operand.name!r} has a dynamic shape {_dims(operand.shape)}; {profile.ep} takes static shapes only",
                    "fix the model's input shapes with --shape NAME=1,3,224,224",
                )
        for name, shape in zip(node.outputs, node.output_shapes, strict=True):
            if shape is not None and None in shape:
                return Ruling(
                    False,
                    "static-shapes",
                    f"output {name!r} has a dynamic shape {_dims(shape)}; {profile.ep} takes static shapes only",
                    "fix the model's input shapes with --shape NAME=1,3,224,224",
                )
    if limits.max_rank is not None and node.rank > limits.max_rank:
        return Ruling(
            False,
            "max-rank",
            f"rank {node.rank} is above the {limits.max_rank} that {profile.ep} takes",
            "merge dimensions with a Reshape before this node",
        )
    return None


def _dims(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"


def _apply(rule: Rule, node: Node, pair: Pair, per_channel: bool, opset: int) -> Ruling | None:
    """What one rule says of the pair; None where its conditions do not hold or it does not speak of the pair."""
    unmet = _unmet_condition(rule, node, opset)
    if rule.refuse is not None:
        if unmet is None and _refused(rule, pair):
            return Ruling(False, rule.id, rule.refuse, rule.suggestion)
        return None
    if rule.kernels is not None:
        return _by_kernels(rule, rule.kernels, node, pair, opset)
    if unmet is not None:
        return Ruling(False, rule.id, unmet, rule.suggestion)
    if pair.activation is None:
        return Ruling(True, rule.id)
    for allowed in rule.pairs:
        if _allows(allowed, pair, per_channel):
            fixed = rule.fixed.get(pair.activation)
            return Ruling(True, rule.id, fixed=None if fixed is None else (fixed.scale, fixed.zero_point))
    return Ruling(False, rule.id, _not_among(node, pair, per_channel, rule), rule.suggestion)


def _unmet_condition(rule: Rule, node: Node, opset: int) -> str | None:
    when = rule.when
    weight = node.weight
    if when.constant_weight and weight is None:
        return "its weight is not constant"
    if when.min_opset is not None and opset < when.min_opset:
        return f"opset {opset} is below {when.min_opset}"
    if when.max_opset is not None and opset > when.max_opset:
        return f"opset {opset} is above {when.max_opset}"
    if when.max_rank is not None and node.rank > when.max_rank:
        return f"rank {node.rank} is above {when.max_rank}"
    if when.min_rank is not None and 0 < node.rank < when.min_rank:
        return f"rank {node.rank} is below {when.min_rank}"
    for name, allowed in when.attributes.items():
        if name in node.attributes and node.attributes[name] not in allowed:
            return f"attribute {name}={node.attributes[name]} is not among {', '.join(map(str, allowed))}"
    return None


def _refused(rule: Rule, pair: Pair) -> bool:
    if not rule.pairs:
        return True
    return any(
        (allowed.weight is None or pair.weight in allowed.weight) and (pair.activation in allowed.activation)
        for allowed in rule.pairs
    )


def _allows(allowed: PairRule, pair: Pair, per_channel: bool) -> bool:
    if pair.activation not in allowed.activation:
        return False
    if pair.weight is None:
        return True
    if allowed.weight is None:
        # A rule without a weight speaks of nodes that have none, and of float nodes, whose weight has their own type.
        return pair.weight == pair.activation
    return pair.weight in allowed.weight and (not per_channel or pair.weight in allowed.per_channel)


def _not_among(node: Node, pair: Pair, per_channel: bool, rule: Rule) -> str:
    choices = []
    for allowed in rule.pairs:
        activations = "|".join(allowed.activation)
        if allowed.weight is None:
            choices.append(activations)
        else:
            choices.append(f"{'|'.join(allowed.weight)}/{activations}")
    kind = " per channel" if per_channel and pair.weight is not None and not pair.weight.is_float else ""
    return f"{node.op_type} does not take {pair}{kind}; allowed: {', '.join(choices)}"


def _by_kernels(rule: Rule, table: KernelTable, node: Node, pair: Pair, opset: int) -> Ruling:
    """Legality from a kernel table: a float pair needs a kernel of the operator for that type; a quantized pair is
    stored as Q/DQ around a float kernel, so it needs QuantizeLinear and DequantizeLinear kernels for both types."""
    types = table.types(node.op_type, node.domain, opset)
    name = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
    if types is None:
        return Ruling(False, rule.id, f"{name} has no kernel at opset {opset} ({table.source})", rule.suggestion)
    if pair.activation is None:
        return _exact_by_kernels(rule, types, node, name, table)
    if pair.activation.is_float:
        if _float_kernel(types, pair.activation):
            return Ruling(True, rule.id)
        return Ruling(
            False, rule.id, f"{name} has no {pair.activation} kernel ({table.source})", "choose another activation type"
        )
    for dtype in {pair.weight, pair.activation} - {None}:
        for operator in ("QuantizeLinear", "DequantizeLinear"):
            if operator == "QuantizeLinear" and dtype is pair.weight and dtype is not pair.activation:
                continue  # weights are quantized offline
            kernel = table.types(operator, "", opset)
            listed = frozenset().union(*kernel.values()) if kernel else frozenset()
            if dtype not in listed:
                integers = sorted(t for t in listed if "int" in t and t != "int32")
                return Ruling(
                    False,
                    rule.id,
                    f"{operator} has no {dtype} kernel, only {', '.join(integers)} ({table.source})",
                    "choose 8-bit types" if any("8" in t for t in integers) else "choose a float precision",
                )
    if not _float_kernel(types, DType.FLOAT32):
        return Ruling(False, rule.id, f"{name} has no float32 kernel between Q and DQ ({table.source})", None)
    return Ruling(True, rule.id)


def _float_kernel(types: object, dtype: DType) -> bool:
    assert hasattr(types, "values")
    constraints = list(types.values())
    # An operator without float constraints (Shape of anything, control flow) does not depend on the type.
    mentions_float = [t for t in constraints if any(name in t for name in ("float32", "float16", "float64"))]
    return not mentions_float or any(dtype in t for t in mentions_float)


def _exact_by_kernels(rule: Rule, types: object, node: Node, name: str, table: KernelTable) -> Ruling:
    assert hasattr(types, "values")
    listed = frozenset().union(*types.values())
    for operand in node.inputs:
        if operand is None or operand.dtype is None or not listed:
            continue
        if operand.role is Role.EXACT and operand.dtype not in listed and operand.dtype in ("int64", "int32", "bool"):
            return Ruling(False, rule.id, f"{name} has no {operand.dtype} kernel ({table.source})", rule.suggestion)
    return Ruling(True, rule.id)
