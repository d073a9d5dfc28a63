"""A schedule in short: its traffic, its operators by unit and kind, and its course from first to last. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from planner.estimation.latency import Rates, operator_work, product_work
from planner.estimation.nodes import is_product, tracer
from planner.estimation.schedule import Schedule, Scheduled, Unit

# The course is cut into so many pieces: as many as can be told apart in a figure.
SLICES = 120
_KINDS = 12


@dataclass(frozen=True)
class Slice:
    """A stretch of the schedule.

    Attributes:
        cost: of each unit ("dma", "hmx", "hvx"), in the unit that `Course.measure` names; what costs nothing is left out.
        node: of the model, with the largest cost in the stretch.
    """

    cost: Mapping[str, float]
    node: str

    @property
    def total(self) -> float:
        """The cost of all units."""
        return sum(self.cost.values())


@dataclass(frozen=True)
class Course:
    """The schedule from first to last, in stretches of about equal cost.

    Attributes:
        measure: "ms", estimated, or "MB" moved where the chip was never measured.
    """

    measure: str
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class Summary:
    """What the compiler made of a model.

    Attributes:
        dram_read_bytes, dram_write_bytes, vtcm_bytes: traffic in a run. spilled_bytes: of DRAM's, tensors that did not fit
            VTCM. vtcm_peak_bytes: of VTCM in use.
        operators: scheduled, by unit. kinds: the commonest, by the compiler's own name.
        fused: QNN operators that became part of another. untraced: scheduled ones that no node of the model is named after.
        graphs: that run one after another.
        timeline: the course of the run.
    """

    dram_read_bytes: int
    dram_write_bytes: int
    vtcm_bytes: int
    spilled_bytes: int
    vtcm_peak_bytes: int
    operators: Mapping[str, int]
    kinds: Mapping[str, int]
    fused: int
    untraced: int
    graphs: int
    timeline: Course


def summary(schedule: Schedule, nodes: frozenset[str], rates: Rates | None) -> Summary:
    """A schedule in short.

    Args:
        schedule: of the model.
        nodes: names of the model's nodes.
        rates: of the chip; None where it was never measured.
    """
    return Summary(
        schedule.dram_read,
        schedule.dram_write,
        schedule.vtcm,
        schedule.spilled,
        schedule.vtcm_peak,
        {str(unit): count for unit, count in Counter(o.unit for o in schedule.operators).most_common()},
        dict(schedule.kinds().most_common(_KINDS)),
        len(schedule.fused),
        schedule.untraced,
        schedule.graphs,
        course(schedule, nodes, rates),
    )


def course(schedule: Schedule, nodes: frozenset[str], rates: Rates | None) -> Course:
    """The timeline of a schedule. Arguments as for `summary`."""
    costs = [o.dram / 1e6 + o.vtcm / 1e6 for o in schedule.operators] if rates is None else _ms(schedule, rates)
    stretch, trace = sum(costs) / SLICES, tracer(schedule, nodes)
    slices: list[Slice] = []
    held: list[int] = []
    reached, cut = 0.0, stretch
    for index, cost in enumerate(costs):
        held.append(index)
        reached += cost
        if reached >= cut * (1 - 1e-9) and reached > 0:
            slices.append(_slice(schedule.operators, costs, held, trace))
            held, cut = [], reached + stretch
    if any(costs[i] for i in held):
        slices.append(_slice(schedule.operators, costs, held, trace))
    return Course("MB" if rates is None else "ms", tuple(slices))


def _slice(
    operators: Sequence[Scheduled], costs: Sequence[float], held: Sequence[int], trace: Callable[[str], str]
) -> Slice:
    by_unit: dict[str, float] = {}
    by_node: dict[str, float] = {}
    for index in held:
        unit, node = str(operators[index].unit), operators[index].node
        by_unit[unit] = by_unit.get(unit, 0.0) + costs[index]
        by_node[node] = by_node.get(node, 0.0) + costs[index]
    heaviest = max(by_node, key=by_node.__getitem__)
    return Slice({u: float(f"{c:.4g}") for u, c in by_unit.items() if c}, trace(heaviest))


def _ms(schedule: Schedule, rates: Rates) -> list[float]:
    """Milliseconds of each scheduled operator, multiply-accumulates included.

    Those of a product are spread, by the bytes that they read, over the operators of its node that multiply; where the node was
    fused into another, over those that multiply for a node without products of its own.
    """
    costs = [rates.price(operator_work(operator)) for operator in schedule.operators]
    wanted: dict[str, float] = {}
    for product in schedule.products:
        wanted[product.node] = wanted.get(product.node, 0.0) + rates.price(product_work(product))
    workers: dict[str, list[int]] = {}
    for index, operator in enumerate(schedule.operators):
        if operator.unit is Unit.HMX or (operator.unit is Unit.HVX and is_product(operator)):
            workers.setdefault(operator.node if operator.node in wanted else "", []).append(index)
    fused = 0.0
    for node, ms in wanted.items():
        if node in workers:
            _spread(costs, workers[node], schedule.operators, ms)
        else:
            fused += ms
    # With no operator to bear it, the rest lies on the last one.
    _spread(costs, workers.get("") or list(range(len(costs)))[-1:], schedule.operators, fused)
    return costs


def _spread(costs: list[float], over: Sequence[int], operators: Sequence[Scheduled], ms: float) -> None:
    moved = sum(operators[i].vtcm for i in over)
    for i in over:
        costs[i] += ms * (operators[i].vtcm / moved if moved else 1 / len(over))
