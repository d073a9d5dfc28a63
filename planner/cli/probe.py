"""`planner probe`: ask the installed EP what it takes, and compare that with the stored evidence and the profile."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.cli import arguments, common

if TYPE_CHECKING:
    from planner.probe.evidence import Difference, Evidence
    from planner.probe.run import Outcome
    from planner.resolve.target import Target

HELP = "ask the installed EP itself what it takes, case by case"
EPILOG = """\
examples:
  planner probe --ep qnn --device snapdragon-x-elite --op Conv --op MatMul
  planner probe --ep qnn -o evidence.json                 (the whole matrix: minutes; resumes where it was stopped)
  planner probe --ep qnn --diff                           (before an upgrade: what changed since the stored evidence)
  planner probe --ep cpu --diff                           (the kernel registry of the installed onnxruntime)
  planner probe --ep qnn --from-model model.onnx          (the nodes of a model as cases: new evidence)

exit status: 0 asked (with --diff: nothing changed), 1 --diff found a difference, 3 the EP cannot be started
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    arguments.add_target_arguments(parser)
    parser.add_argument("--op", metavar="OP", action="append", default=[], help="only this operator; may be repeated")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write the answers as an evidence file")
    parser.add_argument("--diff", action="store_true", help="compare with the stored evidence; exit 1 on a difference")
    parser.add_argument("--against", metavar="FILE", type=Path, help="compare with this evidence file instead")
    parser.add_argument("--from-model", metavar="MODEL", type=Path, help="probe the nodes of a model as it is stored")
    parser.add_argument(
        "--workers", metavar="N", type=int, default=2, help="processes of the EP at a time (default: 2)"
    )
    arguments.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from planner.errors import RequestError

    if args.workers < 1:
        raise RequestError("--workers must be at least 1")
    target = arguments.target(args)
    if args.from_model is not None:
        return _from_model(args, target)
    if any(rule.kernels == "installed" for rule in target.profile.rules) and not args.op:
        return _registry(args, target)
    return _matrix(args, target)


def _matrix(args: argparse.Namespace, target: Target) -> int:
    from planner import codec
    from planner.errors import RequestError
    from planner.probe import evidence as files
    from planner.probe.ask import ask
    from planner.probe.cases import all_cases
    from planner.probe.defects import ask_defects
    from planner.probe.run import select

    before = (
        files.load(args.against)
        if args.against is not None
        else files.stored(target.profile.ep, target.device, target.options)
    )
    if args.diff and before is None:
        raise RequestError(
            f"there is no stored evidence on {target.device} of {target.profile.ep}",
            "probe with -o FILE first, and compare with --against FILE",
        )
    cases = select(all_cases().values(), args.op)
    if not cases:
        raise RequestError(f"no probe case for {', '.join(args.op)}", "operators are named as in ONNX: Conv, MatMul")
    partial = args.output.with_suffix(".partial") if args.output is not None else None
    with common.progress() as update:
        found = ask(
            cases,
            target.profile.ep,
            target.device,
            target.options,
            workers=args.workers,
            partial=partial,
            progress=lambda done, total: update(f"probing {target.profile.ep}", done, total),
        )
    if args.output is not None:
        args.output.write_text(files.dump(found), encoding="utf-8")
        assert partial is not None
        partial.unlink(missing_ok=True)
    changed = files.differences(_limited(before, found), found) if before is not None else []
    contradictions = _contradictions(target, found)
    defects = ask_defects(target, args.op)
    if args.json:
        common.print_json(
            "planner/probe/1",
            {
                "target": codec.to_json(target.identity),
                "runtime": dict(found.runtime),
                "compared_with": None if before is None else {"runtime": dict(before.runtime), "date": before.date},
                "cases": [{"case": case, **outcome_json(outcome)} for case, outcome in found.outcomes.items()],
                "differences": [difference_json(d) for d in changed],
                "contradictions": contradictions,
                "defects": [codec.to_json(asked) for asked in defects],
            },
        )
    else:
        _show(target, found, before, changed, contradictions)
        if defects:
            common.print_table(
                "\nknown defects, asked again",
                ["defect", "still there", "seen"],
                [[asked.id, "yes" if asked.shows else "NO", asked.observed] for asked in defects],
            )
    return common.NO if args.diff and changed else common.YES


def _limited(before: Evidence, found: Evidence) -> Evidence:
    """The stored answers to the cases that were asked this time."""
    from dataclasses import replace

    return replace(before, outcomes={c: o for c, o in before.outcomes.items() if c in found.outcomes})


