"""Moves of a search: blocks that go down to a cheaper level, the best first. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from planner.search.candidates import Assignment, Candidates
from planner.search.sensitivity import Sensitivity


@dataclass
class Move:
    """Units that go down to a level.

    Attributes:
        noise: that the units alone cause there. rate: noise per cost saved.
    """

    level: int
    units: tuple[int, ...]
    noise: float
    rate: float


def least_harm(candidates: Candidates, tests: Sequence[Sensitivity], otherwise: Assignment) -> Assignment:
    """Each unit at the level at which it causes the least noise; of levels that do not differ, the cheapest."""
    chosen = list(otherwise)
    for unit, members in enumerate(candidates.units):
        known = [t for t in tests if unit in t.by_unit]
        if known:
            best = min(known, key=lambda t: (t.by_unit[unit], t.level))
            for index in members:
                chosen[index] = best.level
    return tuple(chosen)


def possible_moves(candidates: Candidates, tests: Sequence[Sensitivity], start: Assignment) -> list[Move]:
    """Every block at every cheaper level, least noise per cost saved first.

    Counted from the start, or from the next dearer level that was tested, whichever is worse.
    """
    moves = []
    for test in tests:
        for block in test.blocks:
            saving = further = 0.0
            noise = block.noise
            for unit in block.units:
                dearer = min((t for t in tests if t.level > test.level and unit in t.by_unit), key=_level, default=None)
                noise -= 0.0 if dearer is None else dearer.by_unit[unit]
                for i in candidates.units[unit]:
                    cost = candidates.levels[test.level].costs[i]
                    saving += max(0.0, candidates.levels[start[i]].costs[i] - cost)
                    above = start[i] if dearer is None else min(start[i], dearer.level)
                    further += max(0.0, candidates.levels[above].costs[i] - cost)
            if further > 0:
                rate = max(block.noise / saving, noise / further)
                moves.append(Move(test.level, block.units, block.noise, rate))
    return sorted(moves, key=lambda m: (m.rate, m.noise))


def _level(test: Sensitivity) -> int:
    return test.level


def moved(candidates: Candidates, start: Assignment, moves: Sequence[Move]) -> Assignment:
    """The assignment after these moves: of several for a node, the cheapest level counts."""
    current = list(start)
    for move in moves:
        for unit in move.units:
            for i in candidates.units[unit]:
                if candidates.levels[move.level].costs[i] < candidates.levels[current[i]].costs[i]:
                    current[i] = move.level
    return tuple(current)


def bearable_by(moves: Sequence[Move], noise: float, most: float) -> int:
    """How many of the moves cause no more than this much noise together, as far as their own add up to what there is."""
    return sum(total <= most for total in itertools.accumulate((m.noise for m in moves), initial=noise)) - 1
