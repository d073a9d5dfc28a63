"""Quantizes the exported architectures at the precisions that they were measured at, for benchmarks/latency.py.

    python -m benchmarks.architectures FOLDER/float       # in an environment with torch
    python -m benchmarks.latency_models FOLDER --measurements FILE
    python -m benchmarks.latency collect FOLDER --measurements FILE
    python -m benchmarks.latency --write

By planner's own plans, but that nothing is avoided for a defect of the EP: Qualcomm's quantizer knows nothing of them, and
x * Sigmoid(x) was measured as the one operator that it is on the chip. Ranges come from two random samples, since a
schedule depends on shapes and types.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.architectures import ARCHITECTURES
from benchmarks.latency import read_measured
from planner.calibrate.run import calibrate
from planner.dtypes import parse_precision
from planner.model.write import save
from planner.quantization.walk import apply_plan
from planner.resolve.choose import make_plan, resolve
from planner.resolve.target import Target

_SAMPLES = 2
_TOKENS = 1000


def quantize(target: Target, source: Path, precision: str, written: Path) -> None:
    """Write the model at the precision."""
    model = target.read(source)
    plan = make_plan(target, model, resolve(target, model, parse_precision(precision)))
    written.parent.mkdir(exist_ok=True)
    save(apply_plan(model, plan, calibrate(model, _samples(source))).model, written)


def _samples(source: Path) -> list[Mapping[str, np.ndarray[Any, Any]]]:
    """Pictures and sounds in 0..1, tokens, and masks of ones."""
    graph, rng = onnx.load(source, load_external_data=False).graph, np.random.default_rng(0)
    constants = {tensor.name for tensor in graph.initializer}
    samples: list[Mapping[str, np.ndarray[Any, Any]]] = []
    for _ in range(_SAMPLES):
        sample: dict[str, np.ndarray[Any, Any]] = {}
        for value in graph.input:
            if value.name in constants:
                continue
            shape = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            if dtype.kind == "f":
                sample[value.name] = rng.random(shape).astype(dtype)
            else:
                sample[value.name] = rng.integers(1, 2 if "mask" in value.name else _TOKENS, shape).astype(dtype)
        samples.append(sample)
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--measurements", type=Path, required=True)
    args = parser.parse_args()
    target = Target.open("qnn", "snapdragon-x-elite").unaware()
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
