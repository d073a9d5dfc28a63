"""`planner explain MODEL --node NAME`: where the node's time goes, and at which precision it would be cheaper."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from planner.cli import common
from planner.errors import RequestError

if TYPE_CHECKING:
    from planner.explain import NodeExplained


def run(args: argparse.Namespace) -> int:
    """Run the command; its exit status."""
    from planner.explain import explain_node

    if args.op is None:
        raise RequestError("name the model", f"for example `planner explain model.onnx --node {args.node} --ep qnn`")
    found = explain_node(
        Path(args.op), args.node, args.ep, device=args.device, profiles=args.profile, evidence=args.evidence
    )
    if args.json:
        common.print_document(found.to_json())
    else:
        _show(found)
    for row in found.missing:
        common.say(f"planner: at {row.precision}: {row.evidence}")
    return common.NO if len(found.missing) == len(found.rows) else common.YES


def _show(found: NodeExplained) -> None:
    prices, findings = found.prices, found.findings
    common.print_table(
        f"{found.op_type} {prices.node} on {found.target.device}, by precision of the whole model: estimated from the compiler's schedule, not measured",
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
            for row in found.rows
            if row.dram_bytes is not None
            for cost in (prices.costs.get(row.precision),)
        ],
    )
    if prices.cheapest is not None:
        print(common.printable(f"cheapest at {prices.cheapest}"))
