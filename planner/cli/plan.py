"""`planner plan`: decide, and write the decision."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from planner.cli import arguments, check, common

if TYPE_CHECKING:
    from planner.resolve.plan import Plan

HELP = "decide the precision of every node and write the plan; changes no model"
EPILOG = """\
examples:
  planner plan model.onnx --ep qnn --inputs calibration.npz -o plan.json
  planner plan model.onnx --ep cpu --precision w8a8 -o plan.json
  planner quantize model.onnx --plan plan.json --output model.int8.onnx

The plan is a lock file: hashes of the model, the profile and the inputs, and one line per node.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    arguments.add_model_arguments(parser)
    arguments.add_target_arguments(parser)
    arguments.add_precision_arguments(parser, "auto")
    arguments.add_inputs_arguments(parser, calibration=True)
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=arguments.file, required=True, help="where to write the plan"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--allow-unknown", action="store_true", help="plan even where the profile has no evidence for a node"
    )
    arguments.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    from planner import api
    from planner.calibrate.source import files_read
    from planner.files import check_output, write_text
    from planner.results import NotLegalError

    read = files_read(arguments.source(args), args.profile, args.evidence)
    check_output(args.output, (args.model, *read), overwrite=args.overwrite)
    try:
        plan = api.plan(
            args.model,
            args.ep,
            device=args.device,
            precision=arguments.precision(args) or "auto",
            shapes=arguments.shapes(args),
            inputs=arguments.source(args),
            allow_unknown=args.allow_unknown,
            profiles=args.profile,
            evidence=args.evidence,
        )
    except NotLegalError as error:
        if args.json:
            common.print_document(error.check.to_json())
        return check.conclude(error.check, allow_unknown=False)
    document = plan.to_json()
    write_text(args.output, json.dumps(document, indent=1, allow_nan=False) + "\n", overwrite=args.overwrite)
    if args.json:
        common.print_document(document)
    else:
        show(plan)
        common.say(f"planner: wrote {args.output}")
    return common.YES


def show(plan: Plan) -> None:
    """What every operator gets, the most frequent first."""
    counts: dict[tuple[str, str], int] = {}
    for node in plan.nodes:
        key = (node.op_type, str(node.config))
        counts[key] = counts.get(key, 0) + 1
    common.print_table(
        f"plan for {plan.target.ep}, {plan.target.device}: {plan.precision}",
        ("operator", "nodes", "weight/activation"),
        [(op, count, pair) for (op, pair), count in sorted(counts.items(), key=lambda c: (-c[1], c[0]))],
        limit=25,
    )
