"""A pipe by which a process ends with the one that started it, whatever it is doing then. The standard library alone."""

from __future__ import annotations

import contextlib
import os
import select
import signal


def end_with(pipe: int) -> None:
    """Let the kernel end this process when the other end of a pipe is closed (Linux; elsewhere nothing is done).

    No thread could, while native code holds the interpreter or the process is stopped.

    Args:
        pipe: descriptor of the end that is read from; nothing is ever written to the other one.
    """
    try:
        import fcntl
    except ImportError:
        return
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(pipe, getattr(fcntl, "F_SETSIG", 10), signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
        # It may have been closed before: nothing tells of that any more.
        if select.select([pipe], [], [], 0)[0]:
            os.kill(os.getpid(), signal.SIGKILL)
