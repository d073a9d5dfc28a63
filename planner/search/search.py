"""The cheapest legal plan that reaches a floor on the EP: which nodes get which level. Pure but for its evaluator.

1. The uniform levels, cheapest first, until one reaches the floor on the EP; the CPU EP's emulation spares the hopeless.
2. From there down: how much error each block causes at each cheaper level (planner/search/sensitivity.py), measured by
   emulation, or on the EP itself where the EP did worse at that level than the emulation of the same plan and no single
   node is to blame for that; those that are do not take that level.
   A level that the chip's compiled schedule shows to be slower, where every node takes it, is left out, and a mix that gains nothing by
   it is not run.
3. Blocks are moved down in the order of error per cost saved, as many as the floor bears: bisected, by emulation first,
   then on the EP, which has the last word. Nodes at which the EP leaves the emulation of the same file stay as they were:
   one run with every tensor laid open shows them, where bisecting takes many.

Where no uniform level reaches the floor, each block first gets the level at which it does the least harm; a level that has narrower
activations than another, and more noise, is not asked about for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from planner.dtypes import QuantConfig
from planner.search.bisection import bisect
from planner.search.candidates import IDEAL, Assignment, Candidates
from planner.search.goal import Goal, Measured, decibels
from planner.search.moves import Move, bearable_by, least_harm, moved, possible_moves
from planner.search.sensitivity import Block, Sensitivity, measure_blocks

# The EP is worse than its emulation where its error energy is this many times as large (3 dB).
_WORSE = 2.0
# Evaluations of one level's blocks: by emulation, and on the EP, which may take seconds each.
_EMULATED_TESTS, _REAL_TESTS = 20, 14
_REAL_FIRST = 6
# Rounds of bisecting for the moves that the floor does not bear.
_EMULATED_ROUNDS, _REAL_ROUNDS = 3, 4
# Times that the EP is asked which nodes it computes otherwise than the emulation.
_SUSPICIONS = 3
# A level that saves less than this share of the cost, even where every node takes it, and no memory, takes no part in a mix; nor is
# a mix taken that is estimated as fast as what it would replace, and saves less.
_LEAST_SAVING = 0.05
# Moves that save less than this share of a plan's cost are not worth another plan that is run.
_HARDLY = 0.01


class Evaluator(Protocol):
    """Measures plans; the same plan twice costs nothing."""

    def emulated(self, assignment: Assignment) -> Measured:
        """On the CPU EP, computed as the file says."""
        ...

    def real(self, assignment: Assignment) -> Measured:
        """On the target's EP."""
        ...

    def suspects(self, assignment: Assignment) -> tuple[int, ...]:
        """Indices of the nodes at which the EP's run of the plan leaves the emulation of the same file."""
        ...

    def slower(self, assignment: Assignment, other: Assignment) -> bool:
        """Whether a plan is estimated slower than another by the schedules of their files; False where nothing tells."""
        ...

    def faster(self, assignment: Assignment, other: Assignment) -> bool:
        """Whether a plan is estimated so much faster that it should take the other's place; True where nothing tells."""
        ...


@dataclass(frozen=True)
class Uniform:
    """A uniform level as measured; ``real`` is None where the emulation made it hopeless."""

    level: int
    emulated: Measured
    real: Measured | None


@dataclass(frozen=True)
class Promotion:
    """Nodes that stay above the cheapest level used, and what that costs and gains.

    Attributes:
        nodes: indices. base, level: from which level to which.
        cost: what the higher level costs more, in the profile's unit.
        alone_db: SQNR of the worst output where these nodes alone are at the lower level; None where not measured.
        share: of the whole error that the lower level causes, the part that these nodes cause.
        measured_on: "emulation" or "EP".
    """

    nodes: tuple[int, ...]
    base: int
    level: int
    cost: float
    alone_db: float | None
    share: float | None
    measured_on: str


@dataclass(frozen=True)
class Found:
    """What the search came to.

    Attributes:
        assignment: the plan. measured: of it, on the EP. passed: whether it reaches the floor there.
    """

    assignment: Assignment
    measured: Measured
    passed: bool
    uniform: tuple[Uniform, ...]
    promoted: tuple[Promotion, ...] = ()


