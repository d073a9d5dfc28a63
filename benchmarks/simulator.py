"""How much of `planner target --ep qnn` is the simulator's own work, for every model of examples/zoo.py.

    python -m benchmarks.simulator DIR                     (DIR as for benchmarks.zoo)
    python -m benchmarks.simulator DIR resnet18 bert

Each model runs in a process of its own, imports included, as the command does. *simulator*: seconds of all requests to QNN's
worker, its start included; two that run side by side count twice. *at work*: seconds in which at least one was under way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

DEVICE = "snapdragon-x-elite"


def measure(folder: Path, name: str) -> tuple[float, float, float]:
    """Seconds of one model's `target`, of the simulator's requests, and those in which it was at work."""
    started = time.monotonic()
    from planner.cli.deferred import defer_imports

    defer_imports()
    import planner
    from planner.runtime.client import Worker
    from planner.runtime.spare import reused

    ask, spans = Worker._ask, list[tuple[float, float]]()

    def timed(worker: Worker, *args: Any) -> Any:
        began = time.monotonic()
        try:
            return ask(worker, *args)
        finally:
            if worker.ep.startswith("QNN"):
                spans.append((began, time.monotonic()))

    setattr(Worker, "_ask", timed)  # noqa: B010 - a method may not be assigned to
    with tempfile.TemporaryDirectory() as out, reused():
        planner.target(
            folder / f"{name}.onnx", "qnn", Path(out) / "out.onnx", device=DEVICE, inputs=str(folder / f"{name}.npz")
        )
    return time.monotonic() - started, sum(ended - began for began, ended in spans), covered(spans)


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for began, ended in sorted(spans):
        total += max(0.0, ended - max(began, reached))
        reached = max(reached, ended)
    return total


def main(argv: Sequence[str] | None = None) -> int:
    """Print a row of Markdown for each model, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument("models", nargs="*", help="default: all in DIR")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(args.folder, args.models[0])))
        return 0
    print("| model | s | simulator s | at work s | s / simulator s |\n|---|---:|---:|---:|---:|")
    rows = []
    for name in args.models or sorted(path.stem for path in args.folder.glob("*.onnx")):
        command = [sys.executable, "-m", "benchmarks.simulator", str(args.folder), name, "--one"]
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
        if ended.returncode != 0:
            print(f"| {name} | {ended.stderr.strip().splitlines()[-1][:80]} | | | |")
            continue
        seconds, simulator, at_work = json.loads(ended.stdout)
        if simulator:  # else QNN has no such operators
            rows.append((seconds, simulator, at_work))
            print(
                f"| {name} | {seconds:.1f} | {simulator:.1f} | {at_work:.1f} | {seconds / simulator:.2f} |", flush=True
            )
    total, simulator, at_work = (sum(column) for column in zip(*rows, strict=True))
    median = statistics.median(row[0] / row[1] for row in rows)
    print(f"| {len(rows)} models | {total:.0f} | {simulator:.0f} | {at_work:.0f} | median {median:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
