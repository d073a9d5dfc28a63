"""What a sweep costs beside its cells: on local processes, on a Dask cluster whose worker is killed, a second time; and, by
simulation, how Dask bears 100,000 cells.

    python -m benchmarks.sweep grid --work DIR [--models 40] [--workers 2] [--run]
    python -m benchmarks.sweep simulate --times DIR/times.json [--cells 100000] [--workers 100] [--speed 1]

``grid`` makes small models (chains of exporters' blocks), sweeps them over six targets at four precisions (with ``--run`` also
quantized and run), and compares the results of both ways, times and memory aside, byte by byte. ``simulate`` hands tasks that only
wait, as long as recorded cells took, divided by ``--speed``, to a scheduler in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import psutil
import yaml

import planner
from benchmarks.check import chain
from planner.files import write_text
from planner.reporting import Row
from planner.sweeps.cluster import as_they_come
from planner.sweeps.grid import cells_of
from planner.sweeps.spec import read_spec
from planner.sweeps.sweep import SweepResult

TARGETS = ("cpu", "directml", "openvino", "qnn", "coreml", "cuda")
PRECISIONS = ("fp32", "fp16", "w8a8", "w8a16")
_TIMED = ("seconds", "peak_rss_mb", "latency_ms", "speedup")


def make_models(folder: Path, count: int, nodes: int) -> None:
    """Chains of different lengths, so that no two are one file."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        onnx.save(chain(nodes + i), folder / f"chain{i:02}.onnx")


def comparable(result: SweepResult) -> bytes:
    """The rows as JSON without what a clock or the memory of a process says."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items() if key not in _TIMED}
        return [plain(item) for item in value] if isinstance(value, list) else value

    return json.dumps([plain(cell) for cell in result.to_json()["cells"]], sort_keys=True).encode()


def overhead(result: SweepResult, workers: int) -> float:
    """The share of the workers' time that went into no cell."""
    return 1 - sum(result.cell_seconds) / (result.seconds * workers)


@contextlib.contextmanager
def cluster(workers: int, folder: Path) -> Iterator[str]:
    """A scheduler and workers as docs/scale.md starts them; the scheduler's address, once the workers are there."""
    from distributed import Client

    ready = folder / "scheduler.json"
    ready.unlink(missing_ok=True)
    run = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    work = [sys.executable, "-m", "distributed.cli.dask_worker"]
    log = (folder / "dask.log").open("w")
    started = [
        subprocess.Popen(
            [*run, "--scheduler-file", str(ready), "--port", "0", "--no-dashboard"], stderr=log, stdout=log
        )
    ]
    try:
        while not ready.is_file():
            time.sleep(0.2)
        started += [
            subprocess.Popen(
                [*work, "--scheduler-file", str(ready), "--nthreads", "1", "--no-dashboard"], stderr=log, stdout=log
            )
            for _ in range(workers)
        ]
        address = json.loads(ready.read_text())["address"]
        if workers:
            with Client(address) as client:  # type: ignore[no-untyped-call]
                client.wait_for_workers(workers, timeout=120)  # type: ignore[no-untyped-call]
        yield address
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


def worker_processes() -> list[psutil.Process]:
    """The processes in which Dask's workers compute: children of the nannies that this process started."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "from multiprocessing" in " ".join(child.cmdline()) and child.children():
                found.append(child)
    return found


def grid(args: argparse.Namespace) -> None:
    """Both ways, a killed worker, and the second run."""
    folder: Path = args.work
    make_models(folder / "models", args.models, args.nodes)
    spec = folder / "sweep.yaml"
    targets = [{"ep": ep} for ep in TARGETS[: args.targets]]
    text = {"models": [{"path": "models/*.onnx"}], "targets": targets, "precisions": list(PRECISIONS)}
    write_text(spec, yaml.safe_dump({**text, "options": {"run": args.run}}))
    started = time.monotonic()
    local = planner.sweep(spec, folder / "local", workers=args.workers, formats=["json"])
    first = time.monotonic() - started
    cells = list((folder / "local" / "cells").iterdir())
    sizes = {
        "task_bytes": len(pickle.dumps(cells_of(*read_spec(spec))[0])),
        "row_bytes": sum(cell.stat().st_size for cell in cells) // len(cells),
    }
    write_text(folder / "times.json", json.dumps({"seconds": local.cell_seconds, **sizes}))
    started = time.monotonic()
    again = planner.sweep(spec, folder / "local", workers=args.workers, formats=["json"])
    second = time.monotonic() - started
    killed: list[int] = []

    def kill_one(row: Row, done: int, total: int) -> None:
        if not killed and done >= total // 2:
            victims = worker_processes()
            if victims:
                killed.append(victims[0].pid)
                os.kill(victims[0].pid, signal.SIGKILL)

    with cluster(args.workers, folder) as address:
        remote = planner.sweep(spec, folder / "remote", scheduler=address, formats=["json"])
        spared = planner.sweep(spec, folder / "spared", scheduler=address, formats=["json"], told=kill_one)
    same = comparable(local) == comparable(remote) == comparable(spared)
    print(f"{len(local.report.rows)} cells, {args.workers} workers, load of the machine {os.getloadavg()[0]:.1f}")
    print("| | seconds | work, seconds | outside of cells | computed | failed |")
    print("|---|---|---|---|---|---|")
    for name, result in (("local processes", local), ("Dask", remote), ("Dask, a worker killed in the middle", spared)):
        print(
            f"| {name} | {result.seconds:.1f} | {sum(result.cell_seconds):.1f} | {overhead(result, args.workers):.1%} "
            f"| {result.computed} | {result.failed} |"
        )
    print(f"second run, its report included: {second:.2f} s, {again.reused} reused, {second / first:.1%} of the first")
    print(f"speed-up over one process: {sum(local.cell_seconds) / local.seconds:.2f} with {args.workers} workers")
    print(f"same results to the byte, times aside: {same}; killed in the middle: {len(killed)} worker")


# -- 100,000 cells ----------------------------------------------------------------------------------------------------

_WORKERS = """
import asyncio, sys
from distributed import Worker
async def main():
    workers = [Worker(sys.argv[1], nthreads=1, dashboard_address=None, memory_limit=0) for _ in range(int(sys.argv[2]))]
    await asyncio.gather(*workers)
    await asyncio.gather(*(worker.finished() for worker in workers))
