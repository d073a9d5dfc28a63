"""Choosing a legal pair for every node, or saying which nodes have none. Pure: Model + Profile + Request -> Plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from planner.dtypes import DType, Pair, Precision
from planner.model.node import Node
from planner.model.read import Model
from planner.operators import Role, channel_axis
from planner.profiles.schema import Profile
from planner.resolve.legality import STATIC_SHAPES, Ruling, judge
from planner.resolve.plan import ModelIdentity, Plan, PlanNode, TargetIdentity
from planner.resolve.replacements import BLOCK_SIZE, matrix_of


@dataclass(frozen=True)
class Verdict:
    """One node judged at one pair: a line of `planner check`."""

    node: Node
    pair: Pair
    per_channel: bool
    ruling: Ruling


@dataclass(frozen=True)
class Resolution:
    """What resolving came to: a verdict per node, and the plan if every node is legal.

    Attributes:
        precision: what was resolved: the name of a precision, or "as stored".
        legal: True, False, or None where something is unknown and nothing is illegal.
    """

    precision: str
    verdicts: tuple[Verdict, ...]

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


def judge_stored(model: Model, profile: Profile, device: str) -> Resolution:
    """Judge the model as it is: every node at the pair that the file stores."""
    verdicts = []
    left: set[str] = set()  # names of nodes that are not on the target
    known = _Constants()
    for node in model.nodes:
        ruling = judge(node, node.stored, node.stored_per_channel, profile, device, model.normalized_opset)
        if known.folds(node) and not ruling.legal:
            ruling = Ruling(True, FOLDED)
        if profile.limits.bodies_follow and ruling.legal and (outer := left.intersection(node.scope)):
            reason = f"inside {next(iter(outer))!r}, which {profile.ep} does not take; its body goes with it"
            ruling = Ruling(False, "bodies-follow", reason, "unroll the loop, or split the model at it")
        if ruling.legal is False:
            left.add(node.name)
        verdicts.append(Verdict(node, node.stored, node.stored_per_channel, ruling))
    return Resolution("as stored", _say_shapes(model, verdicts))


FOLDED = "constant-folding"  # what a ruling names where the runtime computes the node before any EP is asked


class _Constants:
    """Which values the runtime knows ahead, followed through a graph in order."""

    def __init__(self) -> None:
        self.values: set[str] = set()

    def folds(self, node: Node) -> bool:
        """Whether onnxruntime computes the node while it loads the model: all its inputs are known, it has no body, and it
        gives the same every time."""
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


def resolve(
    model: Model, profile: Profile, device: str, precision: Precision, otherwise: Sequence[Precision] = ()
) -> Resolution:
    """Give every node the first legal pair of the precision.

    Args:
        otherwise: precisions that a node may fall back to where the first has no legal pair (only `auto` has any).
    """
    verdicts = []
    known = _Constants()
    for node in model.nodes:
        verdict = _first_legal(model, node, profile, device, precision)
        if known.folds(node) and not verdict.ruling.legal:
            verdict = replace(verdict, ruling=Ruling(True, FOLDED))
        for other in otherwise:
            if verdict.ruling.legal:
                break
            alternative = _first_legal(model, node, profile, device, other)
            if alternative.ruling.legal:
                verdict = alternative
        verdicts.append(verdict)
    if precision.flows is not None and not any(
        v.pair.weight is not None and not v.pair.weight.is_float for v in verdicts
    ):
        # A model all of whose weights stay float is not what was asked for.
        verdicts = [_as_asked(model, v, profile, device, precision) for v in verdicts]
    return Resolution(str(precision), _say_shapes(model, verdicts))


def _say_shapes(model: Model, verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """The verdicts, with a suggestion that names this model's own inputs where a dynamic shape is what is wrong."""
    if model.dynamic_inputs:
        hint = f"fix the model's input shapes, with numbers for names: --shape {' --shape '.join(model.dynamic_inputs)}"
    else:
        hint = "the shape depends on the data: end the model before the node that makes it (NonZero, Loop, ...), or split it there"
    return tuple(
        replace(v, ruling=replace(v.ruling, suggestion=hint)) if v.ruling.rule == STATIC_SHAPES else v for v in verdicts
    )


