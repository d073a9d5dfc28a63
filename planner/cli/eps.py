"""`planner eps`: the profiles, and what of each can be run on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from planner.cli import arguments, common

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
    from planner.profiles.load import load_profiles
    from planner.runtime.environment import conflicts
    from planner.runtime.registry import launcher

    eps: list[dict[str, Any]] = []
    for profile in load_profiles(args.profile).by_ep.values():
        known = launcher(profile.ep)
        available = known.availability(profile.options(profile.file.default_device))
        eps.append(
            {
                "ep": profile.ep,
                "title": profile.file.title,
                "aliases": list(profile.file.aliases),
                "default_device": profile.file.default_device,
                "devices": [
                    {
                        "name": name,
                        "title": d.title,
                        "class": d.kind,
                        "prefer": [str(p) for p in profile.prefer[name]],
                        "here": known.availability(profile.options(name)).kind or "emulation",
                    }
                    for name, d in profile.devices.items()
                ],
                "here": available.kind or "emulation",
                "reason": available.reason,
                "packages": dict(available.packages),
                "profile": {"name": profile.name, "sha256": profile.sha256},
            }
        )
    found = conflicts()
    if args.json:
        common.print_json("planner/eps/1", {"eps": eps, "conflicts": list(found)})
    else:
        common.print_table(
            "execution providers",
            ("EP", "alias", "devices", "here"),
            [row for e in eps for row in _rows(e)],
            whole=4,
        )
        print()
        common.print_table(
            "what runs here",
            ("EP", "with, or why not"),
            [(e["ep"], e["reason"] or ", ".join(f"{k} {v}" for k, v in e["packages"].items())) for e in eps],
            whole=1,
        )
    if found:
        common.say(
            f"planner: WARNING: {', '.join(found)} are installed together; each carries the module `onnxruntime` and overwrites the other\n"
            "  uninstall all of them, then install one; use an environment for each EP that needs another"
        )
    return common.YES


def _rows(entry: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line for each device of an EP, the first with what all share."""
    words = {
        "hardware": "real",
        "software": "software GPU",
        "simulator": "simulated",
        "placement": "placement",
        "emulation": "emulated",
    }
    shown = [(device["name"], words[device["here"]]) for device in entry["devices"]]
    return [(entry["ep"], ", ".join(entry["aliases"]), *shown[0]), *(("", "", *device) for device in shown[1:])]
