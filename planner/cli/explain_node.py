"""`planner explain MODEL --node NAME`: where the node's time goes, and at which precision it would be cheaper."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from planner.cli import arguments, common
from planner.errors import RequestError

if TYPE_CHECKING:
    from planner.estimation.estimate import Estimate
    from planner.estimation.nodes import Finding
    from planner.estimation.precisions import NodePrices


def explain_node(args: argparse.Namespace) -> int:
    """Run the command; its exit status."""
    from planner import api, codec
    from planner.estimation.precisions import NodePrices, by_precision

    if args.op is None:
        raise RequestError("name the model", f"for example `planner explain model.onnx --node {args.node} --ep qnn`")
    target = arguments.target(args)
    precisions = target.profile.prefer[target.device]
    where = {"device": args.device, "profiles": args.profile, "evidence": args.evidence}
    checked = api.check(Path(args.op), args.ep, precision=precisions[0], **where)
    op_types = {verdict.node.name: verdict.node.op_type for verdict in checked.verdicts}
    if args.node not in op_types:
        near = difflib.get_close_matches(args.node, op_types, 3, 0.3)
        raise RequestError(f"{args.op} has no node {args.node!r}", f"near it: {', '.join(near)}" if near else "")
    rows = api.estimate(Path(args.op), args.ep, precisions=precisions, **where).rows
    prices = next((p for p in by_precision(rows) if p.node == args.node), NodePrices(args.node, {}))
    findings = {row.precision: [f for f in row.findings if f.node == args.node] for row in rows}
    if args.json:
        document = {
            "op": op_types[args.node],
            "rules": [],
            "model": codec.to_json(checked.model),
            "target": codec.to_json(checked.target),
            "node": args.node,
            "prices": [
                {
                    "precision": row.precision,
                    "cost": codec.plain(prices.costs.get(row.precision)),
                    "whole_ms": codec.plain(row.ms),
                    "findings": codec.plain(findings[row.precision]),
                    "evidence": row.evidence,
                }
                for row in rows
            ],
            "cheapest": prices.cheapest,
        }
        common.print_json("planner/explain/1", document)
    else:
        _show(f"{op_types[args.node]} {args.node} on {target.device}", rows, prices, findings)
    missing = [row for row in rows if row.dram_bytes is None]
    for row in missing:
        common.say(f"planner: at {row.precision}: {row.evidence}")
    return common.NO if len(missing) == len(rows) else common.YES


def _show(title: str, rows: Sequence[Estimate], prices: NodePrices, findings: Mapping[str, Sequence[Finding]]) -> None:
    common.print_table(
        f"{title}, by precision of the whole model: estimated from the compiler's schedule, not measured",
        ("precision", "ms", "of the whole", "DRAM bytes", "VTCM bytes", "operators", "what costs"),
        [
            (
                row.precision,
                None if cost is None or cost.ms is None else f"{cost.ms:.4f}",
                None if cost is None or cost.ms is None or row.ms is None else f"{100 * cost.ms / row.ms.mid:.1f} %",
                None if cost is None else cost.dram_bytes,
                None if cost is None else cost.vtcm_bytes,
                "fused into another node" if cost is None or not cost.operators else cost.operators,
                ", ".join(f"{f.kind} {f.bytes:,} bytes" for f in findings[row.precision]),
            )
            for row in rows
            if row.dram_bytes is not None
            for cost in (prices.costs.get(row.precision),)
        ],
    )
    if prices.cheapest is not None:
        print(common.printable(f"cheapest at {prices.cheapest}"))
