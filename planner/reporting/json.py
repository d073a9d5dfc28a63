"""A report, or what changed between two, as JSON: the contract, and what a baseline is."""

from __future__ import annotations

import json

from planner.reporting.baseline import Difference
from planner.reporting.data import Report

FILE_NAME = "report.json"


def render(report: Report | Difference) -> str:
    """One JSON document in ASCII, so that any name, even one that is no valid Unicode, survives the way to disk."""
    return json.dumps(report.to_json(), indent=1, allow_nan=False) + "\n"
