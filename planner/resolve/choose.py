"""Choosing a legal config for every node, or saying which nodes have none. Pure: Target + Model + Precision -> Plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from planner.dtypes import (
    NO_PRECISION,
    PER_CHANNEL,
    PER_TENSOR,
    WRITTEN,
    DType,
    Granularity,
    Precision,
    QuantConfig,
    in_float,
    parse_precision,
)
from planner.errors import RequestError
from planner.model.node import Node
from planner.model.passes.order import unread_last
from planner.model.read import Model
from planner.operators import Role, channel_axis
from planner.resolve.defects import around_defects
from planner.resolve.legality import STATIC_SHAPES, Ruling, judge
from planner.resolve.plan import Basis, ModelIdentity, Plan, PlanNode, ProfileIdentity
from planner.resolve.quantized import quantized_form
from planner.resolve.replacements import BLOCK_SIZE, matrix_of
from planner.resolve.target import Target
from planner.resolve.verdicts import Prediction, Verdict

if TYPE_CHECKING:
    from planner.calibrate.inputs import Inputs

_BLOCKS = Granularity(block_size=BLOCK_SIZE)


@dataclass(frozen=True)
class Resolution:
    """What resolving came to: a verdict per node, and the plan if every node is legal.

    Attributes:
        precision: what was resolved: the name of a precision, or "as stored".
        legal: True, False, or None where something is unknown and nothing is illegal.
        notes: on known defects of the EP that the model meets.
    """

    precision: str
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...] = ()

    @property
    def violations(self) -> tuple[Verdict, ...]:
        return tuple(v for v in self.verdicts if v.ruling.legal is False)

    @property
    def unknown(self) -> tuple[Verdict, ...]:
        return tuple(v for v in self.verdicts if v.ruling.legal is None)

    @property
    def legal(self) -> bool | None:
        if self.violations:
            return False
        return None if self.unknown else True


def check_model(target: Target, model: Model, precision: Precision | None, *, stored: bool = False) -> Resolution:
    """Judge a precision, the first that auto tries where it is None, or (``stored``) the model as it is."""
    return judge_stored(target, model) if stored else next(resolve_each(target, model, precision))


def resolve_each(target: Target, model: Model, precision: Precision | None) -> Iterator[Resolution]:
    """What the precision resolves to; for None (auto) each candidate in the profile's order of preference.

    Raises:
        RequestError: the model is quantized already: its precision is what it stores.
    """
    if (found := quantized_form(model)) is not None:
        form, nodes = found
        raise RequestError(
            f"{model.path} is quantized already ({form}): {len(nodes)} nodes, first {nodes[0].op_type} {nodes[0].name!r}",
            "give the float32 model it was made of; `planner check` without --precision judges this one as it is, and "
            "`planner verify` runs it",
        )
    if precision is None:
        yield from resolve_auto(target, model)
    else:
        yield resolve(target, model, precision)


def judge_stored(target: Target, model: Model) -> Resolution:
    """Judge the model as it is: every node at the config that the file stores."""
    verdicts = []
    known = _Constants()
    for node in model.nodes:
        ruling = _judge_with_weight(target, node, node.stored, model.normalized_opset)
        if known.folds(node) and not ruling.legal:
            ruling = _FOLDED
        verdicts.append(Verdict(node, node.stored, ruling))
    verdicts = _with_bodies(target, verdicts)
    verdicts, notes = around_defects(target, verdicts, model.normalized_opset, stored=True)
    return Resolution("as stored", _say_shapes(model, verdicts), (*notes, *_say_unread(target, model)))


def _say_unread(target: Target, model: Model) -> Iterator[str]:
    """A note where an input that nothing reads stands before one that is read, and the EP feeds by place."""
    if not target.profile.limits.feeds_by_place or model.ir is None:
        return
    inputs = model.ir.graph.inputs
    misplaced = next((have for have, want in zip(inputs, unread_last(inputs), strict=True) if have is not want), None)
    if misplaced is not None:
        yield (
            f"nothing reads input {misplaced.name!r}, which stands before others: {target.ep} then gives these the wrong numbers; put it last, "
            "or take it out (`planner target` writes it last)"
        )


def _judge_with_weight(target: Target, node: Node, config: QuantConfig, opset: int) -> Ruling:
    """Judge a node and the DequantizeLinear of its weight and bias, which stay by themselves where the node computes in float."""
    ruling = judge(target, node, config, opset)
    weight, activation = config.weight, config.activation
    strict = set(target.profile.limits.one_scale_to_float) & set(target.profile.device(target.device).traits)
    in_float = activation is not None and activation.is_float
    if not (ruling.legal and strict and in_float and ruling.replacement is None):
        return ruling
    stored = weight is not None and not weight.is_float
    if stored and (config.per_channel or config.block_size is not None):
        what, do = "of several scales", "give the weight one scale"
    elif node.integer_bias:
        what, do = "of int32", "leave the bias float"
    else:
        return ruling
    reason = f"{target.ep} takes no DequantizeLinear {what} by itself, which a node in float would read"
    return Ruling(False, "one-scale-to-float", reason, f"quantize all that it reads and its result, or {do}")


def _with_bodies(target: Target, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts, where the bodies of an If, Loop or Scan that the EP leaves to another are left with it."""
    if not target.profile.limits.bodies_follow:
        return list(verdicts)
    followed: list[Verdict] = []
    left: set[str] = set()  # names of nodes that are not on the target
    for verdict in verdicts:  # a node stands before its bodies
        outer = next((name for name in verdict.node.scope if name in left), None)
        if outer is not None and verdict.ruling.legal is not False:
            reason = f"inside {outer!r}, which {target.ep} does not take; its body goes with it"
            ruling = Ruling(False, "bodies-follow", reason, "unroll the loop, or split the model at it")
            verdict = replace(verdict, ruling=ruling)
        if verdict.ruling.legal is False:
            left.add(verdict.node.name)
        followed.append(verdict)
    return followed


