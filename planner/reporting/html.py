"""The report as one self-contained HTML page: no network, no framework, a content security policy that holds.

The page is readable without script; script adds the node tables, which draw only the rows in view, and the theme. A report of
many cells is drawn by script alone (`overview`): a section for each of them would be more than a browser bears.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any

from planner.errors import RequestError
from planner.reporting import overview, svg, text
from planner.reporting.course import course_chart
from planner.reporting.data import Report, Row
from planner.resolve.verdicts import NodeVerdict

FILE_NAME = "report.html"

RANGES_SHOWN = 36  # the widest ones, where few bits hurt most; all of them are in the JSON


def render(report: Report) -> str:
    """The page as text.

    Raises:
        RequestError: if jinja2 is not installed.
    """
    if len(report.cells) > overview.LARGE:
        return _overview(report)
    css = _asset("page.css") + _palette() + svg.page_css()
    script = _asset("page.js")
    cells = report.cells
    ids = {row.key: f"r{i}" for i, row in enumerate(report.rows)}
    page: str = _template("page.html.j2").render(
        report=report,
        cells=cells,
        models=_grouped(cells),
        targets=list(dict.fromkeys(text.target_name(c.target) for c in cells)),
        ids=ids,
        css=css,
        script=script,
        policy=_policy(css, script),
        defs=svg.DEFS,
        data=script_json(_data(report, ids)),
        tally=text.tally(report),
    )
    return page


def _overview(report: Report) -> str:
    css = _asset("page.css") + _palette() + overview.CSS
    script = _asset("overview.js")
    data = overview.data(report)
    page: str = _template("overview.html.j2").render(
        report=report,
        models=len(data["models"]),
        targets=data["targets"],
        css=css,
        script=script,
        policy=_policy(css, script),
        data=script_json(data),
        tally=text.tally(report),
    )
    return page


def _policy(css: str, script: str) -> str:
    return f"default-src 'none'; style-src {_digest(css)}; script-src {_digest(script)}; img-src data:"


def script_json(value: Any) -> str:
    """JSON that is safe inside a script element: no character of it can end the element or open a comment."""
    encoded = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return encoded.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _grouped(cells: Iterable[Any]) -> dict[str, dict[str, Any]]:
    models: dict[str, dict[str, Any]] = {}
    for cell in cells:
        models.setdefault(cell.model.name, {})[text.target_name(cell.target)] = cell
    return models


def _data(report: Report, ids: dict[tuple[str, ...], str]) -> dict[str, Any]:
    """Nodes by row, column-wise; strings once each, since they repeat from target to target."""
    strings: dict[str, int] = {}

    def number(value: str | None) -> int:
        return -1 if value is None else strings.setdefault(text.visible(value), len(strings))

    def columns(row: Row) -> dict[str, list[Any]]:
        depth = {e.node: e.sqnr_db for e in row.depth}
        return {
            "name": [number(n.name) for n in row.nodes],
            "op": [number(n.op_type) for n in row.nodes],
            "weight": [number(n.weight) for n in row.nodes],
            "activation": [number(n.activation) for n in row.nodes],
            "target": [number(_place(n)) for n in row.nodes],
            "sqnr": [depth.get(n.name) for n in row.nodes] if depth else [],
            "rule": [number(n.rule) for n in row.nodes],
            "reason": [number(n.reason) for n in row.nodes],
        }

    rows = {ids[row.key]: columns(row) for row in report.rows if row.nodes}
    return {"strings": list(strings), "rows": rows}


def _place(node: NodeVerdict) -> str:
    return {True: "on target", False: "off target", None: "unknown"}[node.on_target]


def _widest(row: Row) -> list[Any]:
    def width(r: Any) -> float:
        return r.high - r.low if r.low is not None and r.high is not None else -1.0

    return sorted(row.ranges, key=width, reverse=True)[:RANGES_SHOWN]


def _palette() -> str:
    return ":root{" + "".join(f"--{k}:light-dark({a},{b});" for k, (a, b) in svg.PALETTE.items()) + "}"


def _digest(content: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() + "'"


@cache
def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def _template(name: str) -> Any:
    try:
        import jinja2
    except ImportError:
        raise RequestError("the HTML report needs jinja2", "pip install 'planner[report]'") from None
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Every string that is not markup of ours goes through here before it is escaped.
        finalize=lambda value: text.visible(value) if type(value) is str else value,
    )
    environment.filters["svg"] = jinja2.filters.do_mark_safe  # figures escape for themselves
    environment.globals.update(
        text=text, svg=svg, widest=_widest, dtype_class=svg.dtype_class, course_chart=course_chart
    )
    return environment.from_string(_asset(name))
