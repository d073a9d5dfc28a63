"""`planner env`: environments of their own for EPs whose packages exclude one another."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.cli import arguments, common

if TYPE_CHECKING:
    from planner.runtime.eps.launcher import Launcher

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
    from planner.runtime.environment import made_folder

    if args.action == "list":
        _show(args, _made())
        return common.YES
    if args.ep is None:
        raise RequestError(f"`planner env {args.action}` needs an EP", "`planner eps` lists them")
    known = _launcher(args.ep)
    folder = made_folder(known.environment)
    if args.action == "create":
        packages = known.make_environment(folder, lambda step: common.say(f"planner: {step} ..."))
        _show(args, [_entry(known, folder, dict(packages))])
        return common.YES
    if not folder.is_dir():
        raise RequestError(f"there is no environment of {args.ep} in {folder}", "`planner env list` shows them")
    shutil.rmtree(folder)
    _show(args, _made())
    return common.YES


def _launcher(name: str) -> Launcher:
    from planner.profiles.load import load_profiles
    from planner.runtime.registry import launcher

    return launcher(load_profiles().find(name.replace("==", "@", 1)).ep)


def _made() -> list[dict[str, Any]]:
    """The environments that `planner env create` made."""
    from planner.runtime.environment import made_folder
    from planner.runtime.registry import LAUNCHERS

    folders = [folder for folder in made_folder("").glob("*") if folder.is_dir()]
    found = []
    for known in LAUNCHERS:
        for folder in sorted(folders):
            alias, _, version = folder.name.partition("@")
            if alias == known.alias:
                one = replace(known, version=version)
                found.append(_entry(one, folder, dict(one.availability().packages)))
    return found


def _entry(known: Launcher, folder: Path, packages: dict[str, str]) -> dict[str, Any]:
    return {"ep": known.ep, "alias": known.environment, "folder": str(folder), "packages": packages}


def _show(args: argparse.Namespace, environments: list[dict[str, Any]]) -> None:
    if args.json:
        common.print_json("planner/env/1", {"environments": environments})
        return
    rows = [(e["alias"], ", ".join(f"{k} {v}" for k, v in e["packages"].items()), e["folder"]) for e in environments]
    common.print_table("environments", ("EP", "packages", "folder"), rows, whole=1)
