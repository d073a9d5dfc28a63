"""Quantizes the exported architectures at the precisions that they were measured at, for benchmarks/latency.py.

    python -m benchmarks.architectures FOLDER/float       # in an environment with torch
    python -m benchmarks.latency_models FOLDER --measurements FILE
    python -m benchmarks.latency collect FOLDER --measurements FILE
    python -m benchmarks.latency --write

By planner's own plans, but that nothing is avoided for a defect of the EP: Qualcomm's quantizer knows nothing of them, and
x * Sigmoid(x) was measured as the one operator that it is on the chip. Only the second factor of a product is int16, as there
(AIMET's rules for the HTP ask for a symmetric one). Inputs and outputs are integers, as those that were measured have them
(`--quantize_io` in every compile job). Ranges come from one synthetic sample, since
a schedule depends on shapes and types.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import onnx_ir as ir

from benchmarks.architectures import ARCHITECTURES
from benchmarks.latency import read_measured
from planner.calibrate.inputs import load_inputs
from planner.calibrate.run import calibrate
from planner.dtypes import parse_precision
from planner.model.write import save
from planner.quantization.walk import apply_plan
from planner.resolve.choose import make_plan, resolve
from planner.resolve.target import Target


def with_integers_outside(model: ir.Model) -> ir.Model:
    """The model, taking and giving the integers that it computes with: the Q behind an input and the DQ before an output are gone."""
    graph = model.graph
    for place, value in enumerate(graph.inputs):
        users = [use.node for use in value.uses()]
        if users and all(node.op_type == "QuantizeLinear" for node in users):
            first = users[0].outputs[0]
            taken = ir.Value(name=value.name, shape=value.shape, type=first.type)
            for node in users:
                ir.convenience.replace_all_uses_with(node.outputs[0], taken)
            graph.remove(users, safe=True)
            graph.inputs[place] = taken
    for place, value in enumerate(graph.outputs):
        maker = value.producer()
        if maker is not None and maker.op_type == "DequantizeLinear" and maker.inputs[0] is not None:
            graph.outputs[place] = maker.inputs[0]
    return model


def quantize(target: Target, source: Path, precision: str, written: Path) -> None:
    """Write the model at the precision."""
    model = target.read(source)
    plan = make_plan(target, model, resolve(target, model, parse_precision(precision)))
    written.parent.mkdir(exist_ok=True)
    samples = load_inputs(None, model, seed=0).calibration[:1]
    save(with_integers_outside(apply_plan(model, plan, calibrate(model, samples)).model), written)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--measurements", type=Path, required=True)
    args = parser.parse_args()
    target = Target.open("qnn", "snapdragon-x-elite").unaware(but=("product-uint16",))
    measured = read_measured(args.measurements)
    for architecture in ARCHITECTURES:
        for precision in ("w8a8", "w8a16"):
            key = (architecture.model, architecture.component, precision)
            source, written = (args.folder / p / f"{architecture.name}.onnx" for p in ("float", precision))
            if written.exists() or not source.exists():
                continue
            if any(measured.get((runtime, *key)) for runtime in ("onnx", "qnn_dlc")):
                started = time.perf_counter()
                quantize(target, source, precision, written)
                print(f"{architecture.name} {precision}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