def search(candidates: Candidates, evaluator: Evaluator, goal: Goal) -> Found:
    """Find the plan. See the module's text for how.

    Args:
        candidates: what to choose from, at least one level.
        evaluator: measures plans.
        goal: what is asked for.
    """
    uniform = _climb(candidates, evaluator, goal)
    last = uniform[-1]
    if last.real is not None and last.real.score >= goal.value:
        start, known, tests = candidates.uniform(last.level), [last.level], []
        if last.level == 0:
            return Found(start, last.real, True, tuple(uniform))
        lower = [
            u
            for u in uniform[:-1]
            if _saves(candidates, u.level, last.level) and not evaluator.slower(candidates.uniform(u.level), start)
        ]
    else:
        best = max(uniform, key=lambda u: (-math.inf if u.real is None else u.real.score, -u.emulated.noise))
        close = [u for u in uniform if not any(_is_surpassed(candidates, u, other) for other in uniform)]
        start, known = candidates.uniform(best.level), []
        tests = _sensitivities(candidates, evaluator, goal, close, start, known)
        start = least_harm(candidates, tests, start)
        measured = evaluator.real(start)
        if measured.score < goal.value:
            options = [(measured, start)] + [(u.real or u.emulated, candidates.uniform(u.level)) for u in uniform]
            found, assignment = max(options, key=lambda o: (o[0].score, -o[0].noise))
            return Found(assignment, found, False, tuple(uniform), _promotions(candidates, assignment, tests))
        known, lower = [u.level for u in close], [u for u in uniform if u not in close]
    tests = [*tests, *_sensitivities(candidates, evaluator, goal, lower, start, known)]
    moves = possible_moves(candidates, tests, start)
    assignment = _descend(candidates, evaluator, goal, start, moves, emulation=not any(t.on_ep for t in tests))
    return Found(
        assignment, evaluator.real(assignment), True, tuple(uniform), _promotions(candidates, assignment, tests)
    )


def _climb(candidates: Candidates, evaluator: Evaluator, goal: Goal) -> list[Uniform]:
    tried: list[Uniform] = []
    for level in range(len(candidates.levels)):
        assignment = candidates.uniform(level)
        emulated = evaluator.emulated(assignment)
        hopeless = emulated.score < goal.value - goal.slack
        real = None if hopeless else evaluator.real(assignment)
        tried.append(Uniform(level, emulated, real))
        if real is not None and real.score >= goal.value:
            return tried
    return tried


def _is_surpassed(candidates: Candidates, one: Uniform, other: Uniform) -> bool:
    """Whether a level has narrower activations than another and more noise: then it does the least harm nowhere."""
    narrower = candidates.levels[one.level].is_narrower(candidates.levels[other.level])
    return narrower and (other.real or other.emulated).noise < one.emulated.noise


def _saves(candidates: Candidates, level: int, background: int) -> bool:
    """Whether a level saves anything to speak of: cost, or weights of fewer bits."""
    own, other = candidates.levels[level], candidates.levels[background]
    return own.cost <= (1 - _LEAST_SAVING) * other.cost or _narrows(
        candidates, candidates.uniform(level), candidates.uniform(background)
    )


def _narrows(candidates: Candidates, assignment: Assignment, other: Assignment) -> bool:
    """Whether some node has a weight of fewer bits than in another plan."""
    configs = (
        (_config(candidates, one, i), _config(candidates, two, i))
        for i, (one, two) in enumerate(zip(assignment, other, strict=True))
        if one != two
    )
    return any(a.weight and b.weight and a.weight.bits < b.weight.bits for a, b in configs)


def _sensitivities(
    candidates: Candidates,
    evaluator: Evaluator,
    goal: Goal,
    levels: Sequence[Uniform],
    background: Assignment,
    known: Sequence[int],
) -> list[Sensitivity]:
    """The noise of each block at each of these levels: see `_sensitivity`. What one level tells the next is not asked."""
    before = [[*known, *(u.level for u in levels[:place])] for place in range(len(levels))]
    return [
        _sensitivity(candidates, evaluator, goal, level, background, told)
        for level, told in zip(levels, before, strict=True)
    ]


