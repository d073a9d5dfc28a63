"""Holds two things that planner builds on to the published measurements. No compiler is needed.

python -m benchmarks.latency_choices pairs
    would choosing w8a16 or float by the compiled schedule have been right? Each model is predicted by rates that saw no model
    of its family; beside it the assumption that w8a16 is always faster.
python -m benchmarks.latency_choices runtimes --measurements FILE
    how far a quantized model's milliseconds in onnxruntime are off, when they are taken from Qualcomm's own runtime
    (`benchmarks.latency.Runtimes`)
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.latency import DEVICES, SCHEDULES, Row, Rows, Runtimes, device, read_measured
from planner.codec import from_json
from planner.search.finalists import LEAST_GAIN


def pairs(rows: Sequence[Row], *, details: bool) -> None:
    """For each device: how often each rule picks the precision that was measured faster, and what it costs where it does not."""
    print("| device | models | rule | measured faster picked | time over the better one's, mean |")
    print("|---|---|---|---|---|")
    for name in DEVICES:
        found = device(rows, name)
        if found is None:
            continue
        of = {
            (r.model, r.precision): (m, p) for r, m, p in zip(found.rows, found.measured, found.predicted, strict=True)
        }
        both = [
            (of[m, "w8a16"], of[m, "float"], m) for m, precision in of if precision == "w8a16" and (m, "float") in of
        ]
        if not both:
            continue
        by_schedule = [float_[1] <= LEAST_GAIN * quantized[1] for quantized, float_, _ in both]
        for rule, picks in (("w8a16 always", [False] * len(both)), ("the schedule", by_schedule)):
            taken = np.array([f[0] if pick else q[0] for pick, (q, f, _) in zip(picks, both, strict=True)])
            best = np.array([min(q[0], f[0]) for q, f, _ in both])
            print(f"| {name} | {len(both)} | {rule} | {(taken == best).sum()} | {(taken / best - 1).mean():.1%} |")
        for (measured_q, predicted_q), (measured_f, predicted_f), model in both if details else []:
            print(
                f"  {model}: float over w8a16 measured {measured_f / measured_q:.2f}, predicted {predicted_f / predicted_q:.2f}"
            )


def runtimes(path: Path) -> None:
    """The error of the conversion, on quantized models that were measured in both runtimes; the factor of each saw it not."""
    measured = read_measured(path)
    converting = Runtimes(measured)
    print("| device | precision | models | median error | plain figure of the other runtime |")
    print("|---|---|---|---|---|")
    for name, published in DEVICES.items():
        for precision in ("w8a8", "w8a16"):
            missing = converting.missing(published, precision)
            if len(missing) < 2:
                continue
            left = np.array(list(missing.values()))
            factors = np.array([np.median(np.delete(left, i)) for i in range(len(left))])
            plain = np.array([measured["qnn_dlc", *key, precision][published] for key in missing])
            ours = np.array([measured["onnx", *key, precision][published] for key in missing])
            converted, alone = np.median(np.abs(factors / left - 1)), np.median(np.abs(plain / ours - 1))
            print(f"| {name} | {precision} | {len(left)} | {converted:.1%} | {alone:.1%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pairs", "runtimes"))
    parser.add_argument("--measurements", type=Path)
    parser.add_argument("--details", action="store_true", help="each model")
    args = parser.parse_args()
    if args.what == "runtimes":
        if args.measurements is None:
            parser.error("runtimes needs --measurements")
        runtimes(args.measurements)
        return
    pairs(from_json(Rows, json.loads(SCHEDULES.read_text(encoding="utf-8"))).rows, details=args.details)


if __name__ == "__main__":
    main()
