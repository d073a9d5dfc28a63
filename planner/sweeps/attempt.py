"""One cell in a child process: its answer, whatever becomes of it.

Dask's workers import this module and compute nothing themselves: what computes is imported by their children alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from planner import codec
from planner.errors import PlannerError
from planner.sweeps.pool import CellDied, CellTimeout, Children
from planner.sweeps.task import Task


@dataclass(frozen=True)
class Limits:
    """What one cell may take.

    Attributes:
        seconds: wall time; the cell's process is killed then.
        memory: MiB of address space; None for no limit.
    """

    seconds: float = 900.0
    memory: int | None = None


@dataclass(frozen=True)
class Answer:
    """What became of a cell.

    Attributes:
        row: as JSON.
        seconds: what it took, in its own process.
        computed: False where it has no result, and the row says why.
    """

    row: Mapping[str, Any]
    seconds: float
    computed: bool = True


def attempt(task: Task, limits: Limits) -> Answer:
    """Compute a cell in the child process of this thread; where that died, once more in a new one."""
    started = time.monotonic()
    child = _children(limits).mine()
    try:
        try:
            row = child.run(task, limits.seconds)
        except CellDied:
            row = child.run(task, limits.seconds)
    except (CellTimeout, CellDied, MemoryError) as error:
        row = error
    if isinstance(row, Exception):
        return failed(task, row, time.monotonic() - started)
    return Answer(row, time.monotonic() - started)


def failed(task: Task, error: BaseException, seconds: float = 0.0) -> Answer:
    """The answer of a cell that came to no result."""
    from planner.sweeps.cell import failed_row

    match error:
        case CellTimeout():
            why, hint = f"the cell took too long: {error}", "Allow more with time_limit in the sweep's options."
        case CellDied():
            why, hint = f"{error}, twice", "Look at this model alone with `planner target`; PLANNER_DEBUG=1 shows more."
        case MemoryError():
            why, hint = "out of memory", "Allow more with memory_limit in the sweep's options."
        case PlannerError():
            why, hint = str(error), error.hint
        case _:
            # Dask has errors of its own where a worker died more often than it allows.
            said = (str(error).splitlines() or [""])[0]
            why, hint = f"the worker failed: {type(error).__name__}: {said}", "See the log of the Dask worker."
    return Answer(codec.to_json(failed_row(task, why, hint)), seconds, computed=False)


_CHILDREN: dict[Limits, Children] = {}


def _children(limits: Limits) -> Children:
    return _CHILDREN.setdefault(limits, Children(_computed, limits.memory))


def _computed(task: Task) -> Mapping[str, Any] | PlannerError:
    from planner.sweeps.cell import compute

    try:
        return compute(task)
    except PlannerError as error:
        return error


def close_children() -> None:
    """End the child processes of this process's threads."""
    for children in _CHILDREN.values():
        children.close()
    _CHILDREN.clear()
