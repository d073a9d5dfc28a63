"""What calibrating and quantizing costs, against the bare float32 inference of the same samples.

    python -m benchmarks.cost                    # a ResNet-50-like and a U-Net-like model, 16 samples
    python -m benchmarks.cost --samples 16 512   # does memory stay flat?
    python -m benchmarks.cost --ort              # onnxruntime's quantize_static beside it
    python -m benchmarks.cost --gigabytes 3      # a model beyond protobuf's 2 GB

Ratios are taken within one run: the machine may be busy, but it is as busy for both. Every measured step runs in a process
of its own, whose peak resident memory is read; for planner it is the sum of its two processes. Weights are seeded random
numbers: cost does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_MODELS = ("resnet", "unet")
_PIXELS = {"resnet": 224, "unet": 512}


class _Builder:
    """A convolutional model with seeded random weights, written node by node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        scale = (2.0 / max(1, int(np.prod(shape[1:])))) ** 0.5
        self.weights.append(
            numpy_helper.from_array(self.random.standard_normal(shape, np.float32) * np.float32(scale), name)
        )
        return name

    def add(self, op: str, inputs: list[str], **attributes: Any) -> str:
        out = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out], name=f"{op}_{len(self.nodes)}", **attributes))
        return out

    def conv(self, x: str, channels: int, out: int, kernel: int, stride: int = 1, *, relu: bool = True) -> str:
        pad = kernel // 2
        y = self.add(
            "Conv",
            [x, self.weight(out, channels, kernel, kernel), self.weight(out)],
            kernel_shape=[kernel] * 2,
            pads=[pad] * 4,
            strides=[stride] * 2,
        )
        return self.add("Relu", [y]) if relu else y

    def model(self, pixels: int, y: str, shape: list[int]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "benchmark",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, pixels, pixels])],
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, shape)],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def resnet(pixels: int) -> onnx.ModelProto:
    """As ResNet-50: bottleneck blocks 3, 4, 6, 3, about 25 million weights."""
    b = _Builder()
    x = b.conv("x", 3, 64, 7, 2)
    x = b.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for stage, count in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for i in range(count):
            stride = 2 if i == 0 and stage else 1
            y = b.conv(b.conv(x, channels, width, 1), width, width, 3, stride)
            y = b.conv(y, width, 4 * width, 1, relu=False)
            if i == 0:
                x = b.conv(x, channels, 4 * width, 1, stride, relu=False)
            channels = 4 * width
            x = b.add("Relu", [b.add("Add", [x, y])])
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x])])
    return b.model(pixels, b.add("Gemm", [x, b.weight(1000, channels), b.weight(1000)], transB=1), [1, 1000])


