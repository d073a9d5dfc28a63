"""`planner target`: the whole job, from a model to a verified artefact."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from planner.cli import check, common

if TYPE_CHECKING:
    from planner.pipeline import Outcome, Session

HELP = "plan, quantize and verify: the whole job"
EPILOG = """\
examples:
  planner target model.onnx --ep qnn --device snapdragon-x-elite --inputs calibration.npz --output model.qnn.onnx
  planner target model.onnx --ep directml --shape x=1,3,224,224
  planner target model.onnx --ep cpu --precision w8a8 --inputs data/ --json

With --precision auto (the default) the profile's precisions are tried in its order of preference until one is verified.
A quarter of the inputs is held apart from calibration to judge the result.
exit status: 0 verified, 1 illegal or not verified, 2 wrong request, 3 the EP failed, 4 no evidence for some node
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_model_arguments(parser)
    common.add_target_arguments(parser)
    common.add_precision_arguments(parser, "auto")
    common.add_inputs_arguments(parser)
    common.add_output_arguments(parser)
    common.add_floor_argument(parser)
    parser.add_argument(
        "--allow-unknown",
        action="store_true",
        help="go on where the profile has no evidence for a node: the EP itself decides",
    )
    common.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from planner.calibrate.inputs import load_inputs
    from planner.files import check_output
    from planner.pipeline import requested_precision, run_target

    session = common.session(args)
    floor = common.floor(args)
    precision = requested_precision(args.precision, args.weight_type, args.activation_type)
    output = args.output or common.default_output(
        args.model, "auto" if precision is None else precision.name, session.target
    )
    check_output(output, (args.model,), overwrite=args.overwrite)
    model = session.read(args.model, common.shapes(args))
    for note in model.notes:
        common.say(f"planner: note: {note}")
    judged = session.check(model, precision)
    outcome: Outcome | None = None
    if judged.legal or (judged.legal is None and args.allow_unknown):
        inputs = load_inputs(args.inputs, model, seed=args.seed)
        common.warn_of_inputs(inputs)
        with common.progress() as progress:
            outcome = run_target(
                session,
                model,
                precision,
                inputs,
                output,
                floor=floor,
                allow_fallback=args.allow_fallback,
                float16_io=args.float16_io,
                progress=progress,
            )
    kept = outcome.kept if outcome is not None else None
    if outcome is None or kept is None:
        status = check.conclude(session, judged, allow_unknown=False)
        if args.json:
            common.print_json(
                "planner/target/1",
                {
                    "model": check.model_json(model),
                    "target": session.target.to_json(),
                    "plan": None,
                    "artifact": None,
                    "verification": None,
                    "passed": False,
                    "violations": [v.violation() for v in judged.violations],
                    "attempts": [],
                },
            )
        elif judged.violations:
            check.show(session, model, judged)
        return status
    if args.json:
        plan = kept.plan.to_json()
        common.print_json(
            "planner/target/1",
            {
                "model": check.model_json(model),
                "target": session.target.to_json(),
                "plan": plan,
                "artifact": kept.artifact.to_json(),
                "verification": kept.verification.to_json(),
                "passed": kept.passed,
                "violations": [],
                "attempts": [a.to_json() for a in outcome.attempts],
            },
        )
    else:
        show(session, outcome)
    common.conclude_verification(kept.verification)
    return common.YES if kept.passed else common.NO


def show(session: Session, outcome: Outcome) -> None:
    """The result for people: what was tried, the plan in short, the verification."""
    kept = outcome.kept
    assert kept is not None
    if len(outcome.attempts) > 1:
        common.print_table(
            "tried, in the profile's order of preference",
            ("precision", "worst output", "verdict"),
            [
                (
                    a.plan.precision,
                    f"{a.worst_db:.1f} dB",
                    "verified" if a.passed else "; ".join(a.verification.reasons),
                )
                for a in outcome.attempts
            ],
        )
        print()
    counts: dict[tuple[str, str], int] = {}
    for node in kept.plan.nodes:
        key = (node.op_type, str(node.pair) + (" per channel" if node.per_channel else ""))
        counts[key] = counts.get(key, 0) + 1
    common.print_table(
        f"plan for {session.target.ep}, {session.target.device}: {kept.plan.precision}",
        ("operator", "nodes", "weight/activation"),
        [(op, count, pair) for (op, pair), count in sorted(counts.items(), key=lambda c: (-c[1], c[0]))],
        limit=25,
    )
    print()
    common.show_verification(kept.verification)
    common.say(f"planner: wrote {kept.artifact.path} ({kept.artifact.bytes:,} bytes)")
    for note in kept.artifact.notes[:5]:
        common.say(f"planner: note: {note}")
