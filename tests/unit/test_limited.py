"""Limits hold for what is called inside them, and for nothing else."""

from __future__ import annotations

import threading

import pytest

import planner
from planner import limits
from planner.errors import RequestError
from planner.runtime.client import Worker
from planner.runtime.registry import CPU


def test_they_hold_while_they_last_and_are_those_of_every_worker() -> None:
    before = limits.current()
    with planner.limited(seconds=7, memory=1 << 30):
        worker = Worker(CPU)
        assert (worker.timeout, worker.memory) == (7, 1 << 30)
        with planner.limited(seconds=3):
            assert limits.current().request_seconds == 3
        assert limits.current().request_seconds == 7
    assert limits.current() == before


def test_another_thread_has_its_own() -> None:
    seen: list[float] = []
    with planner.limited(seconds=7):
        thread = threading.Thread(target=lambda: seen.append(limits.current().request_seconds))
        thread.start()
        thread.join()
    assert seen == [limits.current().request_seconds]


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"seconds": float("nan")}, {"memory": -1}])
def test_a_limit_is_above_zero(wrong: dict[str, float]) -> None:
    with pytest.raises(RequestError, match="above zero"), planner.limited(**wrong):  # type: ignore[arg-type]
        pass
