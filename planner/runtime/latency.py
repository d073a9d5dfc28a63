"""Latency on this machine, float32 and candidate in turns."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.runtime.client import Worker

# Rounds of float32 and candidate in turns, so that a busy machine slows both; runs a round, of which some warm up.
_ROUNDS, _RUNS, _WARMUP = 5, 5, 2


@dataclass(frozen=True)
class Latency:
    """Measured on this machine.

    Attributes:
        float32: median milliseconds of one run of the float32 model on the target's EP.
        candidate: those of the candidate.
    """

    float32: float
    candidate: float

    @property
    def speedup(self) -> float:
        """How many times as fast as float32 the candidate is."""
        return self.float32 / self.candidate


def measure_latency(
    reference: tuple[Path, Mapping[str, Any]],
    candidate: tuple[Path, Mapping[str, Any]],
    ep: str,
    options: Mapping[str, str],
) -> Latency:
    """Time one run of each, as users run them (all of onnxruntime's optimizations).

    Args:
        reference: the float32 model and its feed.
        candidate: the candidate and its feed.
        ep: full provider name.
        options: provider options of the device.

    Raises:
        EPError: a worker failed.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    with Worker(ep) as one, Worker(ep) as other:
        for worker, (path, _) in ((one, reference), (other, candidate)):
            worker.open(path, options)
        for _ in range(_ROUNDS):
            for found, worker, (_, feed) in zip(seconds, (one, other), (reference, candidate), strict=True):
                found += worker.time(feed, warmup=_WARMUP, runs=_RUNS)
    return Latency(*(1000 * statistics.median(s) for s in seconds))
