"""The page of a large report: the matrix alone, of which only the rows in view are drawn, and each cell's precisions on a click."""

from __future__ import annotations

from typing import Any, get_args

from planner.reporting import text
from planner.reporting.data import Cell, Report, Row, Status, Tier

LARGE = 400  # cells; below, each has its own section with plan, charts and nodes
CSS = """
#matrix{overflow:auto;height:70vh;padding:0}
.overview{border-collapse:separate;border-spacing:0;width:max-content;min-width:100%}
.overview th,.overview td{height:34px;padding:0 .5rem;border-bottom:1px solid var(--line);white-space:nowrap}
.overview #before,.overview #after{height:0;padding:0;border:0}
.overview thead th{position:sticky;top:0;background:var(--card);z-index:2;text-align:left}
.overview th[scope=row]{position:sticky;left:0;background:var(--card);z-index:1;text-align:left;font-weight:400}
.overview button{font:inherit;border:0;border-radius:4px;padding:.1rem .5rem;cursor:pointer}
""" + "".join(
    f".overview button.{status}{{color:var(--{status});background:var(--{status}-tint)}}" for status in get_args(Status)
)
_STATUSES: list[Status] = list(get_args(Status))
_TIERS: list[Tier] = list(get_args(Tier))


def data(report: Report) -> dict[str, Any]:
    """What the page's script draws: models, each with a cell a target (null where it was not asked); strings once each."""
    strings: dict[str, int] = {}

    def number(value: str) -> int:
        return strings.setdefault(text.visible(value), len(strings)) if value else -1

    def row(found: Row) -> list[Any]:
        worst = None if found.worst is None else round(found.worst.sqnr_db, 1)
        return [
            number(text.precision_name(found)), _STATUSES.index(found.status), number(text.verdict(found)),
            _TIERS.index(found.tier), worst, number(" ".join(found.suggestions[:1])),
        ]  # fmt: skip

    targets = targets_of(report)
    models: dict[str, list[Any]] = {}
    for cell in report.cells:
        place = targets.index(text.target_name(cell.target))
        cells = models.setdefault(cell.model.name, [None] * len(targets))
        cells[place] = {"best": _best(cell), "rows": [row(found) for found in cell.rows]}
    return {
        "targets": targets,
        "statuses": _STATUSES,
        "icons": [text.ICONS[status] for status in _STATUSES],
        "tiers": _TIERS,
        "models": [{"name": number(name), "cells": cells} for name, cells in models.items()],
        "strings": list(strings),
    }


def targets_of(report: Report) -> list[str]:
    """The targets of a report, as columns are called, in order of first appearance."""
    return list(dict.fromkeys(text.target_name(cell.target) for cell in report.cells))


def _best(cell: Cell) -> int:
    return next(i for i, row in enumerate(cell.rows) if row is cell.best)
