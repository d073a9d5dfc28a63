"""The committed reports are what `python -m reports.generate` gives: else run it, look at what changed, and commit that."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from planner.reporting import Report, Row, compare, markdown  # noqa: E402
from planner.reporting.matrix import open_targets  # noqa: E402
from reports import generate  # noqa: E402

HINT = "not what is committed: python -m reports.generate"


def without_evidence(row: Row) -> Row:
    """What the profile alone says of a row that ran."""
    return replace(
        row, status="passed" if row.legal else row.status, tier="declared", kind=None, placed=None, faithful=None,
        recommended=False, floor_db=None, size_bytes=None, inputs=None, verification=None, reason="", suggestions=(),
        chosen=None, violations=row.violations,
    )  # fmt: skip


def comparable(report: Report) -> Report:
    """The report with SQNR above 80 dB called 80 (what rounds differently there is noise), and without that of hardware:
    how integer sums saturate differs from one processor to the next."""

    def capped(row: Row) -> Row:
        if row.verification is None:
            return row
        fidelity = tuple(
            replace(f, sqnr_db=0.0 if row.kind == "hardware" else min(f.sqnr_db, 80.0))
            for f in row.verification.fidelity
        )
        return replace(row, verification=replace(row.verification, fidelity=fidelity))

    return replace(report, rows=tuple(capped(row) for row in report.rows))


@pytest.fixture
def fetched(example: Callable[[str], Path], digits: Path) -> Callable[[str], str]:
    """Skips the test where the model cannot be had."""

    def name(model: str) -> str:
        if model != "digits":
            example(model)
        return model

    return name


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.parametrize("model", generate.MODELS)
def test_what_the_profiles_say_is_current(model: str, fetched: Callable[[str], str]) -> None:
    committed = generate.stored(fetched(model))
    now = generate.declared(model, committed.date)
    assert [row.key for row in now.rows] == [row.key for row in committed.rows], HINT
    for was, row in zip(committed.rows, now.rows, strict=True):
        if was.tier == "declared" and was.status != "error":
            assert was == row, HINT
        else:
            assert without_evidence(was) == without_evidence(row), HINT


@pytest.mark.qnn
@pytest.mark.models
@pytest.mark.slow
@pytest.mark.parametrize("model", [m for m in generate.MODELS if m in ("digits", "cls")])
def test_what_ran_runs_the_same(model: str, fetched: Callable[[str], str]) -> None:
    committed = generate.stored(fetched(model))
    now = generate.ran(model, committed.date)
    keys = {row.key for row in now.rows}
    before = replace(committed, rows=tuple(row for row in committed.rows if row.key in keys))
    changes = compare(comparable(before), comparable(now)).changes
    assert not changes, f"{HINT}\n" + "\n".join(map(str, changes))


@pytest.mark.parametrize("model", generate.MODELS)
def test_every_target_that_models_run_on_has_run(model: str) -> None:
    ran = {(s.ep, s.device) for ep, device in generate.RUN for s in open_targets([ep], [device])}
    for row in generate.stored(model).rows:
        here = (row.target.ep, row.target.device) in ran
        assert (row.verification is not None) == (here and row.legal is True and row.status != "error")
        assert (row.latency_ms is None and row.verification is None) or row.verification.seconds is None  # type: ignore[union-attr]
        assert (row.tier == "emulated") == (here and row.legal is True and row.target.ep == "DmlExecutionProvider")


@pytest.mark.parametrize("model", generate.MODELS)
def test_json_and_markdown_are_of_one_report_and_small(model: str) -> None:
    committed = generate.stored(model)
    text, page = (generate.FOLDER / f"{model}.json").read_text(), (generate.FOLDER / f"{model}.md").read_text()
    assert text == generate.to_text(committed)
    assert page == markdown.render(committed)
    assert len(text) < 100_000 and len(page) < 100_000
    assert "/" not in {row.model.path[0] for row in committed.rows}


def test_the_index_is_of_these_reports() -> None:
    lines = (generate.FOLDER / "README.md").read_text().splitlines()
    now = generate.index([generate.stored(name) for name in generate.MODELS]).splitlines()

    def table(text: list[str]) -> list[str]:
        return [line for line in text if line.startswith("|")]

    assert table(lines) == table(now)
    assert all(any(name in line for line in table(lines)) for name in generate.MODELS)


def test_a_change_of_verdict_would_be_noticed() -> None:
    """The comparison that keeps the reports current sees a lost decibel, a lost verdict and a node off target."""
    committed = comparable(generate.stored("digits"))
    index, row = next((i, r) for i, r in enumerate(committed.rows) if r.kind == "simulator")
    assert row.verification is not None and row.verification.fidelity[0].sqnr_db is not None
    worse = replace(row.verification.fidelity[0], sqnr_db=row.verification.fidelity[0].sqnr_db - 2)
    for changed in (
        replace(row, status="failed"),
        replace(row, verification=replace(row.verification, fidelity=(worse,))),
    ):
        rows = (*committed.rows[:index], changed, *committed.rows[index + 1 :])
        assert compare(committed, Report(committed.planner, committed.date, rows)).worse