asyncio.run(main())
"""

# A hundred workers in one process: each would look into every thread of all of them a hundred times a second, and say
# thousands of times that it answers late.
_SHARED = {
    "DASK_LOGGING__DISTRIBUTED": "error",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "60s",
}


def pretend(seconds: float, task: bytes, row: int) -> bytes:
    """Take as long as a cell, and travel with as many bytes there and back."""
    time.sleep(seconds)
    return bytes(row)


def simulate(args: argparse.Namespace) -> None:
    """Tasks that wait as long as recorded cells took: throughput, and the scheduler's memory."""
    from distributed import Client

    recorded = json.loads(args.times.read_text())
    folder = args.times.parent
    drawn = random.Random(0)
    times = [drawn.choice(recorded["seconds"]) / args.speed for _ in range(args.cells)]
    task, row = bytes(recorded["task_bytes"]), recorded["row_bytes"]
    with cluster(0, folder) as address:
        workers = subprocess.Popen(
            [sys.executable, "-c", _WORKERS, address, str(args.workers)], env=os.environ | _SHARED
        )
        try:
            with Client(address) as client:  # type: ignore[no-untyped-call]
                client.wait_for_workers(args.workers, timeout=120)
                scheduler = psutil.Process(client.run_on_scheduler(os.getpid))
                before, most = scheduler.memory_info().rss, 0

                def submit(numbers: Sequence[int]) -> Sequence[Any]:
                    keys = [f"cell-{i:064}" for i in numbers]
                    asked: Sequence[Any] = client.map(
                        pretend, [times[i] for i in numbers], task=task, row=row, key=keys
                    )
                    return asked

                started = time.monotonic()
                busy = scheduler.cpu_times().user
                for done, _ in enumerate(as_they_come(client, range(args.cells), submit, args.ahead * args.workers)):
                    if done % 500 == 0:
                        most = max(most, scheduler.memory_info().rss)
                    if done % 10_000 == 0:
                        print(f"{done} cells after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
                seconds = time.monotonic() - started
                busy = scheduler.cpu_times().user - busy
        finally:
            workers.kill()
    ideal = sum(times) / args.workers
    print(f"{args.cells} cells on {args.workers} workers, load of the machine {os.getloadavg()[0]:.1f}")
    print(f"{seconds:.0f} s; the work alone {ideal:.0f} s; {args.cells / seconds:.0f} cells a second")
    print(
        f"scheduler: {busy / args.cells * 1e3:.2f} ms of processor a cell, {before / 2**20:.0f} MiB before, {most / 2**20:.0f} at most"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("grid")
    one.add_argument("--work", type=Path, required=True)
    one.add_argument("--models", type=int, default=40)
    one.add_argument("--targets", type=int, default=len(TARGETS), help="the first so many")
    one.add_argument("--nodes", type=int, default=60)
    one.add_argument("--workers", type=int, default=2)
    one.add_argument("--run", action="store_true", help="also quantize and run, not only judge")
    one.set_defaults(run_it=grid)
    two = commands.add_parser("simulate")
    two.add_argument("--times", type=Path, required=True, help="what grid wrote: seconds of each cell")
    two.add_argument("--cells", type=int, default=100_000)
    two.add_argument("--workers", type=int, default=100)
    two.add_argument("--ahead", type=int, default=4, help="tasks at the scheduler for each worker")
    two.add_argument("--speed", type=float, default=1, help="how much shorter than recorded")
    two.set_defaults(run_it=simulate)
    args = parser.parse_args(arguments)
    args.run_it(args)


if __name__ == "__main__":
    main()
