"""The schedule and the estimate in reports."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.estimation.estimate import Estimate
from planner.estimation.latency import Interval
from planner.estimation.nodes import Finding, NodeCost
from planner.estimation.timeline import Course, Slice, Summary
from planner.reporting import Report, Row, html, text
from planner.reporting.course import course_chart
from tests.unit.report_samples import HOSTILE, measured, passed

COURSE = Course("ms", (Slice({"hmx": 0.75, "dma": 0.25}, "conv"), Slice({"hvx": 1.0}, "softmax")))


def estimated(row: Row, name: str = "/head/softmax") -> Row:
    schedule = Summary(10, 20, 300, 5, 4096, {"hvx": 3, "hmx": 1}, {"q::Softmax": 3}, 2, 1, 1, COURSE)
    estimate = Estimate(
        "snapdragon-x-elite", "w8a16", Interval(1.6, 2.0, 3.1), 30, 300, 5, 4, 1, 4096, (), "estimated from a schedule",
        (NodeCost(name, 1.25, 20, 200, 3),), (Finding("spilled", name, 5, 0.1, "fewer pixels"),),
    )  # fmt: skip
    assert row.verification is not None
    return replace(row, estimate=estimate, verification=replace(row.verification, schedule=schedule))


def test_the_page_shows_the_course_the_nodes_by_cost_and_what_would_make_it_faster() -> None:
    page = html.render(Report("1.0", "2026-01-01", (estimated(passed()),)))
    assert "2.00 ms" in page
    assert "not measured" in page
    assert "Nodes by cost" in page
    assert "/head/softmax" in page
    assert "fewer pixels" in page
    assert 'class="figure course"' in page


def test_a_row_without_an_estimate_has_no_schedule_on_the_page() -> None:
    assert "<h4>Schedule</h4>" not in html.render(Report("1.0", "2026-01-01", (passed(),)))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_node_s_name_cannot_break_the_page(name: str) -> None:
    page = html.render(Report("1.0", "2026-01-01", (estimated(passed(), name),)))
    figure = course_chart(Course("ms", (Slice({"hvx": 1.0}, name),)))
    for markup in (page, figure):
        assert "<script>window" not in markup
        assert "<img src=x" not in markup
        assert "<svg onload" not in markup


def test_a_report_with_a_schedule_is_read_back_as_it_was() -> None:
    report = Report("1.0", "2026-01-01", (estimated(passed()),))
    assert Report.from_json(report.to_json()) == report


def test_a_measured_speed_goes_before_an_estimated_one_and_each_says_which_it_is() -> None:
    assert text.speed(estimated(passed())) == "2.00 ms estimated"
    assert text.speed(estimated(measured())) == "8.73 ms"
    assert text.speed(passed()) == "–"


def test_the_figure_gives_each_unit_its_share_of_the_whole() -> None:
    figure = course_chart(COURSE)
    assert "matrix unit 38 %, vector unit 50 %, DRAM 12 %" in figure
    assert figure.count("<rect") == 3
