"""What a multiply-accumulate costs an EP that runs here, by precision, as a ratio to w8a8: the source of `cost` in a profile.

    python -m benchmarks.rates
    python -m benchmarks.rates --ep openvino --rounds 15

Three layers that are nothing but products (a 3x3 Conv, a MatMul of a batch, one of a single row, whose time is its weights'),
each at every precision that is legal, timed in turns with float32. A ratio is the median over the rounds of (time at the
precision / float32's in the same round), divided by that of w8a8: a busy machine slows both.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from planner.calibrate.inputs import load_inputs
from planner.calibrate.run import calibrate
from planner.dtypes import parse_precision
from planner.model.write import save
from planner.quantization.write import write_quantized
from planner.resolve.choose import check_model, make_plan
from planner.resolve.target import Target
from planner.runtime.client import Worker
from planner.verification.feed import cast_feed, input_dtypes, load

PRECISIONS = ("fp32", "w8a8", "w8a16", "w16a16", "fp16")
LAYERS: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {
    "Conv 3x3, 64 channels, 56x56": ("Conv", (1, 64, 56, 56), (64, 64, 3, 3)),
    "MatMul 256x512x512": ("MatMul", (1, 256, 512), (512, 512)),
    "MatMul 1x2048x2048": ("MatMul", (1, 2048), (2048, 2048)),
}


def layer(op_type: str, shape: tuple[int, ...], weight: tuple[int, ...], path: Path) -> Path:
    """A model of one node with random weights."""
    values = np.random.default_rng(0).normal(size=weight).astype(np.float32)
    attributes = {"pads": [1, 1, 1, 1]} if op_type == "Conv" else {}
    graph = helper.make_graph(
        [helper.make_node(op_type, ["x", "w"], ["y"], name="layer", **attributes)],
        "layer",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def ratios(target: Target, source: Path, folder: Path, rounds: int) -> dict[str, float | None]:
    """Time by precision, w8a8 = 1; None where it is illegal."""
    model = target.read(source)
    assert model.ir is not None
    inputs = load_inputs(None, model)
    ranges = calibrate(model, inputs.calibration)
    times: dict[str, list[float]] = {}
    files: dict[str, Path] = {}
    for name in PRECISIONS:
        resolution = check_model(target, model, parse_precision(name))
        if resolution.legal is False:
            continue
        files[name] = folder / f"{name}.onnx"
        if name == "fp32":
            save(model.ir, files[name])
        else:
            write_quantized(model, make_plan(target, model, resolution, inputs), ranges, files[name])
    workers = {name: Worker(target.ep) for name in files}
    try:
        for name, worker in workers.items():
            worker.open(files[name], target.options)
        feeds = {name: cast_feed(inputs.evaluation[0], input_dtypes(load(path))) for name, path in files.items()}
        for _ in range(rounds):
            for name, worker in workers.items():
                times.setdefault(name, []).append(statistics.median(worker.time(feeds[name], warmup=2, runs=5)))
    finally:
        for worker in workers.values():
            worker.close()
    relative = {
        name: statistics.median(t / f for t, f in zip(values, times["fp32"], strict=True))
        for name, values in times.items()
    }
    return {name: relative[name] / relative["w8a8"] if name in relative else None for name in PRECISIONS}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ep", default="cpu")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    target = Target.open(args.ep)
    print(f"| layer | {' | '.join(PRECISIONS)} |\n|---|{'---|' * len(PRECISIONS)}")
    for title, (op_type, shape, weight) in LAYERS.items():
        with tempfile.TemporaryDirectory(prefix="planner-") as folder:
            source = layer(op_type, shape, weight, Path(folder) / "layer.onnx")
            found = ratios(target, source, Path(folder), args.rounds)
        cells = ("-" if value is None else f"{value:.2f}" for value in found.values())
        print(f"| {title} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
