"""Learning from a model: its nodes as they are stored, where the EP puts each, and what the profile had said.

The whole model is given to the EP, so fusions and neighbours count; nodes that look alike (operator, attributes, shapes,
types, constness, pair) and fared alike are one entry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from planner.errors import RequestError
from planner.model.node import Node, Operand
from planner.model.read import read_model
from planner.profiles.schema import Profile
from planner.resolve.choose import Verdict, judge_stored
from planner.runtime.client import SessionFailed, Worker
from planner.verify.placement import placement_of, unplaced

SCHEMA = "planner/learned/1"


@dataclass(frozen=True)
class Learned:
    """A kind of node and how it fared.

    Attributes:
        signature: operator, pair, operands and attributes, to read and to compare.
        count: nodes of that kind. on_target: whether the EP took them; None where it could not be told.
        predicted: what the profile says, by which rule. reason: the EP's own, where it did not take them.
    """

    signature: str
    count: int
    on_target: bool | None
    predicted: bool | None
    rule: str | None
    reason: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class FromModel:
    """What one model taught: its hash, the target, and its kinds of nodes."""

    sha256: str
    ep: str
    device: str
    runtime: Mapping[str, str]
    nodes: tuple[Learned, ...] = field(repr=False)


def from_model(path: Path, profile: Profile, device: str) -> FromModel:
    """Give the file to the EP and set what it does with each node against the profile.

    Raises:
        RequestError: unreadable model, or inputs without a fixed shape. EPError: the EP cannot be started.
    """
    model = read_model(path)
    if model.dynamic_inputs and profile.limits.static_shapes:
        raise RequestError(f"{path}: dynamic inputs: {', '.join(model.dynamic_inputs)}", "fix their shapes first")
    verdicts = judge_stored(model, profile, device).verdicts
    candidate = {name: v.node.op_type for v in verdicts for name in (v.node.name, *v.node.origins)}
    with Worker(profile.ep) as worker:
        try:
            opened = worker.open(path, profile.options(device), log=True)
            placement = placement_of(opened, profile.ep, candidate)
        except SessionFailed as error:
            placement = unplaced(candidate, {r.name: r.reason for r in error.refusals})
        runtime = dict(worker.runtime)
    reasons = {f.name: f.reason for f in placement.fallback}
    kinds: dict[tuple[object, ...], int] = {}
    for verdict in verdicts:
        names = [n for n in (verdict.node.name, *verdict.node.origins) if n in placement.nodes or n in reasons]
        # A node stands for all that it was fused from: it is on the target where all of them are.
        on_target = all(placement.nodes.get(n) == profile.ep for n in names) if names else None
        reason = next((reasons[n] for n in names if n in reasons), None)
        entry = (signature(verdict), on_target, verdict.ruling.legal, verdict.ruling.rule, reason)
        kinds[entry] = kinds.get(entry, 0) + 1
    nodes = [Learned(e[0], n, *e[1:]) for e, n in kinds.items()]  # type: ignore[arg-type]
    return FromModel(model.sha256, profile.ep, device, runtime, tuple(sorted(nodes, key=lambda n: n.signature)))


def signature(verdict: Verdict) -> str:
    """The node in one line: what legality could depend on, and no names."""
    node: Node = verdict.node
    operands = ", ".join(_operand(o) for o in node.inputs)
    attributes = ", ".join(f"{k}={v}" for k, v in sorted(node.attributes.items()))
    channels = " per channel" if verdict.per_channel else ""
    name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return f"{name} {verdict.pair}{channels} ({operands}){f' {{{attributes}}}' if attributes else ''}"


def _operand(operand: Operand | None) -> str:
    if operand is None:
        return "-"
    shape = "?" if operand.shape is None else "x".join("?" if d is None else str(d) for d in operand.shape)
    return f"{'constant ' if operand.constant else ''}{operand.dtype or '?'}[{shape}]"


def dump(found: FromModel) -> str:
    """The file's text, a line a kind of node."""
    head = {
        "schema": SCHEMA,
        "model": found.sha256,
        "ep": found.ep,
        "device": found.device,
        "runtime": dict(sorted(found.runtime.items())),
    }
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in head.items()]
    lines.append('"nodes": [\n' + ",\n".join(json.dumps(n.to_json()) for n in found.nodes) + "\n]")
    return "{\n" + ",\n".join(lines) + "\n}\n"
