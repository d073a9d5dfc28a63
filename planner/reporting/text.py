"""Words that every format shares, so that a verdict reads the same wherever it is read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from xml.sax.saxutils import escape

from planner.reporting.data import Report, Row, Status, Tier
from planner.resolve.plan import TargetIdentity
from planner.resolve.verdicts import Violation
from planner.verification.runs import Kind

ICONS: dict[Status, str] = {
    "passed": "✔",
    "failed": "✖",
    "illegal": "⊘",
    "unknown": "?",
    "error": "!",
    "skipped": "–",
}

MEANINGS: dict[Status, str] = {
    "passed": "legal, and nothing that ran speaks against it",
    "failed": "legal, but it fell back or lost too much accuracy",
    "illegal": "the target does not accept this precision",
    "unknown": "no evidence for some node, so neither a yes nor a no",
    "error": "the execution provider or its worker failed",
    "skipped": "not tried",
}

TIERS: dict[Tier, str] = {
    "declared": "declared by the profile, nothing ran",
    "emulated": "emulated, not run on the target",
    "simulated": "run on the EP's own simulator, or on a software GPU",
    "measured": "measured on hardware",
}

KINDS: dict[Kind, str] = {
    "hardware": "Hardware",
    "software": "Software GPU",
    "simulator": "Simulator",
    "emulation": "Emulation",
}


def short_ep(ep: str) -> str:
    """A provider name as people say it: QNN for QNNExecutionProvider, QNN@2.5 for a version of it."""
    return ep.replace("ExecutionProvider", "") or ep


def target_name(target: TargetIdentity) -> str:
    """EP and device; the options follow from the device, and stand in the JSON."""
    return f"{short_ep(target.ep)} · {target.device}"


def evidence(row: Row) -> str:
    """What the verdict rests on, in one phrase; emulation is called emulation."""
    if row.kind is None or row.verification is None:
        return TIERS[row.tier]
    ran_on = short_ep(row.verification.ran_on)
    packages = (f"{package} {version}" for package, version in row.verification.runtime.items())
    return ", ".join([f"{KINDS[row.kind].lower()}: ran on {ran_on}", *packages])


def precision_name(row: Row) -> str:
    """The precision asked for, with what it became where that is another."""
    if row.chosen is None or row.chosen == row.precision:
        return row.precision
    return f"{row.precision} → {row.chosen}"


def verdict(row: Row) -> str:
    """The status with its reason, as one sentence."""
    return row.reason or MEANINGS[row.status]


def decibels(value: float | None) -> str:
    """An SQNR; "exact" where two outputs are equal."""
    return "–" if value is None else "exact" if value >= 200 else f"{value:.1f} dB"


def size(count: int | None) -> str:
    """Bytes in decimal units, as file managers and app stores count them."""
    if count is None:
        return "–"
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.95 or unit == "TB":
            break
    return f"{value:.1f} {unit}"


def milliseconds(value: float | None) -> str:
    """A latency; two digits below 10 ms."""
    return "–" if value is None else f"{value:.2f} ms" if value < 10 else f"{value:.0f} ms"


def speed(row: Row) -> str:
    """The latency: measured on hardware, else estimated from the compiler's schedule, which is said."""
    if row.speed_ms is None and row.estimate is not None and row.estimate.ms is not None:
        return f"{milliseconds(row.estimate.ms.mid)} estimated"
    return milliseconds(row.speed_ms)


def placement(row: Row) -> str:
    """How many nodes run on the target, in words."""
    placed = row.verification.placement if row.verification is not None else None
    if placed is not None and placed.on_target is not None:
        asked = f" (by {placed.by})" if placed.by is not None and row.kind == "emulation" else ""
        return f"{placed.on_target} of {placed.total} on target{asked}"
    fallback = row.fallback
    if fallback is None:
        return "not known"
    return f"{len(row.nodes) - len(fallback)} of {len(row.nodes)} planned on target"


@dataclass(frozen=True)
class ViolationGroup:
    """Violations that share op type, pair, rule and suggestion; ``nodes`` are those that have it, the reason is the first's."""

    first: Violation
    nodes: tuple[str, ...]


def group_violations(violations: Iterable[Violation]) -> tuple[ViolationGroup, ...]:
    """A thousand nodes with one trouble are one trouble: grouped, most frequent first."""
    groups: dict[tuple[str | None, ...], list[Violation]] = {}
    for v in violations:
        groups.setdefault((v.op_type, v.weight, v.activation, v.rule, v.suggestion), []).append(v)
    ordered = sorted(groups.values(), key=len, reverse=True)
    return tuple(ViolationGroup(g[0], tuple(v.node for v in g)) for g in ordered)


def remedies(row: Row) -> tuple[str, ...]:
    """What would change the verdict: the row's suggestions, then those of its violations, each once."""
    from_violations = (g.first.suggestion for g in group_violations(row.violations))
    return tuple(dict.fromkeys(s for s in (*row.suggestions, *from_violations) if s))


def tally(report: Report) -> dict[Status, int]:
    """How many models x targets end with which status, by their best precision."""
    counts: dict[Status, int] = dict.fromkeys(ICONS, 0)
    for cell in report.cells:
        counts[cell.best.status] += 1
    return {status: count for status, count in counts.items() if count}


def tail(name: str, length: int = 22) -> str:
    """The end of a long name: tensors of one network differ there, not at the front."""
    shown = visible(name)
    return shown if len(shown) <= length else "…" + shown[1 - length :]


# Control characters (tab and line ends are none), surrogates, bidirectional overrides, noncharacters.
_INVISIBLE = re.compile(
    "[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\ud800-\\udfff\\u202a-\\u202e\\u2066-\\u2069"
    + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
    + "]"
)


def markup(text: str) -> str:
    """Text that stands inside an element of SVG or XML."""
    return escape(visible(text))


def visible(text: str) -> str:
    """Control characters, lone surrogates and bidirectional overrides as visible escapes.

    Some of them no format may carry (XML 1.0 section 2.2), others move or hide text that people judge by.
    """
    return _INVISIBLE.sub(lambda match: f"\\u{{{ord(match[0]):x}}}", text)
