"""Functions that a child process computes, for the tests of the pool."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any


def compute(task: Any) -> Any:
    match task:
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(600)
        case "crash once", path:
            if not Path(path).exists():
                Path(path).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        case "eat":
            return [bytearray(1 << 28) for _ in range(64)]
    return f"done in {os.getpid()}"
