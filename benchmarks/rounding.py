"""What care about the weights' rounding gains on real data: SQNR and the task's own metric, with weights rounded one by one, with
their mean error taken off the biases as well, and with their rounding learned as well.

    python -m benchmarks.rounding
    python -m benchmarks.rounding --models rec,orientation --precisions w8a16

Models run as QDQ on the CPU EP, computed as the file says (emulation). SQNR is that of the worst output on 24 samples held apart
from calibration, the metric that of the first labelled samples.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.common import TASKS, score_on_cpu
from planner.calibrate.inputs import Sample, load_inputs
from planner.calibrate.run import calibrate
from planner.dtypes import parse_precision
from planner.model.write import save
from planner.quantization.walk import LEARNS
from planner.quantization.write import learned_rounding, write_quantized
from planner.resolve.choose import make_plan, resolve
from planner.resolve.target import Target
from planner.runtime.client import Worker
from planner.runtime.registry import CPU
from planner.verification.feed import AS_WRITTEN, cast_feed, input_dtypes, load
from planner.verification.fidelity import Comparison

SAMPLES = 24


def sqnr(reference: Path, candidate: Path, samples: list[Sample]) -> float:
    comparison = Comparison()
    with Worker(CPU) as one, Worker(CPU) as other:
        one.open(reference, {})
        other.open(candidate, {}, session_config=AS_WRITTEN)
        feeds = [input_dtypes(load(path)) for path in (reference, candidate)]
        for sample in samples:
            comparison.add(one.run(cast_feed(sample, feeds[0])).outputs, other.run(cast_feed(sample, feeds[1])).outputs)
    return min(f.sqnr_db for f in comparison.results())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="digits,magika,rec,silero-static,orientation,cls")
    parser.add_argument("--precisions", default="w8a8,w8a16,w4a16")
    parser.add_argument("--limit", type=int, default=60, help="labelled samples of the metric (default: 60)")
    args = parser.parse_args()
    print(
        "| model | precision | float32 | one by one | biases corrected | learned as well |\n| --- | --- | ---: | ---: | ---: | ---: |"
    )
    for name in args.models.split(","):
        task, target = TASKS[name], Target.open("cpu")
        model = target.read(task.model, task.shapes)
        inputs = load_inputs(task.inputs, model)
        ranges = calibrate(model, inputs.calibration)
        with tempfile.TemporaryDirectory(prefix="planner-") as folder:
            reference, candidate = Path(folder) / "reference.onnx", Path(folder) / "candidate.onnx"
            assert model.ir is not None
            save(model.ir, reference)
            float32 = score_on_cpu(task, reference, slice(args.limit))
            for precision in args.precisions.split(","):
                plan = make_plan(target, model, resolve(target, model, parse_precision(precision)))
                taught = learned_rounding(replace(plan, inputs={LEARNS: True}), model, inputs.calibration, Path(folder))
                cells = []
                plain = {name: replace(seen, means=None) for name, seen in ranges.items()}
                for seen, rounding in ((plain, None), (ranges, None), (ranges, taught)):
                    write_quantized(model, plan, seen, candidate, rounding)
                    decibels = sqnr(reference, candidate, list(inputs.evaluation)[:SAMPLES])
                    score = score_on_cpu(task, candidate, slice(args.limit))
                    cells.append(f"{decibels:.1f} dB, {100 * score:.1f} %")
                print(f"| {name} | {precision} | {100 * float32:.1f} % | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
