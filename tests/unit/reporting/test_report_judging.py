"""Gate rules and the comparison with a baseline."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.errors import RequestError
from planner.reporting import Gate, Report, Row, check_gate, compare, exit_status, parse_gate
from planner.reporting.gate import parse_size
from planner.verification.fidelity import Fidelity
from planner.verification.placement import Placement
from tests.unit import report_samples as samples


def report(*rows: Row) -> Report:
    return Report("0", "d", rows)


def judged(gate: Gate, *rows: Row) -> tuple[list[str], int]:
    failures = check_gate(report(*rows), gate)
    return [failure.rule for failure in failures], exit_status(failures)


# ---- gate rules


def test_rules_are_read_one_by_one_or_joined() -> None:
    gate = Gate(no_fallback=True, floor_db=20.5, max_size=20_000_000, real_run=True)
    assert parse_gate(["no-fallback", "floor=20.5", "max-size=20MB", "real-run"]) == gate
    assert parse_gate(["no-fallback, floor=20.5dB,max-size=20MB,real-run"]) == gate
    assert parse_gate([]) == Gate()


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "nofallback",
        "no-fallback=1",
        "floor",
        "floor=",
        "floor=nan",
        "floor=inf",
        "max-size=-1",
        "max-size=1XB",
        "max-size=2.3.4MB",
        "real-run=yes",
    ],
)
def test_a_malformed_rule_is_a_wrong_request(rule: str) -> None:
    with pytest.raises(RequestError) as error:
        parse_gate([rule])
    assert error.value.hint


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("123", 123),
        ("20MB", 20_000_000),
        ("20 mb", 20_000_000),
        ("1.5kB", 1500),
        ("1MiB", 1 << 20),
        ("2GiB", 2 << 30),
        ("3M", 3_000_000),
        ("7B", 7),
    ],
)
def test_sizes(text: str, count: int) -> None:
    assert parse_size(text) == count


def test_a_model_that_passes_passes_an_empty_gate() -> None:
    assert judged(Gate(), samples.passed()) == ([], 0)


@pytest.mark.parametrize(
    ("status", "code"), [("failed", 1), ("illegal", 1), ("error", 3), ("unknown", 4), ("skipped", 4)]
)
def test_a_model_that_did_not_pass_fails_every_gate_with_its_own_exit_status(status: str, code: int) -> None:
    row = samples.bare(status, "because", "m", samples.QNN)
    assert judged(Gate(no_fallback=True), row) == (["verdict"], code)


def test_only_the_best_precision_is_judged() -> None:
    assert judged(Gate(no_fallback=True), samples.passed(), samples.illegal(), samples.failed()) == ([], 0)


def test_no_fallback() -> None:
    fell = replace(samples.failed(), status="passed")
    assert judged(Gate(no_fallback=True), fell) == (["no-fallback"], 1)
    assert judged(Gate(no_fallback=True), samples.emulated()) == (["no-fallback"], 4)


def test_floor_is_met_by_equality_and_missed_by_less() -> None:
    assert judged(Gate(floor_db=31.4), samples.passed()) == ([], 0)
    assert judged(Gate(floor_db=31.41), samples.passed()) == (["floor"], 1)
    assert judged(Gate(floor_db=1), replace(samples.passed(), verification=None)) == (["floor"], 4)


def test_max_size_is_met_by_equality_and_missed_by_a_byte() -> None:
    assert judged(Gate(max_size=4_812_331), samples.passed()) == ([], 0)
    assert judged(Gate(max_size=4_812_330), samples.passed()) == (["max-size"], 1)
    assert judged(Gate(max_size=10), replace(samples.passed(), size_bytes=None)) == (["max-size"], 4)


def test_a_real_run_is_hardware_and_nothing_less() -> None:
    assert judged(Gate(real_run=True), samples.measured()) == ([], 0)
    assert judged(Gate(real_run=True), samples.passed()) == (["real-run"], 3)
    assert judged(Gate(real_run=True), samples.emulated()) == (["real-run"], 3)


def test_a_proven_no_outweighs_a_crash_and_a_crash_outweighs_not_knowing() -> None:
    crash = samples.bare("error", "died", "a", samples.QNN)
    no = samples.illegal("b")
    unknown = samples.bare("unknown", "?", "c", samples.QNN)
    assert judged(Gate(), crash, no, unknown)[1] == 1
    assert judged(Gate(), unknown, crash)[1] == 3
    assert judged(Gate(), unknown)[1] == 4


# ---- baseline


def changes(before: Row, after: Row) -> list[tuple[str, str]]:
    return [(c.direction, c.what) for c in compare(report(before), report(after)).changes]


def with_sqnr(sqnr: float | None) -> Row:
    row = samples.passed()
    assert row.verification is not None
    fidelity = (Fidelity("boxes", sqnr),)  # type: ignore[arg-type]  # undefined in an old report
    return replace(row, verification=replace(row.verification, fidelity=fidelity))


def test_a_report_does_not_differ_from_itself() -> None:
    difference = compare(samples.full(), samples.full())
    assert (difference.changes, difference.compared, difference.exit_status) == ((), 11, 0)
    assert difference.to_text() == "11 rows compared: no change\n"


@pytest.mark.parametrize(
    ("before", "after", "direction"),
    [
        ("passed", "unknown", "worse"),
        ("passed", "skipped", "worse"),
        ("unknown", "failed", "worse"),
        ("failed", "illegal", "worse"),
        ("illegal", "error", "worse"),
        ("error", "passed", "better"),
        ("failed", "unknown", "better"),
    ],
)
def test_status_has_an_order(before: str, after: str, direction: str) -> None:
    old, new = (samples.bare(s, "", "m", samples.QNN) for s in (before, after))
    assert changes(old, new) == [(direction, "status")]


def test_sqnr_may_drop_by_one_decibel() -> None:
    assert changes(with_sqnr(30.0), with_sqnr(29.0)) == []
    assert changes(with_sqnr(30.0), with_sqnr(28.9)) == [("worse", "SQNR of boxes")]
    assert changes(with_sqnr(30.0), with_sqnr(31.5)) == [("better", "SQNR of boxes")]
    assert changes(with_sqnr(30.0), with_sqnr(None)) == []


def test_one_more_node_off_target_is_worse() -> None:
    fell = samples.failed()
    assert fell.verification is not None and fell.fallback is not None
    fewer = replace(fell, verification=replace(fell.verification, placement=Placement(120, 117, fell.fallback[:3])))
    assert changes(fewer, fell) == [("worse", "fallback")]
    assert changes(fell, fewer) == [("better", "fallback")]
    assert "now also /backbone/block9/matmul_97" not in str(compare(report(fewer), report(fell)).changes[0].before)
    assert "now also " in compare(report(fewer), report(fell)).changes[0].after


def test_size_may_grow_by_a_tenth() -> None:
    def sized(count: int) -> Row:
        return replace(samples.passed(), size_bytes=count)

    assert changes(sized(1000), sized(1100)) == []
    assert changes(sized(1000), sized(1101)) == [("worse", "size")]
    assert changes(sized(1000), sized(899)) == [("better", "size")]


def test_other_evidence_is_told_and_not_judged() -> None:
    before = samples.measured()
    difference = compare(report(before), report(replace(before, tier="emulated", kind="emulation")))
    assert [(c.what, c.before, c.after) for c in difference.changes] == [("evidence", "hardware", "emulation")]
    assert difference.exit_status == 0


def test_new_and_missing_rows_are_told_and_not_judged() -> None:
    difference = compare(report(samples.passed("a")), report(samples.failed("b")))
    assert [(c.direction, c.model) for c in difference.changes] == [("new", "b"), ("missing", "a")]
    assert (difference.exit_status, difference.compared) == (0, 0)


def test_the_difference_reads_worst_first() -> None:
    before = report(samples.passed("a"), samples.bare("error", "", "b", samples.QNN), samples.passed("gone"))
    after = report(
        samples.passed("new"),
        samples.bare("passed", "", "b", samples.QNN),
        replace(samples.passed("a"), status="failed", size_bytes=6_000_000),
    )
    difference = compare(before, after)
    assert difference.exit_status == 1
    assert difference.to_text().splitlines() == [
        "worse: a on QNN · snapdragon-x-elite (auto): status passed → failed",
        "worse: a on QNN · snapdragon-x-elite (auto): size 4.8 MB → 6.0 MB",
        "missing: gone on QNN · snapdragon-x-elite (auto): row passed → –",
        "better: b on QNN · snapdragon-x-elite (auto): status error → passed",
        "new: new on QNN · snapdragon-x-elite (auto): row – → passed",
        "2 rows compared: 2 worse, 1 missing, 1 better, 1 new",
    ]
    assert "| worse | a | QNN · snapdragon-x-elite | auto | status | passed | failed |" in difference.to_markdown()
