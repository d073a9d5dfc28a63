"""Is this config legal for this node on this target? Pure: a Target, a Node and a QuantConfig give a Ruling."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from planner.dtypes import DType, QuantConfig
from planner.model.node import Node, signature
from planner.operators import operator
from planner.profiles.schema import FixedParameters, Rule
from planner.profiles.when import When
from planner.resolve.conditions import unmet_condition
from planner.resolve.kernels import missing_kernel, qualified
from planner.resolve.plan import Basis
from planner.resolve.replacements import Replacement, matrix_of, name_of, replacements, unfit
from planner.resolve.target import Target

LEARNED = "learned"  # what a ruling names in place of a rule where evidence from a model decided
STATIC_SHAPES = "static-shapes"  # what a ruling names that a dynamic shape decided


@dataclass(frozen=True)
class Ruling:
    """The answer for one node at one config.

    Attributes:
        legal: True, False, or None where no rule speaks of the operator.
        rule: id of the rule that decided; None where none did.
        reason: why not; None where legal.
        suggestion: what to do instead; None where legal or nothing is known to help.
        fixed: output scale and zero point that the rule demands, where it does.
        replacement: operator that takes the node's place; None: it keeps its own.
        float_bias: the node is taken only if its bias stays float: the EP refuses one that is stored as int32.
        symmetric: its integer activations are to have a zero point of 0: the EP refuses others.
        factor: type for its second factor, where that avoids a defect of the EP.
        basis: what kind of knowledge decided.
    """

    legal: bool | None
    rule: str | None
    reason: str | None = None
    suggestion: str | None = None
    fixed: FixedParameters | None = None
    replacement: Replacement | None = None
    float_bias: bool = False
    symmetric: bool = False
    factor: DType | None = None
    basis: Basis = Basis.RULE


_QUANTIZING_OPSET = 10


def judge(target: Target, node: Node, config: QuantConfig, opset: int) -> Ruling:
    """Judge one node at one config.

    Limits come first (static shapes, rank), then the rules in the profile's order: a refusal that matches ends the
    search, the first rule that allows the config makes it legal. Where rules speak of the operator but none allows the
    config, it is illegal and the reason lists what is allowed. Where none speaks of it, the answer is unknown.

    What the EP itself was seen to do with such a node, where a model taught it, stands above all of this.

    A dynamic config, and one of float activations with a weight in blocks, is legal where the operators that take the
    node's place are (planner/resolve/replacements.py); a weight in blocks also where the rules speak of blocks.

    Args:
        target: where the node is to run.
        node: of the model.
        config: what it is to store and compute.
        opset: ai.onnx opset of the model that is to run.
    """
    if config.block_size is None and not config.dynamic:
        return _judge_as_it_is(target, node, config, opset)
    matrix = matrix_of(node)
    problem = matrix if isinstance(matrix, str) else unfit(matrix, config)
    if isinstance(matrix, str) or problem is not None:
        return Ruling(False, "blocks" if config.block_size is not None else "dynamic", problem)
    made = replacements(node, config, matrix)
    rulings = [_judge_as_it_is(target, other, other.stored, opset) for other in made]
    refused = next((ruling for ruling in rulings if not ruling.legal), None)
    if rulings and refused is None:
        return replace(rulings[0], replacement=name_of(made))
    if config.dynamic or node.op_type == "Gather":
        # A table behind a DequantizeLinear would be dequantized whole in every run: 18 ms instead of 0.02 for 12 million
        # numbers on onnxruntime 1.32's CPU EP.
        return refused or Ruling(False, "blocks", "its rows hold an odd number of 4-bit numbers")
    inside = _judge_as_it_is(target, node, config, opset)
    return inside if inside.legal or refused is None else refused


def _judge_as_it_is(target: Target, node: Node, config: QuantConfig, opset: int) -> Ruling:
    """Judge a node that keeps its operator."""
    ruling = _by_rules(target, node, config, opset)
    if ruling.legal and _would_store_integer_bias(target, node, config):
        ruling = replace(
            ruling, float_bias=not _by_rules(target, replace(node, integer_bias=True), config, opset).legal
        )
    if ruling.legal and _would_have_zero_points(target, node, config):
        ruling = replace(ruling, symmetric=not _by_rules(target, replace(node, asymmetric=True), config, opset).legal)
    if not target.profile.learned:
        return ruling
    seen = target.profile.learned.get((target.device, signature(node, config)))
    if seen is None or seen.on_target is ruling.legal:
        return ruling
    if seen.on_target:
        return Ruling(True, LEARNED, basis=Basis.LEARNED)
    reason = f"{target.ep} left such a node to another EP when it was asked ({seen.source})"
    return Ruling(
        False,
        LEARNED,
        f"{reason}: {seen.reason}" if seen.reason else reason,
        "choose another precision for it",
        basis=Basis.LEARNED,
    )


def _would_have_zero_points(target: Target, node: Node, config: QuantConfig) -> bool:
    """Whether its activations may get zero points that a rule might refuse."""
    quantized = config.activation is not None and not config.activation.is_float
    speaking = any(rule.when.asymmetric is not None for rule in target.rules_for(node.op_type, node.domain))
    return quantized and not node.asymmetric and speaking


def _would_store_integer_bias(target: Target, node: Node, config: QuantConfig) -> bool:
    """Whether quantizing the node gives it an int32 bias that a rule might refuse."""
    quantized = config.activation is not None and not config.activation.is_float
    return (
        quantized
        and not node.integer_bias
        and operator(node.op_type).has_integer_bias
        and any(rule.when.integer_bias is not None for rule in target.rules_for(node.op_type, node.domain))
    )


def _by_rules(target: Target, node: Node, config: QuantConfig, opset: int) -> Ruling:
    rules = target.rules_for(node.op_type, node.domain)
    if (limit := _beyond_limits(target, node) or _before_quantizing(config, opset)) is not None:
        # Where the EP has no such operator, no other shape would help.
        whole = (Ruling(False, r.id, r.refuse, r.suggestion) for r in rules if r.refuse is not None and _is_whole(r))
        return next(whole, limit)
    if not node.known and all(rule.kernels is not None for rule in rules):
        return Ruling(
            False,
            "known-operator",
            f"operator {qualified(node)} is defined neither by ONNX nor by ONNX Runtime",
            "replace it by standard operators, or register its custom-op library with a profile of your own",
        )
    unmet: list[tuple[Rule, str]] = []
    allowing: list[Rule] = []
    for rule in rules:
        condition = unmet_condition(rule.when, node, config, opset, of_refusal=rule.refuse is not None)
        if rule.refuse is not None:
            if condition is None and _refused(rule, config):
                return Ruling(False, rule.id, rule.refuse, rule.suggestion)
        elif condition is not None:
            unmet.append((rule, condition))
        elif rule.kernels is not None:
            return _by_kernels(target, rule, rule.kernels, node, config, opset)
        elif (allowed := _allowed(rule, config)) is not None:
            return allowed
        else:
            allowing.append(rule)
    return _not_allowed(node, config, allowing, unmet)


def _not_allowed(node: Node, config: QuantConfig, allowing: list[Rule], unmet: list[tuple[Rule, str]]) -> Ruling:
    """The answer where no rule allows the config.

    Args:
        node: of the model.
        config: what it is to store.
        allowing: the rules that speak of the node and allow other configs.
        unmet: the rules that allow something, and the condition that the node does not meet.
    """
    if allowing:
        reason = f"{node.op_type} does not take {config}; allowed: {_choices(allowing)}"
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
        basis=Basis.UNKNOWN,
    )


def _by_kernels(target: Target, rule: Rule, name: str, node: Node, config: QuantConfig, opset: int) -> Ruling:
    table = target.profile.tables[name]
    missing = missing_kernel(table, node, config, opset, cast_float16=rule.cast_float16)
    if missing is None:
        return Ruling(True, rule.id)
    return Ruling(False, rule.id, f"{missing.reason} ({table.source})", missing.suggestion or rule.suggestion)


def _beyond_limits(target: Target, node: Node) -> Ruling | None:
    limits = target.profile.limits
    if limits.static_shapes:
        operands = [("input", o.name, o.shape) for o in node.inputs if o is not None]
        results = [("output", name, shape) for name, shape in zip(node.outputs, node.output_shapes, strict=True)]
        for kind, name, shape in (*operands, *results):
            if shape is not None and None in shape:
                return Ruling(
                    False,
                    STATIC_SHAPES,
                    f"{kind} {name!r} has a dynamic shape {_dims(shape)}; {target.ep} takes static shapes only",
                    "fix the model's input shapes",
                )
    if limits.max_rank is not None and node.rank > limits.max_rank:
        return Ruling(
            False,
            "max-rank",
            f"rank {node.rank} is above the {limits.max_rank} that {target.ep} takes",
            "merge dimensions with a Reshape before this node",
        )
    return None


def _before_quantizing(config: QuantConfig, opset: int) -> Ruling | None:
    """A model that could not be raised to an opset that has QuantizeLinear stays float."""
    is_quantized = any(dtype is not None and not dtype.is_float for dtype in (config.weight, config.activation))
    if opset >= _QUANTIZING_OPSET or not is_quantized:
        return None
    reason = f"the model stays at opset {opset}, and QuantizeLinear is defined from {_QUANTIZING_OPSET} on"
    return Ruling(False, "opset", reason, "export the model at opset 13 or above, or choose a float precision")


def _dims(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"


def _is_whole(rule: Rule) -> bool:
    """Whether it speaks of the operator whatever the node is like."""
    return rule.when == When() and not rule.weight and not rule.activation


def _refused(rule: Rule, config: QuantConfig) -> bool:
    return (not rule.activation or config.activation in rule.activation) and (not rule.weight or _names(rule, config))


def _names(rule: Rule, config: QuantConfig) -> bool:
    """Whether the rule's weights include the node's, scaled as it is."""
    if config.weight is None:
        return False
    if config.block_size is not None:
        return rule.names_blocked_weight(config.weight)
    return rule.names_weight(config.weight, per_channel=config.per_channel)


def _allowed(rule: Rule, config: QuantConfig) -> Ruling | None:
    if config.activation is None:
        return Ruling(True, rule.id)
    if _allows(rule, config):
        return Ruling(True, rule.id, fixed=rule.fixed.get(config.activation))
    return None


def _allows(rule: Rule, config: QuantConfig) -> bool:
    if config.activation not in rule.activation:
        return False
    if not rule.weight:
        # A rule without a weight speaks of nodes that have none, and of float nodes, whose weight has their own type.
        return config.weight is None or (config.weight.is_float and config.weight == config.activation)
    return (config.block_size is None or config.block_size in rule.blocks) and _names(rule, config)


def _choices(rules: Iterable[Rule]) -> str:
    choices: dict[str, None] = {}
    for rule in rules:
        if rule.activation:
            weights = f"{'|'.join(rule.weight)}/" if rule.weight else ""
            choices[f"{weights}{'|'.join(rule.activation)}"] = None
    return ", ".join(choices) or "nothing"
