"""`planner target`: the whole job, from a model to a verified artefact."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from planner.cli import check, common
from planner.errors import EPError

if TYPE_CHECKING:
    from planner.calibrate.inputs import Inputs
    from planner.pipeline import Outcome
    from planner.resolve.target import Target
    from planner.search.report import SearchReport
    from planner.search.search import Measured

HELP = "plan, quantize and verify: the whole job"
EPILOG = """\
examples:
  planner target model.onnx --ep qnn --device snapdragon-x-elite --inputs calibration.npz --output model.qnn.onnx
  planner target model.onnx --ep directml --shape x=1,3,224,224
  planner target model.onnx --ep cpu --precision w8a8 --inputs data/ --json
  planner target model.onnx --ep cpu --precision dynamic --inputs data/     (int8 without calibration; data only judges)
  planner target model.onnx --ep cpu --precision w4 --inputs data/          (4-bit weights, float activations)
  planner target model.onnx --ep qnn --inputs my.data:samples --floor 40
  planner target model.onnx --ep qnn --inputs my.data:samples --metric my.data:accuracy --floor 0.95 --compile

With --precision auto (the default) the profile's precisions are tried in its order of preference until one is verified;
where none is, a mix is searched for. With --floor (or --metric) the cheapest legal plan that reaches it on the EP is
searched for at once. On real hardware, the CPU included, every legal precision is timed and the fastest that passes is kept.
A quarter of the inputs is held apart from calibration and search to judge the result, once; where it refutes a searched plan,
one more is looked for and judged, and the result says so.
exit status: 0 verified, 1 illegal or not verified, 2 wrong request, 3 the EP failed, 4 no evidence for some node
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_model_arguments(parser)
    common.add_target_arguments(parser)
    common.add_precision_arguments(parser, "auto")
    common.add_inputs_arguments(parser, calibration=True)
    common.add_output_arguments(parser)
    common.add_floor_argument(parser)
    parser.add_argument(
        "--allow-unknown",
        action="store_true",
        help="go on where the profile has no evidence for a node: the EP itself decides",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="also write the model compiled ahead of time for the chip (OUTPUT_ctx.onnx), and check that it loads and runs",
    )
    parser.add_argument(
        "--report-dir",
        metavar="DIR",
        type=Path,
        help="also write a report of what was tried (HTML, Markdown, JSON, SARIF, JUnit, figures) into this folder",
    )
    common.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from planner.calibrate.inputs import load_inputs
    from planner.files import check_output
    from planner.pipeline import requested_precision, run_target
    from planner.reporting.write import FIGURES, FORMATS, check_directory
    from planner.resolve.choose import check_model
    from planner.runtime.compile import Compiled, compile_model, require_compiler

    target = common.target(args)
    floor = common.floor(args)
    precision = requested_precision(args.precision, args.weight_type, args.activation_type)
    output = args.output or common.default_output(
        args.model, "auto" if precision is None else precision.name, target.identity
    )
    check_output(output, (args.model,), overwrite=args.overwrite)
    if args.report_dir is not None:
        check_directory(args.report_dir, (*FORMATS, FIGURES), overwrite=args.overwrite)
    compiled_output = output.with_name(f"{output.stem}_ctx.onnx")
    if args.compile:
        require_compiler(target.ep)
        check_output(compiled_output, (args.model,), overwrite=args.overwrite)
    model = target.read(args.model, common.shapes(args))
    for note in model.notes:
        common.say(f"planner: note: {note}")
    judged = check_model(target, model, precision)
    outcome: Outcome | None = None
    allowed = (
        judged.legal or (judged.legal is None and args.allow_unknown) or (judged.legal is False and args.allow_fallback)
    )
    compiled: Compiled | None = None
    compile_error: EPError | None = None
    inputs: Inputs | None = None
    if allowed:
        inputs = load_inputs(args.inputs, model, seed=args.seed, method=args.calibration)
        common.warn_of_inputs(inputs, calibrated=precision is None or precision.flows is None)
        with common.progress() as progress:
            outcome = run_target(
                target,
                model,
                precision,
                inputs,
                output,
                floor=floor,
                allow_fallback=args.allow_fallback,
                float16_io=args.float16_io,
                progress=progress,
            )
        kept = outcome.kept
        if args.compile and kept is not None and kept.passed:
            try:
                compiled = compile_model(output, compiled_output, target.identity, inputs.evaluation[0])
            except EPError as error:
                compile_error = error
    if args.report_dir is not None:
        from planner.reporting.single import write_target_report

        written = write_target_report(args.report_dir, target, model, precision, judged, outcome, inputs, floor)
        common.say(f"planner: wrote a report of {len(written)} files to {args.report_dir}")
    kept = outcome.kept if outcome is not None else None
    if outcome is None or kept is None:
        status = check.conclude(target, judged, allow_unknown=False)
        if args.json:
            common.print_json(
                "planner/target/1",
                {
                    "model": check.model_json(model),
                    "target": target.identity.to_json(),
                    "plan": None,
                    "artifact": None,
                    "verification": None,
                    "passed": False,
                    "violations": [v.violation() for v in judged.violations],
                    "attempts": [],
                    "search": None,
                    "latency_ms": None,
                    "speedup": None,
                },
            )
        elif judged.violations:
            check.show(target, model, judged)
        return status
    if args.json:
        plan = kept.plan.to_json()
        common.print_json(
            "planner/target/1",
            {
                "model": check.model_json(model),
                "target": target.identity.to_json(),
                "plan": plan,
                "artifact": {
                    **kept.artifact.to_json(),
                    "compiled": None if compiled is None else compiled.to_json(),
                },
                "verification": kept.verification.to_json(),
                "passed": kept.passed,
                "violations": [],
                "attempts": [a.to_json() for a in outcome.attempts],
                "search": None if outcome.search is None else outcome.search.to_json(),
                "latency_ms": None if kept.latency is None else kept.latency.to_json(),
                "speedup": None if kept.latency is None else kept.latency.speedup,
            },
        )
    else:
        show(target, outcome)
        if compiled is not None:
            how = "equal outputs" if compiled.equal else f"outputs differ by up to {compiled.max_abs_error}"
            common.say(
                f"planner: compiled {compiled.path} ({compiled.bytes:,} bytes) for chip {compiled.soc}: loads and runs, {how}"
            )
    common.conclude_verification(kept.verification)
    if compile_error is not None:
        common.say(f"planner: not compiled: {compile_error}")
        return common.EP_FAILED
    return common.YES if kept.passed else common.NO


