"""Other tools' quantizations beside planner's: the same model, the same samples, the same judge, which is QNN's simulator.

    python -m benchmarks.peers --python PEERS/bin/python                     (all models, floor 30)
    python -m benchmarks.peers rec det --floor 30 --tools planner nncf ort-w8a16 --python PEERS/bin/python

PEERS is an environment of its own: `pip install nncf aimet-onnx onnx onnxruntime`. Of a model's samples 16 are given to each tool, and
all others judge what comes out: the least dB of any output against float32, on the simulator with 8 of them, by emulation on the CPU EP
with all; the nodes that run on the NPU; the milliseconds that the compiler's schedule is estimated to take on a Snapdragon X Elite, "-" where
something is left to the CPU. Tools that search are asked for the floor. *seconds* are those of the whole tool: planner's hold its own runs on the simulator, of which the others make none.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import peer_tools
from benchmarks.common import Task, onnxruntime_qnn, prepared, task_of
from benchmarks.floor import DEVICE, pool
from planner.calibrate.inputs import Sample
from planner.dtypes import DType
from planner.errors import PlannerError
from planner.estimation.compile import read_compiled
from planner.estimation.latency import latency_model
from planner.resolve.target import Target
from planner.runtime.client import Worker
from planner.runtime.registry import CPU
from planner.verification.feed import AS_WRITTEN, as_written, cast_feed, input_dtypes, load
from planner.verification.fidelity import Comparison

MODELS = (
    "digits", "magika", "rec", "rec-v4", "det", "cls", "orientation", "silero-static", "minilm", "table-cls", "layout"
)  # fmt: skip
GIVEN, _SIMULATED = 16, 8
_ORT = {"ort-w8a8": DType.UINT8, "ort-w8a16": DType.UINT16}
TOOLS = ("planner", *_ORT, *peer_tools.TOOLS)
_LONGEST = 600.0


@dataclass(frozen=True)
class Judged:
    """What became of a file on the simulator.

    Attributes:
        db: least SQNR of any output. emulated_db: the same by emulation, on all samples. on_npu: nodes there of all.
        ms: estimated, None where something is left to the CPU.
    """

    db: float
    emulated_db: float
    on_npu: str
    ms: float | None


def judge(target: Target, path: Path, reference: Path, samples: Sequence[Sample]) -> Judged:
    """Run a file on the target and, as it is written, on the CPU EP; its float32 reference on the CPU EP."""
    real, emulated, proto = Comparison(), Comparison(), load(path)
    written, plain = input_dtypes(proto), input_dtypes(load(reference))
    with Worker(CPU) as cpu:
        cpu.open(reference, {})
        wanted = [cpu.run(cast_feed(sample, plain)).outputs for sample in samples]
    with Worker(target.ep) as worker, tempfile.TemporaryDirectory(prefix="planner-") as folder:
        opened = worker.open(path, target.options, schedule=Path(folder))
        compiled = read_compiled(target.ep, path, Path(folder), opened)
        for sample, outputs in zip(samples[:_SIMULATED], wanted, strict=False):
            real.add(outputs, worker.run(cast_feed(sample, written)).outputs)
    with as_written(path, proto) as file, Worker(CPU) as cpu:
        cpu.open(file, {}, session_config=AS_WRITTEN)
        for sample, outputs in zip(samples, wanted, strict=True):
            emulated.add(outputs, cpu.run(cast_feed(sample, written)).outputs)
    model = latency_model(target.ep)
    rates = None if model is None else model.of(target.options)
    interval = None if rates is None or compiled.elsewhere else rates.interval(compiled.schedule)
    there = sum(a.ep == target.ep for a in opened.assignment)
    least, least_emulated = (min(f.sqnr_db for f in c.results()) for c in (real, emulated))
    on_npu = f"{there}/{len(opened.assignment)}"
    return Judged(least, least_emulated, on_npu, None if interval is None else interval.mid)


def make(tool: str, task: Task, ready: Path, given: Path, samples: Sequence[Sample], floor: float, made: Args) -> None:
    """Let a tool write its model.

    Raises:
        PlannerError: it made none, and why.
    """
    if tool == "planner":
        shapes = [f"{name}={','.join(map(str, shape))}" for name, shape in task.shapes.items()]
        options = [word for shape in shapes for word in ("--shape", shape)]
        command = [sys.executable, "-m", "planner", "target", task.model, "--ep", "qnn", "--device", DEVICE, *options]
        command += ["--inputs", given, "--floor", str(floor), "-o", made.output, "--overwrite"]
        # A plan that falls short is written all the same, and judged here.
        _run(command, allowed=(0, 1))
    elif tool in _ORT:
        onnxruntime_qnn(task, made.output, samples, _ORT[tool])
    else:
        script = Path(peer_tools.__file__)
        _run([made.python, script, tool, ready, given, made.output, str(floor)])


@dataclass(frozen=True)
class Args:
    """Where a tool writes, and the interpreter of the other environment."""

    output: Path
    python: Path


def _run(command: Sequence[object], allowed: Sequence[int] = (0,)) -> None:
    try:
        done = subprocess.run([str(w) for w in command], capture_output=True, text=True, timeout=_LONGEST, check=False)
    except subprocess.TimeoutExpired:
        raise PlannerError(f"not done after {_LONGEST:.0f} s") from None
    if done.returncode not in allowed:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise PlannerError(f"exit status {done.returncode}: {said[-1].strip()}")


def compare(name: str, tools: Sequence[str], floor: float, python: Path, show: Callable[[str], None]) -> None:
    """A row of the Markdown table for each tool."""
    target, task = Target.open("qnn", DEVICE), task_of(name)
    samples = pool(name)
    order = np.random.default_rng(0).permutation(len(samples))
    mine = [samples[i] for i in order[:GIVEN]]
    others = [samples[i] for i in order[GIVEN:]]
    with prepared(task) as ready, tempfile.TemporaryDirectory(prefix="planner-") as folder:
        given = Path(folder) / "given.npz"
        np.savez(given, **{key: np.stack([s[key] for s in mine]) for key in mine[0]})  # type: ignore[arg-type]
        for tool in tools:
            output = Path(folder) / f"{tool}.onnx"
            started = time.monotonic()
            try:
                make(tool, task, ready, given, mine, floor, Args(output, python))
                seconds = time.monotonic() - started
                found = judge(target, output, ready, others)
            except Exception as error:  # another tool's; the table goes on
                why = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
                show(f"| {name} | {tool} | {time.monotonic() - started:.0f} | - | - | - | - | {why} |")
                continue
            size, ms = output.stat().st_size / 1e6, "-" if found.ms is None else f"{found.ms:.2f}"
            show(
                f"| {name} | {tool} | {seconds:.0f} | {found.db:.1f} | {found.emulated_db:.1f} | {found.on_npu} | {ms} | {size:.1f} MB |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, choices=[*MODELS, []], metavar="MODEL")
    parser.add_argument("--tools", nargs="*", default=TOOLS, choices=TOOLS, metavar="TOOL", help=", ".join(TOOLS))
    parser.add_argument("--floor", type=float, default=30.0)
    parser.add_argument(
        "--python", type=Path, default=Path(sys.executable), help="interpreter that has the other tools"
    )
    args = parser.parse_args()
    print("| model | tool | seconds | dB | dB, emulated | on NPU | estimated ms | file |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.models or MODELS:
        compare(name, args.tools, args.floor, args.python, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