# Where the runtime computes the node before any EP is asked.
_FLOAT32 = parse_precision("fp32")
_FOLDED = Ruling(True, "constant-folding", basis=Basis.FOLDED)


class _Constants:
    """Which values the runtime knows ahead, followed through a graph in order."""

    def __init__(self) -> None:
        self.values: set[str] = set()

    def folds(self, node: Node) -> bool:
        """Whether onnxruntime computes the node while it loads the model: all its inputs are known, it has no body, and it
        gives the same every time.
        """
        inputs = [o for o in node.inputs if o is not None]
        known = (bool(inputs) or node.op_type == "Constant") and all(
            o.constant or o.name in self.values for o in inputs
        )
        if not known or node.op_type in _NOT_FOLDED or node.domain:
            return False
        self.values.update(node.outputs)
        return True


# onnxruntime, core/optimizer/constant_folding.cc and utils.cc (IsOperationDeterministic).
_NOT_FOLDED = frozenset(
    {
        "RandomUniform", "RandomNormal", "RandomUniformLike", "RandomNormalLike", "Multinomial", "Bernoulli", "If", "Loop",
        "Scan", "QuantizeLinear", "DequantizeLinear",
    }
)  # fmt: skip


def resolve(target: Target, model: Model, precision: Precision, otherwise: Sequence[Precision] = ()) -> Resolution:
    """Give every node the first legal config of the precision.

    Args:
        target: where the model is to run.
        model: as the target reads it.
        precision: as asked for.
        otherwise: precisions that a node may fall back to where the first has no legal config (only `auto` has any).
    """
    verdicts = []
    known = _Constants()
    for node in model.nodes:
        verdict = _first_legal(target, model, node, precision)
        if known.folds(node) and not verdict.ruling.legal:
            verdict = replace(verdict, ruling=_FOLDED)
        for other in otherwise:
            if verdict.ruling.legal:
                break
            alternative = _first_legal(target, model, node, other)
            if alternative.ruling.legal:
                verdict = alternative
        verdicts.append(verdict)
    verdicts = _with_bodies(target, verdicts)
    if precision.flows is not None and not any(
        v.config.weight is not None and not v.config.weight.is_float for v in verdicts
    ):
        # A model all of whose weights stay float is not what was asked for.
        verdicts = [_as_asked(target, model, v, precision) for v in verdicts]
    elif all(v.ruling.legal for v in verdicts) and not any(_has(precision, v.config) for v in verdicts):
        verdicts = [replace(v, ruling=_nothing_to_choose(precision)) for v in verdicts]
    verdicts, notes = around_defects(target, verdicts, model.normalized_opset)
    return Resolution(str(precision), _say_shapes(model, verdicts), notes)


def _has(precision: Precision, config: QuantConfig) -> bool:
    """Whether a node has the precision that the name says, or that of the rest."""
    parts = (precision,) if precision.rest is None else (precision, precision.rest)
    return any(config.activation in part.activations or config.weight in part.weights for part in parts)


def _nothing_to_choose(precision: Precision) -> Ruling:
    reason = f"no node of the model computes with numbers that {precision} could store: it would stay what it is"
    return Ruling(False, "nothing-to-choose", reason, "use the model as it is")