def _sensitivity(
    candidates: Candidates,
    evaluator: Evaluator,
    goal: Goal,
    uniform: Uniform,
    background: Assignment,
    known: Sequence[int],
) -> Sensitivity:
    """The noise of each block at a level: by emulation against float32, or on the EP where no node is to blame for its loss.

    Args:
        candidates: what is chosen from.
        evaluator: measures plans.
        goal: what is asked for.
        uniform: the level, measured throughout.
        background: the level of all other nodes.
        known: levels that need no further test: a unit none of whose nodes has a type that is new is left out.
    """
    level, real = uniform.level, uniform.real
    worse = (
        real is not None
        and real.score < goal.value
        and real.noise > _WORSE * uniform.emulated.noise
        and background != candidates.uniform(level)
    )
    suspects = frozenset(evaluator.suspects(candidates.uniform(level)) if worse else ())
    on_ep = worse and not suspects
    base = background if on_ep else (IDEAL,) * len(candidates.nodes)
    measure: Callable[[Assignment], Measured] = evaluator.real if on_ep else evaluator.emulated

    def changed(unit: int) -> bool:
        members = candidates.units[unit]
        return suspects.isdisjoint(members) and any(
            all(_config(candidates, k, i) != _config(candidates, level, i) for k in known) for i in members
        )

    def worth(unit: int) -> float:
        return sum(
            (candidates.levels[background[i]].costs[i] - candidates.levels[level].costs[i])
            for i in candidates.units[unit]
        )

    def noise(members: Sequence[int]) -> float:
        return measure(_with(candidates, base, members, level)).noise

    units = [u for u in range(len(candidates.units)) if changed(u)]
    blocks = measure_blocks(
        units,
        worth,
        noise,
        background=measure(base).noise if on_ep else 0.0,
        negligible=goal.noise / 4,
        evaluations=_REAL_TESTS if on_ep else _EMULATED_TESTS,
        first=_REAL_FIRST if on_ep else 8,
    )
    return Sensitivity(level, blocks, on_ep)


def _with(candidates: Candidates, base: Assignment, units: Sequence[int], level: int) -> Assignment:
    changed = list(base)
    for unit in units:
        for index in candidates.units[unit]:
            changed[index] = level
    return tuple(changed)


def _config(candidates: Candidates, level: int, node: int) -> QuantConfig:
    return candidates.levels[level].verdicts[node].config


def _descend(
    candidates: Candidates,
    evaluator: Evaluator,
    goal: Goal,
    start: Assignment,
    moves: Sequence[Move],
    *,
    emulation: bool,
) -> Assignment:
    """As many moves as the floor bears on the EP; the start itself passed there."""
    least = goal.value + goal.margin
    if evaluator.real(start).score < least:
        least = goal.value

    def scored(measure: Callable[[Assignment], Measured]) -> Callable[[Sequence[Move]], float]:
        return lambda chosen: measure(moved(candidates, start, chosen)).score

    def worth(assignment: Assignment) -> bool:
        return assignment == start or _worth(candidates, evaluator, assignment, start)

    def hardly(fewer: Sequence[Move], more: Sequence[Move]) -> bool:
        few, many = (candidates.cost(moved(candidates, start, chosen)) for chosen in (fewer, more))
        return few - many < _HARDLY * few

    def hardly_on_ep(fewer: Sequence[Move], more: Sequence[Move]) -> bool:
        return hardly(fewer, more) or not worth(moved(candidates, start, more))

    chosen = list(moves)
    spare = goal.spare_noise(least, evaluator.emulated(start) if emulation else evaluator.real(start))
    likely = chosen[: bearable_by(chosen, 0.0, spare[0])]
    if likely and not worth(moved(candidates, start, likely)):
        return start  # what a mix saves it loses where its precisions meet
    if emulation:
        chosen = _bearable(candidates, chosen, scored(evaluator.emulated), hardly, least, spare, _EMULATED_ROUNDS)
    for _ in range(_SUSPICIONS):
        assignment = moved(candidates, start, chosen)
        if not worth(assignment):
            return start
        measured = evaluator.real(assignment)
        if measured.score >= least or math.isinf(measured.score):
            break
        suspects = {i for i in evaluator.suspects(assignment) if assignment[i] != start[i]}
        if not suspects:
            break
        kept = [tuple(u for u in move.units if suspects.isdisjoint(candidates.units[u])) for move in chosen]
        chosen = [replace(move, units=units) for move, units in zip(chosen, kept, strict=True) if units]
    chosen = _bearable(candidates, chosen, scored(evaluator.real), hardly_on_ep, least, spare, _REAL_ROUNDS)
    found = moved(candidates, start, chosen)
    return found if worth(found) else start


def _worth(candidates: Candidates, evaluator: Evaluator, mix: Assignment, other: Assignment) -> bool:
    """Whether a mix is to take another plan's place: it is estimated faster, or has narrower weights, or costs clearly less."""
    if _narrows(candidates, mix, other) or evaluator.faster(mix, other):
        return True
    saves = candidates.cost(mix) <= (1 - _LEAST_SAVING) * candidates.cost(other)
    return saves and not evaluator.slower(mix, other)


