"""Which samples an EP runs that takes seconds for each."""

from __future__ import annotations

from planner.calibrate.spread import spread


def test_the_hardest_comes_first_and_the_others_are_of_every_kind() -> None:
    scores = [30.0, 10.0, 50.0, 40.0, 20.0]
    assert spread(scores, 3) == [1, 0, 2]
    assert spread(scores, 1) == [1]
    assert spread(scores, 0) == []


def test_where_there_are_no_more_all_of_them_run_the_hardest_first() -> None:
    assert spread([2.0, 1.0, 3.0], 8) == [1, 0, 2]
    assert spread([], 4) == []
