"""The process of a worker: the child, the socket to it, and what it last said."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from multiprocessing import connection
from pathlib import Path
from typing import Any

from planner.runtime import worker
from planner.runtime.environment import discreet
from planner.runtime.refusals import clean

_STDERR_LINES = 40
# What Qualcomm's library prints at every start; of no use in a message about a crash.
_CHATTER = "# LIBNATIVE"

_running: weakref.WeakSet[Process] = weakref.WeakSet()


class Process:
    """The child, the socket to it, and a thread that keeps the last lines of what it says on standard error."""

    def __init__(self, python: Path, ep: str, memory: int | None) -> None:
        mine, theirs = connection.Pipe()
        handle = theirs.fileno()
        environment = discreet() | {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
        if python != Path(sys.executable):
            # Another interpreter must not find this one's packages.
            for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"):
                environment.pop(name, None)
        extra: dict[str, Any]
        if sys.platform == "win32":
            os.set_handle_inheritable(handle, True)
            extra = {"close_fds": False, "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        else:
            # A group of its own: Ctrl-C reaches the caller alone, which ends the worker in its own time.
            extra = {"pass_fds": (handle,), "start_new_session": True}
        try:
            self._popen = subprocess.Popen(
                [str(python), worker.__file__, ep, str(handle), str(memory or 0)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                **extra,
            )
        except OSError:
            mine.close()
            raise
        finally:
            theirs.close()
        self.connection = mine
        self.key = (ep, python, memory)
        self.runtime: Mapping[str, str] = {}
        self.late = False
        self._said: deque[str] = deque(maxlen=_STDERR_LINES)
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        _running.add(self)

    @contextlib.contextmanager
    def ended_after(self, seconds: float) -> Iterator[None]:
        """End the process if this takes longer."""
        self.late = False

        def end() -> None:
            self.late = True
            self.end()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _listen(self) -> None:
        assert self._popen.stderr is not None
        with contextlib.suppress(ValueError, OSError):
            for line in self._popen.stderr:
                text = clean(line[:2000].decode(errors="replace"))
                if text and not text.startswith(_CHATTER):
                    self._said.append(text)

    def keep_to(self, cores: Collection[int]) -> None:
        """Let the process, its threads included, run on these cores alone, where the platform has such a thing (Linux)."""
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                for thread in Path(f"/proc/{self._popen.pid}/task").iterdir():
                    os.sched_setaffinity(int(thread.name), cores)

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._popen.poll() is None

    def died(self) -> tuple[str, list[str]]:
        """How the process ended, in words, and the last lines it said."""
        try:
            code: int | None = self._popen.wait(10)
        except subprocess.TimeoutExpired:
            code = None
        self._reader.join(2)
        said = list(self._said)
        self.kill()
        if code is None:
            return "it closed its connection", said
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"signal {signal.Signals(-code).name}", said
        return f"exit status {code}", said

    def end(self) -> None:
        """End the process while somebody waits for it, who releases what it held."""
        with contextlib.suppress(OSError):
            self._popen.kill()

    def kill(self) -> None:
        """End the process at once and release what it held; safe to call again."""
        self.end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(10)
        self.connection.close()
        self._reader.join(2)
        for stream in (self._popen.stdin, self._popen.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        _running.discard(self)


@atexit.register
def _kill_all() -> None:
    for process in list(_running):
        process.kill()
