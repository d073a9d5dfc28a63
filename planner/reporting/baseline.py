"""Comparing a report with an earlier one: a release fails only on what got worse."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from planner import codec
from planner.reporting import text
from planner.reporting.data import STATUS_ORDER, Report, Row
from planner.reporting.markdown import escape, table

SQNR_DROP_DB = 1.0  # less is noise of calibration and of kernels that round differently
SIZE_GROWTH = 0.10

Direction = Literal["worse", "better", "other", "new", "missing"]


@dataclass(frozen=True)
class Change:
    """One difference between two reports.

    Attributes:
        what: status, SQNR of an output, fallback, size, evidence or row. before, after: in words.
    """

    direction: Direction
    model: str
    target: str
    precision: str
    what: str
    before: str
    after: str

    def __str__(self) -> str:
        return text.visible(
            f"{self.direction}: {self.model} on {self.target} ({self.precision}): "
            f"{self.what} {self.before} → {self.after}"
        )


@dataclass(frozen=True)
class Difference:
    """All changes, and how many rows were compared."""

    changes: tuple[Change, ...]
    compared: int

    @property
    def worse(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.direction == "worse")

    @property
    def exit_status(self) -> int:
        """1 where anything got worse, else 0: new and missing rows are told, not judged."""
        return 1 if self.worse else 0

    def to_json(self) -> dict[str, Any]:
        """The document of `planner diff --json`."""
        return {
            "schema": "planner/diff/1",
            "compared": self.compared,
            "worse": len(self.worse),
            "changes": codec.plain(self.sorted()),
        }

    def to_text(self) -> str:
        """One line per change, worst first, and a summary; ends with a newline."""
        return "\n".join([*map(str, self.sorted()), self.summary()]) + "\n"

    def to_markdown(self, title: str = "Compared with the baseline") -> str:
        """A table of the changes under a heading; ends with a newline."""
        lines = [f"## {title}", "", self.summary(), ""]
        if self.changes:
            header = ["Change", "Model", "Target", "Precision", "What", "Before", "After"]
            rows = (
                [c.direction, *map(escape, (c.model, c.target, c.precision, c.what, c.before, c.after))]
                for c in self.sorted()
            )
            lines += [*table(header, rows), ""]
        return "\n".join(lines)

    def sorted(self) -> list[Change]:
        """What got worse first."""
        order = ("worse", "missing", "other", "better", "new")
        return builtins.sorted(self.changes, key=lambda change: order.index(change.direction))

    def summary(self) -> str:
        """How many rows were compared, and how many changes of each kind."""
        counts: dict[str, int] = {}
        for change in self.sorted():
            counts[change.direction] = counts.get(change.direction, 0) + 1
        told = ", ".join(f"{n} {direction}" for direction, n in counts.items()) or "no change"
        return f"{self.compared} rows compared: {told}"


def compare(before: Report, after: Report) -> Difference:
    """What changed from ``before`` to ``after``; rows are matched by Row.key, paths and hashes may differ."""
    old = {row.key: row for row in before.rows}
    new = {row.key: row for row in after.rows}
    changes: list[Change] = []
    for key, row in new.items():
        if key in old:
            changes += _compare(old[key], row)
        else:
            changes.append(_change("new", row, "row", "–", row.status))
    changes += [_change("missing", row, "row", row.status, "–") for key, row in old.items() if key not in new]
    return Difference(tuple(changes), len(old.keys() & new.keys()))


def _compare(before: Row, after: Row) -> Iterator[Change]:
    if before.status != after.status:
        worse = STATUS_ORDER.index(after.status) > STATUS_ORDER.index(before.status)
        yield _change("worse" if worse else "better", after, "status", before.status, after.status)
    if (before.tier, before.kind) != (after.tier, after.kind):
        yield _change("other", after, "evidence", before.kind or before.tier, after.kind or after.tier)
    yield from _fidelity(before, after)
    if before.fallback is not None and after.fallback is not None and len(before.fallback) != len(after.fallback):
        direction: Direction = "worse" if len(after.fallback) > len(before.fallback) else "better"
        known = {f.name for f in before.fallback}
        added = [f.name for f in after.fallback if f.name not in known]
        named = f"{len(after.fallback)} nodes" + (f" (now also {', '.join(added[:3])})" if added else "")
        yield _change(direction, after, "fallback", f"{len(before.fallback)} nodes", named)
    if before.size_bytes is not None and after.size_bytes is not None:
        old, new = text.size(before.size_bytes), text.size(after.size_bytes)
        if after.size_bytes > before.size_bytes * (1 + SIZE_GROWTH):
            yield _change("worse", after, "size", old, new)
        elif after.size_bytes < before.size_bytes * (1 - SIZE_GROWTH):
            yield _change("better", after, "size", old, new)


def _fidelity(before: Row, after: Row) -> Iterator[Change]:
    old = {f.output: f.sqnr_db for f in before.verification.fidelity} if before.verification else {}
    for f in after.verification.fidelity if after.verification else ():
        was = old.get(f.output)
        if was is None or f.sqnr_db is None or abs(was - f.sqnr_db) <= SQNR_DROP_DB:
            continue
        direction: Direction = "worse" if f.sqnr_db < was else "better"
        yield _change(direction, after, f"SQNR of {f.output}", text.decibels(was), text.decibels(f.sqnr_db))


def _change(direction: Direction, row: Row, what: str, before: str, after: str) -> Change:
    return Change(direction, row.model.name, text.target_name(row.target), row.precision, what, before, after)
