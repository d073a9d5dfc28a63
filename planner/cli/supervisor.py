"""The process that a user starts: it lets a second one do the work, and answers for it whatever happens to that one.

What works may hang in native code, be killed, or crash on a file of somebody else's. The supervisor holds nothing that could:
it forwards signals, ends what takes too long, clears temporary folders, and says in plain words what happened.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from types import FrameType

from planner import limits
from planner.errors import EPError, PlannerError, RequestError
from planner.runtime.lifeline import end_with

# How long the working process has to clear up after a signal before it is ended.
_GRACE = 0.6
_FORWARDED = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)
)


class Worked(Exception):
    """The working process ended by itself, with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


_working = False


def is_working() -> bool:
    """Whether this is the working process of a supervisor, which answers for it."""
    return _working


def leave(status: int) -> None:
    """End the working process. Not through the interpreter's shutdown, in which native libraries may still crash."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def available() -> bool:
    """Whether the platform can do it; elsewhere a command works in the process that was started."""
    return hasattr(os, "fork") and hasattr(os, "waitstatus_to_exitcode")


def supervise() -> None:
    """Split the process in two: returns in the one that is to do the work, and never in the other.

    Raises:
        Worked: in the supervisor, when the work is done: its status is the working process's own.
        KeyboardInterrupt: in the supervisor, after a signal, whose number it carries.
        RequestError: reading a model took too long, or ended the working process.
        EPError: the working process was killed from outside.
    """
    heard, told = os.pipe()
    alive, lifeline = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal that comes before both know what to do with it waits.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    process = os.fork()
    if process == 0:
        global _working
        _working = True
        os.close(heard)
        os.close(lifeline)
        end_with(alive)
        _obey()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        limits.watch_by(told)
        return
    os.close(told)
    os.close(alive)
    _Supervisor(process, heard).run(before)


def _obey() -> None:
    """Signals come by way of the supervisor, as SIGTERM; a terminal would send them a second time."""

    def stop(number: int, _frame: FrameType | None) -> None:
        # One is enough: a second must not end the clearing up.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    def stop_softly(_number: int, _frame: FrameType | None) -> None:
        limits.interrupt()

    for number in _FORWARDED:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGUSR1, stop_softly)


# Written at once, by the descriptor: a signal may come while something else is printed.
_STOPPING = b"\nplanner: stopping: the best plan so far, if there is one, is kept; interrupt once more to give up\n"


@dataclass
class _Supervisor:
    """Waits for the working process.

    Attributes:
        process: its number.
        heard: the pipe by which it says what it does.
        step: what it is doing, in words; empty while that has no limit.
        deadline: when that must be done, by time.monotonic(). seconds: how long it was given.
        folders: temporary folders that it has made and not yet removed.
        got: number of the signal that was forwarded.
        stoppable: the working process has something to keep: a first SIGINT ends its step alone. stopped: it got that.
    """

    process: int
    heard: int
    step: str = ""
    seconds: float = 0.0
    deadline: float | None = None
    folders: list[str] = field(default_factory=list)
    got: int | None = None
    stoppable: bool = False
    stopped: bool = False
    _rest: bytes = b""
    _woken: int = -1
    # Signals that came and are not yet acted on; None once nothing is listened to.
    _came: list[int] | None = field(default_factory=list)

    def run(self, mask: Collection[int]) -> None:
        with self._signals():
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self._listen()
            status = self._end()
        if self.got is not None and (status < 0 or status == 128 + signal.SIGTERM):
            raise KeyboardInterrupt(self.got)
        if self.stopped and status == 128 + signal.SIGINT:
            raise KeyboardInterrupt(signal.SIGINT)  # it had nothing to keep after all
        raise Worked(status) if status >= 0 else self._fate(-status)

    def _listen(self) -> None:
        """Follow the working process until it is gone, or must go."""
        assert self._came is not None
        try:
            self._follow(self._came)
        finally:
            came, self._came = self._came, None
            for number in came:
                self._forward(number)

    def _follow(self, signals: list[int]) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.heard, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while self.deadline is None or time.monotonic() < self.deadline:
                # What was said before a signal came may say how to take it: it is read first.
                came = len(signals)
                left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
                ready = {key.fd for key, _ in selector.select(0 if came else left)}
                if self.heard in ready:
                    data = os.read(self.heard, 1 << 16)
                    if not data:
                        return
                    *lines, self._rest = (self._rest + data).split(b"\n")
                    for line in lines:
                        self._take(json.loads(line))
                if self._woken in ready:
                    os.read(self._woken, 1 << 10)
                for _ in range(came):
                    self._forward(signals.pop(0))

    def _take(self, words: list[str]) -> None:
        match words:
            case ["begin", seconds, step] if self.got is None:
                self.step, self.seconds = step, float(seconds)
                self.deadline = time.monotonic() + self.seconds
            case ["end"] if self.got is None:
                self.step, self.deadline = "", None
            case ["stoppable"]:
                self.stoppable = not self.stopped
            case ["unstoppable"]:
                self.stoppable = False
            case ["made", folder]:
                self.folders.append(folder)
            case ["removed", folder] if folder in self.folders:
                self.folders.remove(folder)

    def _forward(self, number: int) -> None:
        if self.stoppable and number == signal.SIGINT:
            self.stoppable, self.stopped = False, True
            with contextlib.suppress(OSError):
                os.write(2, _STOPPING)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process, signal.SIGUSR1)
        elif self.got is None:
            self.got, self.deadline = number, time.monotonic() + _GRACE
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process, signal.SIGTERM)

    def _end(self) -> int:
        """End the working process if it has not ended; its status, negative for a signal."""
        late = self.deadline is not None and time.monotonic() >= self.deadline
        if late:
            os.kill(self.process, signal.SIGKILL)
        _, status = os.waitpid(self.process, 0)
        os.close(self.heard)
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)
        if late and self.got is None:
            raise RequestError(
                f"{self.step} took more than {self.seconds:g} s",
                "the model may be made to do so; if it is only large, raise --time-limit",
            )
        return os.waitstatus_to_exitcode(status)

    def _fate(self, number: int) -> PlannerError:
        name = signal.Signals(number).name
        if number == signal.SIGKILL:
            doing = f" while {self.step}" if self.step else ""
            return EPError(
                f"planner was killed{doing}: the machine may have run out of memory", "use fewer or smaller samples"
            )
        if self.step:
            return RequestError(
                f"{self.step} ended planner itself ({name})",
                "the model brings down the ONNX library, or something outside ended planner; `onnx.checker` may say more",
            )
        return EPError(f"planner itself crashed ({name})", "this is a defect of planner; PLANNER_DEBUG=1 shows more")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Forward signals while this lasts; one that was ignored from the start (nohup) stays so."""

        def forward(number: int, _frame: FrameType | None) -> None:
            if self._came is None:
                self._forward(number)
            else:
                self._came.append(number)

        self._woken, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker)
        before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        for number in _FORWARDED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, forward)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(-1)
            os.close(waker)
            os.close(self._woken)
