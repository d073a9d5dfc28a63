"""Gate rules: what a release demands of the best precision of every model on every target."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from planner.errors import RequestError
from planner.reporting import text
from planner.reporting.data import Cell, Report, Row

RULES = "no-fallback, floor=DB, max-size=BYTES (also 20MB, 20MiB), max-latency=MS (estimated), real-run"

_UNITS = {"": 1, "b": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("kmgt", start=1)
    for suffix, base in (("b", 1000), ("", 1000), ("ib", 1024))
}


@dataclass(frozen=True)
class Gate:
    """The rules in force.

    Attributes:
        no_fallback: every node runs on the target. floor_db: least SQNR (dB) of any output.
        max_size: largest artifact, in bytes. max_latency: most milliseconds that a run is estimated to take, by the schedule
            of the chip's compiler. real_run: evidence from hardware, not from a simulator or emulation.
    """

    no_fallback: bool = False
    floor_db: float | None = None
    max_size: int | None = None
    max_latency: float | None = None
    real_run: bool = False


@dataclass(frozen=True)
class Failure:
    """One demand that one model on one target does not meet.

    Attributes:
        rule: the gate rule, or "verdict" where the row itself did not pass.
        exit_status: 1 a proven no, 3 the EP failed or no real run was possible, 4 cannot tell.
    """

    model: str
    target: str
    precision: str
    rule: str
    message: str
    exit_status: int

    def __str__(self) -> str:
        return text.visible(f"{self.model} on {self.target} ({self.precision}): {self.rule}: {self.message}")


def parse_gate(rules: Iterable[str]) -> Gate:
    """The gate that ``rules`` spell, each one rule or several joined by commas.

    Raises:
        RequestError: for an unknown rule or a value that is no number.
    """
    no_fallback = real_run = False
    floor_db: float | None = None
    max_size: int | None = None
    max_latency: float | None = None
    for rule in (part.strip() for line in rules for part in line.split(",")):
        name, equals, value = rule.partition("=")
        if name == "no-fallback" and not equals:
            no_fallback = True
        elif name == "real-run" and not equals:
            real_run = True
        elif name == "floor" and equals:
            floor_db = _number(value, "db", "floor", "decibels")
        elif name == "max-size" and equals:
            max_size = parse_size(value)
        elif name == "max-latency" and equals:
            max_latency = _number(value, "ms", "max-latency", "milliseconds")
        else:
            raise RequestError(f"unknown gate rule {rule!r}", f"rules: {RULES}")
    return Gate(no_fallback, floor_db, max_size, max_latency, real_run)


def parse_size(value: str) -> int:
    """Bytes from "20000000", "20MB" (decimal) or "20MiB" (binary).

    Raises:
        RequestError: if it is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", value.strip(), re.ASCII)
    if match is None or match[2].lower() not in _UNITS:
        raise RequestError(f"{value!r} is no size", "write bytes, or a number with kB, MB, GB, KiB, MiB or GiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _number(value: str, unit: str, rule: str, what: str) -> float:
    try:
        number = float(value.strip().lower().removesuffix(unit))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise RequestError(f"{rule}={value} is no number of {what}", f"write for example {rule}=20")
    return number


def check_gate(report: Report, gate: Gate) -> tuple[Failure, ...]:
    """Everything that the best row of each model and target fails to meet; a rule without evidence is not met."""
    return tuple(failure for cell in report.cells for failure in _check(cell, gate))


def failing(
    report: Report, gate: Gate, baseline: Report | None = None, *, allow_unknown: bool = False
) -> tuple[Failure, ...]:
    """What fails a run: the verdicts and the gate; with a baseline, only rules that it met."""
    known = set() if baseline is None else {(f.model, f.target, f.rule) for f in check_gate(baseline, gate)}
    return tuple(
        f
        for f in check_gate(report, gate)
        if (f.model, f.target, f.rule) not in known
        and not (baseline is not None and f.rule == "verdict")  # the comparison speaks of verdicts
        and not (allow_unknown and f.rule == "verdict" and f.exit_status == 4)
    )


def exit_status(failures: Iterable[Failure]) -> int:
    """0 without failures; else a proven no (1) before an EP failure (3) before "cannot tell" (4)."""
    found = {failure.exit_status for failure in failures}
    return next((status for status in (1, 3, 4) if status in found), 0)


def _check(cell: Cell, gate: Gate) -> Iterator[Failure]:
    row = cell.best

    def failure(rule: str, message: str, status: int) -> Failure:
        return Failure(cell.model.name, text.target_name(cell.target), text.precision_name(row), rule, message, status)

    if row.status != "passed":
        status = {"error": 3, "unknown": 4, "skipped": 4}.get(row.status, 1)
        yield failure("verdict", f"{row.status}: {text.verdict(row)}", status)
        return  # a model that did not pass has no placement or size to speak of
    if gate.no_fallback and (found := _fallback(row)) is not None:
        yield failure("no-fallback", *found)
    if gate.floor_db is not None and (found := _below(row, gate.floor_db)) is not None:
        yield failure("floor", *found)
    if gate.max_size is not None and (found := _larger(row, gate.max_size)) is not None:
        yield failure("max-size", *found)
    if gate.max_latency is not None and (found := _slower(row, gate.max_latency)) is not None:
        yield failure("max-latency", *found)
    if gate.real_run and row.kind != "hardware":
        yield failure("real-run", f"hardware was asked for, the verdict is {text.TIERS[row.tier]}", 3)


def _fallback(row: Row) -> tuple[str, int] | None:
    """Message and exit status, where not every node is known to run on the target."""
    if row.fallback is None:
        return "nothing is known of where its nodes run", 4
    if not row.fallback:
        return None
    names = ", ".join(f.name for f in row.fallback[:3]) + (", ..." if len(row.fallback) > 3 else "")
    return f"{len(row.fallback)} nodes do not run on the target ({names})", 1


def _below(row: Row, floor_db: float) -> tuple[str, int] | None:
    """Message and exit status, where an output is below the floor."""
    judged = min(row.judged, key=lambda fidelity: fidelity.judged_db, default=None)
    if judged is None:
        return "no output was compared", 4
    if judged.judged_db >= floor_db:
        return None
    found = f"{judged.output} has {judged.least_db:.2f} dB"
    if judged.least_db >= floor_db:
        found += f", and other samples may come to {judged.judged_db:.2f} dB"
    return f"{found}, {floor_db:g} dB are asked for", 1


def _larger(row: Row, most: int) -> tuple[str, int] | None:
    """Message and exit status, where the artifact is too large."""
    if row.size_bytes is None:
        return "no artifact was written", 4
    return None if row.size_bytes <= most else (f"{row.size_bytes} bytes, {most} are allowed", 1)


def _slower(row: Row, most: float) -> tuple[str, int] | None:
    """Message and exit status, where a run is estimated to take too long."""
    if row.estimate is None or row.estimate.ms is None:
        why = "nothing was estimated" if row.estimate is None else row.estimate.evidence
        return f"its latency cannot be estimated: {why}", 4
    if row.estimate.ms.mid <= most:
        return None
    return f"{row.estimate.sentence()}; {most:g} ms are allowed", 1
