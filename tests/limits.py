"""How long a test waits, and how fast it may ask a machine to be that others use as well."""

from __future__ import annotations

import time

# Seconds after which something hangs. No load reaches it: it ends a run that would never end.
HANGS = 1800.0


def slowdown() -> float:
    """How many times longer work takes just now than on an idle machine: time on the clock over time on the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    while time.process_time() - processor < 0.1:
        pass
    return max(1.0, (time.perf_counter() - clock) / (time.process_time() - processor))
