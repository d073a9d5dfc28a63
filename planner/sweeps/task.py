"""A cell as a task: a plain value with a key made of all that its result hangs on, and how it is computed."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import planner
from planner.calibrate.run import Calibrations
from planner.codec import to_json
from planner.dtypes import parse_precision
from planner.files import open_plain
from planner.model.read import Model as ReadModel
from planner.reporting.data import Model, Row
from planner.reporting.matrix import Judging, Subject
from planner.reporting.rows import error_row
from planner.resolve.plan import TargetIdentity
from planner.resolve.target import Target
from planner.verification.floor import parse_floor


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
        content = {name: value for name, value in asdict(self).items() if name not in paths}
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


# A process's cells are often of one model: it is calibrated once for all of them, and read once for those of a target.
@functools.lru_cache(maxsize=2)
def _calibrations(_model: str) -> Calibrations:
    return Calibrations()


_Opened = tuple[Target, Judging, ReadModel]
_opened: dict[str, _Opened] = {}


def _open(task: Task) -> _Opened:
    """What the cells of a model on a target share; that of the last one is kept."""
    shared = replace(task, precision="").key
    if shared not in _opened:
        _opened.clear()
        target = Target.open(task.ep, task.device, [Path(p) for p in task.profiles], [Path(p) for p in task.evidence])
        judging = Judging.of(
            Subject(Path(task.model), task.shapes, task.inputs, task.name), task.name, target,
            run=task.run, floor=None if task.floor is None else parse_floor(task.floor),
            allow_unknown=task.allow_unknown, seed=task.seed, estimated=task.estimate, calibrations=_calibrations(task.depends["model"]),
        )  # fmt: skip
        _opened[shared] = target, judging, judging.read(target)
    return _opened[shared]


def compute(task: Task) -> dict[str, Any]:
    """The cell's row as JSON. What fails within it is a row with status "error"."""
    target, judging, model = _open(task)
    precision = None if task.precision == "auto" else parse_precision(task.precision)
    (row,) = judging.cell(target, [precision], model)
    return to_json(row)


def failed_row(task: Task, message: str, hint: str) -> Row:
    """The row of a cell that could not be computed."""
    model = Model(task.model, task.depends.get("model", ""), 0, 0, name=task.name)
    return error_row(message, hint, model, TargetIdentity(task.ep, task.device, {}), task.precision)
