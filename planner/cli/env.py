"""`planner env`: environments of their own for EPs whose packages exclude one another."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from planner.cli import arguments, common

if TYPE_CHECKING:
    from planner.runtime.eps.launcher import Launcher
    from planner.runtime.made import Made

HELP = "make, list and remove the environments of EPs whose packages exclude one another"
EPILOG = """\
examples:
  planner env create openvino
  planner env create qnn==2.5            (a version beside others: then --ep qnn@2.5, also as a target of a sweep)
  planner env create webgpu
  planner env create directml            (Linux: DirectML answers for its placement, under Wine)
  planner env list
  planner env remove directml

exit status: 0 done, 2 no such EP or environment, 3 a step failed
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("action", choices=("create", "list", "remove"))
    parser.add_argument(
        "ep", metavar="EP", nargs="?", help="alias or full name, EP==VERSION for a version; not for list"
    )
    arguments.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    from planner.errors import RequestError
    from planner.runtime import made

    if args.action == "list":
        if args.ep is not None:
            raise RequestError("`planner env list` takes no EP: it lists all environments")
        _show(args, made.made())
        return common.YES
    if args.ep is None:
        raise RequestError(f"`planner env {args.action}` needs an EP", "`planner eps` lists them")
    known = _launcher(args.ep)
    if args.action == "create":
        _show(args, [made.make(known, lambda step: common.say(f"planner: {step} ..."))])
    else:
        made.remove(known)
        _show(args, made.made())
    return common.YES


def _launcher(name: str) -> Launcher:
    from planner.profiles.load import load_profiles
    from planner.runtime.registry import launcher

    return launcher(load_profiles().find(name.replace("==", "@", 1)).ep)


def _show(args: argparse.Namespace, environments: Sequence[Made]) -> None:
    from planner import codec

    if args.json:
        common.print_document({"schema": "planner/env/1", "environments": codec.plain(environments)})
        return
    rows = [(e.alias, ", ".join(f"{k} {v}" for k, v in e.packages.items()), e.folder) for e in environments]
    common.print_table("environments", ("EP", "packages", "folder"), rows, whole=1)
