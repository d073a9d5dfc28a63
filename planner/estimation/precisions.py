"""What each node costs at each precision, from estimates of one model on one chip. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.estimation.estimate import Estimate
from planner.estimation.nodes import NodeCost


@dataclass(frozen=True)
class NodePrices:
    """One node at several precisions of the whole model.

    Attributes:
        node: its name. costs: by precision; what is missing has no operator of its own there: it was fused into another.
    """

    node: str
    costs: Mapping[str, NodeCost]

    SHOWN = ("cheapest",)

    @property
    def cheapest(self) -> str | None:
        """The precision at which it takes the least time; None where fewer than two can be compared."""
        known = {name: cost.ms for name, cost in self.costs.items() if cost.ms is not None}
        return min(known, key=known.__getitem__) if len(known) > 1 else None

    @property
    def most(self) -> float:
        """Its largest cost in milliseconds; 0 where none is known."""
        return max((cost.ms or 0.0 for cost in self.costs.values()), default=0.0)


def by_precision(estimates: Sequence[Estimate]) -> tuple[NodePrices, ...]:
    """Each node's cost at each precision, the dearest node first.

    Args:
        estimates: of one model on one device, with all of their nodes, at different precisions.
    """
    found: dict[str, dict[str, NodeCost]] = {}
    for estimate in estimates:
        for cost in estimate.nodes:
            found.setdefault(cost.node, {})[estimate.precision] = cost
    prices = [NodePrices(node, costs) for node, costs in found.items()]
    return tuple(sorted(prices, key=lambda p: (-p.most, p.node)))