def _contradictions(target: Target, found: Evidence) -> list[dict[str, Any]]:
    """Cases that the profile judges otherwise than the EP just answered."""
    from planner.derive.predict import agrees, explanation, predict

    entries = []
    for case, outcome in found.outcomes.items():
        ruling = predict(case, target.profile, target.device)
        if agrees(ruling, outcome) is False and explanation(case, target.profile, ruling, outcome) is None:
            entries.append(
                {"case": case, "result": str(outcome.result), "rule": ruling.rule, "on_target": ruling.legal}
            )
    return entries


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The outcome's part of a case."""
    return {"result": str(outcome.result), "reason": outcome.reason, "sqnr_db": outcome.sqnr_db}


def difference_json(difference: Difference) -> dict[str, Any]:
    """What a case was and is; null where one side does not have it."""
    return {
        "case": difference.case,
        "before": None if difference.before is None else outcome_json(difference.before),
        "after": None if difference.after is None else outcome_json(difference.after),
    }


def _show(
    target: Target,
    found: Evidence,
    before: Evidence | None,
    changed: list[Difference],
    contradictions: list[dict[str, Any]],
) -> None:
    from collections import Counter

    from planner.probe.evidence import parse_id

    by_operator: dict[str, Counter[str]] = {}
    for case, outcome in found.outcomes.items():
        by_operator.setdefault(parse_id(case)[0], Counter())[str(outcome.result)] += 1
    kinds = ["taken", "cpu", "fails", "crashed", "folded", "invalid"]
    common.print_table(
        f"{target.profile.ep} on {target.device}, {_versions(found)}: {len(found.outcomes)} cases",
        ["operator", *kinds],
        [[op, *(counts[k] or None for k in kinds)] for op, counts in sorted(by_operator.items())],
    )
    if before is not None:
        title = f"\n{len(changed)} differences from the evidence of {before.date} ({_versions(before)})"
        rows = [
            [d.case, d.before and d.before.result, d.after and d.after.result, d.after and d.after.reason]
            for d in changed
        ]
        common.print_table(title, ["case", "was", "is", "reason"], rows, limit=60)
    if contradictions:
        common.print_table(
            f"\n{len(contradictions)} cases that the profile judges otherwise",
            ["case", "the EP says", "rule", "it says on target"],
            [[c["case"], c["result"], c["rule"], c["on_target"]] for c in contradictions],
            limit=30,
        )


def _versions(evidence: Evidence) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(evidence.runtime.items()))


def _registry(args: argparse.Namespace, target: Target) -> int:
    """An EP whose rules follow the kernel registry is asked for that registry."""
    from planner import codec
    from planner.profiles import kernels

    before = kernels.read(kernels.stored(target.profile.ep))
    after = kernels.installed(target.profile.ep)
    changed = kernels.differences(before, after)
    if args.output is not None:
        args.output.write_text(kernels.dump(after), encoding="utf-8")
    if args.json:
        count = sum(len(v) for v in after["kernels"].values())
        document = {
            "target": codec.to_json(target.identity),
            "source": after["source"],
            "compared_with": before["source"],
            "cases": [{"case": f"{count} operators", "result": "registry", "reason": None, "sqnr_db": None}],
            "differences": [{"case": c, "before": b, "after": a} for c, b, a in changed],
        }
        common.print_json("planner/probe/1", document)
    else:
        common.print_table(
            f"{target.profile.ep}: {len(changed)} differences between {before['source']} and {after['source']}",
            ["kernel", "was", "is"],
            changed,
            limit=100,
        )
    return common.NO if args.diff and changed else common.YES


def _from_model(args: argparse.Namespace, target: Target) -> int:
    from planner import codec
    from planner.probe.from_model import from_model
    from planner.profiles import learned

    found = from_model(args.from_model, target.profile, target.device)
    if args.output is not None:
        args.output.write_text(learned.dump(found), encoding="utf-8")
    contradictions = [n for n in found.nodes if n.predicted is not n.on_target]
    if args.json:
        common.print_json(
            "planner/probe/1",
            {
                "target": codec.to_json(target.identity),
                "runtime": dict(found.runtime),
                "cases": [codec.to_json(n) for n in found.nodes],
                "differences": [codec.to_json(n) for n in contradictions],
            },
        )
    else:
        common.print_table(
            f"{len(found.nodes)} kinds of nodes of {args.from_model.name} on {target.device}; "
            f"the profile judges {len(contradictions)} of them otherwise",
            ["node", "on target", "profile says", "rule", "the EP's reason"],
            [[n.signature, n.on_target, n.predicted, n.rule, n.reason] for n in contradictions or found.nodes],
            limit=60,
        )
    return common.NO if args.diff and contradictions else common.YES
