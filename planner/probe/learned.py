"""Learning from a model: its nodes as they are stored, where the EP puts each, and what the profile had said.

The whole model is given to the EP, so fusions and neighbours count; nodes that look alike (operator, attributes, shapes,
types, constness, pair) and fared alike are one entry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from planner.errors import RequestError
from planner.files import read_text
from planner.model.node import signature
from planner.model.read import read_model
from planner.profiles.schema import Learned as Known
from planner.profiles.schema import Profile
from planner.resolve.choose import judge_stored
from planner.resolve.target import Target
from planner.runtime.client import SessionFailed, Worker
from planner.verification.placement import placement_of, unplaced

SCHEMA = "planner/learned/1"
_LARGEST_FILE = 16 << 20


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
    model = read_model(path, as_stored=True)
    if model.dynamic_inputs and profile.limits.static_shapes:
        raise RequestError(f"{path}: dynamic inputs: {', '.join(model.dynamic_inputs)}", "fix their shapes first")
    verdicts = judge_stored(Target.on(profile, device), model).verdicts
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
        entry = (
            signature(verdict.node, verdict.config),
            on_target,
            verdict.ruling.legal,
            verdict.ruling.rule,
            reason,
        )
        kinds[entry] = kinds.get(entry, 0) + 1
    nodes = [Learned(e[0], n, *e[1:]) for e, n in kinds.items()]  # type: ignore[arg-type]
    return FromModel(model.sha256, profile.ep, device, runtime, tuple(sorted(nodes, key=lambda n: n.signature)))


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


def load(path: Path) -> FromModel:
    """Read a file that `planner probe --from-model` wrote.

    Raises:
        RequestError: it is missing or no such file.
    """
    hint = "make one with `planner probe --from-model MODEL -o FILE`"
    try:
        data = json.loads(read_text(path, "learned evidence", limit=_LARGEST_FILE))
        if data["schema"] != SCHEMA:
            raise RequestError(f"{path}: schema {data['schema']!r}, expected {SCHEMA!r}", hint)
        nodes = tuple(Learned(**node) for node in data["nodes"])
        if not all(isinstance(n.signature, str) and n.on_target in (True, False, None) for n in nodes):
            raise ValueError("a node without a signature or an answer")
        runtime = {str(k): str(v) for k, v in data["runtime"].items()}
        return FromModel(str(data["model"]), str(data["ep"]), str(data["device"]), runtime, nodes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise RequestError(f"{path}: not learned evidence ({type(error).__name__}: {error})", hint) from None


def with_learned(profile: Profile, path: Path) -> Profile:
    """The profile, knowing what a model taught: it holds on the device that was asked, and on others of its options.

    A kind of node that fared both ways (its neighbours decided) teaches nothing.

    Raises:
        RequestError: no such file, or one about another EP or an unknown device.
    """
    found = load(path)
    if found.ep != profile.ep:
        raise RequestError(f"{path} is about {found.ep}, not {profile.ep}")
    profile.device(found.device)  # an unknown one is refused there
    options = profile.options(found.device)
    devices = [name for name in profile.devices if profile.options(name) == options]
    fared: dict[str, set[bool]] = {}
    for node in found.nodes:
        if node.on_target is not None:
            fared.setdefault(node.signature, set()).add(node.on_target)
    packages = ", ".join(f"{k} {v}" for k, v in sorted(found.runtime.items()))
    reasons = {n.signature: n.reason for n in found.nodes if n.reason}
    learned = {
        (device, kind): Known(next(iter(answers)), reasons.get(kind), f"{path.name} ({packages})")
        for kind, answers in fared.items()
        if len(answers) == 1
        for device in devices
    }
    return replace(profile, learned={**profile.learned, **learned})
