"""`planner explain`: what an operator may be on a device, by which rule, and what the EP was seen to do."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from planner.cli import arguments, common

if TYPE_CHECKING:
    from planner.probe.run import Outcome
    from planner.profiles.schema import Rule
    from planner.resolve.target import Target

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
    from planner.errors import RequestError

    if args.node is not None:
        from planner.cli.explain_node import explain_node

        return explain_node(args)
    target = arguments.target(args)
    if args.compare:
        return _compare(args, target)
    if args.op is None:
        raise RequestError("name an operator", "for example `planner explain Conv --ep qnn`")
    return _explain(args, target)


def _explain(args: argparse.Namespace, target: Target) -> int:
    from planner import codec
    from planner.probe.evidence import stored
    from planner.profiles.conditions import split

    domain, name = split(args.op)
    rules = target.profile.rules_for(name, domain, target.device)
    evidence = stored(target.profile.ep, target.device, target.options)
    seen = evidence.of_operator(args.op) if evidence is not None else {}
    tables = [_kernels(target, rule, name, domain) for rule in rules if rule.kernels is not None]
    if args.json:
        document = {
            "op": args.op,
            "target": codec.to_json(target.identity),
            "rules": [rule_json(rule) for rule in rules],
            "kernels": [entry for entries in tables for entry in entries],
            "evidence": None
            if evidence is None
            else {
                "runtime": dict(evidence.runtime),
                "date": evidence.date,
                "cases": [_case(c, o) for c, o in seen.items()],
            },
        }
        common.print_json("planner/explain/1", document)
        return _status(args, target, bool(rules), bool(seen))
    common.print_table(
        f"{args.op} on {target.device} of {target.profile.ep}: rules, the first that matches decides",
        ["rule", "says", "where", "do", "source"],
        [[r.id, says(r), where(r), r.suggestion, source(r)] for r in rules],
    )
    for entries in tables:
        common.print_table("\nkernels", ["opset", "types"], [[e["opset"], e["types"]] for e in entries])
    if seen:
        assert evidence is not None
        versions = ", ".join(f"{k} {v}" for k, v in evidence.runtime.items())
        common.print_table(
            f"\nobserved ({versions}, {evidence.date})", ["form", "result", "pairs", "reason"], _observed(seen)
        )
    return _status(args, target, bool(rules), bool(seen))


def _status(args: argparse.Namespace, target: Target, has_rules: bool, has_evidence: bool) -> int:
    if has_rules or has_evidence:
        return common.YES
    common.say(f"planner: nothing is known of {args.op} on {target.device} of {target.profile.ep}")
    return common.UNKNOWN


def rule_json(rule: Rule) -> dict[str, Any]:
    """A rule as plain data: what it states."""
    import msgspec

    from planner.profiles.conditions import written

    data: dict[str, Any] = {k: v for k, v in msgspec.to_builtins(rule).items() if v not in (None, [], (), {}, False)}
    data["source"] = {k: v for k, v in data["source"].items() if v is not None}
    if when := written(rule.when):
        data["when"] = when
    else:
        del data["when"]
    return data


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


def _kernels(target: Target, rule: Rule, name: str, domain: str) -> list[dict[str, Any]]:
    table = target.profile.tables[str(rule.kernels)]
    return [
        {
            "opset": f"{k.first_opset}+" if k.last_opset is None else f"{k.first_opset}-{k.last_opset}",
            "types": {c: sorted(t) for c, t in k.types.items()},
        }
        for k in table.kernels.get((domain, name), ())
    ]


def _case(case: str, outcome: Outcome) -> dict[str, Any]:
    return {"case": case, "result": str(outcome.result), "reason": outcome.reason, "sqnr_db": outcome.sqnr_db}


def _observed(seen: dict[str, Outcome]) -> list[list[object]]:
    from planner.probe.evidence import parse_id

    rows: dict[tuple[str, str, str | None], list[str]] = {}
    for case, outcome in seen.items():
        _, pair, granularity, condition = parse_id(case)
        entry = f"{pair}/{granularity}" if granularity else pair
        if outcome.sqnr_db is not None:
            entry += f" ({outcome.sqnr_db:.0f} dB)"
        rows.setdefault((condition or "base form", str(outcome.result), outcome.reason), []).append(entry)
    return [[condition, result, ", ".join(pairs), reason] for (condition, result, reason), pairs in rows.items()]


def _compare(args: argparse.Namespace, target: Target) -> int:
    from planner.errors import RequestError
    from planner.probe.evidence import differences, stored

    found = []
    for device in args.compare:
        target.profile.device(device)
        evidence = stored(target.profile.ep, device)
        if evidence is None:
            raise RequestError(
                f"there is no evidence on {device}", "see `planner eps`, or probe it: planner probe -o FILE"
            )
        found.append(evidence)
    one, two = found
    changed = differences(one, two)
    if args.op is not None:
        changed = [d for d in changed if d.case.partition("/")[0].lower() == args.op.lower()]
    if args.json:
        rows = [
            {
                "case": d.case,
                one.device: d.before and _case(d.case, d.before),
                two.device: d.after and _case(d.case, d.after),
            }
            for d in changed
        ]
        common.print_json(
            "planner/explain/1", {"op": args.op, "rules": [], "devices": args.compare, "differences": rows}
        )
        return common.YES
    common.print_table(
        f"{len(changed)} cases of {args.op or 'all operators'} that {one.device} and {two.device} answer differently",
        ["case", one.device, two.device, "reason"],
        [
            [
                d.case,
                d.before and d.before.result,
                d.after and d.after.result,
                (d.after and d.after.reason) or (d.before and d.before.reason),
            ]
            for d in changed
        ],
        limit=200,
    )
    return common.YES
