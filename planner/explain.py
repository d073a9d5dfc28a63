"""Where one node's time goes, at each precision that the profile prefers for its model."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner import api, codec
from planner.errors import RequestError
from planner.estimation.estimate import Estimate
from planner.estimation.nodes import Finding
from planner.estimation.precisions import NodePrices, by_precision
from planner.resolve.plan import ModelIdentity, TargetIdentity
from planner.resolve.target import Target


@dataclass(frozen=True)
class NodeExplained:
    """What a node costs.

    Attributes:
        op_type: of the node.
        model: that it stands in.
        target: where the model is to run.
        rows: the estimate of the whole model at each precision.
        prices: of the node, by precision.
    """

    op_type: str
    model: ModelIdentity
    target: TargetIdentity
    rows: tuple[Estimate, ...]
    prices: NodePrices

    @property
    def findings(self) -> Mapping[str, Sequence[Finding]]:
        """By precision, what of the node takes the time."""
        return {row.precision: [f for f in row.findings if f.node == self.prices.node] for row in self.rows}

    @property
    def missing(self) -> tuple[Estimate, ...]:
        """Precisions of which there is no estimate."""
        return tuple(row for row in self.rows if row.dram_bytes is None)

    def to_json(self) -> dict[str, Any]:
        """The document of `planner explain MODEL --node NAME --json`."""
        return {
            "schema": "planner/explain/1",
            "op": self.op_type,
            "rules": [],
            "model": codec.to_json(self.model),
            "target": codec.to_json(self.target),
            "node": self.prices.node,
            "prices": [
                {
                    "precision": row.precision,
                    "cost": codec.plain(self.prices.costs.get(row.precision)),
                    "whole_ms": codec.plain(row.ms),
                    "findings": codec.plain(self.findings[row.precision]),
                    "evidence": row.evidence,
                }
                for row in self.rows
            ],
            "cheapest": self.prices.cheapest,
        }


def explain_node(
    model: Path | str,
    node: str,
    ep: str,
    *,
    device: str | None = None,
    profiles: Sequence[Path] = (),
    evidence: Sequence[Path] = (),
) -> NodeExplained:
    """Estimate what a node costs at each precision. Runs the EP's compiler; estimated, not measured.

    Args:
        model: an ONNX file.
        node: name of one of its nodes.
        ep: alias ("qnn") or full provider name, of an EP whose compiler writes its schedule.
        device: name from the profile; None for its default.
        profiles: files that add to or override the shipped profiles.
        evidence: files that `planner probe --from-model` wrote.

    Raises:
        RequestError: what was given cannot be read, there is no such node, or the EP's compiler writes no schedule.
        EPError: the EP cannot run here.
    """
    target = Target.open(ep, device, profiles, evidence)
    precisions = target.preferred
    checked = api.check(model, ep, device=device, precision=precisions[0], profiles=profiles, evidence=evidence)
    op_types = {verdict.node.name: verdict.node.op_type for verdict in checked.verdicts}
    if node not in op_types:
        near = difflib.get_close_matches(node, op_types, 3, 0.3)
        raise RequestError(f"{model} has no node {node!r}", f"near it: {', '.join(near)}" if near else "")
    rows = api.estimate(model, ep, device=device, precisions=precisions, profiles=profiles, evidence=evidence).rows
    prices = next((p for p in by_precision(rows) if p.node == node), NodePrices(node, {}))
    return NodeExplained(op_types[node], checked.model, checked.target, rows, prices)
