"""`planner diff`: what changed between two results."""

from __future__ import annotations

import argparse
from pathlib import Path

from planner.cli import arguments, common

HELP = "what changed between two reports or sweeps: an EP upgraded, a profile changed, a model retrained"
EPILOG = """\
examples:
  planner diff release/ candidate/
  planner diff old/report.json new/report.json --output diff/ --json

What became legal, illegal, less accurate, bigger, or fell off the target. With --output: diff.html, diff.md, diff.json and
diff.xml (JUnit).
exit status: 0 nothing got worse, 1 something did, 2 wrong request
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("old", metavar="OLD", type=Path, help="a report.json, or the folder of a report or sweep")
    parser.add_argument("new", metavar="NEW", type=Path, help="the later one")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, help="folder of the diff's files")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier diff there")
    arguments.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    from planner.sweeps.sweep import diff

    found = diff(args.old, args.new, args.output, overwrite=args.overwrite)
    if args.json:
        common.print_document(found.to_json())
    else:
        print(common.printable(found.to_text()), end="")
    return found.exit_status
