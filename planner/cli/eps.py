"""`planner eps`: the profiles, and what of each can be run on this machine."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from planner.cli import arguments, common

if TYPE_CHECKING:
    from planner.resolve.eps import EPHere

HELP = "list the profiles, and what of each is real, simulated or emulated on this machine"
EPILOG = """\
examples:
  planner eps
  planner eps --profile my-ep.yaml --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    arguments.add_profile_argument(parser)
    arguments.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    from planner.resolve.eps import list_eps

    found = list_eps(args.profile)
    if args.json:
        common.print_document(found.to_json())
    else:
        common.print_table(
            "execution providers",
            ("EP", "device", "here", "alias"),
            [row for ep in found.eps for row in _rows(ep)],
            whole=3,
        )
        print()
        common.print_table(
            "what runs here",
            ("EP", "with, or why not"),
            [(ep.ep, ep.reason or ", ".join(f"{k} {v}" for k, v in ep.packages.items())) for ep in found.eps],
            whole=1,
        )
    if found.conflicts:
        common.say(
            f"planner: WARNING: {', '.join(found.conflicts)} are installed together; each carries the module `onnxruntime` and "
            "overwrites the other\n"
            "  uninstall all of them, then install one; use an environment for each EP that needs another"
        )
    return common.YES


def _rows(ep: EPHere) -> list[tuple[str, ...]]:
    """A line for each device of an EP, the first with what all share."""
    words = {
        "hardware": "real",
        "software": "software GPU",
        "simulator": "simulated",
        "placement": "placement",
        "emulation": "emulated",
    }
    first, *others = [(device.name, words[device.here]) for device in ep.devices]
    return [(ep.ep, *first, ", ".join(ep.aliases)), *(("", *device, "") for device in others)]
