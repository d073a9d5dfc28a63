"""The operators that are probed, each in its base form and in the forms that real models use it in.

Shapes are tiny: legality hardly ever depends on sizes, and a session on a tiny model takes milliseconds. Conditions
vary one factor at a time from the base form.
"""

from __future__ import annotations

from planner.probe.forms import Forms
from planner.probe.operators import (
    contributed,
    control_flow,
    convolutions,
    elementwise,
    indexing,
    layout,
    normalizations,
    others,
    products,
    quantized,
    recurrent,
    reductions,
    spatial,
)


def all_forms() -> Forms:
    """Every form, operators in a fixed order."""
    yield from elementwise.unary()
    yield from elementwise.binary()
    yield from elementwise.logic()
    yield from reductions.reductions()
    yield from convolutions.convolutions()
    yield from products.matrix_products()
    yield from convolutions.pooling()
    yield from normalizations.normalizations()
    yield from recurrent.recurrent()
    yield from spatial.spatial()
    yield from layout.layout()
    yield from indexing.indexing()
    yield from indexing.exact()
    yield from quantized.quantized_operators()
    yield from control_flow.control_flow()
    yield from contributed.contributed()
    yield from others.losses()
    yield from others.sequences()
    yield from others.strings()
    yield from others.newest()
    yield from others.machine_learning()
