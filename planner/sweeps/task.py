"""A cell as a task: a plain value with a key made of all that its result hangs on. Light to import: a scheduler's workers hold it."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import planner
from planner.files import open_plain

if TYPE_CHECKING:
    from planner.resolve.target import Target


@dataclass(frozen=True)
class Task:
    """One cell: a model on a target at a precision. Everything in it is plain, so that it can travel.

    Attributes:
        model: path of the file, as each process that computes cells can open it.
        name: what the report calls it.
        shapes: fixed dimensions by input name.
        inputs: as for --inputs; None for synthetic data.
        ep: full provider name.
        device: name from the profile.
        precision: by name, "auto" among them.
        floor: as for --floor; None for 20 dB.
        run: False judges by the profile alone.
        allow_unknown: run what the profile has no evidence for.
        seed: of synthetic data.
        estimate: also estimate what a run costs, where the EP's compiler writes its schedule.
        profiles: files that add to or override the shipped profiles.
        evidence: files that `planner probe --from-model` wrote.
        depends: hashes and versions of what the result hangs on beside all this.
    """

    model: str
    name: str
    shapes: Mapping[str, Sequence[int]]
    inputs: str | None
    ep: str
    device: str
    precision: str
    floor: str | None = None
    run: bool = True
    allow_unknown: bool = False
    seed: int = 0
    estimate: bool = True
    profiles: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    depends: Mapping[str, str] = field(default_factory=dict)

    @functools.cached_property
    def key(self) -> str:
        """SHA-256 of what the result hangs on: contents by their hashes, never by their paths."""
        paths = ("model", "inputs", "profiles", "evidence")
        content = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in paths}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def depends_on(target: Target, model: str, inputs: str | None, packages: Mapping[str, str]) -> dict[str, str]:
    """The hashes and versions that a cell's result hangs on.

    Args:
        target: its profile and evidence count.
        model: hash of the file, with its external data.
        inputs: hash of the file or folder; None for synthetic data.
        packages: versions of what the EP and the CPU EP come from.
    """
    return {
        "planner": planner.__version__,
        "model": model,
        "profile": target.profile.sha256,
        "evidence": " ".join(known.sha256 for known in target.evidence),
        "inputs": inputs or "synthetic",
        **{f"package {name}": version for name, version in sorted(packages.items())},
    }


def hash_of(path: str) -> str:
    """SHA-256 of a file and its external data (PATH.data), or of a folder's files by name."""
    root = Path(path)
    files = sorted(root.glob("*.npz")) if root.is_dir() else [root]
    digest = hashlib.sha256()
    for file in [*files, *(p for f in files if (p := f.with_name(f"{f.name}.data")).is_file())]:
        digest.update(f"{file.name}\0".encode() if root.is_dir() else b"")
        with open_plain(file) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
