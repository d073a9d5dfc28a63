"""`planner report`: the compatibility matrix of models, targets and precisions, as files; gates and a baseline."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from planner.cli import arguments, common
from planner.errors import RequestError

if TYPE_CHECKING:
    from planner.reporting import Report, Row
    from planner.reporting.matrix import Subject
    from planner.results import ReportResult

HELP = "the compatibility matrix of models, targets and precisions, as files"
EPILOG = """\
examples:
  planner report model.onnx --ep all --output report
  planner report model.onnx --ep qnn,directml --precision w8a16,fp16 --inputs data.npz --output report --gate no-fallback
  planner report a.onnx b.onnx --ep qnn --device all --no-run --output report
  planner report --models models.yaml --ep all --output report --baseline release/report.json

With more than one model, a YAML file says what belongs to each (--models):
  models:
    - path: recogniser.onnx           # relative to the YAML file
      shapes: {x: [1, 3, 48, 320]}
      inputs: lines.npz               # or a folder of .npz files
A cell whose EP crashes or takes too long says so, and the rest goes on. Formats: html, markdown, json, sarif, junit, svg.
gate rules: no-fallback, floor=DB, max-size=BYTES (also 20MB, 20MiB), max-latency=MS (estimated), real-run
exit status: 0 every model passes on every target (with --baseline: nothing got worse), 1 not, 2 wrong request,
  3 an EP failed, 4 no evidence for some node
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("models", metavar="MODEL", type=Path, nargs="*", help="ONNX files")
    parser.add_argument(
        "--models",
        metavar="FILE",
        type=Path,
        dest="manifest",
        help="a YAML file of models with their shapes and inputs",
    )
    parser.add_argument(
        "--shape",
        metavar="[NAME=]D,D,...",
        type=arguments.shape,
        action="append",
        default=[],
        help="fix the shape of a model input (of the only model); may be repeated",
    )
    group = parser.add_argument_group("targets")
    group.add_argument(
        "--ep",
        required=True,
        metavar="EP,EP|all",
        type=arguments.names,
        action="extend",
        help="execution providers, by alias or full name",
    )
    group.add_argument(
        "--device",
        metavar="D,D|all",
        type=arguments.names,
        action="extend",
        default=[],
        help="devices; every EP takes those that its profile has; default: the profile's own",
    )
    arguments.add_profile_argument(group)
    arguments.add_evidence_argument(group)
    parser.add_argument(
        "--precision",
        metavar="P,P",
        type=arguments.names,
        action="extend",
        default=[],
        help="precisions, auto among them (which searches for a mix); default: those that the profile prefers",
    )
    arguments.add_inputs_arguments(parser)
    group = parser.add_argument_group("how it is judged")
    group.add_argument("--no-run", action="store_true", help="judge by the profiles alone: seconds instead of minutes")
    group.add_argument(
        "--allow-unknown",
        action="store_true",
        help="run what the profile has no evidence for, and let the EP itself decide; with --no-run: do not fail on it",
    )
    group.add_argument("--floor", metavar="F", help="what counts as faithful: dB, or top1=0.99 (default: 20 dB)")
    group.add_argument(
        "--gate", metavar="RULE", action="append", default=[], help="what more a release demands; may be repeated"
    )
    group.add_argument(
        "--baseline", metavar="FILE", type=Path, help="an earlier report.json: fail only on what got worse since"
    )
    arguments.add_estimate_argument(group)
    group = parser.add_argument_group("output")
    group.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder of the report's files")
    arguments.add_formats_argument(group)
    group.add_argument("--overwrite", action="store_true", help="replace the files of an earlier report")
    arguments.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    from planner import api
    from planner.verification.floor import parse_floor

    with common.progress(sys.stderr.isatty()) as progress:

        def told(row: Row, done: int, total: int) -> None:
            tell(row, done, total)
            progress("judging", done, total)

        result = api.report(
            _subjects(args),
            args.ep,
            args.output,
            devices=args.device,
            precisions=args.precision,
            run=not args.no_run,
            floor=None if args.floor is None else parse_floor(args.floor, None),
            allow_unknown=args.allow_unknown,
            seed=args.seed,
            estimated=not args.no_estimate,
            gate=args.gate,
            baseline=args.baseline,
            formats=arguments.formats(args),
            overwrite=args.overwrite,
            profiles=args.profile,
            evidence=args.evidence,
            told=told,
        )
    if args.json:
        common.print_document(result.to_json())
    else:
        show(result.report)
    return _conclude(result)


def _conclude(result: ReportResult) -> int:
    for file in result.files:
        common.say(f"planner: wrote {file}")
    if result.difference is not None:
        common.say(f"planner: compared with the baseline:\n{result.difference.to_text()}".rstrip())
    for failure in result.failures[:10]:
        common.say(f"planner: failed: {failure}")
    if len(result.failures) > 10:
        common.say(f"planner: and {len(result.failures) - 10} more (see the report)")
    if result.difference is not None and result.difference.worse:
        common.say("planner: worse than the baseline; keep the new state with `--baseline` on the new report.json")
    return result.exit_status


def _subjects(args: argparse.Namespace) -> tuple[Subject, ...]:
    from planner.reporting.matrix import Subject, read_subjects

    shapes = arguments.shapes(args)
    if args.manifest is not None:
        if args.models or shapes or args.inputs:
            raise RequestError(
                "--models excludes MODEL, --shape and --inputs", "write them into the YAML file, model by model"
            )
        return read_subjects(args.manifest)
    if not args.models:
        raise RequestError("no model given", "name ONNX files, or a YAML file of them with --models")
    if len(args.models) > 1 and (shapes or args.inputs):
        raise RequestError(
            "--shape and --inputs are for one model", "with several, write a YAML file and give it with --models"
        )
    return tuple(Subject(path, shapes, args.inputs) for path in args.models)


def tell(row: Row, done: int, total: int) -> None:
    """A line of progress for a finished row."""
    from planner.reporting import text

    reason = f": {row.reason}" if row.reason else ""
    common.say(
        f"planner: {done}/{total} {row.model.name} on {text.target_name(row.target)}, {text.precision_name(row)}: "
        f"{row.status} ({row.tier}){reason}"
    )


def show(report: Report) -> None:
    """The matrix for people: one line for each model and target."""
    from planner.reporting import text

    common.print_table(
        "compatibility",
        ("model", "target", "status", "precision", "placement", "worst output", "size", "speed", "evidence"),
        [
            (
                cell.model.name,
                text.target_name(cell.target),
                row.status,
                text.precision_name(row) + (" (recommended)" if row.recommended else ""),
                text.placement(row),
                text.decibels(row.worst.least_db if row.worst else None),
                text.size(row.size_bytes),
                text.speed(row),
                text.evidence(row) + (", synthetic inputs" if row.inputs and row.inputs.synthetic else ""),
            )
            for cell in report.cells
            for row in (cell.best,)
        ],
    )
