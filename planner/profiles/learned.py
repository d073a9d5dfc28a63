"""What a model taught: how its kinds of nodes fared on the EP itself, as `planner probe --from-model` writes it.

Nodes that look alike (operator, attributes, shapes, types, constness, pair) and fared alike are one entry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from planner.errors import RequestError
from planner.files import read_text
from planner.profiles.schema import Learned, Profile

SCHEMA = "planner/learned/1"
_LARGEST_FILE = 16 << 20


@dataclass(frozen=True)
class LearnedNode:
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
class LearnedFile:
    """What one model taught: its hash, the target, and its kinds of nodes."""

    sha256: str
    ep: str
    device: str
    runtime: Mapping[str, str]
    nodes: tuple[LearnedNode, ...] = field(repr=False)


def dump(found: LearnedFile) -> str:
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


def load(path: Path) -> LearnedFile:
    """Read a file that `planner probe --from-model` wrote.

    Raises:
        RequestError: it is missing or no such file.
    """
    hint = "make one with `planner probe --from-model MODEL -o FILE`"
    try:
        data = json.loads(read_text(path, "learned evidence", limit=_LARGEST_FILE))
        if data["schema"] != SCHEMA:
            raise RequestError(f"{path}: schema {data['schema']!r}, expected {SCHEMA!r}", hint)
        nodes = tuple(LearnedNode(**node) for node in data["nodes"])
        if not all(isinstance(n.signature, str) and n.on_target in (True, False, None) for n in nodes):
            raise ValueError("a node without a signature or an answer")
        runtime = {str(k): str(v) for k, v in data["runtime"].items()}
        return LearnedFile(str(data["model"]), str(data["ep"]), str(data["device"]), runtime, nodes)
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
        (device, kind): Learned(next(iter(answers)), reasons.get(kind), f"{path.name} ({packages})")
        for kind, answers in fared.items()
        if len(answers) == 1
        for device in devices
    }
    return replace(profile, learned={**profile.learned, **learned})
