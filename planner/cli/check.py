"""`planner check`: judge a requested precision, or the model as it is, by the profile. Runs nothing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from planner.cli import common

if TYPE_CHECKING:
    from planner.model.read import Model
    from planner.resolve.choose import Resolution, Verdict
    from planner.resolve.target import Target

HELP = "judge a precision, or the model as it is, by the profile; runs nothing"
EPILOG = """\
examples:
  planner check model.onnx --ep qnn --device snapdragon-x-elite --precision w8a16
  planner check model.onnx --ep directml --weight-type uint8 --activation-type uint16
  planner check quantized.onnx --ep qnn --json        (the model as it is)

exit status: 0 legal, 1 illegal (with the rules that say so), 4 no rule speaks of some node (--allow-unknown makes it 0)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_model_arguments(parser)
    common.add_target_arguments(parser)
    common.add_precision_arguments(parser, "the model as it is")
    parser.add_argument(
        "--allow-unknown", action="store_true", help="do not fail where the profile has no evidence for a node"
    )
    common.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from planner.pipeline import requested_precision
    from planner.resolve.choose import check_model

    target = common.target(args)
    precision = requested_precision(args.precision, args.weight_type, args.activation_type)
    stored = args.precision is None and args.weight_type is None
    model = target.read(args.model, common.shapes(args), stored=stored)
    resolution = check_model(target, model, precision, stored=stored)
    if args.json:
        common.print_json("planner/check/1", document(target, model, resolution))
    else:
        show(target, model, resolution)
    return conclude(target, resolution, allow_unknown=args.allow_unknown)


def document(target: Target, model: Model, resolution: Resolution) -> dict[str, Any]:
    """The JSON of contract.md."""
    return {
        "model": model_json(model),
        "target": target.identity.to_json(),
        "precision": resolution.precision,
        "legal": resolution.legal,
        "nodes": [v.to_json() for v in resolution.verdicts],
        "violations": [v.violation() for v in resolution.violations],
        "notes": list(model.notes),
    }


def model_json(model: Model) -> dict[str, Any]:
    """The contract's `model`."""
    return {"path": model.path, "sha256": model.sha256, "opset": model.opset, "node_count": model.node_count}


def show(target: Target, model: Model, resolution: Resolution) -> None:
    """The verdict, as a table of what every operator gets, and the violations."""
    groups: dict[tuple[str, str, bool | None], int] = {}
    for verdict in resolution.verdicts:
        key = (verdict.node.op_type, str(verdict.config), verdict.ruling.legal)
        groups[key] = groups.get(key, 0) + 1
    words = {True: "legal", False: "ILLEGAL", None: "unknown"}
    common.print_table(
        f"{model.path} at {resolution.precision} on {target.ep}, {target.device} (by the profile; nothing ran)",
        ("operator", "nodes", "weight/activation", "verdict"),
        [
            (op, count, pair, words[legal])
            for (op, pair, legal), count in sorted(groups.items(), key=lambda g: (g[0][2] is True, g[0]))
        ],
    )
    if resolution.violations:
        print()
        common.print_table(
            f"violations: {len(resolution.violations)} (those of one rule in a line; all of them with --json)",
            ("nodes", "operators", "first", "why", "what to do"),
            _by_rule(resolution.violations),
            limit=20,
        )
    for note in model.notes:
        common.say(f"planner: note: {note}")


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


def conclude(target: Target, resolution: Resolution, *, allow_unknown: bool) -> int:
    """Exit status, and the reason on stderr where it is not 0."""
    if resolution.legal:
        return common.YES
    if resolution.legal is False:
        first = resolution.violations[0]
        common.say(
            f"planner: illegal on {target.ep}, {target.device}: {len(resolution.violations)} of "
            f"{len(resolution.verdicts)} nodes; first {first.node.op_type} {first.node.name!r}: {first.ruling.reason}"
        )
        if first.ruling.suggestion:
            common.say(f"  {first.ruling.suggestion}")
        return common.NO
    unknown = resolution.unknown[0]
    common.say(
        f"planner: cannot tell: no evidence for {len(resolution.unknown)} of {len(resolution.verdicts)} nodes; "
        f"first {unknown.node.op_type} {unknown.node.name!r}"
    )
    if allow_unknown:
        return common.YES
    common.say("  verify on the EP itself (`planner target`), or accept it with --allow-unknown")
    return common.UNKNOWN
