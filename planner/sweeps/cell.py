"""How a cell is computed, in the process that is its own."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

from planner.calibrate.run import Calibrations
from planner.codec import to_json
from planner.dtypes import parse_precision
from planner.model.read import Model as ReadModel
from planner.reporting.data import Model, Row
from planner.reporting.matrix import Judging, Subject
from planner.reporting.rows import error_row
from planner.resolve.plan import TargetIdentity
from planner.resolve.target import Target
from planner.sweeps.task import Task
from planner.verification.floor import parse_floor


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
