"""Reports: what planner found out, as a value, and as HTML, Markdown, JSON, SARIF, JUnit XML and SVG.

Formats are one module each with ``FILE_NAME`` and ``render(report) -> str``; ``gate`` and ``baseline`` judge a report.
"""

from __future__ import annotations

from planner.reporting.baseline import Change, Difference, compare
from planner.reporting.data import (
    Cell,
    Inputs,
    Model,
    Range,
    Report,
    Row,
    unique_names,
)
from planner.reporting.gate import Failure, Gate, check_gate, exit_status, parse_gate
from planner.reporting.write import FIGURES, FORMATS, check_directory, read_report, write_report

__all__ = [
    "FIGURES",
    "FORMATS",
    "Cell",
    "Change",
    "Difference",
    "Failure",
    "Gate",
    "Inputs",
    "Model",
    "Range",
    "Report",
    "Row",
    "check_directory",
    "check_gate",
    "compare",
    "exit_status",
    "parse_gate",
    "read_report",
    "unique_names",
    "write_report",
]
