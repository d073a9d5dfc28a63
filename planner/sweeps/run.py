"""Computing the cells of a sweep: what is known is reused, the rest runs on local processes or on a Dask cluster."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from planner import codec
from planner.errors import RequestError
from planner.files import make_folder, write_text
from planner.reporting.data import Row
from planner.sweeps.attempt import Answer, Limits, attempt, close_children
from planner.sweeps.cluster import on_cluster
from planner.sweeps.task import Task

SCHEMA = "planner/cell/1"
# Tasks handed to a scheduler ahead of those that run, for each worker: enough that none waits, few enough that 100,000 cells
# do not lie in its memory at once.
_AHEAD = 4
Told = Callable[[Row, int, int], None]


@dataclass(frozen=True)
class Computed:
    """What computing the cells came to.

    Attributes:
        rows: one for each task, in their order.
        computed: how many were computed now.
        reused: how many were known.
        failed: how many have no result, since their process died or took too long.
        seconds: of wall time.
        cell_seconds: what each computed cell took, in its own process.
    """

    rows: tuple[Row, ...]
    computed: int
    reused: int
    failed: int
    seconds: float
    cell_seconds: tuple[float, ...]


class Store:
    """Results on disk, a file a cell, each written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        """Use a folder; it is made where it is missing."""
        self.folder = folder
        make_folder(folder)

    def get(self, key: str) -> Row | None:
        """The row of a cell; None where it is not known, or its file is damaged."""
        try:
            document = json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8"))
            if document["schema"] != SCHEMA or document["key"] != key:
                return None
            return codec.from_json(Row, document["row"])
        except (OSError, ValueError, KeyError, TypeError, RequestError):
            return None

    def put(self, key: str, row: Mapping[str, Any]) -> None:
        """Keep a cell's row, as JSON."""
        write_text(self.folder / f"{key}.json", json.dumps({"schema": SCHEMA, "key": key, "row": row}, allow_nan=False))


def compute_all(
    tasks: Sequence[Task],
    store: Store,
    limits: Limits,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    told: Told | None = None,
) -> Computed:
    """Compute every cell that is not known.

    Args:
        tasks: the cells.
        store: where results are kept. A cell whose process died or took too long is not kept: the next run tries again.
        limits: of one cell.
        workers: local processes; None for one a core.
        scheduler: address of a Dask scheduler; None for local processes.
        told: called with every row, how many are done, of how many.

    Raises:
        RequestError: the scheduler cannot be reached, or dask.distributed is not installed.
    """
    started = time.monotonic()
    rows: dict[int, Row] = {}
    missing: list[int] = []
    with uncollected():
        for i, task in enumerate(tasks):
            known = store.get(task.key)
            if known is None:
                missing.append(i)
            else:
                rows[i] = _named(known, task)
                if told is not None:
                    told(rows[i], len(rows), len(tasks))
    failed = 0
    cell_seconds: list[float] = []
    eps = tuple(dict.fromkeys(tasks[i].ep for i in missing))
    where = (
        on_cluster(scheduler, tasks, limits, eps, _AHEAD)
        if scheduler is not None
        else _on_threads(tasks, limits, workers or os.cpu_count() or 1)
    )
    with where as (over, width):
        for i, answer in over(apart(missing, tasks, width)):
            rows[i] = codec.from_json(Row, answer.row)
            if answer.computed:
                store.put(tasks[i].key, answer.row)
                cell_seconds.append(answer.seconds)
            else:
                failed += 1
            if told is not None:
                told(rows[i], len(rows), len(tasks))
    found = tuple(rows[i] for i in range(len(tasks)))
    computed = len(missing) - failed
    return Computed(found, computed, len(tasks) - len(missing), failed, time.monotonic() - started, tuple(cell_seconds))


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's search for cycles, which rows do not have: it takes as long as reading a thousand of them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _named(row: Row, task: Task) -> Row:
    """A known row under the path of today: what was computed hangs on contents alone."""
    return replace(row, model=replace(row.model, path=task.model, name=task.name))


# -- where cells run --------------------------------------------------------------------------------------------------


Over = Callable[[Iterable[int]], Iterator[tuple[int, Answer]]]


@contextlib.contextmanager
def _on_threads(tasks: Sequence[Task], limits: Limits, width: int) -> Iterator[tuple[Over, int]]:
    """A function that computes cells by number on local processes, a thread waiting for each."""
    pool = ThreadPoolExecutor(width, thread_name_prefix="cell")

    def over(numbers: Iterable[int]) -> Iterator[tuple[int, Answer]]:
        todo, ready, running = iter(numbers), SimpleQueue[tuple[int, Future[Answer]]](), 0

        def done(i: int, future: Future[Answer]) -> None:
            ready.put((i, future))

        while True:
            for i in itertools.islice(todo, _AHEAD * width - running):
                pool.submit(attempt, tasks[i], limits).add_done_callback(partial(done, i))
                running += 1
            if not running:
                return
            i, future = ready.get()
            running -= 1
            yield i, future.result()

    try:
        yield over, width
    finally:
        # Children first: a thread that waits for one ends with it.
        close_children()
        pool.shutdown(wait=True, cancel_futures=True)


def apart(missing: Sequence[int], tasks: Sequence[Task], width: int) -> list[int]:
    """The order in which cells are handed to so many workers.

    The cells of a model on a target share its reading (`task.compute`). Handed over one after the other, each worker would get one of
    them, and all would read. So a round gives each worker the first cell of a pair of its own, and the next round the second.
    """
    pairs: dict[tuple[str, str, str], list[int]] = {}
    for i in missing:
        pairs.setdefault((tasks[i].name, tasks[i].ep, tasks[i].device), []).append(i)
    groups = list(pairs.values())
    blocks = (groups[first : first + width] for first in range(0, len(groups), width))
    return [i for block in blocks for round_ in itertools.zip_longest(*block) for i in round_ if i is not None]
