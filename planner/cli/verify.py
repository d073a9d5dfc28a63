"""`planner verify`: run a candidate and its reference, and compare."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from planner.cli import check, common

if TYPE_CHECKING:
    from planner.verification.divergence import Parting

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
    common.add_model_arguments(parser, "candidate")
    parser.add_argument(
        "--reference",
        metavar="MODEL",
        type=Path,
        required=True,
        help="the float32 model that the candidate was made from",
    )
    common.add_target_arguments(parser)
    common.add_inputs_arguments(parser)
    common.add_floor_argument(parser)
    parser.add_argument(
        "--bisect",
        action="store_true",
        help="show the inner tensors at which the EP's run leaves the reference, ranked, on the worst sample",
    )
    common.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from planner.calibrate.inputs import load_inputs
    from planner.model.write import save
    from planner.resolve.choose import check_model
    from planner.verification.floor import DEFAULT_FLOOR
    from planner.verification.verify import verify

    target = common.target(args)
    candidate = target.read(args.candidate, stored=True)
    predicted = {
        name: verdict.ruling.legal
        for verdict in check_model(target, candidate, None, stored=True).verdicts
        if verdict.ruling.legal is not None
        for name in (verdict.node.name, *verdict.node.origins)
    }
    del candidate
    model = target.read(args.reference, common.shapes(args))
    assert model.ir is not None
    inputs = load_inputs(args.inputs, model, seed=args.seed)
    common.warn_of_inputs(inputs)
    samples = (
        inputs.evaluation if inputs.synthetic or not inputs.held_apart else (*inputs.calibration, *inputs.evaluation)
    )
    with tempfile.TemporaryDirectory(prefix="planner-") as folder, common.progress() as progress:
        normalized = Path(folder) / "reference.onnx"
        save(model.ir, normalized)
        verification = verify(
            args.candidate,
            args.reference,
            target.identity,
            samples,
            floor=common.floor(args) or DEFAULT_FLOOR,
            normalized=normalized,
            allow_fallback=args.allow_fallback,
            predicted=predicted,
            bisect=args.bisect,
            progress=lambda done, total: progress(f"running on {target.ep}", done, total),
        )
    if args.json:
        common.print_json(
            "planner/verify/1",
            {
                "model": check.model_json(model),
                "target": target.identity.to_json(),
                "verification": verification.to_json(),
                "passed": verification.passed,
                "inputs": inputs.to_json(),
            },
        )
    else:
        common.show_verification(verification)
        if args.bisect and verification.parting is not None:
            show_parting(verification.parting)
    common.conclude_verification(verification)
    return common.YES if verification.passed else common.NO


def show_parting(parting: Parting) -> None:
    """The suspects, worst first."""
    print()
    ranked = parting.ranked()
    common.print_table(
        f"where {parting.ran_on} leaves the reference, worst first: {len(ranked)} of {len(parting.tensors)} tensors fall",
        ("tensor", "operator", "node", "SQNR", "fall", "stored as", "float32 range"),
        [
            (
                part.tensor,
                part.op_type,
                part.node,
                f"{part.sqnr_db:.1f} dB" if part.finite else "NaN or infinite",
                f"{part.drop_db:.1f} dB",
                part.precision,
                "-" if part.low is None else f"{part.low:.4g} .. {part.high:.4g}",
            )
            for part in ranked
        ],
        limit=20,
    )
    common.say(f"planner: where the two part: {parting.sentence()}")
