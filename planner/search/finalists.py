"""The last choice among plans that pass: by the schedule that the chip's own compiler makes of their very files.

Declared cost ranks plans node by node, with rates that are the same for every model. The compiled schedule shows what it cannot
see: conversions between precisions, tensors that do not fit the chip's fast memory, operators that leave the matrix unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from planner.dtypes import DType
from planner.errors import EPError, RangeMissingError
from planner.estimation.compile import Compiler
from planner.estimation.latency import Interval, latency_model
from planner.resolve.plan import Plan, TargetIdentity
from planner.runtime.registry import launcher

T = TypeVar("T")
Outcome = Literal["kept", "not faster", "not faithful", "not estimated", "not needed"]
# A plan takes another's place only where it is estimated to need at most this share of its time: less is no gain. Held to
# measurements by `python -m benchmarks.latency_choices pairs`; docs/latency.md says what the choice is worth.
LEAST_GAIN = 0.97


@dataclass(frozen=True)
class Finalist:
    """A plan that was compared.

    Attributes:
        precision: of the plan.
        ms: estimated, never measured; None where there is no estimate.
        outcome: "kept"; "not faster" than the one kept, and not tried; tried, and "not faithful"; "not estimated";
            or "not needed", since a faster one passed.
    """

    precision: str
    ms: Interval | None
    outcome: Outcome


def is_faster(one: Interval | None, other: Interval | None) -> bool:
    """Whether one estimate is so much lower than another that a plan should be chosen by it."""
    return one is not None and other is not None and one.mid <= LEAST_GAIN * other.mid


def narrowest(activations: Iterable[str | None]) -> int:
    """Bits of the narrowest activation, of types by name; those of nodes that have none are None."""
    return min((DType(name).bits for name in set(activations) if name is not None), default=32)


def fastest(
    first: tuple[str, Interval | None],
    others: Iterable[tuple[str, Interval | None]],
    passes: Callable[[str], bool],
) -> tuple[Finalist, ...]:
    """Let each plan that is estimated faster than the first take its place, if it passes; the fastest first.

    Args:
        first: precision and estimate of the plan that passed, and is the cheapest by declared cost.
        others: the same of plans that nothing is known of.
        passes: runs a plan, named by its precision, and says whether it passes.

    Returns:
        All of them, the first one first. One is kept.
    """
    known = dict(others)
    faster = sorted(
        (name for name, ms in known.items() if is_faster(ms, first[1])), key=lambda name: (_mid(known[name]), name)
    )
    outcomes: dict[str, Outcome] = {
        name: "not estimated" if ms is None or first[1] is None else "not faster" for name, ms in known.items()
    }
    kept = first[0]
    for name in faster:
        outcomes[name] = "not needed"
        if kept != first[0]:
            continue
        if passes(name):
            kept, outcomes[name] = name, "kept"
        else:
            outcomes[name] = "not faithful"
    mine: Outcome = "kept" if kept == first[0] else "not needed"
    return (Finalist(*first, mine), *(Finalist(name, ms, outcomes[name]) for name, ms in known.items()))


def _mid(ms: Interval | None) -> float:
    assert ms is not None
    return ms.mid


def comparable(target: TargetIdentity) -> bool:
    """Whether plans for a chip can be compared so: its EP's compiler is here, and milliseconds are known of the chip."""
    known = launcher(target.ep)
    if not known.schedules or known.availability(target.options).kind != "simulator":
        return False
    model = latency_model(target.ep)
    return model is not None and model.of(target.options) is not None


def estimates(
    target: TargetIdentity, plans: Iterable[Plan], apply: Callable[[Plan, Path], object], folder: Path
) -> dict[str, Interval | None]:
    """What each plan is estimated to need, by precision; None where it cannot be made or compiled, or runs in part elsewhere.

    Args:
        target: the chip.
        plans: to compare.
        apply: writes the model of a plan.
        folder: where models are written, and deleted.
    """
    model = latency_model(target.ep)
    rates = None if model is None else model.of(target.options)
    found: dict[str, Interval | None] = {}
    path = folder / "finalist.onnx"
    with Compiler(target.ep) as compiler:
        for plan in plans:
            try:
                apply(plan, path)
                compiled = compiler.compile(path, target.options)
            except (EPError, RangeMissingError):
                found[plan.precision] = None
                continue
            whole = not compiled.elsewhere
            found[plan.precision] = rates.interval(compiled.schedule) if rates is not None and whole else None
    return found
