"""A child process that computes cells: it may crash, hang or eat memory, and costs its own cell alone."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_END_SECONDS = 5.0


class CellDied(Exception):
    """The child ended in the middle of a cell."""


class CellTimeout(Exception):
    """The cell took longer than it may; its child was killed."""


class Child:
    """A process that computes one cell after another. It starts with the first, and anew after a crash."""

    def __init__(self, compute: Callable[[Any], Any], memory_limit: int | None = None) -> None:
        """Prepare to start it.

        Args:
            compute: a function of a module: it gets a task and returns a value; both are pickled.
            memory_limit: MiB of address space; None for no limit.
        """
        self.compute = compute
        self.memory_limit = memory_limit
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection[Any, Any] | None = None

    def run(self, task: object, seconds: float) -> Any:
        """Compute a cell.

        Raises:
            CellTimeout: it took longer than ``seconds``.
            CellDied: the process ended.
            MemoryError: it wanted more memory than it may have.
        """
        pipe = self._started()
        try:
            pipe.send(task)
            if not pipe.poll(seconds):
                raise CellTimeout(f"no answer within {seconds:g} s")
            answer = pipe.recv()
        except (EOFError, OSError) as error:
            code = self._exit_code()
            self.close()
            raise CellDied(f"the cell's process ended (exit status {code})") from error
        except BaseException:
            self.close()
            raise
        if isinstance(answer, MemoryError):
            self.close()
            raise answer
        return answer

    def close(self) -> None:
        """End the process and what it started, if there is one."""
        if self._process is None:
            return
        if self._pipe is not None:
            self._pipe.close()
        with contextlib.suppress(OSError, AttributeError):
            # Its EP workers are in its process group, where the platform has such.
            os.killpg(self._process.pid or 0, signal.SIGKILL)
        self._process.kill()
        self._process.join(_END_SECONDS)
        self._process = self._pipe = None

    def _started(self) -> Connection[Any, Any]:
        if self._process is None or not self._process.is_alive() or self._pipe is None:
            self.close()
            # A fresh interpreter: a copy of this one would share its threads' locks.
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            # No daemon: it starts processes of its own. It ends when its pipe does.
            self._process = context.Process(target=_serve, args=(theirs, self.compute, self.memory_limit))
            self._process.start()
            theirs.close()
        return self._pipe

    def _exit_code(self) -> int | None:
        if self._process is None:
            return None
        self._process.join(_END_SECONDS)
        return self._process.exitcode


def _serve(pipe: Connection[Any, Any], compute: Callable[[Any], Any], memory_limit: int | None) -> None:
    with contextlib.suppress(OSError, AttributeError):
        os.setpgid(0, 0)
    # Ctrl-C goes to the caller, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if memory_limit is not None:
        with contextlib.suppress(ImportError, ValueError, OSError):
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (memory_limit << 20, memory_limit << 20))
    with contextlib.suppress(EOFError, OSError):
        while True:
            task = pipe.recv()
            try:
                pipe.send(compute(task))
            except MemoryError as error:
                pipe.send(error)


class Children:
    """A child for each thread that asks for one, so that a pool of threads is a pool of processes."""

    def __init__(self, compute: Callable[[Any], Any], memory_limit: int | None = None) -> None:
        """Prepare to start them. The arguments are those of `Child`."""
        self._compute, self._memory_limit = compute, memory_limit
        self._mine = threading.local()
        self._all: list[Child] = []
        self._lock = threading.Lock()

    def mine(self) -> Child:
        """The child of this thread."""
        if not hasattr(self._mine, "child"):
            self._mine.child = Child(self._compute, self._memory_limit)
            with self._lock:
                self._all.append(self._mine.child)
        child: Child = self._mine.child
        return child

    def close(self) -> None:
        """End them all."""
        with self._lock:
            for child in self._all:
                child.close()
            self._all.clear()
