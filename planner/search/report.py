"""What a search did, as a value for people and for JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from planner.codec import named
from planner.search.candidates import Candidates
from planner.search.cost import share_in_8_bit
from planner.search.evaluator import Evaluations
from planner.search.goal import Measured
from planner.search.search import Found
from planner.verification.floor import Floor

# What may end a search before its end.
Stopped = Literal["interrupted", "time budget"]


@dataclass(frozen=True)
class LevelReport:
    """A uniform level: cost in the profile's unit; ``real`` None where the emulation made it hopeless.

    Attributes:
        emulated: over the calibration samples. real: the same, less what the EP loses against the emulation of the samples
            that it ran.
    """

    precision: str
    cost: float
    emulated: Measured
    real: Measured | None


@dataclass(frozen=True)
class Gain:
    """What keeping nodes above a precision gains.

    Attributes:
        alone_db: SQNR of the worst output where these nodes alone are at the base precision; None where not measured.
        error_share: of the whole error that the base precision causes, the part that these nodes cause.
        measured_on: by emulation or on the EP.
    """

    alone_db: float | None = field(metadata=named("alone_sqnr_db"))
    error_share: float | None
    measured_on: str


@dataclass(frozen=True)
class Promoted:
    """Nodes that stay above the cheapest precision used: what it costs, and what it gains.

    Attributes:
        nodes: their names.
        operators: their operator types.
        base: the cheapest precision used.
        to: the one that they have.
        cost: added, in the profile's unit.
        cost_share: of the plan's whole cost.
        gain: what it gains.
    """

    nodes: tuple[str, ...]
    operators: tuple[str, ...]
    base: str = field(metadata=named("from"))
    to: str
    cost: float
    cost_share: float
    gain: Gain

    def reason(self) -> str:
        """Why these nodes are promoted, as the plan writes it."""
        cause = "not measured alone"
        gain = self.gain
        if gain.alone_db is not None and gain.error_share is not None:
            cause = (
                f"at {self.base} their block alone leaves {gain.alone_db:.1f} dB and causes "
                f"{100 * gain.error_share:.0f} % of its error ({gain.measured_on})"
            )
        return f"promoted from {self.base} to {self.to}: {cause}"


@dataclass(frozen=True)
class Judgement:
    """A plan that the search found, or one estimated faster, on the samples held apart: ``score`` is what the floor is compared with."""

    score: float
    passed: bool


@dataclass(frozen=True)
class SearchReport:
    """The whole search.

    Attributes:
        evaluations: plans that were run by emulation and on the EP. seconds: all of it.
        cost: of the plan found, in the profile's unit; cheapest: of the cheapest uniform plan, legal but not faithful.
        macs_in_8_bit: share of multiply-accumulates whose weight has 8 bits or fewer; None without weights.
        judgements: by the samples held apart, which took no part in the search, and all others: several where they
            refuted the first.
        stopped: what ended it before its end; None where it came to it.
    """

    floor: Floor
    levels: tuple[LevelReport, ...]
    evaluations: Evaluations
    promoted: tuple[Promoted, ...]
    cost: float
    cheapest: float = field(metadata=named("cheapest_cost"))
    macs_in_8_bit: float | None
    judgements: tuple[Judgement, ...]
    seconds: float
    stopped: Stopped | None = None

    SHOWN = ("note",)

    @property
    def note(self) -> str | None:
        """What whoever relies on the result should know of how it was judged."""
        if self.stopped is not None:
            why = "it was interrupted" if self.stopped == "interrupted" else "the time budget was used up"
            return (
                f"the search did not come to its end ({why}): the best plan so far is kept, and a cheaper one may exist"
            )
        if len(self.judgements) < 2:
            return None
        count = len(self.judgements)
        was = f"the first plan came to {self.judgements[0].score:.4g} on the samples held apart, below the floor"
        then = "the one that was looked for last passes" if self.judgements[-1].passed else "no other passes"
        return f"{was}; {then}, on the same samples: they chose between {count} plans"


def search_report(
    candidates: Candidates,
    found: Found,
    floor: Floor,
    evaluations: Evaluations,
    judgements: tuple[Judgement, ...],
    seconds: float,
    stopped: Stopped | None = None,
) -> SearchReport:
    """Put a search's result into names."""
    total = candidates.cost(found.assignment)
    promoted = tuple(
        Promoted(
            tuple(candidates.nodes[i].name for i in p.nodes),
            tuple(dict.fromkeys(candidates.nodes[i].op_type for i in p.nodes)),
            candidates.levels[p.base].name,
            candidates.levels[p.level].name,
            p.cost,
            p.cost / total if total else 0.0,
            Gain(p.alone_db, p.share, p.measured_on),
        )
        for p in found.promoted
    )
    configs = [
        (candidates.work[i], candidates.levels[level].verdicts[i].config) for i, level in enumerate(found.assignment)
    ]
    return SearchReport(
        floor,
        tuple(
            LevelReport(candidates.levels[u.level].name, candidates.levels[u.level].cost, u.emulated, u.real)
            for u in found.uniform
        ),
        evaluations,
        promoted,
        total,
        candidates.levels[0].cost,
        share_in_8_bit(configs),
        judgements,
        seconds,
        stopped,
    )