def _as_asked(model: Model, verdict: Verdict, profile: Profile, device: str, precision: Precision) -> Verdict:
    """The node at the pair that the precision would have had for it, where it has a weight."""
    if verdict.node.weight is None:
        return verdict
    pair, per_channel = next(_options(verdict.node, precision))
    ruling = judge(verdict.node, pair, per_channel, profile, device, model.normalized_opset)
    return Verdict(verdict.node, pair, per_channel, ruling)


def resolve_auto(model: Model, profile: Profile, device: str) -> Iterator[Resolution]:
    """What `auto` tries, in the profile's order of preference: each precision that is legal for every node; if
    none is, the first one with the nodes that cannot take it at a later one. Ends with the first failure, so that
    there is always something to tell."""
    preferences = profile.prefer[device]
    failed: Resolution | None = None
    found = False
    for precision in preferences:
        resolution = resolve(model, profile, device, precision)
        if resolution.legal:
            found = True
            yield resolution
        else:
            failed = failed or resolution
    if not found:
        for i, precision in enumerate(preferences):
            resolution = resolve(model, profile, device, precision, preferences[i + 1 :])
            if resolution.legal:
                found = True
                yield resolution
                break
    if not found and failed is not None:
        yield failed


def with_fallback(resolution: Resolution) -> Resolution:
    """The resolution with its illegal nodes left float32 to whoever takes them, which is the CPU EP: --allow-fallback."""
    verdicts = tuple(
        v
        if v.ruling.legal is not False
        else replace(
            v,
            pair=_float32(v.node),
            per_channel=False,
            ruling=Ruling(True, None, reason=f"left to the CPU EP (--allow-fallback): {v.ruling.reason}"),
        )
        for v in resolution.verdicts
    )
    return replace(resolution, verdicts=verdicts)


def _float32(node: Node) -> Pair:
    if not node.has_precision:
        return Pair(None, None)
    return Pair(DType.FLOAT32 if node.weight is not None else None, DType.FLOAT32)


def make_plan(model: Model, profile: Profile, target: TargetIdentity, resolution: Resolution) -> Plan:
    """The plan that a legal resolution amounts to."""
    nodes = tuple(_plan_node(v, resolution.precision) for v in resolution.verdicts)
    return Plan(
        model=ModelIdentity.of(model),
        target=target,
        precision=_precision_name(resolution.precision, nodes),
        opset=model.normalized_opset,
        nodes=nodes,
        profile_name=profile.ep,
        profile_sha256=profile.sha256,
        shapes=model.shapes,
    )


def _precision_name(asked: str, nodes: Sequence[PlanNode]) -> str:
    stored = (n.pair.stored_activation for n in nodes)
    activations = {(a.bits, a.is_float) for a in stored if a is not None}
    return "mixed" if len(activations) > 1 or "+" in asked else asked


def _plan_node(verdict: Verdict, asked: str) -> PlanNode:
    node, pair, ruling = verdict.node, verdict.pair, verdict.ruling
    if ruling.reason:
        reason = ruling.reason
    elif pair.activation is None:
        reason = "computes on indices, shapes, masks or conditions: left as it is"
    else:
        how = (" per channel" if verdict.per_channel else "") + (
            f" as {ruling.replacement}" if ruling.replacement else ""
        )
        reason = f"{asked}: {pair}{how} allowed by rule {ruling.rule}" if ruling.rule else asked
    return PlanNode(
        name=node.name,
        op_type=node.op_type,
        weight=pair.weight,
        activation=pair.activation,
        per_channel=verdict.per_channel,
        block_size=pair.block_size,
        dynamic=pair.dynamic,
        replacement=ruling.replacement,
        fixed=ruling.fixed,
        rule=ruling.rule,
        reason=reason,
        origins=node.origins,
    )


