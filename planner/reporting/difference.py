"""What changed between two reports, as Markdown, JSON, JUnit XML and a page of HTML."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from xml.etree import ElementTree

from planner.reporting import json, text
from planner.reporting.baseline import Change, Difference


def render_junit(difference: Difference) -> str:
    """A test case for each change; what got worse fails."""
    root = ElementTree.Element("testsuites", {"name": "planner diff"})
    counts = {"tests": str(len(difference.changes)), "failures": str(len(difference.worse)), "errors": "0"}
    suite = ElementTree.SubElement(root, "testsuite", {"name": "planner diff", **counts})
    for change in difference.sorted():
        case = ElementTree.SubElement(
            suite, "testcase", classname=text.visible(change.model), name=text.visible(_what(change))
        )
        told = text.visible(f"{change.before} → {change.after}")
        if change.direction == "worse":
            ElementTree.SubElement(case, "failure", type=change.direction, message=told)
        else:
            ElementTree.SubElement(case, "system-out").text = f"{change.direction}: {told}"
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def render_html(difference: Difference) -> str:
    """One self-contained page: no script, no network."""
    rows = "\n".join(
        f'<tr class="{change.direction}">'
        + "".join(f"<td>{html.escape(text.visible(cell))}</td>" for cell in _cells(change))
        + "</tr>"
        for change in difference.sorted()
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in _HEADER)
    body = f"<table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table>" if rows else ""
    return _PAGE.format(summary=html.escape(difference.summary()), body=body)


RENDERERS: Mapping[str, Callable[[Difference], str]] = {
    "diff.html": render_html,
    "diff.md": lambda difference: difference.to_markdown("What changed"),
    "diff.json": json.render,
    "diff.xml": render_junit,
}

_HEADER = ("Change", "Model", "Target", "Precision", "What", "Before", "After")
_PAGE = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>What changed</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.4 system-ui, sans-serif; }}
body {{ margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8886; overflow-wrap: anywhere; }}
tr.worse td:first-child {{ color: light-dark(#a30000, #ff9d9d); font-weight: 600; }}
tr.better td:first-child {{ color: light-dark(#00611c, #7fe39b); }}
</style></head>
<body><h1>What changed</h1>
<p>{summary}</p>
{body}
</body></html>
"""


def _cells(change: Change) -> tuple[str, ...]:
    return (
        change.direction, change.model, change.target, change.precision, change.what, change.before, change.after,
    )  # fmt: skip


def _what(change: Change) -> str:
    return f"{change.target} ({change.precision}): {change.what}"
