"""`planner target`: the whole job, from a model to a verified artefact."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from planner.cli import arguments, check, common, plan, verify

if TYPE_CHECKING:
    from planner.results import TargetResult
    from planner.search.attempt import Attempt, FailedAttempt
    from planner.search.finalists import Finalist
    from planner.search.goal import Measured
    from planner.search.report import SearchReport

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
one more is looked for and judged, and the result says so. The calibration samples run by emulation, the hardest of them on
the EP as well. Ctrl-C ends a search: the best plan so far is judged and kept. A second one gives up.
exit status: 0 verified, 1 illegal or not verified, 2 wrong request, 3 the EP failed, 4 no evidence for some node
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    arguments.add_model_arguments(parser)
    arguments.add_target_arguments(parser)
    arguments.add_precision_arguments(parser, "auto")
    arguments.add_inputs_arguments(parser, calibration=True)
    arguments.add_output_arguments(parser)
    arguments.add_floor_argument(parser)
    parser.add_argument(
        "--time-budget",
        metavar="SECONDS",
        type=arguments.seconds,
        help="about how long planning and judging may take: a search then stops in time and its best plan is judged; time that is "
        "left goes into judging more samples on the EP (default: the search comes to its end)",
    )
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
    arguments.add_estimate_argument(parser)
    arguments.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    from planner import api

    with common.progress() as progress:
        result = api.target(
            args.model,
            args.ep,
            args.output,
            device=args.device,
            precision=arguments.precision(args) or "auto",
            shapes=arguments.shapes(args),
            inputs=arguments.source(args),
            floor=arguments.floor(args),
            allow_unknown=args.allow_unknown,
            allow_fallback=args.allow_fallback,
            float16_io=args.float16_io,
            time_budget=args.time_budget,
            compiled=args.compile,
            report_to=args.report_dir,
            overwrite=args.overwrite,
            estimated=not args.no_estimate,
            profiles=args.profile,
            evidence=args.evidence,
            progress=progress,
        )
    if args.json:
        common.print_document(result.to_json())
    else:
        show(result)
    if result.report:
        common.say(f"planner: wrote a report of {len(result.report)} files to {args.report_dir}")
    return conclude(result, allow_fallback=args.allow_fallback)


def conclude(result: TargetResult, *, allow_fallback: bool) -> int:
    """Exit status, and the reason on stderr where it is not 0."""
    if result.kept is None:
        status = check.conclude(result.check, allow_unknown=False)
        if status == common.NO and not allow_fallback and not result.check.open_inputs:
            common.say("  or let them run on the CPU: --allow-fallback")
        return status
    verify.conclude(result.kept.verification)
    search = None if result.selection is None else result.selection.search
    if search is not None and search.stopped is not None and search.note:
        common.say(f"planner: note: {search.note}")
    if result.compile_error is not None:
        common.say(f"planner: not compiled: {result.compile_error}")
        return common.EP_FAILED
    return common.YES if result.passed else common.NO


def show(result: TargetResult) -> None:
    """The result for people: what was tried, the plan in short, the verification."""
    kept, tried = result.kept, result.selection
    if kept is None or tried is None:
        if result.check.violations:
            check.show(result.check)
        return
    if len(tried.attempts) + len(tried.failed) > 1:
        show_attempts(tried.attempts, tried.failed)
    if tried.search is not None:
        show_search(tried.search)
    if len(tried.finalists) > 1:
        show_finalists(tried.finalists)
    plan.show(kept.plan)
    print()
    verify.show(kept.verification)
    common.say(f"planner: wrote {kept.artifact.path} ({kept.artifact.bytes:,} bytes)")
    for note in kept.artifact.notes[:5]:
        common.say(f"planner: note: {note}")
    if result.compiled is not None:
        made = result.compiled
        how = "equal outputs" if made.equal else f"outputs differ by up to {made.max_abs_error}"
        common.say(f"planner: compiled {made.path} ({made.bytes:,} bytes) for chip {made.soc}: loads and runs, {how}")


def show_attempts(attempts: Sequence[Attempt], failed: Sequence[FailedAttempt] = ()) -> None:
    """A line for each plan that was tried."""
    common.print_table(
        "tried",
        ("precision", "worst output", "latency", "verdict"),
        [
            (
                a.plan.precision,
                f"{a.worst_db:.1f} dB",
                "-" if a.latency is None else f"{a.latency.candidate:.2f} ms, {a.latency.speedup:.2f} x float32",
                "verified" if a.passed else "; ".join(a.verification.reasons),
            )
            for a in attempts
        ]
        + [(f.precision, "-", "-", str(f.error)) for f in failed],
    )
    print()


def show_finalists(finalists: Sequence[Finalist]) -> None:
    """The plans that were compared by the schedule of the chip's compiler."""
    common.print_table(
        "compared by the compiled schedule: estimated, not measured",
        ("precision", "a run takes", "outcome"),
        [(f.precision, f.ms, f.outcome) for f in finalists],
    )
    print()


def show_search(report: SearchReport) -> None:
    """What the search tried, and which nodes it keeps above the cheapest precision."""

    def measured(value: Measured | None) -> str:
        if value is None:
            return "not tried"
        return value.problem or f"{value.sqnr_db:.1f} dB"

    runs = report.evaluations
    common.print_table(
        f"searched for {report.floor}: {runs.estimated} plans estimated, {runs.emulated} emulated, {runs.real} on the EP, "
        f"{report.seconds:.0f} s",
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
    if report.note and report.stopped is None:
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
                    "-" if entry.gain.error_share is None else f"{100 * entry.gain.error_share:.0f} %",
                    f"{entry.nodes[0]} ({', '.join(entry.operators)})",
                )
                for entry in report.promoted
            ],
            limit=20,
        )
        print()
