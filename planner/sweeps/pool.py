"""A child process that computes cells: it may crash, hang or eat memory, and costs its own cell alone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any

from planner.runtime import spare
from planner.runtime.lifeline import end_with

_END_SECONDS = 5.0


class CellDied(Exception):
    """The child ended in the middle of a cell."""


class CellTimeout(Exception):
    """The cell took longer than it may; its child was killed."""


class Child:
    """A process that computes one cell after another. It starts with the first, and anew after a crash.

    It is a plain subprocess: a worker of Dask is a daemon in the sense of multiprocessing, which may have no children.
    """

    def __init__(self, compute: Callable[[Any], Any], memory_limit: int | None = None) -> None:
        """Prepare to start it.

        Args:
            compute: a function of a module: it gets a task and returns a value; both are pickled.
            memory_limit: MiB of address space; None for no limit.
        """
        self.compute = compute
        self.memory_limit = memory_limit
        self._process: subprocess.Popen[bytes] | None = None
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
            code = _exit_code(self._process)
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
        """End the process and what it started, if there is one. Two threads may ask for it at once."""
        process, pipe = self._process, self._pipe
        self._process = self._pipe = None
        if pipe is not None:
            pipe.close()
        if process is None:
            return
        if hasattr(os, "killpg"):
            with contextlib.suppress(OSError):
                # Its EP workers end with it: they watch for that.
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        _exit_code(process)
        if process.stdin is not None:
            process.stdin.close()

    def _started(self) -> Connection[Any, Any]:
        if self._process is None or self._process.poll() is not None or self._pipe is None:
            self.close()
            self._pipe, theirs = connection.Pipe()
            handle = theirs.fileno()
            start = [sys.executable, "-m", __name__, str(handle), str(self.memory_limit or 0)]
            path = os.pathsep.join(filter(None, sys.path))
            environment = {**os.environ, "PYTHONPATH": path}
            try:
                if sys.platform == "win32":
                    os.set_handle_inheritable(handle, True)
                    self._process = subprocess.Popen(start, close_fds=False, env=environment, stdin=subprocess.PIPE)
                else:
                    # A group of its own: Ctrl-C reaches the caller alone, which ends the child in its own time.
                    self._process = subprocess.Popen(
                        start, pass_fds=(handle,), start_new_session=True, env=environment, stdin=subprocess.PIPE
                    )
            finally:
                theirs.close()
            self._pipe.send(self.compute)
        return self._pipe


def _exit_code(process: subprocess.Popen[bytes] | None) -> int | None:
    if process is None:
        return None
    try:
        return process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def serve(handle: int, memory_limit: int) -> None:
    """Compute cells until the caller is gone. What is printed meanwhile goes to standard error."""
    os.dup2(2, 1)
    end_with(0)  # nothing else ends it in the middle of a cell, where the caller was killed
    if sys.platform == "win32":
        pipe: Connection[Any, Any] = connection.PipeConnection(handle)
    else:
        import resource

        pipe = connection.Connection(handle)
        if memory_limit:
            resource.setrlimit(resource.RLIMIT_AS, (memory_limit << 20, memory_limit << 20))
    with contextlib.suppress(EOFError, OSError), spare.reused():
        try:
            compute = pipe.recv()
        except MemoryError:  # what computes did not even load
            compute = _starved
        while True:
            task = pipe.recv()
            try:
                pipe.send(compute(task))
            except MemoryError as error:
                pipe.send(error)


def _starved(_task: object) -> None:
    raise MemoryError


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


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
