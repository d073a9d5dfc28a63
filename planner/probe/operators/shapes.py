"""Shapes that forms share."""

from __future__ import annotations

from planner.probe.forms import Form, Forms, Shape, Slot, act

RANKS: dict[int, Shape] = {
    0: (),
    1: (8,),
    2: (4, 8),
    3: (2, 4, 8),
    4: (1, 4, 4, 8),
    5: (1, 2, 4, 2, 8),
    6: (1, 2, 2, 2, 2, 4),
}


def at_ranks(base: Form, *ranks: int, last: tuple[Slot | None, ...] = ()) -> Forms:
    """The base form with its first operand at other ranks."""
    first = base.slots[0]
    assert first is not None
    for rank in ranks or (0, 1, 2, 3, 5, 6):
        yield base.but(f"rank={rank}", act(*RANKS[rank], low=first.low, high=first.high), *last)


def without(form: Form, attribute: str) -> Form:
    """The form with an attribute left out, its condition kept."""
    kept = {k: v for k, v in form.attributes.items() if k != attribute}
    return Form(**{**form.__dict__, "attributes": kept})
