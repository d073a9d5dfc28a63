"""`planner estimate`: what a model costs on a chip, by the schedule of the chip's compiler; runs nothing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from planner.cli import arguments, common

if TYPE_CHECKING:
    from planner.estimation.estimate import Estimate

HELP = "estimate a model's latency on a chip from the schedule that its compiler writes; runs nothing"
EPILOG = """\
examples:
  planner estimate model.onnx --ep qnn --device snapdragon-x-elite
  planner estimate model.onnx --ep qnn --device all --precision fp16,w8a8,w8a16
  planner estimate model.onnx --ep qnn --by-node

Milliseconds are estimated, never measured: low and high hold 80 % of the models that the rates were not fitted on. A chip
without published measurements gets bytes and operators alone.

exit status: 0 every row has a schedule, 1 one has none (illegal, or the compiler refused), 2 and 3 as everywhere
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    arguments.add_model_arguments(parser)
    arguments.add_target_arguments(parser)
    parser.add_argument(
        "--precision",
        metavar="P,P",
        type=arguments.names,
        action="extend",
        default=[],
        help="precisions, such as fp16,w8a8,w8a16; default: the model as it is",
    )
    parser.add_argument("--by-node", action="store_true", help="where the time goes, and what would make it faster")
    arguments.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    from planner import api

    with common.progress() as progress:
        result = api.estimate(
            args.model,
            args.ep,
            device=args.device,
            precisions=args.precision,
            shapes=arguments.shapes(args),
            profiles=args.profile,
            evidence=args.evidence,
            progress=progress,
        )
    if args.json:
        common.print_document(result.to_json(by_node=args.by_node))
    else:
        show(result.rows)
        if args.by_node:
            for row in result.rows:
                show_nodes(row)
            show_precisions(result.rows)
    missing = [row for row in result.rows if row.dram_bytes is None]
    for row in missing:
        common.say(f"planner: {row.device} at {row.precision}: {row.evidence}")
    return common.NO if missing else common.YES


def show(rows: tuple[Estimate, ...]) -> None:
    """The table of chips and precisions."""
    common.print_table(
        "estimated from the compiler's schedule; nothing ran",
        ("device", "precision", "ms (low to high)", "DRAM MB", "VTCM MB", "spilled MB", "operators", "file MB"),
        [
            (
                row.device,
                row.precision,
                "-" if row.ms is None else f"{row.ms.mid:.2f} ({row.ms.low:.2f} to {row.ms.high:.2f})",
                _mega(row.dram_bytes),
                _mega(row.vtcm_bytes),
                _mega(row.spilled_bytes),
                row.operators,
                _mega(row.bytes),
            )
            for row in rows
        ],
        whole=2,
    )
    for evidence in dict.fromkeys(row.evidence for row in rows if row.dram_bytes is not None):
        print(common.printable(evidence))


def show_nodes(row: Estimate) -> None:
    """Where the time goes, and what would make it faster."""
    print()
    common.print_table(
        f"{row.device} at {row.precision}: where the time goes",
        ("node", "ms", "DRAM MB", "VTCM MB", "operators"),
        [(c.node, _ms(c.ms), _mega(c.dram_bytes), _mega(c.vtcm_bytes), c.operators) for c in row.nodes],
        limit=20,
    )
    print()
    common.print_table(
        "what would make it faster",
        ("what", "node", "ms", "MB moved", "how"),
        [(f.kind, f.node, _ms(f.ms), _mega(f.bytes), f.advice) for f in row.findings],
        limit=10,
    )


def show_precisions(rows: Sequence[Estimate]) -> None:
    """For each device: what each node costs at each precision, and where it is cheapest."""
    from planner.estimation.precisions import by_precision

    for device in dict.fromkeys(row.device for row in rows):
        mine = [row for row in rows if row.device == device and row.nodes]
        names = [row.precision for row in mine]
        if len(mine) < 2:
            continue
        print()
        common.print_table(
            f"{device}: ms of each node by precision of the whole model",
            ("node", *names, "cheapest at"),
            [
                (p.node, *(_ms(p.costs[name].ms) if name in p.costs else None for name in names), p.cheapest)
                for p in by_precision(mine)
            ],
            limit=20,
        )


def _mega(count: int | None) -> str | None:
    return None if count is None else f"{count / 1e6:.1f}"


def _ms(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"
