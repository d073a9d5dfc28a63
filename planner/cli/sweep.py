"""`planner sweep`: many models on many targets, on local processes or a Dask cluster."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from planner.cli import arguments, common

if TYPE_CHECKING:
    from planner.reporting import Row

HELP = "many models on many targets, on local processes or a Dask cluster; computes only what changed"
EPILOG = """\
examples:
  planner sweep sweep.yaml --output sweep/
  planner sweep sweep.yaml --output sweep/ --workers 4 --json
  planner sweep sweep.yaml --output sweep/ --scheduler tcp://scheduler:8786      (dask.distributed; shared storage)

sweep.yaml; relative paths start where it lies:
  models:
    - path: models/*.onnx                # a file, a glob or a URL that fsspec knows
    - path: recogniser.onnx
      name: recogniser v2
      shapes: {x: [1, 3, 48, 320]}
      inputs: lines.npz                  # or a folder of .npz files
      floor: 30
  targets:
    - ep: qnn
      devices: [snapdragon-x-elite, snapdragon-8-gen3]      # or [all]; default: the profile's own
    - ep: directml
  precisions: [auto, w8a16]              # default: those that each profile prefers
  floor: 20
  options: {time_limit: 900, memory_limit: 8192, allow_unknown: false, run: true, seed: 0, estimate: true}

A second sweep into the same folder reuses every cell whose model, profile, evidence, inputs, options and package versions
are what they were. A cell that crashes or takes too long says so, is tried once more, and the rest goes on.
exit status: 0 every cell passes, 1 some do not, 2 wrong request, 3 an EP failed, 4 no evidence for some node
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("spec", metavar="SPEC", type=Path, help="a YAML file of models, targets and precisions")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder of report and results")
    parser.add_argument("--workers", metavar="N", type=_count, help="local processes (default: one a core)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler, in place of local processes")
    arguments.add_formats_argument(parser)
    arguments.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    from planner.cli.report import show, tell
    from planner.sweeps.sweep import sweep

    with common.progress(sys.stderr.isatty()) as progress:

        def told(row: Row, done: int, total: int) -> None:
            tell(row, done, total)
            progress("sweeping", done, total)

        result = sweep(
            args.spec,
            args.output,
            workers=args.workers,
            scheduler=args.scheduler,
            formats=arguments.formats(args),
            told=told,
        )
    if args.json:
        common.print_document(result.to_json())
    else:
        show(result.report)
    for file in result.files:
        common.say(f"planner: wrote {file}")
    common.say(
        f"planner: {result.computed} cells computed, {result.reused} reused, {result.failed} failed, {result.seconds:.0f} s"
    )
    return result.exit_status


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a number from 1 on")
    return int(text)
