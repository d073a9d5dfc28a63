"""The file of generated statements: YAML, a line a statement, operators that agree together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from planner.profiles.conditions import written
from planner.profiles.schema import DERIVED_SCHEMA, Operator, Refuses, Takes

_WIDTH = 120
_ONE_LINE = 140  # where an operator has one statement
_BARE = re.compile(r"[A-Za-z(][A-Za-z0-9_.()/+*= '-]*")
_WORDS = ("true", "false", "null", "no", "yes", "on", "off", "n", "y")


def to_yaml(operators: Mapping[str, Operator], ep: str, source: str, command: str) -> str:
    """The file's text.

    Args:
        operators: what is said of each; those of which the same is said stand together.
        ep: full provider name.
        source: the packages whose answers it was derived from.
        command: what writes the file.
    """
    groups: dict[str, tuple[list[str], Operator]] = {}
    stated = [name for name, operator in operators.items() if operator.takes or operator.refuses]
    for name in sorted(stated, key=lambda name: (name.count("."), name)):
        shown = "\n".join(_lines(operators[name], name, name))
        key = shown.replace(f"{name}/", "*/")
        groups.setdefault(key, ([], operators[name]))[0].append(name)
    lines = [
        f"# Generated from evidence/ by `{command}`. Write into profile.yaml: it stands above this file.",
        f"schema: {DERIVED_SCHEMA}",
        f"ep: {ep}",
        f"source: {{observed: {_flow(source)}}}",
        "operators:" if operators else "operators: {}",
    ]
    for names, operator in groups.values():
        shared = names[0] if len(names) == 1 else "*"
        for key in _keys(names):
            lines += [f"  {key}:", *_lines(operator, names[0], shared)]
    return "\n".join(lines) + "\n"


def _keys(names: list[str]) -> list[str]:
    """The names of a group, on as many lines as they need."""
    keys = [names[0]]
    for name in names[1:]:
        if len(keys[-1]) + len(name) + 5 > _WIDTH:
            keys.append(name)
        else:
            keys[-1] += f", {name}"
    return keys


def _lines(operator: Operator, name: str, shown: str) -> list[str]:
    lines = []
    for kind, said in (("takes", operator.takes), ("refuses", operator.refuses)):
        entries = [_flow(_statement(s, name, shown)) for s in said]
        if len(entries) == 1 and len(entries[0]) + 14 <= _ONE_LINE:
            lines.append(f"    {kind}: [{entries[0]}]")
        elif entries:
            lines += [f"    {kind}:", *(f"      - {entry}" for entry in entries)]
    return lines


def _statement(statement: Takes | Refuses, name: str, shown: str) -> dict[str, Any]:
    data = {k: v for k, v in msgspec.to_builtins(statement).items() if v not in (None, [], {}, False)}
    if when := written(statement.when):
        data["when"] = when
    else:
        data.pop("when", None)
    for key in ("on", "weight", "activation"):
        if len(data.get(key, ())) == 1:
            (data[key],) = data[key]
    if "seen" in data:
        data["seen"] = [case.replace(f"{name}/", f"{shown}/", 1) for case in data["seen"]]
    order = ("on", "when", "weight", "activation", "why", "do", "seen")
    return {k: data[k] for k in order if k in data}


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(str(k))}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(v) for v in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return _scalar(value) if isinstance(value, str) else str(value)


def _key(text: str) -> str:
    return text if text.isidentifier() else f'"{text}"'


def _scalar(text: str) -> str:
    return text if _BARE.fullmatch(text) and text.lower() not in _WORDS else '"' + text.replace('"', "'") + '"'
