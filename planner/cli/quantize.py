"""`planner quantize`: apply a plan."""

from __future__ import annotations

import argparse
from pathlib import Path

from planner.cli import arguments, common

HELP = "apply a plan to its model"
EPILOG = """\
examples:
  planner quantize model.onnx --plan plan.json --output model.quantized.onnx
  planner quantize model.onnx --plan plan.json --inputs calibration.npz --output model.quantized.onnx

Without --inputs the plan's own are used. The model and the inputs must be those that the plan was made for: the same plan,
model and inputs give the same bytes.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="the ONNX file that the plan was made for")
    parser.add_argument("--plan", metavar="FILE", type=Path, required=True, help="a plan written by `planner plan`")
    parser.add_argument(
        "--inputs", metavar="SOURCE", help="where the plan's inputs lie now, if not where they lay when it was made"
    )
    arguments.add_output_arguments(parser)
    arguments.add_profile_argument(parser)
    arguments.add_evidence_argument(parser)
    arguments.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    from planner import api

    with common.progress() as progress:
        result = api.quantize(
            args.model,
            args.plan,
            args.output,
            inputs=args.inputs,
            float16_io=args.float16_io,
            overwrite=args.overwrite,
            profiles=args.profile,
            evidence=args.evidence,
            progress=progress,
        )
    if args.json:
        common.print_document(result.to_json())
    else:
        common.say(f"planner: wrote {result.path} ({result.artifact.bytes:,} bytes)")
        for note in result.artifact.notes:
            common.say(f"planner: note: {note}")
    return common.YES
