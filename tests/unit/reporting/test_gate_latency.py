"""The gate on estimated latency."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.errors import RequestError
from planner.estimation.estimate import Estimate
from planner.estimation.latency import Interval
from planner.reporting.data import Row
from planner.reporting.gate import _slower, parse_gate
from tests.unit.report_samples import illegal

ESTIMATE = replace(Estimate.without("chip", "w8a8", "no schedule: why"), ms=Interval(2.0, 2.5, 3.0))


def row(estimate: Estimate | None) -> Row:
    return replace(illegal(), estimate=estimate)


def test_the_middle_of_the_estimate_is_held_to_the_limit() -> None:
    assert _slower(row(ESTIMATE), 2.5) is None
    message, status = _slower(row(ESTIMATE), 2.4) or ("", 0)
    assert status == 1
    assert "estimated 2.50 ms (2.00 to 3.00), not measured" in message


@pytest.mark.parametrize("estimate", [None, Estimate.without("chip", "w8a8", "no schedule: why")])
def test_without_an_estimate_the_gate_cannot_tell(estimate: Estimate | None) -> None:
    message, status = _slower(row(estimate), 1.0) or ("", 0)
    assert status == 4
    assert "cannot be estimated" in message


def test_the_limit_is_a_number_of_milliseconds() -> None:
    assert parse_gate(["max-latency=2.5ms"]).max_latency == 2.5
    with pytest.raises(RequestError, match="milliseconds"):
        parse_gate(["max-latency=fast"])
