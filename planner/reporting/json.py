"""A report, or what changed between two, as JSON: the contract, and what a baseline is."""

from __future__ import annotations

import json

import msgspec

from planner.reporting.baseline import Difference
from planner.reporting.data import Report

FILE_NAME = "report.json"


def render(report: Report | Difference) -> str:
    """One JSON document in ASCII, so that any name, even one that is no valid Unicode, survives the way to disk."""
    document = report.to_json()
    try:
        # The standard library indents in Python, which takes ten times as long for the report of a thousand cells.
        text = msgspec.json.format(json.dumps(document, allow_nan=False), indent=1)
    except msgspec.DecodeError:  # half a surrogate pair, as in the name of a file that is no valid Unicode
        text = json.dumps(document, indent=1, allow_nan=False)
    return text + "\n"
