"""Is this pair legal for this node on this device? Pure: a Node, a Pair and a Profile give a Ruling."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import onnx

from planner.dtypes import DType, Pair
from planner.model.node import Node, Operand, signature
from planner.operators import Role
from planner.profiles.kernels import KernelTable
from planner.profiles.schema import OperandCondition, Profile, Rule, When
from planner.resolve.replacements import matrix_of, name_of, replacements, unfit

LEARNED = "learned"  # what a ruling names in place of a rule where evidence from a model decided


STATIC_SHAPES = "static-shapes"  # what a ruling names that a dynamic shape decided


@dataclass(frozen=True)
class Ruling:
    """The answer for one node and one pair.

    Attributes:
        legal: True, False, or None where no rule speaks of the operator.
        rule: id of the rule that decided; None where none did.
        reason: why not; None where legal.
        suggestion: what to do instead; None where legal or nothing is known to help.
        fixed: output scale and zero point that the rule demands, where it does.
        replacement: operator that takes the node's place; None: it keeps its own.
    """

    legal: bool | None
    rule: str | None
    reason: str | None = None
    suggestion: str | None = None
    fixed: tuple[float, int] | None = None
    replacement: str | None = None


def judge(node: Node, pair: Pair, per_channel: bool, profile: Profile, device: str, opset: int) -> Ruling:
    """Judge one node at one pair.

    Limits come first (static shapes, rank), then the rules in the profile's order: a refusal that matches ends the
    search, the first rule that allows the pair makes it legal. Where rules speak of the operator but none allows the
    pair, it is illegal and the reason lists what is allowed. Where none speaks of it, the answer is unknown.

    What the EP itself was seen to do with such a node, where a model taught it, stands above all of this.

    A dynamic pair, and one of float activations with a weight in blocks, is legal where the operators that take the
    node's place are (planner/resolve/replacements.py); a weight in blocks also where the rules speak of blocks.

    Args:
        per_channel: whether the weight has one scale per output channel.
        opset: ai.onnx opset of the model that is to run.
    """
    if pair.block_size is None and not pair.dynamic:
        return _judge_as_it_is(node, pair, per_channel, profile, device, opset)
    matrix = matrix_of(node)
    problem = matrix if isinstance(matrix, str) else unfit(matrix, pair)
    if isinstance(matrix, str) or problem is not None:
        return Ruling(False, "blocks" if pair.block_size is not None else "dynamic", problem)
    made = replacements(node, pair, matrix)
    refused: Ruling | None = None
    last: Ruling | None = None
    for other in made:
        last = _judge_as_it_is(other, other.stored, False, profile, device, opset)
        if not last.legal:
            refused = refused or last
    if made and refused is None:
        ruling = _judge_as_it_is(made[0], made[0].stored, False, profile, device, opset)
        return replace(ruling, replacement=name_of(made))
    if pair.dynamic or node.op_type == "Gather":
        # A table behind a DequantizeLinear would be dequantized whole in every run: 18 ms instead of 0.02 for 12 million
        # numbers on onnxruntime 1.32's CPU EP.
        return refused or Ruling(False, "blocks", "its rows hold an odd number of 4-bit numbers")
    inside = _judge_as_it_is(node, pair, False, profile, device, opset)
    return inside if inside.legal or refused is None else refused


def _judge_as_it_is(node: Node, pair: Pair, per_channel: bool, profile: Profile, device: str, opset: int) -> Ruling:
    """Judge a node that keeps its operator."""
    ruling = _by_rules(node, pair, per_channel, profile, device, opset)
    if not profile.learned:
        return ruling
    seen = profile.learned.get((device, signature(node, pair, per_channel)))
    if seen is None or seen.on_target is ruling.legal:
        return ruling
    if seen.on_target:
        return Ruling(True, LEARNED)
    reason = f"{profile.ep} left such a node to another EP when it was asked ({seen.source})"
    return Ruling(
        False, LEARNED, f"{reason}: {seen.reason}" if seen.reason else reason, "choose another precision for it"
    )


def _by_rules(node: Node, pair: Pair, per_channel: bool, profile: Profile, device: str, opset: int) -> Ruling:
    limit = _beyond_limits(node, profile)
    if limit is not None:
        return limit
    rules = profile.rules_for(node.op_type, node.domain, device)
    if not node.known and all(rule.kernels is not None for rule in rules):
        return Ruling(
            False,
            "known-operator",
            f"operator {_qualified(node)} is defined neither by ONNX nor by ONNX Runtime",
            "replace it by standard operators, or register its custom-op library with a profile of your own",
        )
    unmet: list[tuple[Rule, str]] = []
    allowing: list[Rule] = []
    for rule in rules:
        condition = unmet_condition(rule.when, node, per_channel, opset, pair)
        if rule.refuse is not None:
            if condition is None and _refused(rule, pair, per_channel):
                return Ruling(False, rule.id, rule.refuse, rule.suggestion)
        elif condition is not None:
            unmet.append((rule, condition))
        elif rule.kernels is not None:
            return _by_kernels(rule, profile.tables[rule.kernels], node, pair, opset)
        elif (fixed := _allowed(rule, pair, per_channel)) is not None:
            return fixed
        else:
            allowing.append(rule)
    if allowing:
        reason = f"{node.op_type} does not take {describe_pair(pair, per_channel)}; allowed: {_choices(allowing)}"
        return Ruling(
            False, allowing[0].id, reason, allowing[0].suggestion or "choose one of the pairs that are allowed"
        )
    if unmet:
        rule, condition = unmet[0]
        return Ruling(False, rule.id, condition, rule.suggestion)
    return Ruling(
        None,
        None,
        f"no rule of the profile speaks of {node.op_type}",
        "verify on the EP itself, or add a rule with --profile",
    )


def takes(profile: Profile, device: str, op_type: str, opset: int) -> bool:
    """Whether the device takes the ai.onnx operator at all: what decides if a decomposed one is fused into it."""
    for rule in profile.rules_for(op_type, "", device):
        if rule.kernels is not None:
            if profile.tables[rule.kernels].types(op_type, "", opset) is not None:
                return True
        elif rule.refuse is None:
            return True
    return False


def describe_pair(pair: Pair, per_channel: bool) -> str:
    """The pair as messages write it."""
    scaled = pair.weight is not None and not pair.weight.is_float
    return f"{pair}{' per channel' if per_channel and scaled else ''}"


def _qualified(node: Node) -> str:
    return f"{node.domain}:{node.op_type}" if node.domain else node.op_type


def _beyond_limits(node: Node, profile: Profile) -> Ruling | None:
    limits = profile.limits
    if limits.static_shapes:
        operands = [("input", o.name, o.shape) for o in node.inputs if o is not None]
        results = [("output", name, shape) for name, shape in zip(node.outputs, node.output_shapes, strict=True)]
        for kind, name, shape in (*operands, *results):
            if shape is not None and None in shape:
                return Ruling(
                    False,
                    STATIC_SHAPES,
                    f"{kind} {name!r} has a dynamic shape {_dims(shape)}; {profile.ep} takes static shapes only",
                    "fix the model's input shapes",
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


def unmet_condition(when: When, node: Node, per_channel: bool, opset: int, pair: Pair | None = None) -> str | None:
    """The first condition that the node does not meet, in words; None where it meets all.

    Args:
        pair: what is planned for it, which may put its weight in blocks.
    """
    weight = node.weight
    if when.weight is not None and when.weight != (weight is not None):
        return "its weight is not constant" if when.weight else "it has a constant weight"
    if when.per_channel is not None and when.per_channel != (per_channel and weight is not None):
        return "its weight is not quantized per channel" if when.per_channel else "its weight is quantized per channel"
    if when.blocked is not None and when.blocked != _is_blocked(node, pair):
        return "its weight is not quantized by blocks" if when.blocked else "its weight is quantized by blocks"
    if when.cut_block is not None and when.cut_block != (cut := _cuts_a_block(node, pair)):
        return f"the last block of its weight is {'cut short' if cut else 'whole'}"
    if when.captures_constants is not None and when.captures_constants != node.captures_constants:
        return f"its body reads {'no' if when.captures_constants else 'some'} constants of the graph around it"
    if when.static_outputs is not None and when.static_outputs != node.static_outputs:
        return f"the shapes of its results are {'not ' if when.static_outputs else ''}known"
    if when.empty is not None and when.empty != node.has_empty:
        return f"{'none' if when.empty else 'one'} of its operands and results is empty"
    outputs = sum(1 for name in node.outputs if name)
    if when.min_outputs is not None and outputs < when.min_outputs:
        return f"it has fewer than {when.min_outputs} outputs"
    for bound, value, least, most in (
        ("opset", opset, when.min_opset, when.max_opset),
        ("rank", node.rank, when.min_rank, when.max_rank),
    ):
        if least is not None and value < least:
            return f"{bound} {value} is below {least}"
        if most is not None and value > most:
            return f"{bound} {value} is above {most}"
    for name, allowed in when.attributes.items():
        value_ = attribute(node, name, opset)
        if value_ not in allowed:
            return f"attribute {name}={value_} is not among {', '.join(map(str, allowed))}"
    for name, excluded in when.attributes_not.items():
        value_ = attribute(node, name, opset)
        if value_ is None or value_ in excluded:
            return f"attribute {name}={value_} is among {', '.join(map(str, excluded))}"
    for name, bound_ in when.attributes_above.items():
        value_ = attribute(node, name, opset)
        numbers = value_ if isinstance(value_, list | tuple) else [value_]
        if not any(isinstance(n, int | float) and n > bound_ for n in numbers):
            return f"attribute {name}={value_} is not above {bound_:g}"
    for position, condition in when.inputs.items():
        index = int(position)
        operand = node.inputs[index] if index < len(node.inputs) else None
        problem = _unmet_operand(condition, operand)
        if problem is not None:
            return f"input {index} {problem}"
    return None


def _is_blocked(node: Node, pair: Pair | None) -> bool:
    return node.stored_blocked or (pair is not None and pair.block_size is not None)


def _cuts_a_block(node: Node, pair: Pair | None) -> bool:
    """Whether the numbers along the blocks of a weight are no multiple of the block size."""
    numbers, size = node.attributes.get("K"), node.attributes.get("block_size")
    if isinstance(numbers, int) and isinstance(size, int) and size > 0:  # MatMulNBits
        return numbers % size != 0
    if pair is None or pair.block_size is None:
        return False
    matrix = matrix_of(node)
    return not isinstance(matrix, str) and matrix.numbers % pair.block_size != 0


def _unmet_operand(condition: OperandCondition, operand: Operand | None) -> str | None:
    if condition.present is not None and condition.present != (operand is not None):
        return "is missing" if condition.present else "is given"
    if operand is None:
        return None
    if condition.constant is not None and condition.constant != operand.constant:
        return "is not constant" if condition.constant else "is constant"
    if condition.dtype is not None and operand.dtype is not None and operand.dtype not in condition.dtype:
        return f"has type {operand.dtype}, not {' or '.join(condition.dtype)}"
    rank = None if operand.shape is None else len(operand.shape)
    if rank is not None and condition.min_rank is not None and rank < condition.min_rank:
        return f"has rank {rank}, below {condition.min_rank}"
    if rank is not None and condition.max_rank is not None and rank > condition.max_rank:
        return f"has rank {rank}, above {condition.max_rank}"
    return None


def attribute(node: Node, name: str, opset: int) -> object:
    """The attribute's value, or ONNX's default for it; None where there is neither."""
    if name in node.attributes:
        value = node.attributes[name]
        return list(value) if isinstance(value, tuple) else value
    return _default(node.op_type, node.domain, name, opset)


@functools.cache
def _default(op_type: str, domain: str, name: str, opset: int) -> object:
    try:
        formal = onnx.defs.get_schema(op_type, opset, domain).attributes.get(name)
    except onnx.defs.SchemaError:
        return None
    if formal is None or formal.default_value.type == onnx.AttributeProto.UNDEFINED:
        return None
    value = onnx.helper.get_attribute_value(formal.default_value)
    return value.decode() if isinstance(value, bytes) else value


def _refused(rule: Rule, pair: Pair, per_channel: bool) -> bool:
    return (not rule.activation or pair.activation in rule.activation) and (
        not rule.weight or (pair.weight is not None and _names(rule, pair, pair.weight, per_channel))
    )


def _names(rule: Rule, pair: Pair, weight: DType, per_channel: bool) -> bool:
    if pair.block_size is not None:
        return rule.names_blocked_weight(weight)
    return rule.names_weight(weight, per_channel=per_channel)


def _allowed(rule: Rule, pair: Pair, per_channel: bool) -> Ruling | None:
    if pair.activation is None:
        return Ruling(True, rule.id)
    if _allows(rule, pair, per_channel):
        fixed = rule.fixed.get(pair.activation)
        return Ruling(True, rule.id, fixed=None if fixed is None else (fixed.scale, fixed.zero_point))
    return None


def _allows(rule: Rule, pair: Pair, per_channel: bool) -> bool:
    if pair.activation not in rule.activation:
        return False
    if not rule.weight:
        # A rule without a weight speaks of nodes that have none, and of float nodes, whose weight has their own type.
        return pair.weight is None or (pair.weight.is_float and pair.weight == pair.activation)
    if pair.weight is None or (pair.block_size is not None and pair.block_size not in rule.blocks):
        return False
    return _names(rule, pair, pair.weight, per_channel)


def _choices(rules: Iterable[Rule]) -> str:
    choices: dict[str, None] = {}
    for rule in rules:
        if rule.activation:
            weights = f"{'|'.join(rule.weight)}/" if rule.weight else ""
            choices[f"{weights}{'|'.join(rule.activation)}"] = None
    return ", ".join(choices) or "nothing"


def _by_kernels(rule: Rule, table: KernelTable, node: Node, pair: Pair, opset: int) -> Ruling:
    """Legality from a kernel table: every operand needs a kernel for its type. A quantized pair is stored as Q/DQ
    around a float32 kernel, so it needs QuantizeLinear and DequantizeLinear kernels for its types as well."""
    activation = DType.FLOAT32 if pair.activation is not None and not pair.activation.is_float else pair.activation
    problem = _kernel_problem(table, node, activation, opset)
    if problem is not None and rule.cast_float16:
        problem = _kernel_problem(table, _in_float32(node), _WIDENED.get(activation, activation), opset)
    if problem is None and pair.activation is not None:
        problem = _conversion_problem(table, pair, opset)
    if problem is None:
        return Ruling(True, rule.id)
    reason, suggestion = problem
    return Ruling(False, rule.id, f"{reason} ({table.source})", suggestion or rule.suggestion)


_WIDENED: dict[DType | None, DType | None] = {DType.FLOAT16: DType.FLOAT32}


def _in_float32(node: Node) -> Node:
    """The node as a runtime runs it that casts float16 operands to float32 for want of a kernel."""

    def widened(dtype: str | None) -> str | None:
        return "float32" if dtype == "float16" else dtype

    inputs = tuple(None if o is None else replace(o, dtype=widened(o.dtype)) for o in node.inputs)
    return replace(node, inputs=inputs, output_dtypes=tuple(widened(d) for d in node.output_dtypes))


def _kernel_problem(
    table: KernelTable, node: Node, activation: DType | None, opset: int
) -> tuple[str, str | None] | None:
    """Why no kernel of the table serves the node, and what to do; None where one does."""
    types = table.types(node.op_type, node.domain, opset)
    problem = (
        (f"{_qualified(node)} has no kernel at opset {opset}", None)
        if types is None
        else _type_problem(types, node, activation, opset)
    )
    # The runtime replaces an operator without a kernel (for its types) by its definition in terms of others.
    body = node.expansion or _function_body(node.op_type, node.domain, opset)
    if problem is None or body is None:
        return problem
    missing = [op for op in body if not _is_served(table, op, opset)]
    return (f"{_qualified(node)} has no kernel, nor has {missing[0]}, which defines it", None) if missing else None


def _type_problem(
    types: Mapping[str, frozenset[str]], node: Node, activation: DType | None, opset: int
) -> tuple[str, str | None] | None:
    for position, operand in enumerate(node.inputs):
        if operand is None:
            continue
        flows = operand.role is not Role.EXACT and activation is not None
        dtype = activation.value if flows and activation is not None else operand.dtype
        constraint = _constraint(node.op_type, node.domain, opset, position)
        if dtype is not None and constraint is not None and dtype not in types.get(constraint, {dtype}):
            floats = [t for t in ("float16", "float32", "float64") if t in types[constraint]]
            hint = f"choose {' or '.join(floats)}" if flows and floats else None
            return f"{_qualified(node)} has no {dtype} kernel", hint
    inputs = {_constraint(node.op_type, node.domain, opset, i) for i in range(len(node.inputs))}
    for position, dtype in enumerate(node.output_dtypes):
        constraint = _constraint(node.op_type, node.domain, opset, position, output=True)
        # A type that an input shares was looked at there, as the plan would have it.
        if dtype is not None and constraint not in inputs and dtype not in types.get(constraint or "", {dtype}):
            return f"{_qualified(node)} has no kernel that gives {dtype}", None
    return None


# Operators whose definition depends on their node, where they stand in the definition of another: what they need at most.
_NESTED = {
    "CastLike": ("Cast",),
    "NegativeLogLikelihoodLoss": (
        "Cast", "Div", "Equal", "GatherElements", "Mul", "Neg", "ReduceMean", "ReduceSum", "Slice", "Squeeze", "Sub",
        "Unsqueeze", "Where",
    ),
}  # fmt: skip


def _is_served(table: KernelTable, op_type: str, opset: int) -> bool:
    """Whether the table has kernels for an operator of ONNX, or for all that it is defined by. Constants need none."""
    if op_type == "Constant" or table.types(op_type, "", opset) is not None:
        return True
    body = _NESTED.get(op_type) or _function_body(op_type, "", opset)
    return body is not None and all(_is_served(table, op, opset) for op in body)


def _conversion_problem(table: KernelTable, pair: Pair, opset: int) -> tuple[str, str | None] | None:
    assert pair.activation is not None
    needed = []
    if not pair.activation.is_float:
        needed += [("QuantizeLinear", pair.activation), ("DequantizeLinear", pair.activation)]
    if pair.weight is not None and not pair.weight.is_float:
        needed.append(("DequantizeLinear", pair.weight))  # weights are quantized offline
    for operator, dtype in needed:
        kernel = table.types(operator, "", opset) or {}
        listed = frozenset[str]().union(*kernel.values())
        if dtype not in listed:
            integers = sorted(t for t in listed if "int" in t and t != "int32")
            hint = "choose 8-bit types" if any("8" in t for t in integers) else "choose a float precision"
            return f"{operator} has no {dtype} kernel, only {', '.join(integers)}", hint
    return None


@functools.cache
def _constraint(op_type: str, domain: str, opset: int, position: int, *, output: bool = False) -> str | None:
    """Name of the type parameter of an operand, as ONNX and ONNX Runtime call it ("T")."""
    try:
        schema = onnx.defs.get_schema(op_type, opset, domain)
        formal = schema.outputs if output else schema.inputs
    except onnx.defs.SchemaError:
        return "T"  # contrib operators call the type of their data so
    return str(formal[min(position, len(formal) - 1)].type_str) if formal else None


@functools.cache
def _function_body(op_type: str, domain: str, opset: int) -> tuple[str, ...] | None:
    """Operators that ONNX defines this one by; None where it is primitive, or its definition depends on its inputs."""
    try:
        schema = onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None
    if not schema.has_function:
        return None
    return tuple(n.op_type for n in schema.function_body.node)


__all__ = ["Ruling", "attribute", "describe_pair", "judge", "takes", "unmet_condition"]