def _say_shapes(model: Model, verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """The verdicts, with a suggestion that names this model's own inputs where a dynamic shape is what is wrong."""
    if model.dynamic_inputs:
        hint = f"write numbers for the names: --shape {' --shape '.join(model.dynamic_inputs)}; --inputs give them too"
    else:
        hint = "the shape depends on the data: end the model before the node that makes it (NonZero, Loop, ...), or split it there"
    return tuple(
        replace(v, ruling=replace(v.ruling, suggestion=hint)) if v.ruling.rule == STATIC_SHAPES else v for v in verdicts
    )


def _as_asked(target: Target, model: Model, verdict: Verdict, precision: Precision) -> Verdict:
    """The node at the config that the precision would have had for it, where it has a weight."""
    if verdict.node.weight is None:
        return verdict
    config = next(_options(verdict.node, precision))
    return Verdict(verdict.node, config, judge(target, verdict.node, config, model.normalized_opset))


def resolve_auto(target: Target, model: Model) -> Iterator[Resolution]:
    """What `auto` tries, in the profile's order of preference: each precision that is legal for every node; if
    none is, the first one with the nodes that cannot take it at a later one, or as a last resort in float32. Ends with the first
    failure, so that there is always something to tell.
    """
    preferences = target.preferred
    failed: Resolution | None = None
    found = False
    for precision in preferences:
        resolution = resolve(target, model, precision)
        if resolution.legal:
            found = True
            yield resolution
        else:
            failed = failed or resolution
    if not found:
        widest = preferences if _FLOAT32 in preferences else (*preferences, _FLOAT32)
        for i, precision in enumerate(widest):
            resolution = resolve(target, model, precision, widest[i + 1 :])
            if resolution.legal:
                found = True
                yield resolution
                break
    if not found and failed is not None:
        yield failed


def with_fallback(resolution: Resolution) -> Resolution:
    """The resolution with its illegal nodes left float32 to whoever takes them, which is the CPU EP: --allow-fallback."""
    verdicts = tuple(_left_to_cpu(v) if v.ruling.legal is False else v for v in resolution.verdicts)
    return replace(resolution, verdicts=verdicts)


def _left_to_cpu(verdict: Verdict) -> Verdict:
    reason = f"left to the CPU EP (--allow-fallback): {verdict.ruling.reason}"
    return Verdict(verdict.node, float32(verdict.node), Ruling(True, None, reason, basis=Basis.FALLBACK))


def float32(node: Node) -> QuantConfig:
    """The node in float32; without a precision where it has none to choose."""
    return in_float(DType.FLOAT32, has_weight=node.weight is not None) if node.has_precision else NO_PRECISION


def make_plan(target: Target, model: Model, resolution: Resolution, inputs: Inputs | None = None) -> Plan:
    """The plan that a legal resolution amounts to.

    Args:
        target: where the model is to run.
        model: as the target reads it.
        resolution: of it.
        inputs: what calibrates the plan, where it needs any.

    Raises:
        RequestError: it asks for a type that is judged but not written, or there is nothing to decide.
    """
    if not model.nodes:
        raise RequestError(
            f"{model.path}: no node is left when constants are folded: no output depends on an input",
            "there is nothing to quantize; check how the model was exported",
        )
    types = {t for v in resolution.verdicts for t in (v.config.weight, v.config.activation) if t is not None}
    if unwritten := sorted(types - WRITTEN):
        raise RequestError(
            f"planner judges {unwritten[0]}, and writes no model in it",
            "export the model so with the tools of the EP's maker; `planner check` judges the file as it is",
        )
    nodes = tuple(_plan_node(v, resolution.precision) for v in resolution.verdicts)
    plan = Plan(
        model=ModelIdentity.of(model),
        target=target.identity,
        precision=_precision_name(resolution.precision, nodes),
        opset=model.normalized_opset,
        nodes=nodes,
        profile=ProfileIdentity(target.ep, target.profile.sha256),
        shapes=model.shapes,
        evidence=target.evidence,
    )
    return replace(plan, inputs=inputs.to_json()) if inputs is not None and plan.is_quantized else plan


def _precision_name(asked: str, nodes: Sequence[PlanNode]) -> str:
    stored = (n.config.stored_activation for n in nodes)
    activations = {(a.bits, a.is_float) for a in stored if a is not None}
    return "mixed" if len(activations) > 1 or "+" in asked else asked


def _plan_node(verdict: Verdict, asked: str) -> PlanNode:
    node, ruling = verdict.node, verdict.ruling
    return PlanNode(
        name=node.name,
        op_type=node.op_type,
        config=verdict.config,
        replacement=ruling.replacement,
        fixed=ruling.fixed,
        float_bias=ruling.float_bias,
        symmetric=ruling.symmetric,
        factor=ruling.factor,
        rule=ruling.rule,
        basis=ruling.basis,
        on_target=False if ruling.basis in (Basis.FALLBACK, Basis.REFERENCE) else ruling.legal,
        reason=_reason(verdict.config, ruling, asked),
        origins=node.origins,
    )


def _reason(config: QuantConfig, ruling: Ruling, asked: str) -> str:
    """Why the node gets this config, in words."""
    if ruling.reason:
        return ruling.reason
    if config.activation is None:
        return "computes on indices, shapes, masks or conditions: left as it is"
    if ruling.rule is None:
        return asked
    how = f" as {ruling.replacement}" if ruling.replacement else ""
    return f"{asked}: {config}{how} allowed by rule {ruling.rule}"


def _first_legal(target: Target, model: Model, node: Node, precision: Precision) -> Verdict:
    """The node's first legal config at the precision; the first one tried where none is legal."""
    first: Verdict | None = None
    for config in _options(node, precision):
        ruling = _judge_with_weight(target, node, config, model.normalized_opset)
        verdict = Verdict(node, config, ruling)
        if ruling.legal:
            if first is not None and precision.flows is not None:
                # Float weights are no failure of such a precision, but the plan says why.
                why = f"left {config.activation}: {first.ruling.reason}"
                verdict = replace(verdict, ruling=replace(ruling, reason=why))
            return verdict
        # Prefer to show a certain no over an unknown, and the first of each.
        if first is None or (first.ruling.legal is None and ruling.legal is False):
            first = verdict
    assert first is not None
    return first


def _options(node: Node, precision: Precision) -> Iterator[QuantConfig]:
    """Configs to try for a node, best first: per channel before per tensor, the precision's own order of types."""
    if not node.has_precision:
        yield NO_PRECISION
        return
    if precision.flows is not None and precision.rest is None:
        yield from _weight_options(node, precision, precision.flows)
        return
    if node.weight is None:
        yield from (QuantConfig(None, activation) for activation in (precision.rest or precision).activations)
        return
    for activation in precision.activations:
        if activation.is_float:
            yield from (QuantConfig(kind, activation) for kind in precision.weights)
        else:
            yield from _integer_options(node, precision.weights, activation)


def _integer_options(node: Node, weights: Sequence[DType], activation: DType) -> Iterator[QuantConfig]:
    """Configs of a node with a weight between integer activations."""
    if min(w.bits for w in weights) == 4 and not isinstance(matrix_of(node), str):
        # One scale for a whole channel costs 4-bit weights several dB.
        yield from (QuantConfig(kind, activation, _BLOCKS) for kind in _unsigned_first(weights))
    if _has_channels(node):
        signed_first = sorted(weights, key=lambda w: w.is_signed, reverse=True)
        yield from (QuantConfig(kind, activation, PER_CHANNEL) for kind in signed_first)
    # Per tensor, an unsigned weight uses its whole range (asymmetric): try it first.
    yield from (QuantConfig(kind, activation, PER_TENSOR) for kind in _unsigned_first(weights))


def _weight_options(node: Node, precision: Precision, flows: DType) -> Iterator[QuantConfig]:
    """Configs of a node between nodes of which everything stays float: integer weights, and, last, float ones."""
    weight = node.weight
    if weight is not None or (node.op_type == "Gather" and not isinstance(matrix_of(node), str)):
        if precision.dynamic and node.op_type != "Gather":
            yield from (
                QuantConfig(kind, activation, PER_CHANNEL, dynamic=True)
                for activation in precision.activations
                for kind in precision.weights
            )
        else:
            yield from (QuantConfig(kind, flows, _BLOCKS) for kind in _unsigned_first(precision.weights))
            if weight is not None and weight.shape is not None and len(weight.shape) > 1 and _has_channels(node):
                # Four bits and one scale for a whole channel keep too little of a convolution.
                yield from (QuantConfig(kind, flows, PER_CHANNEL) for kind in precision.weights if kind.bits == 8)
            if weight is not None:
                yield from (QuantConfig(kind, flows) for kind in _unsigned_first(precision.weights) if kind.bits == 8)
    yield in_float(flows, has_weight=weight is not None)


def _unsigned_first(weights: Sequence[DType]) -> list[DType]:
    """An unsigned block is asymmetric and uses its whole range: 1 to 3 dB less error than a signed one."""
    return sorted(weights, key=lambda w: w.is_signed)


def _has_channels(node: Node) -> bool:
    for position, operand in enumerate(node.inputs):
        if operand is not None and operand.role is Role.WEIGHT and operand.shape is not None:
            return channel_axis(node.op_type, position, len(operand.shape), dict(node.attributes)) is not None
    return False


def predicted_placement(target: Target, candidate: Path) -> Prediction:
    """What the profile expects of a file as onnxruntime gets it, open dimensions and all."""
    read = target.read(candidate, stored=True, bound=False)
    on_target = {
        name: verdict.ruling.legal
        for verdict in check_model(target, read, None, stored=True).verdicts
        if verdict.ruling.legal is not None
        for name in (verdict.node.name, *verdict.node.origins)
    }
    return Prediction(on_target, read.dynamic_inputs if target.profile.limits.static_shapes else ())
