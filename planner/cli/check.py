"""`planner check`: judge a requested precision, or the model as it is, by the profile. Runs nothing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from planner.cli import arguments, common

if TYPE_CHECKING:
    from planner.resolve.verdicts import Verdict
    from planner.results import CheckResult

HELP = "judge a precision, or the model as it is, by the profile; runs nothing"
EPILOG = """\
examples:
  planner check model.onnx --ep qnn --device snapdragon-x-elite --precision w8a16
  planner check model.onnx --ep directml --weight-type uint8 --activation-type uint16
  planner check quantized.onnx --ep qnn --json        (the model as it is)

exit status: 0 legal, 1 illegal (with the rules that say so), 4 no rule speaks of some node (--allow-unknown makes it 0)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    arguments.add_model_arguments(parser)
    arguments.add_target_arguments(parser)
    arguments.add_precision_arguments(parser, "the model as it is")
    parser.add_argument(
        "--allow-unknown", action="store_true", help="do not fail where the profile has no evidence for a node"
    )
    arguments.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    from planner import api

    result = api.check(
        args.model,
        args.ep,
        device=args.device,
        precision=arguments.precision(args),
        shapes=arguments.shapes(args),
        profiles=args.profile,
        evidence=args.evidence,
    )
    if args.json:
        common.print_document(result.to_json())
    else:
        show(result)
    return conclude(result, allow_unknown=args.allow_unknown)


def show(result: CheckResult) -> None:
    """The verdict, as a table of what every operator gets, and the violations.

    Nothing is shown where open dimensions are the cause: all that could be said of a node hangs on them.
    """
    if result.violations and result.open_inputs:
        return
    groups: dict[tuple[str, str, bool | None], int] = {}
    for verdict in result.verdicts:
        pair = str(verdict.config)
        key = (verdict.node.op_type, pair, verdict.ruling.legal)
        groups[key] = groups.get(key, 0) + 1
    words = {True: "legal", False: "ILLEGAL", None: "unknown"}
    at = f"{result.target.ep}, {result.target.device}"
    common.print_table(
        f"{result.model.path} at {result.precision} on {at} (by the profile; nothing ran)",
        ("operator", "nodes", "weight/activation", "verdict"),
        [
            (op, count, pair, words[legal])
            for (op, pair, legal), count in sorted(groups.items(), key=lambda g: (g[0][2] is True, g[0]))
        ],
    )
    if result.violations:
        print()
        common.print_table(
            f"violations: {len(result.violations)} (those of one rule in a line; all of them with --json)",
            ("nodes", "operators", "first", "why", "what to do"),
            _by_rule(result.violations),
            limit=20,
        )


def _by_rule(violations: Sequence[Verdict]) -> list[tuple[int, str, str, str | None, str | None]]:
    """A thousand nodes with one trouble are one trouble."""
    groups: dict[tuple[str | None, str | None], list[Verdict]] = {}
    for v in violations:
        groups.setdefault((v.ruling.rule, v.ruling.suggestion), []).append(v)
    rows = []
    for group in groups.values():
        operators, first = list(dict.fromkeys(v.node.op_type for v in group)), group[0]
        named = ", ".join(operators[:4]) + (f" and {len(operators) - 4} more" if len(operators) > 4 else "")
        rows.append((len(group), named, first.node.name, first.ruling.reason, first.ruling.suggestion))
    return rows


def conclude(result: CheckResult, *, allow_unknown: bool) -> int:
    """Exit status, and the reason on stderr where it is not 0."""
    if result.legal:
        return common.YES
    common.say(f"planner: {result.sentence()}")
    if result.legal is None and allow_unknown:
        return common.YES
    if result.suggestion():
        common.say(f"  {result.suggestion()}")
    return common.NO if result.legal is False else common.UNKNOWN
