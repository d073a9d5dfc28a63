"""`planner sweep` and `planner diff` as functions: from a spec to a report, and from two reports to what changed."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import planner
from planner import codec
from planner.errors import RequestError
from planner.files import exists, make_folder, write_text
from planner.reporting import FORMATS, Difference, Report, compare, read_report, write_report
from planner.reporting.data import Row
from planner.reporting.matrix import now
from planner.reporting.rows import recommend
from planner.sweeps.attempt import Limits
from planner.sweeps.grid import cells_of
from planner.sweeps.run import Computed, Store, Told, compute_all, uncollected
from planner.sweeps.spec import read_spec

_log = logging.getLogger("planner")
# Beside the report's files: the results by key, for the next run.
_CELLS = "cells"
_STATUS = {"passed": 0, "failed": 1, "illegal": 1, "error": 3, "unknown": 4, "skipped": 4}


@dataclass(frozen=True)
class SweepResult:
    """What a sweep came to.

    Attributes:
        report: a row for each cell.
        computed: cells that were computed now.
        reused: cells whose result was known.
        failed: cells without a result: their process died, or took too long.
        seconds: wall time of the whole.
        cell_seconds: what each computed cell took, in its own process.
        files: what was written.
    """

    report: Report
    computed: int
    reused: int
    failed: int
    seconds: float
    cell_seconds: tuple[float, ...]
    files: tuple[str, ...]

    @property
    def exit_status(self) -> int:
        """0 every cell passes; else a proven no (1) before an EP failure (3) before "cannot tell" (4)."""
        found = {_STATUS[row.status] for row in self.report.rows}
        return next((status for status in (1, 3, 4) if status in found), 0)

    def to_json(self) -> dict[str, Any]:
        """The document of `planner sweep --json`."""
        return {
            "schema": "planner/sweep/1",
            "planner": self.report.planner,
            "date": self.report.date,
            "cells": [codec.to_json(row) for row in self.report.rows],
            "computed": self.computed,
            "reused": self.reused,
            "failed": self.failed,
            "seconds": self.seconds,
            "cell_seconds": sum(self.cell_seconds),
            "files": list(self.files),
        }


def sweep(
    spec: Path | str,
    output: Path | str,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    formats: Sequence[str] = tuple(FORMATS),
    told: Told | None = None,
) -> SweepResult:
    """Judge every model of a spec on each of its targets at each of its precisions, and write the report.

    A cell's result is kept under a key made of all that it hangs on (contents of the model, profile, evidence and inputs,
    options, package versions); a later sweep into the same folder computes only what changed.

    Args:
        spec: a YAML file: see `planner sweep --help`.
        output: folder of the report's files and the cells' results; it may hold those of an earlier sweep.
        workers: local processes; None for one a core.
        scheduler: address of a Dask scheduler in place of local processes.
        formats: files to write: html, markdown, json, sarif, junit, svg.
        told: called with every row, how many are done, of how many.

    Raises:
        RequestError: the spec or what it names cannot be read. A cell that fails is a row with status "error".
    """
    path, folder = Path(spec), Path(output)
    asked, document = read_spec(path)
    tasks = cells_of(asked, document)
    limits = Limits(asked.options.time_limit, asked.options.memory_limit)
    done = compute_all(tasks, Store(folder / _CELLS), limits, workers=workers, scheduler=scheduler, told=told)
    with uncollected():
        report = Report(
            planner.__version__, now(), _recommended(done, [path.parent / p for p in asked.options.profiles])
        )
        files = write_report(report, folder, formats)
    if any(row.inputs is not None and row.inputs.synthetic for row in report.rows):
        _log.warning(
            "some models were judged on synthetic data: that says nothing about real inputs\n"
            "  give real ones in the spec: `inputs` of a model"
        )
    return SweepResult(
        report, done.computed, done.reused, done.failed, done.seconds, done.cell_seconds, tuple(map(str, files))
    )


def _recommended(done: Computed, profiles: Sequence[Path]) -> tuple[Row, ...]:
    """The rows with the cheapest precision that passed marked, for each model and target."""
    from planner.profiles.load import load_profiles

    find = functools.cache(load_profiles(profiles).find)
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in done.rows:
        groups.setdefault(row.key[:3], []).append(replace(row, recommended=False))
    found: list[Row] = []
    for rows in groups.values():
        target = rows[0].target
        found += recommend(rows, map(str, find(target.ep).prefer[target.device]))
    return tuple(found)


def diff(old: Path | str, new: Path | str, output: Path | str | None = None, *, overwrite: bool = False) -> Difference:
    """What changed between two results: reports, or folders of reports and sweeps.

    Args:
        old: the earlier one: a report.json, or the folder that holds it.
        new: the later one.
        output: folder for diff.html, diff.md, diff.json and diff.xml (JUnit); None for none.
        overwrite: replace an earlier diff there.

    Raises:
        RequestError: one of them cannot be read, or the output exists.
    """
    from planner.reporting.difference import RENDERERS

    found = compare(_read(old), _read(new))
    if output is not None:
        folder = Path(output)
        existing = [name for name in RENDERERS if exists(folder / name)]
        if existing and not overwrite:
            raise RequestError(f"{folder / existing[0]}: exists already", "give another --output, or --overwrite")
        make_folder(folder)
        for name, render in RENDERERS.items():
            write_text(folder / name, render(found))
    return found


def _read(source: Path | str) -> Report:
    path = Path(source)
    return read_report(path / "report.json" if exists(path) and path.is_dir() else path)
