"""Figures as SVG text: the plan as a strip of nodes, the error along the network, calibration histograms.

Every function is pure and gives one ``<svg>`` element that takes its colours from classes. Inside the page the
page's own style sheet colours it (see page_css); ``standalone`` makes a file of it that looks the same anywhere.
Colours are those of Okabe and Ito, told apart under the common kinds of colour blindness; each also stands in words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar
from xml.sax.saxutils import escape

from planner.reporting import text
from planner.reporting.data import Range
from planner.resolve.verdicts import NodeVerdict
from planner.verification.divergence import TensorDivergence

T = TypeVar("T")

WIDTH = 960
LEFT = 78  # room for lane labels
PLOT = WIDTH - LEFT - 10
COLUMNS = 430  # more nodes than this share columns: thinner ones could not be seen
SQNR_TOP = 100.0  # above this, nobody asks how exact it is

# name: (on light, on dark)
PALETTE: dict[str, tuple[str, str]] = {
    "float32": ("#959ca6", "#7f8894"),
    "float16": ("#009e73", "#22b88d"),
    "int16": ("#0072b2", "#4ea5e3"),
    "int8": ("#e69f00", "#f0b43c"),
    "int4": ("#cc79a7", "#df98c1"),
    "none": ("#e4e6e9", "#343a43"),
    "off": ("#c04f00", "#ff8a4a"),
    "figure-ink": ("#3d444d", "#c3cad3"),
    "figure-grid": ("#dcdfe3", "#363d47"),
    "figure-back": ("#ffffff", "#181c22"),
}

# What the colours of the strip mean, in words.
LABELS = {
    "float32": "float32",
    "float16": "float16",
    "int16": "16-bit integer",
    "int8": "8-bit integer",
    "int4": "4-bit integer",
    "none": "none, or left as it is",
}

# Which palette colour each class of a figure takes, and as what.
_RULES = [
    *((f".dt-{name}", "fill", name) for name in ("float32", "float16", "int16", "int8", "int4", "none")),
    (".hatch-line", "stroke", "figure-back"),
    (".hatch-ground", "fill", "off"),
    (".off", "fill", "off"),
    (".on", "fill", "figure-ink"),
    (".off-line", "stroke", "off"),
    (".curve", "stroke", "int16"),
    (".dot", "fill", "int16"),
    (".area", "fill", "int16"),
    (".grid", "stroke", "figure-grid"),
    (".ink", "fill", "figure-ink"),
    (".ink-line", "stroke", "figure-ink"),
]

_SHAPES = (
    ".figure text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif}.figure .strong{font-weight:600}"
    ".curve,.grid,.off-line,.ink-line{fill:none}.curve{stroke-width:1.75;stroke-linejoin:round}"
    ".off-line{stroke-width:1.5;stroke-dasharray:5 4}.area{opacity:.12}.hatch-line{stroke-width:2.4}"
)

# Hatches: what does not run on the target, the same over a dtype, and what nobody knows. Once per document.
DEFS = (
    '<defs><pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="hatch-ground" width="7" height="7"/><line class="hatch-line" x1="0" y1="0" x2="0" y2="7"/></pattern>'
    '<pattern id="stripes" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<line class="hatch-line" x1="0" y1="0" x2="0" y2="6"/></pattern>'
    '<pattern id="unknown" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<circle class="ink" cx="3" cy="3" r="1"/></pattern></defs>'
)


def page_css() -> str:
    """Style rules for figures inside a page, which defines a ``--NAME`` property for each name in PALETTE."""
    return _SHAPES + "".join(f"{selector}{{{what}:var(--{name})}}" for selector, what, name in _RULES)


def standalone(svg: str) -> str:
    """``svg`` as the text of an .svg file: with namespace, hatches and colours for light and dark surroundings."""

    def rules(scheme: int) -> str:
        return "".join(f"{selector}{{{what}:{PALETTE[name][scheme]}}}" for selector, what, name in _RULES)

    style = f"<style>{_SHAPES}{rules(0)}@media (prefers-color-scheme:dark){{{rules(1)}}}</style>"
    head, body = svg.split(">", 1)
    head = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return f"{head}>{style}{DEFS}{body}\n"


def dtype_class(dtype: str | None) -> str:
    """The palette name of a dtype: signedness has no colour of its own; "none" for a node left as it is."""
    name = (dtype or "none").removeprefix("u")
    return name if name in PALETTE else "none"


@dataclass(frozen=True)
class _Column:
    """One column of the strip: one node, or several where there are too many to draw."""

    activation: str
    weight: str
    on_target: bool | None


def _columns(nodes: Sequence[NodeVerdict]) -> list[_Column]:
    count = min(len(nodes), COLUMNS)
    columns = []
    for i in range(count):
        group = nodes[i * len(nodes) // count : (i + 1) * len(nodes) // count]
        weights = Counter(dtype_class(n.weight) for n in group if n.weight is not None)
        placed = {n.on_target for n in group}
        # One stray node must not vanish among many: off target wins, then unknown.
        on_target = False if False in placed else None if None in placed else True
        activation = Counter(dtype_class(n.activation) for n in group).most_common(1)[0][0]
        columns.append(_Column(activation, weights.most_common(1)[0][0] if weights else "none", on_target))
    return columns


def plan_strip(nodes: Sequence[NodeVerdict]) -> str:
    """The nodes from first to last: dtype of activation and weight by colour, hatched where off target.

    Up to 430 nodes have a column each; beyond that a column stands for several (the commonest dtype, and off target
    if any of them is).
    """
    columns = _columns(nodes)
    width = PLOT / max(len(columns), 1)
    gap = 1.0 if width >= 5 else 0.0
    parts = []
    lanes = (
        ("activation", 6, 24, [c.activation for c in columns]),
        ("weight", 34, 24, [c.weight for c in columns]),
        ("placement", 62, 12, [{True: "on", False: "off", None: "unknown"}[c.on_target] for c in columns]),
    )
    for label, top, height, values in lanes:
        parts.append(f'<text class="ink" x="{LEFT - 8}" y="{top + height / 2 + 4:g}" text-anchor="end">{label}</text>')
        for start, stop, value in _runs(values, merge=gap == 0):
            x, w = LEFT + start * width, (stop - start) * width - gap
            if label != "placement":
                paint = f'class="dt-{value}"'
            elif value == "off":
                paint = 'fill="url(#hatch)"'
            elif value == "unknown":
                paint = 'fill="url(#unknown)"'
            else:
                paint = 'class="on" opacity=".28"'
            parts.append(f'<rect {paint} x="{x:.2f}" y="{top}" width="{w:.2f}" height="{height}"/>')
    for start, stop, on_target in _runs([c.on_target for c in columns], merge=True):
        if on_target is False:  # striped through both dtypes, with a tick that stays visible when this is one pixel
            x, w = LEFT + start * width, (stop - start) * width - gap
            parts.append(f'<rect fill="url(#stripes)" x="{x:.2f}" y="6" width="{w:.2f}" height="52"/>')
            parts.append(f'<path class="off" d="M{x + w / 2 - 4:.2f} 84h8l-4 -7z"/>')
    parts += [
        f'<text class="ink" x="{LEFT}" y="98">node 1</text>',
        f'<text class="ink" x="{LEFT + PLOT}" y="98" text-anchor="end">node {len(nodes)}</text>',
    ]
    present = {c.activation for c in columns} | {c.weight for c in columns}
    keys = [(f'class="dt-{name}"', label) for name, label in LABELS.items() if name in present]
    placed = {c.on_target for c in columns}
    keys += [('fill="url(#hatch)"', "off target")] if False in placed else []
    keys += [('fill="url(#unknown)"', "placement unknown")] if None in placed else []
    at = LEFT + 70.0
    for paint, label in keys:
        parts.append(f'<rect {paint} x="{at:g}" y="88" width="11" height="11" rx="2"/>')
        parts.append(f'<text class="ink" x="{at + 16:g}" y="98">{label}</text>')
        at += 32 + 6.6 * len(label)
    off = sum(n.on_target is False for n in nodes)
    label = f"Plan of {len(nodes)} nodes: {_dtype_summary(nodes)}; {off} off target"
    attributes = f'data-left="{LEFT}" data-plot="{PLOT}" data-width="{WIDTH}" data-count="{len(nodes)}"'
    return figure("strip", WIDTH, 104, label, parts, attributes)


def depth_chart(nodes: Sequence[NodeVerdict], depth: Sequence[TensorDivergence], floor_db: float | None = None) -> str:
    """SQNR (dB) of inner tensors along the network, on the same horizontal scale as plan_strip of ``nodes``.

    Values above 100 dB are drawn at 100. Tensors whose SQNR is undefined interrupt the line.
    """
    height, top, bottom = 190, 14, 164
    known = [e.sqnr_db for e in depth if e.sqnr_db is not None]
    high = min(SQNR_TOP, max(20.0, *(known or [0.0]), floor_db or 0.0))
    high = 20.0 * -(-high // 20)
    low = min(0.0, 20.0 * (max(-200.0, min(known, default=0.0)) // 20))
    index = {node.name: i for i, node in enumerate(nodes)}
    by_node = nodes and all(e.node in index for e in depth)
    total = len(nodes) if by_node else len(depth)

    def x(position: int) -> float:
        return LEFT + PLOT * (position + 0.5) / max(total, 1)

    def y(value: float) -> float:
        return bottom - (bottom - top) * (min(value, high) - low) / (high - low)

    parts = []
    step = 20 if high - low <= 120 else 40
    for tick in range(int(low), int(high) + 1, step):
        plus = "+" if tick == SQNR_TOP and any(v > SQNR_TOP for v in known) else ""
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + PLOT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="ink" x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick}{plus} dB</text>')
    ordered = [(index[e.node] if by_node else i, e) for i, e in enumerate(depth)]
    ordered.sort(key=lambda item: item[0])
    for segment in _segments(ordered):
        points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in segment)
        first, last = segment[0][0], segment[-1][0]
        parts.append(f'<polygon class="area" points="{x(first):.1f},{bottom} {points} {x(last):.1f},{bottom}"/>')
        parts.append(f'<polyline class="curve" points="{points}"/>')
        if len(ordered) <= 150 or len(segment) == 1:
            parts += [f'<circle class="dot" cx="{x(i):.1f}" cy="{y(v):.1f}" r="2.5"/>' for i, v in segment]
    if floor_db is not None and low <= floor_db <= high:
        level = y(floor_db)
        parts.append(f'<line class="off-line" x1="{LEFT}" x2="{LEFT + PLOT}" y1="{level:.1f}" y2="{level:.1f}"/>')
        parts.append(f'<text class="off strong" x="{LEFT + 6}" y="{level - 5:.1f}">floor {floor_db:g} dB</text>')
    label = f"Error along the network, {len(depth)} tensors"
    worst = min(((e.sqnr_db, i, e) for i, e in ordered if e.sqnr_db is not None), key=lambda t: t[0], default=None)
    if worst is not None:
        sqnr, i, e = worst
        name = text.visible(e.tensor)
        told = f"lowest: {name if len(name) <= 60 else name[:59] + '…'}, {sqnr:.1f} dB"
        parts.append(f'<circle class="off" cx="{x(i):.1f}" cy="{y(sqnr):.1f}" r="4.5"/>')
        parts.append(
            f'<text class="ink strong" x="{LEFT + PLOT}" y="{height - 8}" text-anchor="end">{escape(told)}</text>'
        )
        label += f"; lowest SQNR {sqnr:.1f} dB at tensor {name} of node {text.visible(e.node)}"
    parts.append(f'<text class="ink" x="{LEFT}" y="{height - 8}">SQNR per tensor, first to last node</text>')
    return figure("depth", WIDTH, height, label, parts)


def histogram(values: Range) -> str:
    """Counts between lowest and highest value; bar height is the square root of the count, so that tails show."""
    width, height, base = 200, 62, 44
    parts = [f'<line class="grid" x1="0" x2="{width}" y1="{base + 0.5}" y2="{base + 0.5}"/>']
    counts = values.histogram or ()
    most = max(counts, default=0)
    if most:
        bar = width / len(counts)
        steps = [f"M0 {base}"]
        for i, count in enumerate(counts):
            steps.append(f"V{base - (base - 4) * (max(count, 0) / most) ** 0.5:.1f}H{(i + 1) * bar:.1f}")
        parts.append(f'<path class="dot" opacity=".8" d="{"".join(steps)}V{base}z"/>')
    else:
        parts.append(f'<path class="ink-line" d="M.5 {base - 6}v6H{width - 0.5}v-6"/>')
    low, high = (f"{v:.4g}" if v is not None else "?" for v in (values.low, values.high))
    if values.low is not None and values.high is not None and values.low < 0 < values.high:
        zero = width * -values.low / (values.high - values.low)
        parts.append(f'<line class="off-line" x1="{zero:.1f}" x2="{zero:.1f}" y1="2" y2="{base}"/>')
    parts.append(f'<text class="ink" x="0" y="{height - 4}">{low}</text>')
    parts.append(f'<text class="ink" x="{width}" y="{height - 4}" text-anchor="end">{high}</text>')
    label = f"Range of {text.visible(values.tensor)}: {low} to {high}"
    return figure("histogram", width, height, label, parts)


def figure(kind: str, width: int, height: int, label: str, parts: Iterable[str], attributes: str = "") -> str:
    """One ``<svg>`` element.

    Args:
        kind: of figure: a class of the element.
        width: in pixels, as drawn where there is room.
        height: in pixels.
        label: what it shows, for who cannot see it.
        parts: markup.
        attributes: more of the element's own, as markup.
    """
    quoted = escape(label, {'"': "&quot;"})
    return (
        f'<svg class="figure {kind}" role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'aria-label="{quoted}" {attributes}>{"".join(parts)}</svg>'
    )


def _runs(values: Sequence[T], merge: bool) -> Iterator[tuple[int, int, T]]:
    """(start, stop, value) of stretches of equal values; each value alone without ``merge``."""
    start = 0
    for i in range(1, len(values) + 1):
        if i == len(values) or not merge or values[i] != values[start]:
            yield start, i, values[start]
            start = i


def _segments(ordered: Sequence[tuple[int, TensorDivergence]]) -> list[list[tuple[int, float]]]:
    """Unbroken stretches of known values; of very many, the lowest in each neighbourhood."""
    stride = max(1, len(ordered) // 1200)
    segments: list[list[tuple[int, float]]] = [[]]
    for start in range(0, len(ordered), stride):
        group = ordered[start : start + stride]
        known = [(i, e.sqnr_db) for i, e in group if e.sqnr_db is not None]
        if known:
            segments[-1].append(min(known, key=lambda item: item[1]))
        elif segments[-1]:
            segments.append([])
    return [segment for segment in segments if segment]


def _dtype_summary(nodes: Sequence[NodeVerdict]) -> str:
    counts = Counter(n.activation or "as is" for n in nodes)
    return ", ".join(f"{count} {text.visible(name)}" for name, count in counts.most_common())