def show(target: Target, outcome: Outcome) -> None:
    """The result for people: what was tried, the plan in short, the verification."""
    kept = outcome.kept
    assert kept is not None
    if len(outcome.attempts) > 1:
        common.print_table(
            "tried",
            ("precision", "worst output", "latency", "verdict"),
            [
                (
                    a.plan.precision,
                    f"{a.worst_db:.1f} dB",
                    "-" if a.latency is None else f"{a.latency.candidate_ms:.2f} ms, {a.latency.speedup:.2f} x float32",
                    "verified" if a.passed else "; ".join(a.verification.reasons),
                )
                for a in outcome.attempts
            ],
        )
        print()
    if outcome.search is not None:
        show_search(outcome.search)
    counts: dict[tuple[str, str], int] = {}
    for node in kept.plan.nodes:
        key = (node.op_type, str(node.config))
        counts[key] = counts.get(key, 0) + 1
    common.print_table(
        f"plan for {target.ep}, {target.device}: {kept.plan.precision}",
        ("operator", "nodes", "weight/activation"),
        [(op, count, pair) for (op, pair), count in sorted(counts.items(), key=lambda c: (-c[1], c[0]))],
        limit=25,
    )
    print()
    common.show_verification(kept.verification)
    common.say(f"planner: wrote {kept.artifact.path} ({kept.artifact.bytes:,} bytes)")
    for note in kept.artifact.notes[:5]:
        common.say(f"planner: note: {note}")


def show_search(report: SearchReport) -> None:
    """What the search tried, and which nodes it keeps above the cheapest precision."""

    def measured(value: Measured | None) -> str:
        if value is None:
            return "not tried"
        return value.problem or f"{value.decibels:.1f} dB"

    runs = report.evaluations
    common.print_table(
        f"searched for {report.floor}: {runs.emulated} plans emulated, {runs.real} on the EP, {report.seconds:.0f} s",
        ("precision throughout", "cost", "emulated", "on the EP"),
        [
            (level.precision, f"{level.cost / report.cheapest:.2f}", measured(level.emulated), measured(level.real))
            for level in report.levels
        ],
    )
    share = (
        "" if report.macs_in_8_bit is None else f", {100 * report.macs_in_8_bit:.1f} % of the MACs with 8-bit weights"
    )
    print(f"the plan found costs {report.cost / report.cheapest:.2f}{share}")
    if report.note:
        print(report.note)
    print()
    if report.promoted:
        common.print_table(
            "promoted",
            ("nodes", "from", "to", "cost", "share of the error", "first node"),
            [
                (
                    len(entry.nodes),
                    entry.base,
                    entry.to,
                    f"+{100 * entry.cost_share:.1f} %",
                    "-" if entry.error_share is None else f"{100 * entry.error_share:.0f} %",
                    f"{entry.nodes[0]} ({', '.join(entry.operators)})",
                )
                for entry in report.promoted
            ],
            limit=20,
        )
        print()
