"""The course of a schedule."""

from __future__ import annotations

import pytest

from planner.estimation.schedule import Schedule
from planner.estimation.timeline import SLICES, course, summary
from tests.unit.estimation.schedule_texts import ROWS, Row
from tests.unit.estimation.test_latency import NODES, RATES, schedule


def test_the_course_adds_up_to_the_estimate_less_its_fixed_part() -> None:
    interval = RATES.interval(schedule())
    assert interval is not None
    slices = course(schedule(), NODES, RATES).slices
    assert sum(s.total for s in slices) == pytest.approx(interval.mid - 0.5, rel=1e-3)


def test_multiply_accumulates_of_a_fused_node_lie_on_the_matrix_unit() -> None:
    # The convolution is fused into "add", whose operator of the matrix unit bears them.
    costs = {u: c for s in course(schedule(), NODES, RATES).slices for u, c in s.cost.items() if u == "hmx"}
    assert costs["hmx"] == pytest.approx(100 * 36864 / 1e9, rel=1e-3)


def test_a_long_schedule_is_cut_into_stretches_of_about_equal_cost() -> None:
    rows = tuple(Row(0x13, "q::Softmax", "FOR_HVX", vtcm_read=1000 + i) for i in range(1000))
    slices = course(schedule(rows), NODES, RATES).slices
    assert len(slices) <= SLICES
    assert max(s.total for s in slices[:-1]) < 1.5 * min(s.total for s in slices[:-1])


def test_one_operator_that_outweighs_the_rest_takes_one_stretch() -> None:
    rows = (
        Row(0x13, "q::Softmax", "FOR_HVX", vtcm_read=10**9),
        *(Row(0x12, "q::Add", "FOR_HVX", vtcm_read=10) for _ in range(5)),
    )
    slices = course(schedule(rows), NODES, RATES).slices
    assert [s.node for s in slices] == ["softmax", "add"]


def test_without_rates_the_course_is_told_in_bytes() -> None:
    found = course(schedule(), NODES, None)
    assert found.measure == "MB"
    assert sum(s.total for s in found.slices) == pytest.approx((schedule().dram + schedule().vtcm) / 1e6, rel=1e-3)


def test_a_schedule_without_operators_has_no_course() -> None:
    assert course(Schedule((), {}, 0, ()), NODES, RATES).slices == ()


def test_a_schedule_in_short() -> None:
    found = summary(schedule(), NODES, RATES)
    assert (found.dram_read_bytes, found.dram_write_bytes, found.spilled_bytes) == (2176, 8192, 4096)
    assert found.operators == {"dma": 4, "hmx": 1, "hvx": 1}
    assert (found.fused, found.untraced, found.graphs) == (1, 2, 1)
    assert sum(found.kinds.values()) == len(ROWS)
