"""What a search tells of itself while it runs: what is being tried, the best so far, and about how long it will take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.progress import Progress
from planner.search.candidates import IDEAL, Assignment, Candidates
from planner.search.goal import Measured

# Plans that a search runs, about: for each precision tried, and for each level that blocks are tested at.
_PER_LEVEL, _PER_TEST = 2, 24


def best_so_far(candidates: Candidates, known: Mapping[Assignment, Measured], least: float) -> Assignment | None:
    """The cheapest plan that reached the floor, else the one that came nearest; None where none was measured."""
    passing = [a for a, m in known.items() if m.score >= least]
    if passing:
        return min(passing, key=lambda a: (candidates.cost(a), -known[a].score))
    return max(known, key=lambda a: (known[a].score, -known[a].noise), default=None)


@dataclass
class Teller:
    """Turns the plans that a search tries into lines of progress.

    Attributes:
        candidates: what is chosen from.
        least: what the floor asks for.
        unit: of the score: "dB", or nothing.
        progress: told.
        deadline: when the search must end, by time.monotonic().
    """

    candidates: Candidates
    least: float
    unit: str
    progress: Progress
    deadline: float | None = None
    _started: float = field(default_factory=time.monotonic)
    _tried: int = 0

    def trying(self, assignment: Assignment, on_ep: bool, known: Mapping[Assignment, Measured]) -> None:
        """A plan is about to be run."""
        self._tried += 1
        where = "on the EP" if on_ep else "by emulation"
        best = best_so_far(self.candidates, known, self.least)
        said = "no plan yet"
        if best is not None:
            score = known[best].score
            reached = "reaches the floor" if score >= self.least else "falls short"
            cost = self.candidates.cost(best) / (self.candidates.levels[0].cost or 1.0)
            said = f"best so far: {self._name(best)}, cost {cost:.2f}, {score:.4g}{self.unit}, {reached}"
        total = max(self._tried + 1, self._expected())
        self.progress(
            f"searching: plan {self._tried}, {self._name(assignment)} {where}; {said}; {self._left(total)}",
            self._tried,
            total,
        )

    def _expected(self) -> int:
        levels = len(self.candidates.levels)
        return _PER_LEVEL * levels + _PER_TEST * max(0, levels - 1)

    def _left(self, total: int) -> str:
        spent = time.monotonic() - self._started
        expected = spent / self._tried * (total - self._tried) if self._tried > 1 else None
        if self.deadline is not None:
            most = max(0.0, self.deadline - time.monotonic())
            return (
                f"{most:.0f} s left at most" if expected is None or expected > most else f"about {expected:.0f} s left"
            )
        return "" if expected is None else f"about {expected:.0f} s left"

    def _name(self, assignment: Assignment) -> str:
        """The precision that most nodes have, and how many have another."""
        levels = [level for level, node in zip(assignment, self.candidates.nodes, strict=True) if node.has_precision]
        counts = Counter(levels)
        named = {IDEAL: "float32"} | {i: level.name for i, level in enumerate(self.candidates.levels)}
        if not counts:
            return "nothing to choose"
        if IDEAL in counts and len(counts) > 1:
            tested = ", ".join(f"{n} nodes at {named[level]}" for level, n in counts.most_common() if level != IDEAL)
            return f"{tested} alone"
        (first, _), *others = counts.most_common()
        rest = sum(n for _, n in others)
        return named[first] + (f" with {rest} of {len(levels)} nodes otherwise" if rest else "")
