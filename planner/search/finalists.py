"""The last choice among plans that pass: by the schedule that the chip's own compiler makes of their very files.

Declared cost ranks plans node by node, with rates that are the same for every model. The compiled schedule shows what it cannot
see: conversions between precisions, tensors that do not fit the chip's fast memory, operators that leave the matrix unit.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

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
            or "not needed", since a faster one passed, or nothing else was to be run.
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
    passes: Callable[[str], bool | None],
) -> tuple[Finalist, ...]:
    """Let each plan that is estimated faster than the first take its place, if it passes; the fastest first.

    Args:
        first: precision and estimate of the plan that passed, and is the cheapest by declared cost.
        others: the same of plans that nothing is known of.
        passes: runs a plan, named by its precision, and says whether it passes; None where it is not run.

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
        if kept != first[0] or (passed := passes(name)) is None:
            continue
        kept, outcomes[name] = (name, "kept") if passed else (kept, "not faithful")
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


class Estimator:
    """Estimates of plans for one chip, by the schedules of their very files; each is made once. A context manager.

    The compiler runs in a thread of its own: what will be asked for can be worked out beside other work.
    """

    def __init__(self, target: TargetIdentity, apply: Callable[[Plan, Path], object], folder: Path) -> None:
        """Prepare to compile; nothing runs before the first plan.

        Args:
            target: a chip for which plans can be compared: see `comparable`.
            apply: writes the model of a plan.
            folder: where models are written.
        """
        self._target = target
        self._apply = apply
        self._path = folder / "finalist.onnx"
        self._compiler: Compiler | None = None
        self._pool = ThreadPoolExecutor(1)
        self._over = False
        self._begun: list[tuple[Plan, Future[Interval | None]]] = []
        self._foreseen: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._compiler is not None:
            self._compiler.abandon()
        self._pool.shutdown()
        if self._compiler is not None:
            self._compiler.close()

    def foresee(self, plans: Callable[[], Iterable[Plan]]) -> None:
        """Begin with plans that will be asked for, after those that were begun."""

        def begin() -> None:
            for plan in plans():
                self._begin(plan)

        self._foreseen = self._submit(begin)

    def of(self, plan: Plan) -> Interval | None:
        """What a plan is estimated to need; None where it cannot be made or compiled, or runs in part elsewhere."""
        if self._foreseen is not None:
            self._foreseen.result()
        return self._begin(plan).result()

    def _begin(self, plan: Plan) -> Future[Interval | None]:
        for known, future in self._begun:
            if known == plan:
                return future
        future = self._submit(lambda: self._estimate(plan))
        self._begun.append((plan, future))
        return future

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        return self._pool.submit(contextvars.copy_context().run, work)

    def _estimate(self, plan: Plan) -> Interval | None:
        model = latency_model(self._target.ep)
        rates = None if model is None else model.of(self._target.options)
        try:
            self._apply(plan, self._path)
            if self._over:
                return None
            self._compiler = self._compiler or Compiler(self._target.ep)
            compiled = self._compiler.compile(self._path, self._target.options)
        except (EPError, RangeMissingError):
            return None
        return None if rates is None or compiled.elsewhere else rates.interval(compiled.schedule)
