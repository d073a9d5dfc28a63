"""What a search tells of itself, and what it keeps where it is stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import cast

import pytest

from planner.search.candidates import Assignment
from planner.search.evaluator import OutOfTime, PlanEvaluator
from planner.search.goal import Measured
from planner.search.report import Stopped
from planner.search.run import _until_stopped
from planner.search.search import Found
from planner.search.told import Teller, best_so_far
from planner.verification.floor import Floor
from tests.unit.search.test_search import candidates

CHOICE = candidates(4)
CHEAP, MIXED, DEAR = CHOICE.uniform(0), (0, 0, 1, 1), CHOICE.uniform(1)
KNOWN = {
    CHEAP: Measured(12.0, 0.06),
    MIXED: Measured(31.0, 8e-4),
    DEAR: Measured(45.0, 3e-5),
}


def test_the_best_so_far_is_the_cheapest_that_reaches_the_floor_else_the_nearest() -> None:
    assert best_so_far(CHOICE, KNOWN, 30) == MIXED
    assert best_so_far(CHOICE, KNOWN, 40) == DEAR
    assert best_so_far(CHOICE, KNOWN, 60) == DEAR
    assert best_so_far(CHOICE, {}, 30) is None


def test_progress_says_what_is_tried_the_best_so_far_and_the_time_left() -> None:
    said: list[str] = []
    teller = Teller(CHOICE, 30, " dB", lambda what, _done, _total: said.append(what), time.monotonic() + 100)
    teller.trying(CHEAP, False, {})
    teller.trying(MIXED, True, KNOWN)
    assert said[0].startswith("searching: plan 1, w8a8 by emulation; no plan yet;")
    assert "plan 2, w8a8 with 2 of 4 nodes otherwise on the EP" in said[1]
    assert "best so far: w8a8 with 2 of 4 nodes otherwise, cost 1.50, 31 dB, reaches the floor" in said[1]
    assert "s left" in said[1]


class _Evaluator:
    """Measures one plan, then is stopped."""

    def __init__(self, stop: BaseException, known: Mapping[Assignment, Measured]) -> None:
        self.stop, self.known = stop, known

    def emulated(self, _assignment: Assignment) -> Measured:
        raise self.stop


def _stopped(
    stop: BaseException, known: Mapping[Assignment, Measured], *, keeps: bool = True
) -> tuple[Found, float, Stopped | None]:
    evaluator = cast(PlanEvaluator, _Evaluator(stop, known))
    return _until_stopped(CHOICE, evaluator, Floor("sqnr", 30), 30, keeps=keeps)


@pytest.mark.parametrize(
    ("stop", "why"), [(KeyboardInterrupt(2), "interrupted"), (OutOfTime(), "time budget")], ids=lambda v: str(v)
)
def test_a_search_that_is_stopped_keeps_its_best_plan_and_says_why(stop: BaseException, why: str) -> None:
    found, asked, stopped = _stopped(stop, KNOWN)
    assert (found.assignment, found.passed, asked, stopped) == (MIXED, True, 30, why)


def test_an_interrupt_before_any_plan_was_measured_is_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt):
        _stopped(KeyboardInterrupt(2), {})


def test_a_report_keeps_nothing_of_a_search_that_is_interrupted() -> None:
    with pytest.raises(KeyboardInterrupt):
        _stopped(KeyboardInterrupt(2), KNOWN, keeps=False)


def test_where_time_is_over_before_any_plan_was_measured_the_dearest_is_judged() -> None:
    found, _, _ = _stopped(OutOfTime(), {})
    assert found.assignment == CHOICE.uniform(len(CHOICE.levels) - 1)
    assert not found.passed and found.measured.score == -math.inf
