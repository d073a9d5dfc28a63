"""What calibrating and quantizing costs, against the bare float32 inference of the same samples.

    python -m benchmarks.cost                        # a ResNet-50-like and a U-Net-like model, 16 samples
    python -m benchmarks.cost --samples 16 128 512   # does memory stay flat?
    python -m benchmarks.cost --models unet --pixels 1024 --samples 4
    python -m benchmarks.cost --ort                  # onnxruntime's quantize_static beside it
    python -m benchmarks.cost --alone                # calibrating by itself, without reading, planning and writing
    python -m benchmarks.cost --large 3              # a model of 3 GB, beyond protobuf's 2: plan and quantize

Ratios are taken within one run: the machine may be busy, but it is as busy for both. Every measured step runs in a process
of its own, whose memory is read 50 times a second; for planner it is the sum of its two processes. Weights are seeded random
numbers: cost does not depend on them.

Peak memory is what belongs to the processes alone. Pages of mapped files, which the system can drop at any time, are left
out of it; with the large model they stand beside it.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

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


def samples(pixels: int, count: int) -> Iterator[dict[str, np.ndarray]]:
    """Seeded random pictures, made one by one."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        yield {"x": rng.standard_normal((1, 3, pixels, pixels), np.float32)}


class _Streamed(list[Any]):
    """The pictures as a sequence, each made when it is read."""

    def __init__(self, pixels: int, count: int) -> None:
        super().__init__()
        self._pixels, self._count = pixels, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return samples(self._pixels, self._count)


# -- the steps, each run in a process of its own -----------------------------------------------------------------------


def _bare(model: Path, pixels: int, count: int, _: str) -> None:
    import onnxruntime as ort

    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    for sample in samples(pixels, count):
        session.run(None, sample)


def _planner(model: Path, pixels: int, count: int, method: str) -> None:
    from planner.calibrate.run import calibrate
    from planner.dtypes import parse_precision
    from planner.quantization.write import write_quantized
    from planner.resolve.choose import check_model, make_plan
    from planner.resolve.target import Target

    target = Target.open("qnn", "snapdragon-x-elite")
    read = target.read(model)
    plan = make_plan(target, read, check_model(target, read, parse_precision("w8a8")))

    ranges = calibrate(read, _Streamed(pixels, count), method=method)
    write_quantized(read, plan, ranges, model.with_suffix(".planner.onnx"))


def _ort(model: Path, pixels: int, count: int, method: str) -> None:
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.samples = samples(pixels, count)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.samples, None)

    chosen = {
        "minmax": q.CalibrationMethod.MinMax,
        "percentile": q.CalibrationMethod.Percentile,
        "entropy": q.CalibrationMethod.Entropy,
    }
    q.quantize_static(str(model), str(model.with_suffix(".ort.onnx")), Reader(), calibrate_method=chosen[method])


_STEPS: dict[str, Callable[[Path, int, int, str], None]] = {"bare": _bare, "planner": _planner, "ort": _ort}


class Cost(NamedTuple):
    """What a process took, its children included.

    Attributes:
        cpu, wall: seconds, the processors' and the clock's: another process on the machine slows the clock, and not evenly.
        peak: megabytes of memory of its own. resident: megabytes with the pages of mapped files.
    """

    cpu: float
    wall: float
    peak: float
    resident: float


def measure(command: list[str]) -> Cost:
    """Run a command to its end.

    Raises:
        SystemExit: it failed; with the end of what it said.
    """
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        peak = resident = 0.0
        while process.poll() is None:
            memory = [_memory(pid) for pid in _family(process.pid)]
            peak = max(peak, sum(own for own, _ in memory))
            resident = max(resident, sum(whole for _, whole in memory))
            time.sleep(0.02)
        wall = time.monotonic() - started
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{said.read()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall, peak, resident)


def _step(step: str, model: Path, pixels: int, count: int, method: str = "minmax") -> Cost:
    arguments = json.dumps([step, str(model), pixels, count, method])
    return measure([sys.executable, "-m", "benchmarks.cost", "--step", arguments])


