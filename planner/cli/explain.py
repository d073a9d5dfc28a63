"""`planner explain`: what an operator may be on a device, by which rule, and what the EP was seen to do."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from planner.cli import arguments, common

if TYPE_CHECKING:
    from planner.derive.explain import DeviceComparison, Explanation
    from planner.probe.run import Outcome
    from planner.profiles.schema import Rule

HELP = "the pairs that an operator may use on a device, each with its evidence; or what a node of a model costs there"
EPILOG = """\
examples:
  planner explain Conv --ep qnn --device snapdragon-x-elite
  planner explain com.microsoft.Gelu --ep qnn
  planner explain Conv --ep qnn --compare snapdragon-x-elite snapdragon-8-gen1     (where two chips differ)
  planner explain --ep qnn --compare snapdragon-x-elite snapdragon-8cx-gen3        (over all operators)
  planner explain model.onnx --node /head/conv --ep qnn --device snapdragon-x-elite  (its cost at each precision, estimated)

exit status: 0 the profile speaks of the operator, 4 neither a rule nor evidence does; with --node as `planner estimate`
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "op",
        metavar="OP",
        nargs="?",
        help="an operator: Conv, or with its domain com.microsoft.Gelu; with --node a model",
    )
    parser.add_argument("--node", metavar="NAME", help="a node of the model: its estimated cost at each precision")
    arguments.add_target_arguments(parser)
    parser.add_argument(
        "--compare", metavar=("DEVICE", "DEVICE"), nargs=2, help="show the cases that two devices answer differently"
    )
    arguments.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from planner.derive.explain import compare, explain
    from planner.errors import RequestError

    if args.node is not None:
        from planner.cli import explain_node

        return explain_node.run(args)
    target = arguments.target(args)
    if args.compare:
        one, two = args.compare
        compared = compare(target, one, two, args.op)
        if args.json:
            common.print_document(compared.to_json())
        else:
            _show_differences(compared)
        return common.YES
    if args.op is None:
        raise RequestError("name an operator", "for example `planner explain Conv --ep qnn`")
    found = explain(target, args.op)
    if args.json:
        common.print_document(found.to_json())
    else:
        _show(found)
    if found.known:
        return common.YES
    common.say(f"planner: nothing is known of {args.op} on {target.device} of {target.ep}")
    return common.UNKNOWN


def _show(found: Explanation) -> None:
    from planner.derive.explain import opsets

    common.print_table(
        f"{found.op} on {found.target.device} of {found.target.ep}: rules, the first that matches decides",
        ["rule", "says", "where", "do", "source"],
        [[r.id, says(r), where(r), r.suggestion, source(r)] for r in found.rules],
    )
    if found.kernels:
        rows = [[opsets(k), {c: sorted(types) for c, types in k.types.items()}] for k in found.kernels]
        common.print_table("\nkernels", ["opset", "types"], rows)
    if found.seen and found.evidence is not None:
        versions = ", ".join(f"{k} {v}" for k, v in found.evidence.runtime.items())
        common.print_table(
            f"\nobserved ({versions}, {found.evidence.date})",
            ["form", "result", "pairs", "reason"],
            _observed(found.seen),
        )


def says(rule: Rule) -> str:
    """What the rule says, in a few words."""
    pairs = " / ".join("|".join(part) for part in (rule.weight, rule.activation) if part)
    if rule.refuse is not None:
        return f"no: {rule.refuse}" + (f" [{pairs}]" if pairs else "")
    if rule.kernels is not None:
        return "whatever the kernel table lists"
    return pairs or "yes"


def where(rule: Rule) -> str:
    """The conditions, in a few words; empty where there are none."""
    from planner.profiles.conditions import words

    return words(rule.when)


def source(rule: Rule) -> str:
    """Where it is known from."""
    return "; ".join(filter(None, (rule.source.observed, rule.source.documented)))


def _observed(seen: Mapping[str, Outcome]) -> list[list[object]]:
    from planner.probe.evidence import parse_id

    rows: dict[tuple[str, str, str | None], list[str]] = {}
    for case, outcome in seen.items():
        _, pair, granularity, condition = parse_id(case)
        entry = f"{pair}/{granularity}" if granularity else pair
        if outcome.sqnr_db is not None:
            entry += f" ({outcome.sqnr_db:.0f} dB)"
        rows.setdefault((condition or "base form", str(outcome.result), outcome.reason), []).append(entry)
    return [[condition, result, ", ".join(pairs), reason] for (condition, result, reason), pairs in rows.items()]


def _show_differences(compared: DeviceComparison) -> None:
    one, two = compared.devices
    common.print_table(
        f"{len(compared.differences)} cases of {compared.op or 'all operators'} that {one} and {two} answer differently",
        ["case", one, two, "reason"],
        [
            [
                d.case,
                d.before and d.before.result,
                d.after and d.after.result,
                (d.after and d.after.reason) or (d.before and d.before.reason),
            ]
            for d in compared.differences
        ],
        limit=200,
    )
