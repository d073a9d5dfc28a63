"""Ranking blocks with one switched model (planner/search/switched.py), as far as it agrees with the plans that were measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import EPError
from planner.model.write import save
from planner.runtime.client import Worker
from planner.runtime.registry import CPU
from planner.search.candidates import IDEAL, Assignment
from planner.search.switched import Switched
from planner.verification.feed import AS_WRITTEN
from planner.verification.fidelity import Comparison, Fidelity
from planner.verification.parts import Parts

# The switched model is believed at a level where, with all its switches on, it comes this close to the plan that was measured.
_AGREES_DB = 3.0

Outputs = Mapping[str, Any]


@dataclass(frozen=True)
class _Ran:
    """Of each output over all samples, and SQNR of the worst output by the mean of each sample's own relative error, in dB."""

    fidelity: tuple[Fidelity, ...]
    mean_db: float


def mean_db(alone: Collection[float]) -> float:
    """SQNR of the mean of each sample's error energy relative to its signal's, of each sample's SQNR in dB."""
    return -10 * math.log10(max(1e-20, sum(10 ** (-db / 10) for db in alone) / len(alone)))


class BlockRanker:
    """Runs the switched model. A level at which it does not agree with what was measured is left to real plans."""

    def __init__(
        self, units: Sequence[Sequence[int]], make: Callable[[Sequence[int]], Switched | None], timeout: float | None
    ) -> None:
        """Prepare; nothing is made before the first use.

        Args:
            units: indices of the nodes that change level together.
            make: the switched model of some levels.
            timeout: seconds that one request to the worker may take.
        """
        self._units, self._make = units, make
        self._worker = Worker(CPU, timeout=timeout)
        self._switched: Switched | None = None
        self._levels: tuple[int, ...] | None = None
        # Whatever other levels the model holds beside it: those are switched off.
        self._agrees: dict[int, bool] = {}

    def close(self) -> None:
        """End the worker."""
        self._worker.close()

    def fidelity(
        self,
        assignment: Assignment,
        samples: Sequence[Outputs],
        expected: Sequence[Outputs],
        parts: Mapping[str, Parts],
        measured: Mapping[int, float],
        folder: Path,
    ) -> tuple[Fidelity, ...] | None:
        """Of each output over the samples; None where that must be measured otherwise.

        Args:
            assignment: levels of units, float32 for the others.
            samples: feeds.
            expected: the reference's outputs of each.
            parts: of the outputs.
            measured: by level, `mean_db` of these samples for the plan that has it throughout.
            folder: for the model's file.
        """
        by_unit = {u: assignment[m[0]] for u, m in enumerate(self._units) if assignment[m[0]] != IDEAL}
        levels = set(by_unit.values())
        if not levels or not levels <= measured.keys():
            return None
        try:
            if self._levels is None or not levels <= set(self._levels):
                # Each level that it holds is computed in every run: none is held that is not asked for.
                self._open(tuple(sorted(levels)), folder)
            if self._switched is None:
                return None
            for level in levels - self._agrees.keys():
                throughout = self._run(dict.fromkeys(range(len(self._units)), level), samples, expected, parts)
                self._agrees[level] = abs(throughout.mean_db - measured[level]) <= _AGREES_DB
            if not all(self._agrees[level] for level in levels):
                return None
            return self._run(by_unit, samples, expected, parts).fidelity
        except EPError:
            self._switched = None  # the CPU EP does not take it
            return None

    def _open(self, levels: tuple[int, ...], folder: Path) -> None:
        self._levels, self._switched = levels, self._make(levels)
        if self._switched is not None:
            path = folder / "switched.onnx"
            save(self._switched.model, path)
            self._worker.open(path, {}, session_config=AS_WRITTEN)

    def _run(
        self,
        by_unit: Mapping[int, int],
        samples: Sequence[Outputs],
        expected: Sequence[Outputs],
        parts: Mapping[str, Parts],
    ) -> _Ran:
        """Some units rounded, on each sample."""
        assert self._switched is not None
        switches, comparison, alone = self._switched.feed(by_unit), Comparison(parts), []
        for sample, outputs in zip(samples, expected, strict=True):
            got = self._worker.run({**sample, **switches}).outputs
            alone.append(comparison.add(outputs, got).least_db)
        return _Ran(comparison.results(), mean_db(alone))
