"""`planner probe`: ask the installed EP what it takes, and compare that with the stored evidence and the profile."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from planner.cli import arguments, common

if TYPE_CHECKING:
    from planner.derive.review import CasesReview, ModelReview, RegistryReview
    from planner.probe.evidence import Evidence

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
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=arguments.file, help="write the answers as an evidence file"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument("--diff", action="store_true", help="compare with the stored evidence; exit 1 on a difference")
    parser.add_argument("--against", metavar="FILE", type=Path, help="compare with this evidence file instead")
    parser.add_argument("--from-model", metavar="MODEL", type=Path, help="probe the nodes of a model as it is stored")
    parser.add_argument(
        "--workers", metavar="N", type=int, default=2, help="processes of the EP at a time (default: 2)"
    )
    arguments.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit status."""
    from planner.derive.review import CasesReview, ModelReview, review
    from planner.errors import RequestError

    if args.workers < 1:
        raise RequestError("--workers must be at least 1")
    target = arguments.target(args)
    with common.progress() as update:
        found = review(
            target, operators=args.op, model=args.from_model, output=args.output, overwrite=args.overwrite,
            against=args.against, needs_evidence=args.diff, workers=args.workers, progress=update,
        )  # fmt: skip
    if args.json:
        common.print_document(found.to_json())
    elif isinstance(found, ModelReview):
        _show_model(found, args.from_model.name)
    elif isinstance(found, CasesReview):
        _show_cases(found)
    else:
        _show_registry(found)
    return common.NO if args.diff and found.changed else common.YES


def _show_cases(review: CasesReview) -> None:
    from collections import Counter

    from planner.probe.evidence import parse_id

    by_operator: dict[str, Counter[str]] = {}
    for case, outcome in review.found.outcomes.items():
        by_operator.setdefault(parse_id(case)[0], Counter())[str(outcome.result)] += 1
    kinds = ["taken", "cpu", "fails", "crashed", "folded", "invalid"]
    common.print_table(
        f"{review.target.ep} on {review.target.device}, {_versions(review.found)}: {len(review.found.outcomes)} cases",
        ["operator", *kinds],
        [[op, *(counts[k] or None for k in kinds)] for op, counts in sorted(by_operator.items())],
    )
    if review.before is not None:
        common.print_table(
            f"\n{len(review.differences)} differences from the evidence of {review.before.date} ({_versions(review.before)})",
            ["case", "was", "is", "reason"],
            [
                [d.case, d.before and d.before.result, d.after and d.after.result, d.after and d.after.reason]
                for d in review.differences
            ],
            limit=60,
        )
    if review.contradictions:
        common.print_table(
            f"\n{len(review.contradictions)} cases that the profile judges otherwise",
            ["case", "the EP says", "rule", "it says on target"],
            [[c.case, c.result, c.rule, c.on_target] for c in review.contradictions],
            limit=30,
        )
    if review.defects:
        common.print_table(
            "\nknown defects, asked again",
            ["defect", "still there", "seen"],
            [[asked.id, "yes" if asked.shows else "NO", asked.observed] for asked in review.defects],
        )


def _versions(evidence: Evidence) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(evidence.runtime.items()))


def _show_registry(review: RegistryReview) -> None:
    common.print_table(
        f"{review.target.ep}: {len(review.differences)} differences between {review.before} and {review.after}",
        ["kernel", "was", "is"],
        review.differences,
        limit=100,
    )


def _show_model(review: ModelReview, name: str) -> None:
    contradictions = review.contradictions
    common.print_table(
        f"{len(review.found.nodes)} kinds of nodes of {name} on {review.target.device}; "
        f"the profile judges {len(contradictions)} of them otherwise",
        ["node", "on target", "profile says", "rule", "the EP's reason"],
        [[n.signature, n.on_target, n.predicted, n.rule, n.reason] for n in contradictions or review.found.nodes],
        limit=60,
    )
