"""Processes that one worker is done with, kept for the next: starting one takes half a second, and a command needs several."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Hashable, Iterator
from typing import Protocol


class Process(Protocol):
    """What can be kept."""

    def alive(self) -> bool:
        """Whether it still runs."""

    def kill(self) -> None:
        """End it at once."""


# A comparison runs that many at a time: the reference, the yardstick, the candidate and its twin.
_MOST = 4
_lock = threading.Lock()
_kept: list[tuple[Hashable, Process]] = []
_depth = 0


@contextlib.contextmanager
def reused() -> Iterator[None]:
    """Keep processes for the next worker until the block is left; outside of it each worker's process ends with it."""
    global _depth
    with _lock:
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            ended = [] if _depth else [process for _, process in _kept]
            if ended:
                _kept.clear()
        for process in ended:
            process.kill()


def wanted() -> bool:
    """Whether one more would be kept."""
    return _depth > 0 and len(_kept) < _MOST


def keep(key: Hashable, process: Process) -> bool:
    """Keep a process that waits for its next request; False where it is not wanted, and the caller ends it."""
    with _lock:
        if not wanted():
            return False
        _kept.append((key, process))
        return True


def take(key: Hashable) -> Process | None:
    """A process kept under an equal key that is still alive."""
    with _lock:
        found = [entry for entry in _kept if entry[0] == key]
        for entry in found:
            _kept.remove(entry)
            if entry[1].alive():
                return entry[1]
            entry[1].kill()
    return None
