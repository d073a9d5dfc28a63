"""Where the EP's own runtime put each node, in the user's names, with the EP's own reason for each it left.

The names that come back are those after onnxruntime's graph optimizations. Sessions are built with the optimizations
on, as users build them, since switching them off changes what is placed (on PP-OCRv6 rec 9 MatMul + Add pairs become
Gemm and 18 Reshape are added only with them on). Measured on magika, PP-OCRv6 det and rec and PP-OCR cls, every name
is the candidate's own, the candidate's own with a known suffix, or that of a node that onnxruntime added.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from planner.codec import HIDDEN
from planner.runtime.client import Opened

# `conv_token_1`: a copy in another layout. `dq/duplicated`: a DQ of its own for each consumer. `m/MatMulAddFusion`: m
# and the Add behind it. Several may stand behind one another.
_SUFFIX = re.compile(r"(_token_\d+|/duplicated|/\w*Fusion)$")


@dataclass(frozen=True)
class Fallback:
    """A node that runs elsewhere than on the target, and why."""

    name: str
    op_type: str
    reason: str | None = None


@dataclass(frozen=True)
class Placement:
    """Placement of all nodes.

    Attributes:
        total: nodes that the runtime placed (after its own optimizations), or nodes of the candidate where none were.
        on_target: how many of them the target got; None where it is unknown (emulation, a build that cannot tell).
        fallback: the others.
        nodes: the EP of each of the candidate's own nodes that could be traced; fused or folded nodes are missing.
        by: packages with their versions that decided it; None where nothing was asked.
    """

    total: int
    on_target: int | None
    fallback: tuple[Fallback, ...] = ()
    nodes: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False, metadata=HIDDEN)
    by: str | None = None


@dataclass(frozen=True)
class Contradiction:
    """A node that fared otherwise than the profile predicts.

    Attributes:
        name: of the node.
        op_type: its operator.
        predicted: whether it is on the target, by the profile.
        observed: whether it is, by the EP's own assignment.
        reason: the EP's own, where it left the node.
    """

    name: str
    op_type: str
    predicted: bool
    observed: bool
    reason: str | None

    def sentence(self) -> str:
        """What was said, what was seen."""
        if self.predicted:
            return f"predicted on the EP, which left it: {self.reason}"
        return "predicted not on the EP, which took it"


def contradictions(
    predicted: Mapping[str, bool], placement: Placement, ep: str, candidate: Mapping[str, str]
) -> tuple[Contradiction, ...]:
    """Where the EP's own placement differs from what was predicted; a node that could not be traced contradicts nothing.

    Args:
        predicted: whether a node is on the target, by its name.
        placement: by the EP itself.
        ep: full name of the target's provider.
        candidate: the candidate's nodes, name -> operator.
    """
    left = {f.name: f.reason for f in placement.fallback}
    found = []
    for name, expected in predicted.items():
        if name not in candidate or (name not in left and name not in placement.nodes):
            continue
        observed = name not in left and placement.nodes[name] == ep
        if observed is not expected:
            found.append(Contradiction(name, candidate[name], expected, observed, left.get(name)))
    return tuple(found)


def own_name(name: str, candidate: Iterable[str]) -> str | None:
    """The candidate's node that a name after optimization stands for; None for a node that onnxruntime added."""
    own = candidate if isinstance(candidate, set | frozenset | dict) else set(candidate)
    while name not in own:
        shorter = _SUFFIX.sub("", name)
        if shorter == name:
            return None
        name = shorter
    return name


def placement_of(opened: Opened, ep: str, candidate: Mapping[str, str]) -> Placement:
    """Read the placement off an opened session.

    Args:
        opened: what the worker said of the session.
        ep: full name of the target's provider.
        candidate: the candidate's nodes, name -> operator.
    """
    by = packages(opened.runtime)
    if not opened.assignment:
        return Placement(len(candidate), None, (), by=by)
    named = [refusal for refusal in opened.refusals if refusal.name]
    nameless = {refusal.op_type: refusal.reason for refusal in opened.refusals if not refusal.name}
    reasons = {refusal.name: refusal.reason for refusal in named}
    for refusal in named:
        own = own_name(refusal.name, candidate)
        if own is not None:
            reasons.setdefault(own, refusal.reason)
    fallback: list[Fallback] = []
    nodes: dict[str, str] = {}
    for entry in opened.assignment:
        own = own_name(entry.name, candidate)
        if own is not None and (own not in nodes or entry.ep != ep):
            nodes[own] = entry.ep
        if entry.ep == ep:
            continue
        reason = reasons.get(entry.name) or reasons.get(own or "") if entry.name else nameless.get(entry.op_type)
        if reason is None and entry.op_type in ("QuantizeLinear", "DequantizeLinear") and opened.lone_partition:
            reason = opened.lone_partition
        if reason is None:
            reason = f"left to {entry.ep}; the log of {ep} gives no reason"
        if own is None:
            reason = f"{reason} (a node that onnxruntime added)"
        fallback.append(Fallback(own or entry.name, entry.op_type, reason))
    return Placement(len(opened.assignment), len(opened.assignment) - len(fallback), tuple(fallback), nodes, by)


def unplaced(candidate: Mapping[str, str], reasons: Mapping[str, str], by: str | None = None) -> Placement:
    """The placement where no session was built: nothing is on the target, and the refused nodes say why."""
    refused = [Fallback(name, op_type, reasons[name]) for name, op_type in candidate.items() if name in reasons]
    return Placement(len(candidate), 0, tuple(refused), by=by)


def packages(runtime: Mapping[str, str]) -> str:
    """Packages with their versions, as one phrase."""
    return ", ".join(f"{name} {version}" for name, version in runtime.items())
