"""How much time and memory a step may take, so that no file of somebody else's holds up or fills the machine.

Time is watched by the process that started this one (planner.cli.supervisor): native code that never comes back cannot be
stopped from within. Memory is limited by the operating system, where it can do that (Linux).
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from planner.errors import RequestError

# Reading a model takes seconds, however large its weights are, which stay in the file.
_READING_SECONDS, _REQUEST_SECONDS = 60.0, 300.0
# No limit or budget reaches this: what waits for longer overflows.
MOST_SECONDS = 1e9
# What reading may take beside some copies of the graph.
_READING_BYTES, _COPIES = 2 << 30, 8
# Of the machine's memory, for all that a process may take.
_SHARE = 0.8


@dataclass(frozen=True)
class Limits:
    """What `--time-limit` and `--memory-limit` ask for, or `limited`; None for the defaults.

    Attributes:
        seconds: that reading a model, or one request to an EP, may take.
        bytes: of memory that reading a model, or one worker, may take.
    """

    seconds: float | None = None
    bytes: int | None = None

    @property
    def reading_seconds(self) -> float:
        return self.seconds or _READING_SECONDS

    @property
    def request_seconds(self) -> float:
        return self.seconds or _REQUEST_SECONDS

    @property
    def worker_bytes(self) -> int | None:
        """Memory of a worker; None where the machine does not say how much it has."""
        if self.bytes is not None:
            return self.bytes
        have = machine_bytes()
        return None if have is None else int(_SHARE * have)

    def reading_bytes(self, size: int) -> int:
        """Memory that reading a file of that size may take."""
        if self.bytes is not None:
            return self.bytes
        most = _READING_BYTES + _COPIES * size
        worker = self.worker_bytes
        return most if worker is None else min(most, worker)


_DEFAULTS = Limits()
_current = contextvars.ContextVar("limits", default=_DEFAULTS)


def current() -> Limits:
    """The limits that hold now."""
    return _current.get()


@contextlib.contextmanager
def limited(*, seconds: float | None = None, memory: int | None = None) -> Iterator[None]:
    """These limits hold for what this thread calls while this lasts, as with --time-limit and --memory-limit.

    Without the command's supervising process nothing ends the reading of a model in time; its memory is limited, on Linux, for
    all threads of the process.

    Args:
        seconds: that one request to an EP may take; None for the default, 300.
        memory: bytes that reading a model may take, and each EP's process; None for the defaults: the first has none in a
            process of your own, the second may take 80 % of the machine's.

    Raises:
        RequestError: a limit that is not above zero.
    """
    if any(limit is not None and not limit > 0 for limit in (seconds, memory)):
        raise RequestError("a limit is a number above zero", "leave it out for the default")
    token = _current.set(Limits(seconds, memory))
    try:
        yield
    finally:
        _current.reset(token)


def machine_bytes() -> int | None:
    """Memory of this machine, or of the container that this process runs in; None where that is unknown."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    with contextlib.suppress(OSError, ValueError):
        found.append(int(Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").read_text()))
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min((size for size in found if size > 0), default=None)


# -- steps, and who watches them --------------------------------------------------------------------------------------

_watcher: int | None = None


def watch_by(descriptor: int) -> None:
    """From now on the process at the other end of a pipe ends this one where a step takes too long."""
    global _watcher
    _watcher = descriptor


def tell_watcher(*words: str) -> None:
    """Tell the watching process something, if there is one."""
    if _watcher is not None:
        with contextlib.suppress(OSError):
            os.write(_watcher, json.dumps(words).encode() + b"\n")


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Work whose first interrupt ends this step alone: what it has so far is then brought to its end (KeyboardInterrupt is caught
    by whoever asks for this, but for what is `stopping` by itself). A second interrupt ends the process as ever.
    """
    tell_watcher("stoppable")
    try:
        yield
    finally:
        tell_watcher("unstoppable")


_asked_to_stop: threading.Event | None = None


@contextlib.contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Work that a first interrupt does not break off, where a supervisor passes it on: it asks whether one came, and ends where it has
    something to keep.
    """
    global _asked_to_stop
    _asked_to_stop = asked = threading.Event()
    try:
        with stoppable():
            yield asked.is_set
    finally:
        _asked_to_stop = None


def interrupt() -> None:
    """What a first interrupt does to work that is `stoppable`.

    Raises:
        KeyboardInterrupt: unless it is `stopping` by itself.
    """
    if _asked_to_stop is None:
        raise KeyboardInterrupt(signal.SIGINT)
    _asked_to_stop.set()


@contextlib.contextmanager
def reading(path: Path, size: int) -> Iterator[None]:
    """Reading a model: with a limit of time, where somebody watches, and of memory.

    Args:
        path: the model, for the message.
        size: bytes of its file.

    Raises:
        RequestError: it takes too much memory.
    """
    limits = current()
    most = limits.reading_bytes(size)
    tell_watcher("begin", f"{limits.reading_seconds:g}", f"reading {path}")
    try:
        with _memory(most) if _watcher is not None or limits.bytes is not None else contextlib.nullcontext():
            yield
    except MemoryError:
        raise RequestError(
            f"reading {path} takes more than {gibibytes(most)} of memory",
            "a constant or a function of it may be huge; if it is meant so, raise --memory-limit",
        ) from None
    finally:
        tell_watcher("end")


def gibibytes(size: int) -> str:
    """A size in words: "1.5 GiB", "30 MiB"."""
    return f"{size / (1 << 30):.3g} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.3g} MiB"


@contextlib.contextmanager
def _memory(size: int) -> Iterator[None]:
    """This process may take so much memory beside what it has; the operating system refuses more (MemoryError)."""
    have = _data_bytes()
    if have is None:
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = have + size if before[0] < 0 else min(before[0], have + size)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _data_bytes() -> int | None:
    """What counts against RLIMIT_DATA now; None where there is no such thing (it counts on Linux alone)."""
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    return None
