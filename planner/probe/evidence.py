"""Evidence files: what an EP answered, compact enough to ship, one line a condition so that two can be compared by eye.

A file is JSON:

    {"schema": "planner/evidence/1", "ep": ..., "device": ..., "options": {...}, "runtime": {"onnxruntime-qnn": "2.7.0"},
     "date": "2026-11-24", "probe": 1, "reasons": ["...", ...],
     "cases": {"Conv": {"": {"taken": "float32:66 uint8-uint8:48", "fails 3": "int16-uint8"}, "group=2": {...}}}}

Under an operator stand its conditions ("" is the base form); under a condition the results, each with the number of its
reason; behind a result the pairs, each with its granularity where it is not per tensor and, behind a colon, the SQNR to
the CPU EP in dB.

A file may name another device's file beside it as its "base": then it holds only the cases that came out differently
there, the answer "absent" for those that were not asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from planner import codec
from planner.codec import FLAT, HIDDEN, MalformedError
from planner.errors import RequestError
from planner.probe.run import Outcome, Result
from planner.profiles.shipped import folder_of

SCHEMA = "planner/evidence/1"
_ABSENT = "absent"
_GRANULARITIES = ("per-channel", "blocked")


@dataclass(frozen=True)
class Evidence:
    """What an EP answered on a device.

    Attributes:
        ep: full provider name.
        device: the profile's name of it.
        options: provider options it was started with.
        runtime: package versions, and that of the vendor's SDK where the package tells it.
        date: ISO day.
        probe: version of the probe's case table.
        outcomes: by case id.
    """

    ep: str
    device: str
    options: Mapping[str, str]
    runtime: Mapping[str, str]
    date: str
    probe: int
    outcomes: Mapping[str, Outcome] = field(default_factory=dict, repr=False, metadata=HIDDEN)

    def of_operator(self, name: str) -> dict[str, Outcome]:
        """The outcomes of one operator by case id (case of letters does not matter)."""
        wanted = name.lower()
        return {i: o for i, o in self.outcomes.items() if i.partition("/")[0].lower() == wanted}


@dataclass(frozen=True)
class Difference:
    """A case that two runs answer differently; None where one of them does not have it."""

    case: str
    before: Outcome | None
    after: Outcome | None


def parse_id(case: str) -> tuple[str, str, str, str]:
    """(operator, pair, granularity, condition) of a case id; granularity and condition may be empty."""
    op, pair, *rest = case.split("/")
    granularity = rest.pop(0) if rest and rest[0] in _GRANULARITIES else ""
    return op, pair, granularity, "/".join(rest)


def make_id(op: str, pair: str, granularity: str, condition: str) -> str:
    """The case id of an operator, pair, granularity and condition: what `parse_id` reads."""
    return "/".join(part for part in (op, pair, granularity, condition) if part)


def dump(evidence: Evidence, base: Evidence | None = None) -> str:
    """The file's text. Sorted: the same outcomes give the same bytes.

    Args:
        evidence: what was answered.
        base: another device whose answers are left out where they are the same.
    """
    outcomes: dict[str, Outcome | None] = dict(evidence.outcomes)
    if base is not None:
        outcomes = {c: o for c, o in outcomes.items() if not _same(o, base.outcomes.get(c))}
        outcomes.update({c: None for c in base.outcomes if c not in evidence.outcomes})
    reasons = sorted({o.reason for o in outcomes.values() if o is not None and o.reason})
    number = {reason: i for i, reason in enumerate(reasons)}
    cases: dict[str, dict[str, dict[str, list[str]]]] = {}
    for case, outcome in sorted(outcomes.items()):
        op, pair, granularity, condition = parse_id(case)
        entry = f"{pair}/{granularity}" if granularity else pair
        if outcome is None:
            result = _ABSENT
        else:
            result = str(outcome.result) if outcome.reason is None else f"{outcome.result} {number[outcome.reason]}"
        if outcome is not None and outcome.sqnr_db is not None:
            entry += f":{round(outcome.sqnr_db)}"
        cases.setdefault(op, {}).setdefault(condition, {}).setdefault(result, []).append(entry)
    head = {
        "schema": SCHEMA,
        "ep": evidence.ep,
        "device": evidence.device,
        **({} if base is None else {"base": base.device}),
        "options": dict(sorted(evidence.options.items())),
        "runtime": dict(sorted(evidence.runtime.items())),
        "date": evidence.date,
        "probe": evidence.probe,
    }
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in head.items()]
    lines.append('"reasons": [\n' + ",\n".join(json.dumps(r, ensure_ascii=False) for r in reasons) + "\n]")
    operators = []
    for op, conditions in cases.items():
        rows = [
            f" {json.dumps(condition)}: {json.dumps({r: ' '.join(entries) for r, entries in sorted(results.items())})}"
            for condition, results in conditions.items()
        ]
        operators.append(f"{json.dumps(op)}: {{\n" + ",\n".join(rows) + "\n}")
    lines.append('"cases": {\n' + ",\n".join(operators) + "\n}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _same(one: Outcome | None, two: Outcome | None) -> bool:
    def key(o: Outcome) -> tuple[Any, ...]:
        return o.result, o.reason, None if o.sqnr_db is None else round(o.sqnr_db)

    return one is not None and two is not None and key(one) == key(two)


def load(path: Path) -> Evidence:
    """Read an evidence file.

    Raises:
        RequestError: it is missing or no evidence file.
    """
    file = codec.read_json(_File, path, SCHEMA, "an evidence file", "make one with `planner probe -o FILE`")
    own = _outcomes(path, file)
    base: Mapping[str, Outcome | None] = {}
    if file.base is not None:
        if not file.base or Path(file.base).name != file.base:
            raise RequestError(f"{path}: base: {file.base!r} is no device name")
        other = path.with_name(f"{file.base}.json")
        below = codec.read_json(_File, other, SCHEMA, "an evidence file")
        if below.base is not None:
            # Then no chain can close on itself.
            raise RequestError(f"{path}: base: {file.base!r} has a base itself")
        base = _outcomes(other, below)
    outcomes = {case: outcome for case, outcome in {**base, **own}.items() if outcome is not None}
    return replace(file.evidence, outcomes=outcomes)


@dataclass(frozen=True)
class _File:
    """The file as it is written."""

    evidence: Evidence = field(metadata=FLAT)
    reasons: tuple[str, ...]
    cases: Mapping[str, Mapping[str, Mapping[str, str]]]
    base: str | None = None


def _outcomes(path: Path, file: _File) -> dict[str, Outcome | None]:
    """By case id; None for a case that was not asked."""
    found: dict[str, Outcome | None] = {}
    for op, conditions in file.cases.items():
        for condition, results in conditions.items():
            for key, entries in results.items():
                try:
                    found.update(_answers(op, condition, key, entries, file.reasons))
                except (ValueError, IndexError) as error:
                    raise MalformedError(("cases", op, condition, key), str(error), source=str(path)) from None
    return found


def _answers(
    op: str, condition: str, key: str, entries: str, reasons: Sequence[str]
) -> Iterator[tuple[str, Outcome | None]]:
    """The cases of one result, each with its outcome.

    Raises:
        ValueError: no such result, or no number where one stands. IndexError: no reason of that number.
    """
    result, _, index = key.partition(" ")
    reason = reasons[int(index)] if index else None
    for entry in entries.split():
        name, _, db = entry.partition(":")
        pair, _, granularity = name.partition("/")
        case = make_id(op, pair, granularity, condition)
        yield case, None if result == _ABSENT else Outcome(Result(result), reason, float(db) if db else None)


def directory(ep: str) -> Path:
    """Where the shipped evidence on an EP lies."""
    return folder_of(ep) / "evidence"


def stored(ep: str, device: str, options: Mapping[str, str] | None = None) -> Evidence | None:
    """The shipped evidence on a device of an EP; None if there is none.

    Args:
        ep: full provider name.
        device: the profile's name of it.
        options: provider options; evidence on a device of another name that was started with the same ones serves too
            (a class of devices is judged as one chip).
    """
    path = directory(ep) / f"{device}.json"
    if path.is_file():
        return load(path)
    if options is not None:
        for other in sorted(directory(ep).glob("*.json")):
            found = load(other)
            if found.options == options:
                return found
    return None


def differences(before: Evidence, after: Evidence) -> list[Difference]:
    """Cases whose result differs; reasons and decibels that differ alone do not count.

    A case that only one of them knows counts where both were asked the same table.
    """
    found = []
    for case in sorted(before.outcomes.keys() | after.outcomes.keys()):
        old, new = before.outcomes.get(case), after.outcomes.get(case)
        if old is None or new is None:
            if before.probe == after.probe:
                found.append(Difference(case, old, new))
        elif old.result is not new.result:
            found.append(Difference(case, old, new))
    return found
