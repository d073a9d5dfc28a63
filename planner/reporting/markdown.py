"""The report as Markdown for a pull request comment or a step summary: the matrix, then every "no" with its reason."""

from __future__ import annotations

import re
from collections.abc import Iterable

from planner.reporting import text
from planner.reporting.data import Cell, Report, Row

FILE_NAME = "report.md"

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$@])")
NAMED_NODES = 5
MOST_ACROSS = 6


def escape(value: str) -> str:
    """``value`` as literal Markdown text on one line: nothing in it is markup, a mention, HTML or a table border."""
    line = " ".join(text.visible(value).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = _SPECIAL.sub(r"\\\1", line)
    # A bare address would become a link: a zero-width space is the escape GitHub itself recommends for it.
    return re.sub(r"(?i)\b(https?:|www\\?\.)", "\\1\u200b", line)


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Lines of a Markdown table; cells are taken as already escaped."""
    head = list(header)
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def render(report: Report) -> str:
    """The whole document; ends with a newline."""
    cells = report.cells
    counts = ", ".join(f"{text.ICONS[s]} {n} {s}" for s, n in text.tally(report).items()) or "nothing to report"
    lines = ["# Compatibility report", "", counts, ""]
    if cells:
        lines += [*matrix(cells), ""]
    emulated = sum(cell.best.kind == "emulation" for cell in cells)
    if emulated:
        lines += [f"Emulated verdicts ({emulated} of {len(cells)}) did not run on the target.", ""]
    for cell in cells:
        lines += _section(cell)
    lines += [f"planner {escape(report.planner)}, {escape(report.date)}"]
    return "\n".join(lines) + "\n"


def matrix(cells: Iterable[Cell]) -> list[str]:
    """Lines of the table models x targets, each cell by its best row; targets go down where they are too many to go across."""
    by_place = {(c.model.name, text.target_name(c.target)): c for c in cells}
    models = list(dict.fromkeys(name for name, _ in by_place))
    targets = list(dict.fromkeys(target for _, target in by_place))

    def shown(model: str, target: str) -> str:
        cell = by_place.get((model, target))
        return "" if cell is None else _summary(cell.best)

    if len(targets) > max(MOST_ACROSS, len(models)):
        return table(["Target", *map(escape, models)], ([escape(t), *(shown(m, t) for m in models)] for t in targets))
    return table(["Model", *map(escape, targets)], ([escape(m), *(shown(m, t) for t in targets)] for m in models))


def _summary(row: Row) -> str:
    parts = [f"{text.ICONS[row.status]} {row.status}"]
    if row.status in ("passed", "failed"):
        parts.append(f"**{escape(row.chosen or row.precision)}**")
        if row.worst:
            parts.append(text.decibels(row.worst.least_db))
        if row.size_bytes is not None:
            parts.append(text.size(row.size_bytes))
    parts.append(f"*{row.tier}*")
    return "<br>".join(parts)


def _section(cell: Cell) -> list[str]:
    lines = [f"## {escape(cell.model.name)} on {escape(text.target_name(cell.target))}", ""]
    header = ["Precision", "Status", "Placement", "SQNR", "Size", "Speed", "Evidence"]
    lines += [*table(header, (_precision(row) for row in cell.rows)), ""]
    for row in cell.rows:
        if row.status != "passed":
            lines += [*_reasons(row), ""]
    return lines


def _precision(row: Row) -> list[str]:
    mark = " (recommended)" if row.recommended else ""
    return [
        escape(text.precision_name(row)) + mark,
        f"{text.ICONS[row.status]} {row.status}",
        text.placement(row),
        text.decibels(row.worst.least_db if row.worst else None),
        text.size(row.size_bytes),
        text.milliseconds(row.speed_ms),
        escape(text.evidence(row)) + (", synthetic inputs" if row.inputs and row.inputs.synthetic else ""),
    ]


def _reasons(row: Row) -> list[str]:
    lines = [f"**{escape(row.precision)}: {row.status}.** {escape(text.verdict(row))}"]
    for group in text.group_violations(row.violations):
        v = group.first
        pair = "/".join(filter(None, (v.weight, v.activation))) or "as is"
        named = ", ".join(escape(node) for node in group.nodes[:NAMED_NODES])
        rest = f" and {len(group.nodes) - NAMED_NODES} more" if len(group.nodes) > NAMED_NODES else ""
        rule = f" (rule {escape(v.rule)})" if v.rule else ""
        lines.append(f"- {escape(v.op_type)} {escape(pair)}: {escape(v.reason)}{rule}. Nodes: {named}{rest}")
    lines += [f"- To change it: {escape(remedy)}" for remedy in text.remedies(row)]
    return [lines[0], "", *lines[1:]] if len(lines) > 1 else lines