def _bearable(
    candidates: Candidates,
    moves: Sequence[Move],
    score: Callable[[Sequence[Move]], float],
    hardly: Callable[[Sequence[Move], Sequence[Move]], bool],
    least: float,
    spare: tuple[float, float],
    rounds: int,
) -> list[Move]:
    """The moves, in their order, but for those that are one too many.

    Each round bisects to the first such, leaves it out and goes on with the rest, but for what by its own noise is out of
    question. Where it does not lose accuracy but breaks the plan (a node that the EP does not take so, after all), the very
    unit is found, and left out of every further move to the same kind of type. What no round has confirmed is left out, and
    what would hardly save anything.

    Args:
        candidates: what is chosen from.
        moves: best first.
        score: of the plan that some moves make.
        hardly: whether the plan of more moves hardly gains over that of fewer.
        least: the score that is asked for.
        spare: the noise that the moves may add up to: about, where bisecting begins, and at most.
        rounds: of bisecting, at most.
    """
    chosen: list[Move] = []
    rest = list(moves)

    def bears(further: Sequence[Move]) -> bool:
        return score([*chosen, *further]) >= least

    def hardly_cheaper(few: int, many: int) -> bool:
        """Between so many of the rest; where a plan breaks, what breaks it is to be found."""
        fewer, more = ([*chosen, *rest[:count]] for count in (few, many))
        return hardly(fewer, more) and not math.isinf(score([*chosen, *rest[: many + 1]]))

    for _ in range(rounds):
        spent = sum(move.noise for move in chosen)
        rest = [move for move in rest if spent + move.noise <= spare[1]]
        if not rest or hardly(chosen, [*chosen, *rest]):
            break
        reach = bearable_by(rest, spent, spare[1])
        if reach == len(rest) and bears(rest):
            return [*chosen, *rest]
        guess = bearable_by(rest, spent, spare[0])
        most, culprit_at = bisect(min(reach, len(rest) - 1), lambda k: bears(rest[:k]), guess, hardly_cheaper)  # noqa: B023
        kept, culprit, rest = rest[:most], rest[culprit_at], rest[culprit_at + 1 :]
        chosen += kept
        if most == culprit_at and math.isinf(score([*chosen, culprit])):
            units = culprit.units
            good, _ = bisect(len(units) - 1, lambda k: bears([replace(culprit, units=units[:k])]))  # noqa: B023
            chosen.append(replace(culprit, units=units[:good]))
            broken, is_float = units[good], _is_float(candidates, culprit.level, units[good])
            rest = [replace(culprit, units=units[good + 1 :])] + [
                replace(move, units=tuple(u for u in move.units if u != broken))
                if _is_float(candidates, move.level, broken) == is_float
                else move
                for move in rest
            ]
    return chosen


def _is_float(candidates: Candidates, level: int, unit: int) -> bool:
    activation = candidates.levels[level].verdicts[candidates.units[unit][0]].config.activation
    return activation is not None and activation.is_float


def _promotions(candidates: Candidates, assignment: Assignment, tests: Sequence[Sensitivity]) -> tuple[Promotion, ...]:
    used = {assignment[i] for unit in candidates.units for i in unit}
    base = min(used, default=0)
    test = next((t for t in tests if t.level == base), None)
    blocks = test.blocks if test is not None else (Block(tuple(range(len(candidates.units))), math.nan),)
    whole = sum(b.noise for b in blocks)
    promoted = []
    for block in blocks:
        by_level: dict[int, list[int]] = {}
        for unit in block.units:
            for i in candidates.units[unit]:
                if assignment[i] != base and _config(candidates, assignment[i], i) != _config(candidates, base, i):
                    by_level.setdefault(assignment[i], []).append(i)
        for level, nodes in sorted(by_level.items()):
            cost = sum(candidates.levels[level].costs[i] - candidates.levels[base].costs[i] for i in nodes)
            known = test is not None and math.isfinite(block.noise)
            promoted.append(
                Promotion(
                    tuple(nodes),
                    base,
                    level,
                    cost,
                    decibels(block.noise) if known else None,
                    block.noise / whole if known and whole > 0 else None,
                    "EP" if test is not None and test.on_ep else "emulation",
                )
            )
    return tuple(sorted(promoted, key=lambda p: -(p.share or 0.0)))
