"""The report as SARIF 2.1.0, for code-scanning views: one result per violation, with the node as logical location.

Level: "error" where the model has no passing precision on that target, "note" where another precision passes (the
violation explains why this one was not chosen), "warning" where nothing can be told.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from planner.reporting import text
from planner.reporting.data import Report, Row

FILE_NAME = "report.sarif"
SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

# Rules of the report itself; rules of a profile are added as they occur.
_RULES = {
    "planner/illegal": "The profile does not allow this precision on the target.",
    "planner/fallback": "The target's execution provider left a node to another one.",
    "planner/fidelity": "The model's output on the target is further from the reference than the floor allows.",
    "planner/failed": "The model did not pass on the target.",
    "planner/error": "The execution provider or its worker failed.",
    "planner/unknown": "There is no evidence to judge by.",
}


def render(report: Report) -> str:
    """The SARIF log as JSON text in ASCII."""
    results: list[dict[str, Any]] = []
    rules: dict[str, str] = {}
    for cell in report.cells:
        passes = cell.best.status == "passed"
        for row in cell.rows:
            for rule, description, result in _results(row, passes):
                rules.setdefault(rule, description)
                results.append({"ruleId": rule, "ruleIndex": list(rules).index(rule), **result})
    driver = {
        "name": "planner",
        "version": text.visible(report.planner),
        "rules": [{"id": rule, "shortDescription": {"text": about}} for rule, about in rules.items()],
    }
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1) + "\n"


def uri(path: str) -> str:
    """A path as a URI reference: relative stays relative, absolute (also of a Windows drive) becomes file://."""
    quoted = quote(path.replace("\\", "/").encode("utf-8", "surrogatepass"), safe="/")
    if re.match(r"[A-Za-z]%3A/", quoted):
        return f"file:///{quoted[0]}:{quoted[4:]}"
    if quoted.startswith("/"):
        return f"file://{quoted}"
    return quoted


def _results(row: Row, passes: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(rule id, what the rule is about, the result without its rule) of one row."""
    where = f"{text.target_name(row.target)}, {text.precision_name(row)}"
    level = "warning" if row.status == "unknown" else "note" if passes else "error"
    for v in row.violations:
        pair = "/".join(filter(None, (v.weight, v.activation))) or "as is"
        remedy = f" To change it: {v.suggestion}" if v.suggestion else ""
        message = f"{v.op_type} {pair} on {where}: {v.reason}{remedy}"
        rule = f"profile/{text.visible(v.rule)}" if v.rule else "planner/illegal"
        about = f"Rule {v.rule} of the profile." if v.rule else _RULES["planner/illegal"]
        yield rule, text.visible(about), _result(row, rule, level, message, v.node)
    if row.status in ("passed", "skipped") or row.violations:
        return
    fallback = row.fallback or ()
    for node in fallback:
        message = f"{node.op_type} does not run on {where}" + (f": {node.reason}" if node.reason else "")
        rule = "planner/fallback"
        yield rule, _RULES[rule], _result(row, rule, level, message, node.name)
    if not fallback or row.faithful is False:
        rule = "planner/fidelity" if row.faithful is False else f"planner/{row.status}"
        message = f"{where}: {text.verdict(row)}"
        yield rule, _RULES[rule], _result(row, rule, level, message, None)


def _result(row: Row, rule: str, level: str, message: str, node: str | None) -> dict[str, Any]:
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": uri(row.model.path)}}}
    if node is not None:
        name = text.visible(node) or "(unnamed)"
        location["logicalLocations"] = [
            {"name": name, "fullyQualifiedName": f"{text.visible(row.model.name)}::{name}", "kind": "node"}
        ]
    identity = json.dumps([*row.key, rule, node])
    return {
        "level": level,
        "message": {"text": text.visible(message)},
        "locations": [location],
        "partialFingerprints": {"planner/v1": hashlib.sha256(identity.encode()).hexdigest()},
        "properties": {"evidence": row.tier, "precision": text.visible(row.precision)},
    }
