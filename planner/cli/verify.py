"""`planner verify`: run a candidate and its reference, and compare."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from planner.cli import arguments, common

if TYPE_CHECKING:
    from planner.estimation.estimate import Estimate
    from planner.verification.divergence import Divergence
    from planner.verification.verify import Verification

HELP = "run a candidate and its float32 reference on the target, and compare placement and outputs"
EPILOG = """\
examples:
  planner verify model.qnn.onnx --reference model.onnx --ep qnn --device snapdragon-x-elite --inputs data.npz
  planner verify model.fp16.onnx --reference model.onnx --ep directml --json
  planner verify model.qnn.onnx --reference model.onnx --ep qnn --inputs data.npz --bisect

Every sample is used to judge. Where the EP cannot run on this machine the CPU EP emulates it, and the result says so.
exit status: 0 verified, 1 not, 2 wrong request, 3 the EP failed
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    arguments.add_model_arguments(parser, "candidate")
    parser.add_argument(
        "--reference",
        metavar="MODEL",
        type=Path,
        required=True,
        help="the float32 model that the candidate was made from",
    )
    arguments.add_target_arguments(parser)
    arguments.add_inputs_arguments(parser)
    arguments.add_floor_argument(parser)
    parser.add_argument(
        "--bisect",
        action="store_true",
        help="show the inner tensors at which the EP's run leaves the reference, ranked, on the worst sample",
    )
    arguments.add_estimate_argument(parser)
    arguments.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    from planner import api

    with common.progress() as progress:
        result = api.verify(
            args.candidate,
            args.reference,
            args.ep,
            device=args.device,
            shapes=arguments.shapes(args),
            inputs=arguments.source(args),
            floor=arguments.floor(args),
            allow_fallback=args.allow_fallback,
            bisect=args.bisect,
            estimated=not args.no_estimate,
            profiles=args.profile,
            evidence=args.evidence,
            progress=progress,
        )
    if args.json:
        common.print_document(result.to_json())
    else:
        show(result.verification)
        if args.bisect and result.verification.divergence is not None:
            show_divergence(result.verification.divergence)
    conclude(result.verification)
    return common.YES if result.passed else common.NO


def show(verification: Verification) -> None:
    """What ran where, the placement, and a line for each output."""
    kind = {
        "hardware": "on the hardware",
        "software": "on a software GPU",
        "simulator": "on the EP's own simulator",
        "emulation": "EMULATED by the CPU EP",
    }[verification.kind]
    packages = ", ".join(f"{k} {v}" for k, v in verification.runtime.items())
    place = verification.placement
    placed = (
        "placement unknown (emulation)"
        if place.on_target is None
        else f"{place.on_target} of {place.total} nodes on the EP{f' by {place.by}' if verification.kind == 'emulation' else ''}"
    )
    ran = f"{verification.samples} {'sample' if verification.samples == 1 else 'samples'}"
    causes = {c.output: c for c in verification.causes}

    def db(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f} dB"

    common.print_table(
        f"{'verified' if verification.passed else 'NOT VERIFIED'}: ran {kind} ({packages}); {placed}; {ran}",
        (
            "output",
            "SQNR",
            "at least (90 %)",
            "worst sample",
            "by quantizing",
            "by the EP",
            "cosine",
            "largest error",
            "top-1",
        ),
        [
            (
                f.output,
                db(f.sqnr_db),
                db(f.low_db),
                db(f.worst_sample_db),
                db(causes[f.output].quantizing if f.output in causes else None),
                db(causes[f.output].ep if f.output in causes else None),
                "-" if f.cosine is None else f"{f.cosine:.6f}",
                "-" if f.max_abs_error is None else f"{f.max_abs_error:.3g}",
                "-" if f.top1_agreement is None else f"{100 * f.top1_agreement:.1f} %",
            )
            for f in verification.fidelity
        ],
    )
    if verification.emulated:
        print()
        common.print_table(
            f"by emulation on all {verification.emulated[0].samples} samples, the hardest of which ran on the EP as well",
            ("output", "SQNR", "at least (90 %)", "worst sample"),
            [(f.output, db(f.sqnr_db), db(f.low_db), db(f.worst_sample_db)) for f in verification.emulated],
        )
    parts = [(f.output, part) for f in verification.fidelity for part in sorted(f.parts, key=lambda p: p.sqnr_db)]
    if parts:
        print()
        common.print_table(
            "parts of outputs that join several tensors, the weakest first: it counts for the floor",
            ("output", "part", "SQNR"),
            [(output, part.name, db(part.sqnr_db)) for output, part in parts],
            limit=20,
        )
    if verification.metric is not None:
        metric = verification.metric
        print(common.printable(f"{metric.name}: {metric.value:g} (float32: {metric.reference:g})"))
    if verification.estimate is not None:
        show_estimate(verification.estimate)
    if place.fallback:
        print()
        common.print_table(
            f"not on the EP: {len(place.fallback)}",
            ("node", "operator", "the EP's reason"),
            [(f.name, f.op_type, f.reason) for f in place.fallback],
            limit=20,
        )


def show_estimate(estimate: Estimate) -> None:
    """One line, and what it rests on."""
    print(common.printable(estimate.sentence()))
    if estimate.ms is not None:
        print(common.printable(f"  {estimate.evidence}"))


def conclude(verification: Verification) -> None:
    """The reasons on stderr, where it did not pass."""
    for note in verification.notes:
        common.say(f"planner: note: {note}")
    if verification.contradictions:
        first = verification.contradictions[0]
        common.say(
            f"planner: the EP contradicts the profile at {len(verification.contradictions)} nodes; first {first.op_type} "
            f"{first.name!r}: {first.sentence()}\n"
            "  let planner learn it: `planner probe --from-model` this model, then give the file to --evidence"
        )
    for reason in verification.reasons[:5]:
        common.say(f"planner: not verified: {reason}")


def show_divergence(divergence: Divergence) -> None:
    """The suspects, worst first."""
    print()
    ranked = divergence.suspects()
    common.print_table(
        f"where {divergence.ran_on} leaves the reference, worst first: {len(ranked)} of {len(divergence.tensors)} tensors fall",
        ("tensor", "operator", "node", "SQNR", "fall", "stored as", "float32 range"),
        [
            (
                part.tensor,
                part.op_type,
                part.node,
                f"{part.sqnr_db:.1f} dB" if part.finite else "NaN or infinite",
                f"{part.drop_db:.1f} dB",
                part.precision,
                "-" if part.reference_range is None else "{:.4g} .. {:.4g}".format(*part.reference_range),
            )
            for part in ranked
        ],
        limit=20,
    )
    common.say(f"planner: where the two part: {divergence.sentence()}")
