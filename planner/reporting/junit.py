"""The report as JUnit XML: a test suite per model, a test case per model and target, judged by its best precision."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from planner.reporting import text
from planner.reporting.data import Cell, Report, Row

FILE_NAME = "report.junit.xml"


def render(report: Report) -> str:
    """The document, in the dialect that Jenkins' junit-10.xsd describes and GitLab and GitHub's readers accept."""
    suites: dict[str, list[Cell]] = {}
    for cell in report.cells:
        suites.setdefault(cell.model.name, []).append(cell)
    root = ElementTree.Element("testsuites", {"name": "planner report", **_counts(report.cells)})
    for name, cells in suites.items():
        skipped = sum(cell.best.status in ("skipped", "unknown") for cell in cells)
        counts = {**_counts(cells), "skipped": str(skipped), "timestamp": text.visible(report.date)}
        suite = ElementTree.SubElement(root, "testsuite", {"name": text.visible(name), **counts})
        properties = ElementTree.SubElement(suite, "properties")
        model = cells[0].model
        for key, value in (("model", model.path), ("sha256", model.sha256), ("planner", report.planner)):
            ElementTree.SubElement(properties, "property", name=key, value=text.visible(value))
        for cell in cells:
            _case(suite, cell)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _counts(cells: Sequence[Cell]) -> dict[str, str]:
    statuses = [cell.best.status for cell in cells]
    return {
        "tests": str(len(cells)),
        "failures": str(sum(s in ("failed", "illegal") for s in statuses)),
        "errors": str(statuses.count("error")),
    }


def _case(suite: ElementTree.Element, cell: Cell) -> None:
    best = cell.best
    name, classname = text.visible(text.target_name(cell.target)), text.visible(cell.model.name)
    case = ElementTree.SubElement(suite, "testcase", name=name, classname=classname)
    message = text.visible(f"{text.precision_name(best)}: {best.status}: {text.verdict(best)}")
    if best.status in ("failed", "illegal"):
        outcome = ElementTree.SubElement(case, "failure", type=best.status, message=message)
        outcome.text = text.visible(_details(best))
    elif best.status == "error":
        ElementTree.SubElement(case, "error", type=best.status, message=message).text = text.visible(_details(best))
    elif best.status in ("skipped", "unknown"):  # JUnit has no word for "cannot tell": not run is the nearest
        ElementTree.SubElement(case, "skipped", type=best.status, message=message)
    output = ElementTree.SubElement(case, "system-out")
    output.text = text.visible("\n".join(_line(row) for row in cell.rows))


def _line(row: Row) -> str:
    sqnr = text.decibels(row.worst.least_db if row.worst else None)
    mark = " (recommended)" if row.recommended else ""
    return (
        f"{text.precision_name(row)}{mark}: {row.status}; {text.placement(row)}; SQNR {sqnr}; "
        f"{text.size(row.size_bytes)}; {text.evidence(row)}"
    )


def _details(row: Row) -> str:
    lines = [text.verdict(row)]
    for group in text.group_violations(row.violations):
        lines.append(f"{group.first.op_type}: {group.first.reason} [{', '.join(group.nodes)}]")
    return "\n".join([*lines, *(f"to change it: {remedy}" for remedy in text.remedies(row))])
