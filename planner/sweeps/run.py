"""Computing the cells of a sweep: what is known is reused, the rest runs on local processes or on a Dask cluster."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from planner import codec
from planner.errors import PlannerError, RequestError
from planner.files import write_text
from planner.reporting.data import Row
from planner.sweeps.pool import CellDied, CellTimeout, Children
from planner.sweeps.task import Task, compute, failed_row

SCHEMA = "planner/cell/1"
# Tasks handed to a scheduler ahead of those that run, for each worker: enough that none waits, few enough that 100,000 cells
# do not lie in its memory at once.
_AHEAD = 4
Told = Callable[[Row, int, int], None]


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
        folder.mkdir(parents=True, exist_ok=True)

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
    with _executor(workers, scheduler, limits, eps) as (submit, width):
        for i, future in in_bounded_batches(apart(missing, tasks, width), lambda i: submit(tasks[i]), _AHEAD * width):
            answer = _answer_of(future, tasks[i])
            rows[i] = codec.from_json(Row, answer.row) if isinstance(answer, _Answer) else answer
            if isinstance(answer, _Answer):
                store.put(tasks[i].key, answer.row)
                cell_seconds.append(answer.seconds)
            else:
                failed += 1
            if told is not None:
                told(rows[i], len(rows), len(tasks))
    found = tuple(rows[i] for i in range(len(tasks)))
    computed = len(missing) - failed
    return Computed(found, computed, len(tasks) - len(missing), failed, time.monotonic() - started, tuple(cell_seconds))


@dataclass(frozen=True)
class _Answer:
    row: Mapping[str, Any]
    seconds: float


def _named(row: Row, task: Task) -> Row:
    """A known row under the path of today: what was computed hangs on contents alone."""
    return replace(row, model=replace(row.model, path=task.model, name=task.name))


def _answer_of(future: Future[_Answer], task: Task) -> _Answer | Row:
    try:
        return future.result()
    except CellTimeout as error:
        return failed_row(
            task, f"the cell took too long: {error}", "Allow more with time_limit in the sweep's options."
        )
    except CellDied as error:
        return failed_row(
            task, f"{error}, twice", "Look at this model alone with `planner target`; PLANNER_DEBUG=1 shows more."
        )
    except MemoryError:
        return failed_row(task, "out of memory", "Allow more with memory_limit in the sweep's options.")
    except PlannerError as error:
        return failed_row(task, str(error), error.hint)
    except Exception as error:
        # Dask has errors of its own where a worker died more often than it allows.
        message = f"the worker failed: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        return failed_row(task, message, "See the log of the Dask worker.")


# -- where cells run --------------------------------------------------------------------------------------------------


def isolated(task: Task, limits: Limits) -> _Answer:
    """Compute a cell in the child process of this thread; where that died, once more in a new one.

    Raises:
        CellTimeout: it took too long.
        CellDied: its process ended, twice.
    """
    started = time.monotonic()
    child = _children(limits).mine()
    try:
        row = child.run(task, limits.seconds)
    except CellDied:
        row = child.run(task, limits.seconds)
    if isinstance(row, PlannerError):
        raise row
    return _Answer(row, time.monotonic() - started)


_CHILDREN: dict[Limits, Children] = {}


def _children(limits: Limits) -> Children:
    return _CHILDREN.setdefault(limits, Children(_computed, limits.memory))


def _computed(task: Task) -> Mapping[str, Any] | PlannerError:
    try:
        return compute(task)
    except PlannerError as error:
        return error


def close_children() -> None:
    """End the child processes of this process's threads."""
    for children in _CHILDREN.values():
        children.close()
    _CHILDREN.clear()


Submit = Callable[[Task], "Future[_Answer]"]


@contextlib.contextmanager
def _executor(
    workers: int | None, scheduler: str | None, limits: Limits, eps: Sequence[str]
) -> Iterator[tuple[Submit, int]]:
    """How a task is handed over, and how many run at a time."""
    if scheduler is not None:
        with _cluster(scheduler, limits, eps) as found:
            yield found
        return
    width = workers or os.cpu_count() or 1
    pool: Executor = ThreadPoolExecutor(width, thread_name_prefix="cell")
    try:
        yield lambda task: pool.submit(isolated, task, limits), width
    finally:
        # Children first: a thread that waits for one ends with it.
        close_children()
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _cluster(scheduler: str, limits: Limits, eps: Sequence[str]) -> Iterator[tuple[Submit, int]]:
    try:
        from distributed import Client
    except ImportError:
        raise RequestError("--scheduler needs dask.distributed", "pip install 'planner[sweep]'") from None
    try:
        client: Any = Client(scheduler, timeout=30)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{scheduler}: no Dask scheduler answers: {error}", "start one with `dask scheduler`"
        ) from None
    with client:
        able = partial(_able, client.run(runs_here, eps))
        threads = sum(client.nthreads().values())

        def submit(task: Task) -> Future[_Answer]:
            # Pure tasks under their own key: a cell that was lost with its worker is computed on another.
            where = able(task.ep)
            return Asked(client.submit(isolated, task, limits, key=f"cell-{task.key}", workers=where, retries=1))

        yield submit, max(1, threads)


def runs_here(eps: Sequence[str]) -> dict[str, bool]:
    """Which of these EPs (full names, some with a version) run on this machine: each worker of a cluster is asked once."""
    from planner.runtime.registry import launcher

    return {ep: launcher(ep).availability().kind is not None for ep in eps}


def _able(workers: Mapping[str, Mapping[str, bool]], ep: str) -> list[str] | None:
    """Workers on which the EP runs; None, for any, where it runs on none: its numbers are emulated there."""
    found = [address for address, eps in workers.items() if eps.get(ep)]
    return found or None


class Asked(Future[_Answer]):
    """A future of Dask as one of the standard library."""

    def __init__(self, asked: Any) -> None:
        super().__init__()
        asked.add_done_callback(self._take)

    def _take(self, asked: Any) -> None:
        error = asked.exception() if asked.status in ("error", "lost", "cancelled") else None
        if error is not None:
            self.set_exception(error)
        elif asked.status == "finished":
            self.set_result(asked.result())
        else:
            self.set_exception(CellDied(f"the cluster says: {asked.status}"))


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


def in_bounded_batches(
    items: Iterable[int], submit: Callable[[int], Future[_Answer]], most: int
) -> Iterator[tuple[int, Future[_Answer]]]:
    """Hand items over, never more than ``most`` at a time, and give each back when it is done."""
    todo, ready = iter(items), SimpleQueue[tuple[int, Future[_Answer]]]()

    def done(i: int, future: Future[_Answer]) -> None:
        ready.put((i, future))

    def hand_over(count: int) -> int:
        handed = list(itertools.islice(todo, count))
        for i in handed:
            submit(i).add_done_callback(partial(done, i))
        return len(handed)

    running = hand_over(most)
    while running:
        yield ready.get()
        running += hand_over(1) - 1
