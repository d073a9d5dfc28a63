"""The legal precisions of a model, cheapest first, and plans that mix them node by node. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from planner.dtypes import DType, Precision, parse_precision
from planner.model.node import Node
from planner.model.read import Model
from planner.operators import operator
from planner.resolve.choose import Resolution, float32, make_plan, resolve, with_fallback
from planner.resolve.legality import Ruling
from planner.resolve.plan import Basis, Plan
from planner.resolve.target import Target
from planner.resolve.verdicts import Verdict
from planner.search.cost import Work, node_cost, work

# Tried beside the profile's own preferences. 4-bit weights take part where the profile prefers them.
_ALWAYS = ("w8a8", "w8a16", "w16a16", "fp16", "fp32")
# Every node float32: what a model is compared with; on the CPU EP only, legal or not.
IDEAL = -1

# The level of each node, in the order of the model's nodes; IDEAL for float32 on the CPU EP.
Assignment = tuple[int, ...]


@dataclass(frozen=True)
class Level:
    """One precision, legal for every node (a node that cannot take it has a dearer one).

    Attributes:
        verdicts: in the order of the model's nodes. costs: of each node. cost: their sum.
    """

    name: str
    verdicts: tuple[Verdict, ...]
    costs: tuple[float, ...]

    @property
    def cost(self) -> float:
        return sum(self.costs)

    def is_narrower(self, other: Level) -> bool:
        """Whether some integer activations have fewer bits than at another level, and none, nor a weight, has more."""
        narrower = False
        for own, theirs in zip(self.verdicts, other.verdicts, strict=True):
            (weight, activation), (weight_there, there) = _types(own), _types(theirs)
            if activation is None or there is None:
                if own.config != theirs.config:
                    return False
                continue
            if activation.bits > there.bits or (weight and weight_there and weight.bits > weight_there.bits):
                return False
            narrower = narrower or activation.bits < there.bits
        return narrower


def _types(verdict: Verdict) -> tuple[DType | None, DType | None]:
    """Weight and activation of a node; no activation where that is no integer."""
    config = verdict.config
    stored = config.activation is not None and not config.activation.is_float
    return config.weight, config.activation if stored else None


@dataclass(frozen=True)
class Candidates:
    """What the search chooses from.

    Attributes:
        levels: cheapest first. nodes: of the model. work: of each node.
        units: indices of nodes that change level together: a node with those behind it that only move its values.
    """

    levels: tuple[Level, ...]
    nodes: tuple[Node, ...]
    work: tuple[Work, ...]
    units: tuple[tuple[int, ...], ...]

    def uniform(self, level: int) -> Assignment:
        return (level,) * len(self.nodes)

    def cost(self, assignment: Assignment) -> float:
        """Cost of a mix; a converted tensor costs what its readers move, no more."""
        return sum(self.levels[level].costs[i] for i, level in enumerate(assignment))


def find_candidates(target: Target, model: Model, *, allow_fallback: bool = False) -> Candidates:
    """The precisions that are legal for the whole model on the device, cheapest first by the profile's cost."""
    names = dict.fromkeys([*(p.name for p in target.preferred), *_ALWAYS])
    precisions = {name: parse_precision(name) for name in names}
    rates = target.profile.cost(target.device)
    done = tuple(work(node) for node in model.nodes)
    levels: list[Level] = []
    for name, precision in precisions.items():
        resolution = resolve(target, model, precision, _dearer(precision, precisions))
        if allow_fallback:
            resolution = with_fallback(resolution)
        if resolution.legal is not False:
            costs = tuple(node_cost(w, v.config, rates) for w, v in zip(done, resolution.verdicts, strict=True))
            levels.append(Level(name, resolution.verdicts, costs))
    if not target.computes_float32 and any(level.name == "fp16" for level in levels):
        # It would be computed in float16 all the same, which emulation as float32 hides.
        levels = [level for level in levels if level.name != "fp32"]
    levels.sort(key=lambda level: level.cost)
    kept: list[Level] = []
    for level in levels:
        if all(not _same(level, other) for other in kept):
            kept.append(level)
    return Candidates(tuple(kept), model.nodes, done, units(model.nodes))


def units(nodes: Sequence[Node]) -> tuple[tuple[int, ...], ...]:
    """Nodes grouped so that none is cut between a value and what merely moves or cuts it off: a Reshape at another
    precision than its producer would only add conversions. Nodes without a precision are left out.
    """
    owner: dict[str, int] = {}
    groups: dict[int, list[int]] = {}
    for index, node in enumerate(nodes):
        if not node.has_precision:
            continue
        head = index
        if operator(node.op_type).follows and node.inputs and node.inputs[0] is not None:
            head = owner.get(node.inputs[0].name, index)
        groups.setdefault(head, []).append(index)
        for output in node.outputs:
            owner[output] = head
    return tuple(tuple(members) for _, members in sorted(groups.items()))


def mixed_plan(
    target: Target, model: Model, candidates: Candidates, assignment: Assignment, reasons: Mapping[int, str]
) -> Plan:
    """The plan of an assignment.

    Args:
        target: where the model is to run.
        model: that is planned.
        candidates: its candidates.
        assignment: the level of each node.
        reasons: by index of a node, why the search chose its level.
    """
    used = {level for i, level in enumerate(assignment) if candidates.nodes[i].has_precision}
    verdicts = tuple(
        _ideal(candidates.nodes[i]) if level == IDEAL else candidates.levels[level].verdicts[i]
        for i, level in enumerate(assignment)
    )
    only = next(iter(used)) if len(used) == 1 else None
    name = "mixed" if only is None else "fp32" if only == IDEAL else candidates.levels[only].name
    plan = make_plan(target, model, Resolution(name, verdicts))
    nodes = tuple(
        replace(node, reason=f"{reasons[i]}; {node.reason}" if i in reasons else node.reason)
        for i, node in enumerate(plan.nodes)
    )
    return replace(plan, nodes=nodes, precision=name if only is None else plan.precision)


def _dearer(precision: Precision, precisions: Mapping[str, Precision]) -> tuple[Precision, ...]:
    """What a node may take instead where it cannot take this one: the others, the one most like it first."""
    order = ("w8a8", "w8a16", "w16a16", "fp16", "fp32")
    start = order.index(precision.name) if precision.name in order else 0
    names = [name for name in (*order[start + 1 :], *reversed(order[:start])) if name in precisions]
    return tuple(precisions[name] for name in names)


def _same(one: Level, other: Level) -> bool:
    return all(a.config == b.config for a, b in zip(one.verdicts, other.verdicts, strict=True))


def _ideal(node: Node) -> Verdict:
    return Verdict(node, float32(node), Ruling(True, None, basis=Basis.REFERENCE))