def _family(pid: int) -> list[int]:
    children: list[str] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            children += (thread / "children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(p for child in children for p in _family(int(child)))]


def _memory(pid: int) -> tuple[float, float]:
    """Megabytes of the process's own memory, and of all that it has resident."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        fields = {name: text.split()[0] for name, _, text in (line.partition(":") for line in lines) if text.split()}
        own = int(fields["RssAnon"]) + int(fields["RssShmem"])
        return own / 1024, (own + int(fields["RssFile"])) / 1024
    except (OSError, KeyError):
        return 0.0, 0.0


def compare(models: list[str], counts: list[int], methods: list[str], pixels: int | None, *, with_ort: bool) -> None:
    """The table of ratios."""
    print(
        "| model | samples | what | CPU s | / bare | wall s | / bare | peak MB | / bare |\n"
        "|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="cost-") as folder:
        for name in models:
            side = pixels or _PIXELS[name]
            model = Path(folder) / f"{name}.onnx"
            onnx.save({"resnet": resnet, "unet": unet}[name](side), model)
            for count in counts:
                bare = _step("bare", model, side, count)
                steps = [("planner", method) for method in methods]
                if with_ort:
                    steps += [("ort", method) for method in methods if method in ("minmax", "percentile", "entropy")]
                _show(name, side, count, "bare inference", bare, bare)
                for step, method in steps:
                    _show(name, side, count, f"{step} {method}", _step(step, model, side, count, method), bare)


def alone(models: list[str], counts: list[int], methods: list[str], pixels: int | None) -> None:
    """The table of seconds of the call that calibrates, against a session and its runs, in one process; the better of two each."""
    from planner.calibrate.run import calibrate
    from planner.resolve.target import Target

    print("| model | samples | bare, s | method | calibrating, s | / bare |\n|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="cost-") as folder:
        for name in models:
            side = pixels or _PIXELS[name]
            model = Path(folder) / f"{name}.onnx"
            onnx.save({"resnet": resnet, "unet": unet}[name](side), model)
            read = Target.open("qnn", "snapdragon-x-elite").read(model)
            for count in counts:
                bare = _seconds(functools.partial(_bare, model, side, count, ""))
                for method in methods:
                    taken = _seconds(functools.partial(calibrate, read, _Streamed(side, count), method=method))
                    print(f"| {name}, {side} px | {count} | {bare:.1f} | {method} | {taken:.1f} | {taken / bare:.1f} |")


def _seconds(work: Callable[[], object]) -> float:
    found = []
    for _ in range(2):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def _show(name: str, pixels: int, count: int, what: str, cost: Cost, bare: Cost) -> None:
    print(
        f"| {name}, {pixels} px | {count} | {what} | {cost.cpu:.1f} | {cost.cpu / bare.cpu:.1f} | {cost.wall:.1f} "
        f"| {cost.wall / bare.wall:.1f} | {cost.peak:.0f} | {cost.peak / bare.peak:.2f} |",
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


# Target and precision of the large model's plans.
_LARGE = (("qnn", "w8a16"), ("cpu", "w8a8"), ("cpu", "w8a16"))


def large(gigabytes: float) -> None:
    """The commands `planner plan` and `planner quantize` on a model of so many gigabytes, two samples."""
    with tempfile.TemporaryDirectory(prefix="cost-") as name:
        folder = Path(name)
        model, inputs = big(gigabytes, folder), folder / "inputs.npz"
        np.savez(inputs, x=np.random.default_rng(2).standard_normal((2, 4096), np.float32))
        weights = (folder / "big.onnx.data").stat().st_size / 2**20
        print(
            f"model of {weights:.0f} MB\n"
            "| what | CPU s | wall s | peak MB | / weights | with mapped pages MB | / weights |\n|---|---|---|---|---|---|---|",
            flush=True,
        )

        def show(what: str, cost: Cost) -> None:
            print(
                f"| {what} | {cost.cpu:.0f} | {cost.wall:.0f} | {cost.peak:.0f} | {cost.peak / weights:.2f} "
                f"| {cost.resident:.0f} | {cost.resident / weights:.2f} |",
                flush=True,
            )

        show("bare inference", _step("large", model, 0, 2))
        for ep, precision in _LARGE:
            planner = [sys.executable, "-m", "planner"]
            plan, output = folder / "plan.json", folder / "planned" / "big.onnx"
            output.parent.mkdir()
            made = measure(
                [
                    *planner,
                    "plan",
                    str(model),
                    "--ep",
                    ep,
                    "--precision",
                    precision,
                    "--inputs",
                    str(inputs),
                    "-o",
                    str(plan),
                ]
            )
            show(f"plan, {ep} {precision}", made)
            show(
                f"quantize, {ep} {precision}",
                measure([*planner, "quantize", str(model), "--plan", str(plan), "--output", str(output)]),
            )
            for file in (plan, *output.parent.iterdir()):
                file.unlink()
            output.parent.rmdir()


def _bare_large(model: Path, _: int, count: int, __: str) -> None:
    import onnxruntime as ort

    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(2)
    for _ in range(count):
        session.run(None, {"x": rng.standard_normal((1, 4096), np.float32)})


_STEPS["large"] = _bare_large


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[16])
    parser.add_argument("--methods", nargs="+", default=["minmax", "average", "percentile", "entropy", "mse"])
    parser.add_argument("--ort", action="store_true", help="onnxruntime's quantize_static beside it")
    parser.add_argument("--alone", action="store_true", help="the seconds of calibrating by itself, in one process")
    parser.add_argument("--pixels", type=int, help="side of the pictures (224 for the ResNet, 512 for the U-Net)")
    parser.add_argument("--large", type=float, metavar="GB", help="only the large model, of so many gigabytes")
    parser.add_argument("--models", nargs="+", default=list(_MODELS), choices=_MODELS)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        step, model, pixels, count, method = json.loads(args.step)
        _STEPS[step](Path(model), pixels, count, method)
    elif args.large:
        large(args.large)
    elif args.alone:
        alone(args.models, args.samples, args.methods, args.pixels)
    else:
        compare(args.models, args.samples, args.methods, args.pixels, with_ort=args.ort)


if __name__ == "__main__":
    main()
