"""What a model taught: how its kinds of nodes fared on the EP itself, as `planner probe --from-model` writes it.

Nodes that look alike (operator, attributes, shapes, types, constness, pair) and fared alike are one entry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from planner import codec
from planner.codec import named
from planner.errors import RequestError
from planner.profiles.schema import Learned, Profile

SCHEMA = "planner/learned/1"


@dataclass(frozen=True)
class LearnedNode:
    """A kind of node and how it fared.

    Attributes:
        signature: operator, pair, operands and attributes, to read and to compare.
        count: nodes of that kind.
        on_target: whether the EP took them; None where it could not be told.
        predicted: what the profile says.
        rule: the rule that says so.
        reason: the EP's own, where it did not take them.
    """

    signature: str
    count: int
    on_target: bool | None
    predicted: bool | None
    rule: str | None
    reason: str | None


@dataclass(frozen=True)
class LearnedFile:
    """What one model taught: its hash, the target, and its kinds of nodes."""

    sha256: str = field(metadata=named("model"))
    ep: str
    device: str
    runtime: Mapping[str, str]
    nodes: tuple[LearnedNode, ...] = field(repr=False)


def dump(found: LearnedFile) -> str:
    """The file's text, a line a kind of node."""
    document = {"schema": SCHEMA, **codec.to_json(found)}
    nodes = document.pop("nodes")
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in document.items()]
    lines.append('"nodes": [\n' + ",\n".join(json.dumps(node) for node in nodes) + "\n]")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def load(path: Path) -> LearnedFile:
    """Read a file that `planner probe --from-model` wrote.

    Raises:
        RequestError: it is missing or no such file.
    """
    hint = "make one with `planner probe --from-model MODEL -o FILE`"
    return codec.read_json(LearnedFile, path, SCHEMA, "learned evidence", hint)


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
        (device, kind): Learned(next(iter(answers)), reasons.get(kind), f"{path.name} ({packages})")
        for kind, answers in fared.items()
        if len(answers) == 1
        for device in devices
    }
    return replace(profile, learned={**profile.learned, **learned})
