"""Choosing among plans that pass by what they are estimated to cost."""

from __future__ import annotations

import pytest

from planner.estimation.latency import Interval
from planner.search.finalists import LEAST_GAIN, Finalist, fastest, is_faster


def ms(mid: float) -> Interval:
    return Interval(0.8 * mid, mid, 1.3 * mid)


def outcomes(found: tuple[Finalist, ...]) -> dict[str, str]:
    return {finalist.precision: finalist.outcome for finalist in found}


def test_a_plan_that_is_estimated_is_faster_takes_the_place_of_the_first() -> None:
    found = fastest(("w8a16", ms(2.0)), [("fp16", ms(1.0))], lambda name: True)
    assert outcomes(found) == {"w8a16": "not needed", "fp16": "kept"}


def test_a_slightly_lower_estimate_changes_nothing_and_runs_nothing() -> None:
    found = fastest(("w8a16", ms(2.0)), [("fp16", ms(1.98))], lambda name: pytest.fail(name))
    assert outcomes(found) == {"w8a16": "kept", "fp16": "not faster"}


def test_the_fastest_is_tried_first_and_the_next_only_where_it_does_not_pass() -> None:
    tried = []

    def passes(name: str) -> bool:
        tried.append(name)
        return name != "w8a8"

    found = fastest(("fp16", ms(4.0)), [("w16a16", ms(3.0)), ("w8a16", ms(2.0)), ("w8a8", ms(1.0))], passes)
    assert tried == ["w8a8", "w8a16"]
    assert outcomes(found) == {"fp16": "not needed", "w16a16": "not needed", "w8a16": "kept", "w8a8": "not faithful"}


def test_without_estimates_the_declared_order_stands() -> None:
    found = fastest(("w8a16", None), [("fp16", ms(1.0))], lambda name: pytest.fail(name))
    assert outcomes(found) == {"w8a16": "kept", "fp16": "not estimated"}
    found = fastest(("w8a16", ms(1.0)), [("fp16", None)], lambda name: pytest.fail(name))
    assert outcomes(found) == {"w8a16": "kept", "fp16": "not estimated"}


def test_alone_a_plan_is_kept() -> None:
    assert outcomes(fastest(("fp16", ms(1.0)), [], lambda name: True)) == {"fp16": "kept"}


def test_is_faster_is_a_share_of_the_time() -> None:
    assert is_faster(ms(LEAST_GAIN), ms(1.0))
    assert not is_faster(ms(LEAST_GAIN + 0.001), ms(1.0))
    assert not is_faster(None, ms(1.0))
