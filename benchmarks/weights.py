"""Weights in blocks and dynamic int8 on the CPU EP, beside onnxruntime's own tools: accuracy, size and speed in one run.

    python -m benchmarks.weights --models minilm,rec,magika

onnxruntime's rows: MatMulNBitsQuantizer with blocks of 32, asymmetric, MatMul and Gather, accuracy level 4, and
quantize_dynamic, per channel, both on the model with its shapes fixed and after quant_pre_process. SQNR is that of the worst
output on the samples held apart; the speed-up is over float32, timed in turns in the same minute; the metric is taken over
all labelled samples.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.common import TASKS, Task
from planner.calibrate.inputs import Sample, load_inputs
from planner.calibrate.run import calibrate
from planner.dtypes import parse_precision
from planner.model.shapes import bind_shapes
from planner.model.write import save
from planner.quantization.write import Artifact, write_quantized
from planner.resolve.choose import make_plan, resolve
from planner.resolve.target import Target
from planner.runtime.client import Worker
from planner.runtime.latency import measure_latency
from planner.runtime.registry import CPU
from planner.verification.feed import cast_feed, input_dtypes, load
from planner.verification.fidelity import Comparison

PRECISIONS = ("fp32", "w4", "w8", "w8a8-dynamic", "w8a8")
Make = Callable[[Path], None]


def ours(task: Task) -> Iterator[tuple[str, Make]]:
    """planner's models by precision; only w8a8 is calibrated."""
    target = Target.open("cpu")
    model = target.read(task.model, task.shapes)
    for name in PRECISIONS:

        def make(path: Path, name: str = name) -> None:
            plan = make_plan(target, model, resolve(target, model, parse_precision(name)))
            ranges = calibrate(model, load_inputs(task.inputs, model).calibration) if plan.is_quantized else {}
            write_quantized(model, plan, ranges, path)

        yield f"planner {name}", make


def onnxruntime_tools(task: Task, folder: Path) -> Iterator[tuple[str, Make]]:
    """onnxruntime's own quantizers for the same ends."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
    from onnxruntime.quantization.quant_utils import QuantFormat
    from onnxruntime.quantization.shape_inference import quant_pre_process

    fixed, ready = folder / "fixed.onnx", folder / "ready.onnx"
    model = load(task.model)
    bind_shapes(model, task.shapes)
    save(model, fixed)
    quant_pre_process(str(fixed), str(ready), skip_symbolic_shape=True)

    def blocks(path: Path, bits: int, kinds: tuple[str, ...]) -> None:
        import onnx

        config = DefaultWeightOnlyQuantConfig(
            block_size=32, is_symmetric=False, accuracy_level=4, bits=bits, quant_format=QuantFormat.QOperator,
            op_types_to_quantize=kinds,
        )  # fmt: skip
        quantizer = MatMulNBitsQuantizer(onnx.load(str(ready)), algo_config=config)
        quantizer.process()
        quantizer.model.save_model_to_file(str(path))

    def dynamic(path: Path) -> None:
        quantize_dynamic(str(ready), str(path), per_channel=True, weight_type=QuantType.QInt8)

    def dynamic_matmul(path: Path) -> None:
        kinds = ["MatMul", "Gemm", "Gather"]
        quantize_dynamic(
            str(ready), str(path), per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=kinds
        )

    yield "onnxruntime 4-bit blocks", lambda path: blocks(path, 4, ("MatMul", "Gather"))
    yield "onnxruntime 8-bit blocks", lambda path: blocks(path, 8, ("MatMul", "Gather"))
    yield "onnxruntime 4-bit blocks, MatMul alone", lambda path: blocks(path, 4, ("MatMul",))
    yield "onnxruntime 8-bit blocks, MatMul alone", lambda path: blocks(path, 8, ("MatMul",))
    yield "onnxruntime dynamic", dynamic
    yield "onnxruntime dynamic, no Conv", dynamic_matmul


def sqnr(reference: Path, candidate: Path, samples: list[Sample]) -> float:
    """Of the worst output, in dB, as users run both."""
    comparison = Comparison()
    with Worker(CPU) as one, Worker(CPU) as other:
        for worker, path in ((one, reference), (other, candidate)):
            worker.open(path, {})
        feeds = [input_dtypes(load(path)) for path in (reference, candidate)]
        for sample in samples:
            comparison.add(one.run(cast_feed(sample, feeds[0])).outputs, other.run(cast_feed(sample, feeds[1])).outputs)
    return min(f.sqnr_db for f in comparison.results())


def metric(task: Task, path: Path, limit: int | None) -> float:
    dtypes = input_dtypes(load(path))
    with Worker(CPU) as worker:
        worker.open(path, {})
        return task.score(lambda sample: worker.run(cast_feed(sample, dtypes)).outputs, slice(limit))


def main() -> None:
    logging.disable(logging.WARNING)  # onnxruntime's tools tell of every node
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="minilm,rec,magika")
    parser.add_argument("--limit", type=int, help="labelled samples of the metric; default: all")
    args = parser.parse_args()
    for name in args.models.split(","):
        task = TASKS[name]
        with tempfile.TemporaryDirectory(prefix="planner-") as folder:
            target = Target.open("cpu")
            model = target.read(task.model, task.shapes)
            samples = list(load_inputs(task.inputs, model).evaluation)
            print(f"\n{name}: {task.model.stat().st_size:,} bytes\n")
            print(f"| | bytes | SQNR, dB | {task.metric} | speed-up |\n| --- | ---: | ---: | ---: | ---: |")
            rows = (*ours(task), *onnxruntime_tools(task, Path(folder)))
            reference: Path | None = None
            for label, make in rows:
                path = Path(folder) / f"{len(list(Path(folder).iterdir()))}.onnx"
                try:
                    make(path)
                    reference = reference or path
                    decibels, score = sqnr(reference, path, samples), metric(task, path, args.limit)
                    speed = measure_latency((reference, samples[0]), (path, samples[0]), CPU, {}).speedup
                    print(
                        f"| {label} | {Artifact.of(path).bytes:,} | {decibels:.1f} | {100 * score:.1f} % | {speed:.2f} |",
                        flush=True,
                    )
                except Exception as error:  # a tool that fails on a model is a result, too
                    reason = str(error).strip().splitlines()[0][:90] if str(error).strip() else ""
                    print(f"| {label} | {json.dumps(f'{type(error).__name__}: {reason}')} | | | |", flush=True)


if __name__ == "__main__":
    main()