def unet(pixels: int) -> onnx.ModelProto:
    """As U-Net: four levels with skip connections, large activations."""
    b = _Builder()
    widths = (32, 64, 128, 256, 512)
    x, channels, skips = "x", 3, []
    for level, width in enumerate(widths):
        x = b.conv(b.conv(x, channels, width, 3), width, width, 3)
        channels = width
        if level < len(widths) - 1:
            skips.append((x, width))
            x = b.add("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    for skip, width in reversed(skips):
        x = b.add("ConvTranspose", [x, b.weight(channels, width, 2, 2), b.weight(width)], strides=[2, 2], kernel_shape=[2, 2])  # fmt: skip
        x = b.add("Concat", [skip, x], axis=1)
        x = b.conv(b.conv(x, 2 * width, width, 3), width, width, 3)
        channels = width
    return b.model(pixels, b.conv(x, channels, 1, 1, relu=False), [1, 1, pixels, pixels])


def samples(name: str, count: int) -> Iterator[dict[str, np.ndarray]]:
    """Seeded random pictures, made one by one."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        yield {"x": rng.standard_normal((1, 3, _PIXELS[name], _PIXELS[name]), np.float32)}


# -- the steps, each run in a process of its own -----------------------------------------------------------------------


def _bare(model: Path, name: str, count: int, _: str) -> None:
    import onnxruntime as ort

    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    for sample in samples(name, count):
        session.run(None, sample)


def _planner(model: Path, name: str, count: int, method: str) -> None:
    from planner.pipeline import Session, calibrate, parse_precision, quantize

    session = Session.open("qnn", "snapdragon-x-elite")
    read = session.read(model)
    plan = session.plan(read, session.check(read, parse_precision("w8a8")))

    class Streamed(list[Any]):
        def __len__(self) -> int:
            return count

        def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
            return samples(name, count)

    quantize(read, plan, calibrate(read, Streamed(), method=method), model.with_suffix(".planner.onnx"))


def _ort(model: Path, name: str, count: int, method: str) -> None:
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.samples = samples(name, count)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.samples, None)

    chosen = {
        "minmax": q.CalibrationMethod.MinMax,
        "percentile": q.CalibrationMethod.Percentile,
        "entropy": q.CalibrationMethod.Entropy,
    }
    q.quantize_static(str(model), str(model.with_suffix(".ort.onnx")), Reader(), calibrate_method=chosen[method])


_STEPS: dict[str, Callable[[Path, str, int, str], None]] = {"bare": _bare, "planner": _planner, "ort": _ort}


def measure(step: str, model: Path, name: str, count: int, method: str = "minmax") -> tuple[float, float]:
    """Processor seconds and peak resident megabytes of the step, its child processes' included.

    Processor time, not the clock's: another process on the machine slows the clock, and not evenly.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.cost", "--step", json.dumps([step, str(model), name, count, method])],
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(process, peak))
    watcher.start()
    _, errors = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{step} {name} failed:\n{errors[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak[0]


def _watch(process: subprocess.Popen[str], peak: list[float]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], sum(_resident(pid) for pid in _family(process.pid)))
        time.sleep(0.02)


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        threads = [t for t in Path(f"/proc/{pid}/task").iterdir() if t.name != str(pid)]
        for thread in threads:
            children += (thread / "children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(p for child in children for p in _family(int(child)))]


def _resident(pid: int) -> float:
    """Private and shared memory, without the pages of mapped files, which the system can drop at any time."""
    try:
        fields = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        return (int(fields["RssAnon"].split()[0]) + int(fields["RssShmem"].split()[0])) / 1024
    except (OSError, KeyError):
        return 0.0


def compare(models: list[str], counts: list[int], methods: list[str], *, with_ort: bool) -> None:
    """The table of ratios."""
    print("| model | samples | what | CPU s | / bare | peak MB | / bare |\n|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="cost-") as folder:
        for name in models:
            model = Path(folder) / f"{name}.onnx"
            onnx.save({"resnet": resnet, "unet": unet}[name](_PIXELS[name]), model)
            for count in counts:
                bare = measure("bare", model, name, count)
                print(f"| {name} | {count} | bare inference | {bare[0]:.1f} | 1.0 | {bare[1]:.0f} | 1.0 |", flush=True)
                steps = [("planner", method) for method in methods]
                if with_ort:
                    steps += [("ort", method) for method in methods if method in ("minmax", "percentile", "entropy")]
                for step, method in steps:
                    seconds, peak = measure(step, model, name, count, method)
                    print(
                        f"| {name} | {count} | {step} {method} | {seconds:.1f} | {seconds / bare[0]:.1f} | {peak:.0f} "
                        f"| {peak / bare[1]:.1f} |",
                        flush=True,
                    )


# -- beyond 2 GB -------------------------------------------------------------------------------------------------------


def big(gigabytes: float, folder: Path) -> Path:
    """A stack of matrix products whose weights (random, external) fill so many gigabytes; written one by one."""
    width, path = 4096, folder / "big.onnx"
    count = max(1, round(gigabytes * 1e9 / (width * width * 4)))
    rng = np.random.default_rng(0)
    tensors, nodes = [], []
    with (folder / "big.onnx.data").open("wb") as stream:
        for i in range(count):
            tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[width, width])
            tensor.data_location = TensorProto.EXTERNAL
            size = width * width * 4
            entries = {"location": "big.onnx.data", "offset": str(stream.tell()), "length": str(size)}
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=value)
            block = rng.standard_normal((width, width), np.float32) * np.float32(width**-0.5)
            stream.write(block.tobytes())
            tensors.append(tensor)
            nodes.append(
                helper.make_node("MatMul", [f"v{i}" if i else "x", f"w{i}"], [f"v{i + 1}"], name=f"MatMul_{i}")
            )
    graph = helper.make_graph(
        nodes,
        "big",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, width])],
        [helper.make_tensor_value_info(f"v{count}", TensorProto.FLOAT, [1, width])],
        tensors,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def _quantize_big(model: Path, _: str, count: int, precision: str) -> None:
    from planner.pipeline import Session, calibrate, parse_precision, quantize

    session = Session.open("qnn", "snapdragon-x-elite")
    read = session.read(model)
    plan = session.plan(read, session.check(read, parse_precision(precision)))
    rng = np.random.default_rng(2)
    data = [{"x": rng.standard_normal((1, 4096), np.float32)} for _ in range(count)]
    ranges = calibrate(read, data) if plan.is_quantized else {}
    quantize(read, plan, ranges, model.with_name("big.planned.onnx"))


_STEPS["big"] = _quantize_big


def beyond_protobuf(gigabytes: float) -> None:
    with tempfile.TemporaryDirectory(prefix="cost-") as folder:
        model = big(gigabytes, Path(folder))
        weights = (Path(folder) / "big.onnx.data").stat().st_size / 2**20
        print("| model | precision | CPU s | weights MB | peak MB | / weights |\n|---|---|---|---|---|---|", flush=True)
        for precision in ("w8a16", "fp16"):
            seconds, peak = measure("big", model, "", 2, precision)
            print(
                f"| {gigabytes:g} GB | {precision} | {seconds:.0f} | {weights:.0f} | {peak:.0f} | {peak / weights:.2f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[16])
    parser.add_argument("--methods", nargs="+", default=["minmax", "percentile", "entropy", "mse"])
    parser.add_argument("--ort", action="store_true", help="onnxruntime's quantize_static beside it")
    parser.add_argument("--gigabytes", type=float, help="only the model beyond 2 GB, of so many gigabytes")
    parser.add_argument("--models", nargs="+", default=list(_MODELS), choices=_MODELS)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        step, model, name, count, method = json.loads(args.step)
        _STEPS[step](Path(model), name, count, method)
    elif args.gigabytes:
        beyond_protobuf(args.gigabytes)
    else:
        compare(args.models, args.samples, args.methods, with_ort=args.ort)


if __name__ == "__main__":
    main()
