"""`planner quantize`: apply a plan."""

from __future__ import annotations

import argparse
from pathlib import Path

from planner.cli import check, common

HELP = "apply a plan to its model"
EPILOG = """\
examples:
  planner quantize model.onnx --plan plan.json --output model.quantized.onnx
  planner quantize model.onnx --plan plan.json --inputs calibration.npz --output model.quantized.onnx

Without --inputs the plan's own are used. The model and the inputs must be those that the plan was made for: the same plan,
model and inputs give the same bytes.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", type=Path, help="the ONNX file that the plan was made for")
    parser.add_argument("--plan", metavar="FILE", type=Path, required=True, help="a plan written by `planner plan`")
    parser.add_argument(
        "--inputs", metavar="SOURCE", help="where the plan's inputs lie now, if not where they lay when it was made"
    )
    common.add_output_arguments(parser)
    common.add_profile_argument(parser)
    common.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from planner.api import planned_inputs
    from planner.errors import RequestError
    from planner.files import check_output
    from planner.pipeline import calibrate, quantize
    from planner.resolve.plan import read_plan
    from planner.resolve.revise import without_uncalibrated
    from planner.resolve.target import Target

    plan = read_plan(args.plan)
    target = Target.open(plan.target.ep, plan.target.device, args.profile)
    output = args.output or common.default_output(args.model, plan.precision, target.identity)
    check_output(output, (args.model, args.plan), overwrite=args.overwrite)
    model = target.read(args.model, plan.shapes)
    if model.sha256 != plan.model.sha256:
        raise RequestError(
            f"{args.model} is not the model that {args.plan} was made for (its hash differs)",
            "make the plan anew with `planner plan`",
        )
    if target.profile.sha256 != plan.profile.sha256:
        common.say(f"planner: warning: the profile of {plan.target.ep} has changed since the plan was made")
    ranges = {}
    if plan.is_quantized:
        inputs = planned_inputs(plan, model, args.inputs)
        common.warn_of_inputs(inputs)
        with common.progress() as progress:
            ranges = calibrate(model, inputs.calibration, progress, inputs.method)
        plan = without_uncalibrated(target, model, plan, ranges)
    artifact = quantize(model, plan, ranges, output, float16_io=args.float16_io)
    if args.json:
        common.print_json(
            "planner/quantize/1",
            {
                "model": check.model_json(model),
                "target": plan.target.to_json(),
                "plan": plan.to_json(),
                "artifact": artifact.to_json(),
            },
        )
    else:
        common.say(f"planner: wrote {artifact.path} ({artifact.bytes:,} bytes)")
        for note in artifact.notes:
            common.say(f"planner: note: {note}")
    return common.YES
