"""What each node costs at each precision."""

from __future__ import annotations

from dataclasses import replace

from planner.estimation.estimate import Estimate
from planner.estimation.nodes import NodeCost
from planner.estimation.precisions import by_precision


def estimate(precision: str, **ms: float | None) -> Estimate:
    nodes = tuple(NodeCost(name, cost, 0, 0, 1) for name, cost in ms.items())
    return replace(Estimate.without("chip", precision, ""), nodes=nodes)


def test_each_node_has_its_cost_at_each_precision_the_dearest_node_first() -> None:
    found = by_precision([estimate("w8a16", a=1.0, b=3.0), estimate("fp16", a=2.0, b=1.0)])
    assert [p.node for p in found] == ["b", "a"]
    assert [p.cheapest for p in found] == ["fp16", "w8a16"]


def test_where_there_is_nothing_to_compare_no_precision_is_cheapest() -> None:
    (fused, unmeasured) = by_precision([estimate("w8a16", a=1.0, b=None), estimate("fp16", b=None)])
    assert (fused.node, fused.cheapest) == ("a", None)
    assert (unmeasured.node, unmeasured.cheapest) == ("b", None)
