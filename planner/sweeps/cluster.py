"""Cells on a Dask cluster: which workers one may go to, and how results come back."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from planner.errors import RequestError
from planner.sweeps.attempt import Answer, Limits, attempt, failed
from planner.sweeps.task import Task


@contextlib.contextmanager
def on_cluster(
    scheduler: str, tasks: Sequence[Task], limits: Limits, eps: Sequence[str], ahead: int
) -> Iterator[tuple[Callable[[Iterable[int]], Iterator[tuple[int, Answer]]], int]]:
    """A function that computes cells by number, each given back as soon as it is done, and how many run at a time.

    Args:
        scheduler: its address.
        tasks: the cells.
        limits: of one cell.
        eps: full names of the EPs that the cells need; each worker is asked once which of them run there.
        ahead: tasks at the scheduler for each worker.

    Raises:
        RequestError: no scheduler answers, or dask.distributed is not installed.
    """
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
        width = max(1, sum(client.nthreads().values()))

        def submit(numbers: Sequence[int]) -> list[Any]:
            # Pure tasks under their own key: a cell that was lost with its worker is computed on another.
            asked: dict[int, Any] = {}
            for ep in dict.fromkeys(tasks[i].ep for i in numbers):
                of_ep = [i for i in numbers if tasks[i].ep == ep]
                keys = [f"cell-{tasks[i].key}" for i in of_ep]
                futures = client.map(attempt, [tasks[i] for i in of_ep], limits=limits, key=keys, workers=able(ep))
                asked |= zip(of_ep, futures, strict=True)
            return [asked[i] for i in numbers]

        def over(numbers: Iterable[int]) -> Iterator[tuple[int, Answer]]:
            for i, result in as_they_come(client, numbers, submit, ahead * width):
                yield i, result if isinstance(result, Answer) else failed(tasks[i], result)

        yield over, width


def as_they_come(
    client: Any, numbers: Iterable[int], submit: Callable[[Sequence[int]], Sequence[Any]], most: int
) -> Iterator[tuple[int, Any]]:
    """Hand tasks over, never more than ``most`` at a time, and give each back with its result, or with its exception.

    Results come in batches: asked one by one, they bound how many cells a second a cluster computes (docs/scale.md).
    """
    from distributed import as_completed

    todo = iter(numbers)
    waiting: Any = as_completed(loop=client.loop, with_results=True, raise_errors=False)  # type: ignore[no-untyped-call]
    # Two cells of one key are one task of the cluster.
    asked: dict[str, list[int]] = {}

    def hand_over(count: int) -> None:
        handed = list(itertools.islice(todo, count))
        for i, future in zip(handed, submit(handed), strict=True):
            asked.setdefault(future.key, []).append(i)
            waiting.add(future)

    hand_over(most)
    for batch in waiting.batches():
        hand_over(len(batch))
        for future, result in batch:
            numbers_of = asked[future.key]
            i = numbers_of.pop()
            if not numbers_of:
                del asked[future.key]
            yield i, result[1] if future.status == "error" else result


def runs_here(eps: Sequence[str]) -> dict[str, bool]:
    """Which of these EPs (full names, some with a version) run on this machine: each worker of a cluster is asked once."""
    from planner.runtime.registry import launcher

    return {ep: launcher(ep).availability().kind is not None for ep in eps}


def _able(workers: Mapping[str, Mapping[str, bool]], ep: str) -> list[str] | None:
    """Workers on which the EP runs; None, for any, where it runs on none: its numbers are emulated there."""
    found = [address for address, eps in workers.items() if eps.get(ep)]
    return found or None
