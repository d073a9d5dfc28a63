"""The course of a schedule as a figure: what each unit of the chip costs from the first operator to the last."""

from __future__ import annotations

from planner.estimation.timeline import Course
from planner.reporting import text
from planner.reporting.svg import LEFT, PLOT, WIDTH, figure

# Lanes from top to bottom: the unit, what people call it, and the palette's class.
_LANES = (("hmx", "matrix unit", "dt-int16"), ("hvx", "vector unit", "dt-int8"), ("dma", "DRAM", "dt-float16"))
_HEIGHT, _GAP = 34, 8
_AXIS = len(_LANES) * (_HEIGHT + _GAP)


def course_chart(course: Course) -> str:
    """Bars from the first scheduled operator to the last: the share of each stretch that a unit takes.

    The width of a stretch is its cost, the height of a bar its unit's part in it.
    """
    whole = sum(part.total for part in course.slices)
    parts = []
    for lane, (unit, label, paint) in enumerate(_LANES):
        top = lane * (_HEIGHT + _GAP)
        mine = sum(part.cost.get(unit, 0.0) for part in course.slices)
        parts.append(f'<text class="ink" x="{LEFT - 8}" y="{top + 15}" text-anchor="end">{label}</text>')
        parts.append(
            f'<text class="ink" x="{LEFT - 8}" y="{top + 30}" text-anchor="end">{_percent(mine, whole)}</text>'
        )
        base, at = top + _HEIGHT, float(LEFT)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + PLOT}" y1="{base}" y2="{base}"/>')
        for part in course.slices:
            width = PLOT * part.total / whole if whole else 0.0
            height = _HEIGHT * part.cost.get(unit, 0.0) / part.total
            if height >= 0.05:
                title = f"<title>{text.markup(part.node)}: {part.cost[unit]:.3g} {course.measure}</title>"
                parts.append(
                    f'<rect class="{paint}" x="{at:.2f}" y="{base - height:.2f}" width="{width:.2f}" '
                    f'height="{height:.2f}">{title}</rect>'
                )
            at += width
    told = "estimated" if course.measure == "ms" else "moved"
    parts.append(f'<text class="ink" x="{LEFT}" y="{_AXIS + 12}">first operator</text>')
    parts.append(
        f'<text class="ink" x="{LEFT + PLOT}" y="{_AXIS + 12}" text-anchor="end">'
        f"last; {whole:.3g} {course.measure} {told} in all</text>"
    )
    shares = ", ".join(
        f"{label} {_percent(sum(s.cost.get(unit, 0.0) for s in course.slices), whole)}" for unit, label, _ in _LANES
    )
    return figure(
        "course", WIDTH, _AXIS + 18, f"Course of the schedule, {len(course.slices)} stretches: {shares}", parts
    )


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "–"
