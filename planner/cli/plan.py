"""`planner plan`: decide, and write the decision."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from planner.cli import check, common

HELP = "decide the precision of every node and write the plan; changes no model"
EPILOG = """\
examples:
  planner plan model.onnx --ep qnn --inputs calibration.npz -o plan.json
  planner plan model.onnx --ep cpu --precision w8a8 -o plan.json
  planner quantize model.onnx --plan plan.json --output model.int8.onnx

The plan is a lock file: hashes of the model, the profile and the inputs, and one line per node.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_model_arguments(parser)
    common.add_target_arguments(parser)
    common.add_precision_arguments(parser, "auto")
    common.add_inputs_arguments(parser, calibration=True)
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="where to write the plan")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--allow-unknown", action="store_true", help="plan even where the profile has no evidence for a node"
    )
    common.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from planner.calibrate.inputs import load_inputs
    from planner.files import check_output, write_text
    from planner.pipeline import requested_precision
    from planner.resolve.choose import check_model, make_plan
    from planner.resolve.plan import SCHEMA

    target = common.target(args)
    precision = requested_precision(args.precision, args.weight_type, args.activation_type)
    check_output(args.output, (args.model,), overwrite=args.overwrite)
    model = target.read(args.model, common.shapes(args))
    resolution = check_model(target, model, precision)
    status = check.conclude(target, resolution, allow_unknown=args.allow_unknown)
    if status != common.YES:
        if args.json:
            common.print_json("planner/check/1", check.document(target, model, resolution))
        return status
    plan = make_plan(target, model, resolution)
    if plan.is_quantized:
        inputs = load_inputs(args.inputs, model, seed=args.seed, method=args.calibration)
        plan = make_plan(target, model, resolution, inputs)
        common.warn_of_inputs(inputs)
    document = plan.to_json()
    write_text(args.output, json.dumps(document, indent=1, allow_nan=False) + "\n")
    if args.json:
        document.pop("schema")
        common.print_json(SCHEMA, document)
    else:
        check.show(target, model, resolution)
        common.say(f"planner: wrote {args.output}")
    return common.YES