def _first_legal(model: Model, node: Node, profile: Profile, device: str, precision: Precision) -> Verdict:
    """The node's first legal pair at the precision; the first one tried where none is legal."""
    first: Verdict | None = None
    for pair, per_channel in _options(node, precision):
        ruling = judge(node, pair, per_channel, profile, device, model.normalized_opset)
        verdict = Verdict(node, pair, per_channel, ruling)
        if ruling.legal:
            if first is not None and precision.flows is not None:
                # Float weights are no failure of such a precision, but the plan says why.
                why = f"left {pair.activation}: {first.ruling.reason}"
                verdict = replace(verdict, ruling=replace(ruling, reason=why))
            return verdict
        # Prefer to show a certain no over an unknown, and the first of each.
        if first is None or (first.ruling.legal is None and ruling.legal is False):
            first = verdict
    assert first is not None
    return first


def _options(node: Node, precision: Precision) -> Iterator[tuple[Pair, bool]]:
    """Pairs to try for a node, best first: per channel before per tensor, the precision's own order of types."""
    if not node.has_precision:
        yield Pair(None, None), False
        return
    if precision.flows is not None and precision.rest is None:
        yield from _weight_options(node, precision, precision.flows)
        return
    weight = node.weight
    if weight is None and precision.rest is not None:
        precision = precision.rest
    for activation in precision.activations:
        if weight is None:
            yield Pair(None, activation), False
        elif activation.is_float:
            for kind in precision.weights:
                yield Pair(kind, activation), False
        else:
            channels = _has_channels(node)
            if min(w.bits for w in precision.weights) == 4 and not isinstance(matrix_of(node), str):
                # One scale for a whole channel costs 4-bit weights several dB.
                yield from ((Pair(kind, activation, BLOCK_SIZE), False) for kind in _unsigned_first(precision.weights))
            for per_channel in (True, False) if channels else (False,):
                # Per tensor, an unsigned weight uses its whole range (asymmetric): try it first.
                for kind in sorted(precision.weights, key=lambda w: w.is_signed, reverse=per_channel):
                    yield Pair(kind, activation), per_channel


def _weight_options(node: Node, precision: Precision, flows: DType) -> Iterator[tuple[Pair, bool]]:
    """Pairs of a node between nodes of which everything stays float: integer weights, and, last, float ones."""
    weight = node.weight
    if weight is not None or (node.op_type == "Gather" and not isinstance(matrix_of(node), str)):
        if precision.dynamic and node.op_type != "Gather":
            yield from (
                (Pair(kind, a, dynamic=True), True) for a in precision.activations for kind in precision.weights
            )
        else:
            yield from ((Pair(kind, flows, BLOCK_SIZE), False) for kind in _unsigned_first(precision.weights))
            if weight is not None and weight.shape is not None and len(weight.shape) > 1 and _has_channels(node):
                # Four bits and one scale for a whole channel keep too little of a convolution.
                yield from ((Pair(kind, flows), True) for kind in precision.weights if kind.bits == 8)
    yield Pair(None if weight is None else flows, flows), False


def _unsigned_first(weights: Sequence[DType]) -> list[DType]:
    """An unsigned block is asymmetric and uses its whole range: 1 to 3 dB less error than a signed one."""
    return sorted(weights, key=lambda w: w.is_signed)


def _has_channels(node: Node) -> bool:
    for position, operand in enumerate(node.inputs):
        if operand is not None and operand.role is Role.WEIGHT and operand.shape is not None:
            return channel_axis(node.op_type, position, len(operand.shape), dict(node.attributes)) is not None
    return False


__all__ = ["DType", "Resolution", "Verdict", "judge_stored", "make_plan", "resolve", "resolve_auto", "with_fallback"]
