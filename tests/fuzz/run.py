"""Reads made-up files for a while, and keeps those that planner answers with anything but a plain error.

    python -m tests.fuzz.run                      # a minute
    python -m tests.fuzz.run --cases 200000       # what docs/reliability.md speaks of
    python -m tests.fuzz.run --kinds plan npz     # some kinds only

A case is a kind and a seed. A find is written to tests/fuzz/corpus, where `make test` reads it from then on.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import onnx

from planner.calibrate.inputs import load_inputs
from planner.errors import PlannerError
from planner.model.read import Model, read_model
from planner.probe import evidence
from planner.profiles.load import load_profile
from planner.reporting.matrix import read_subjects
from planner.reporting.write import read_report
from planner.resolve.plan import read_plan
from planner.sweeps.spec import find_models, read_spec
from tests.fuzz import cases

CORPUS = Path(__file__).with_name("corpus")
_ROOT = Path(__file__).parents[2]
# A small file is read in much less.
_SECONDS = 30.0
_MANIFEST = (
    "models:\n  - path: a.onnx\n    shapes: {x: [1, 4]}\n    inputs: data.npz\n    name: first\n  - path: b.onnx\n"
)
_SWEEP = (
    "models:\n  - path: m*.yaml\n    shapes: {x: [1, 4]}\n    inputs: .\n    floor: top1=0.99\n  - {path: m.yaml, name: first}\n"
    "targets:\n  - ep: qnn\n    devices: [all]\n  - {ep: cpu}\nprecisions: [auto, w8a16]\nfloor: 30\n"
    "options: {run: false, seed: 3, time_limit: 60.0, memory_limit: 900, profiles: [p.yaml], evidence: []}\n"
)
_EVIDENCE = {
    "schema": "planner/evidence/1",
    "ep": "CPUExecutionProvider",
    "device": "cpu",
    "options": {},
    "runtime": {"onnxruntime": "1.32.0"},
    "date": "2026-01-01",
    "probe": 1,
    "reasons": ["no"],
    "cases": {"Relu": [["taken", None, 40.0], ["refused", 0, None]]},
}


class Late(Exception):
    """A case took too long."""


def plan_document() -> object:
    """A plan as `planner plan` writes it."""
    from planner import api

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        onnx.save(cases.model(), path)
        return api.plan(path, "cpu", precision="w8a8", allow_unknown=True).to_json()


def fuzzed_model(folder: Path) -> Model:
    """The model that inputs are read for."""
    path = folder / "inputs.onnx"
    onnx.save(cases.model(), path)
    return read_model(path)


class Kinds:
    """What can be read, by kind: how a case of it is made, the name of its file, and what reads it."""

    def __init__(self, folder: Path) -> None:
        model = fuzzed_model(folder)
        profile = cases.read(_ROOT / "ep_profiles" / "openvino" / "profile.yaml")
        self.table: dict[str, tuple[cases.Make, str, Callable[[Path], object]]] = {
            "model-bytes": (cases.model_bytes, "m.onnx", read_model),
            "model-structure": (cases.model_structure, "m.onnx", read_model),
            "profile": (cases.text_of(profile), "p.yaml", load_profile),
            "plan": (cases.json_of(plan_document()), "p.json", read_plan),
            "npz": (cases.npz, "x.npz", lambda path: load_inputs(str(path), model)),
            "evidence": (cases.json_of(_EVIDENCE), "e.json", evidence.load),
            "manifest": (cases.text_of(_MANIFEST), "m.yaml", read_subjects),
            "sweep": (cases.text_of(_SWEEP), "m.yaml", lambda path: find_models(*read_spec(path))),
            "report": (cases.json_of({"schema": "planner/report/1", "rows": []}), "r.json", read_report),
        }

    def problem(self, kind: str, content: bytes, folder: Path) -> str | None:
        """What is wrong with how planner answers to a file of this content; None where it reads or refuses it."""
        _, name, read = self.table[kind]
        place = folder / kind
        place.mkdir(exist_ok=True)
        path = place / name
        path.write_bytes(content)
        try:
            with alarm(_SECONDS):
                read(path)
        except PlannerError as error:
            if not str(error).strip():
                return "an error without words"
        except Late:
            return f"more than {_SECONDS:g} s"
        except Exception:
            return traceback.format_exc(limit=-4)
        left = sorted(p.name for p in place.iterdir() if p != path)
        return f"files left: {left}" if left else None


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise Late where this takes longer, as far as Python code runs."""

    def late(_number: int, _frame: FrameType | None) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def case(kinds: Kinds, kind: str, seed: int) -> bytes:
    """The bytes of a case."""
    return kinds.table[kind][0](random.Random(f"{kind}{seed}"))


def _work(
    wanted: list[str], first: int, step: int, count: int, seconds: float, finds: multiprocessing.Queue[Any]
) -> None:
    deadline = time.monotonic() + seconds
    done: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds = Kinds(folder)
        for seed in range(first, count, step):
            if time.monotonic() > deadline:
                break
            kind = (wanted or list(kinds.table))[seed // step % len(wanted or kinds.table)]
            content = case(kinds, kind, seed)
            # A crash of native code ends this process: the last case is then in the file.
            (CORPUS / f".running-{first}").write_bytes(f"{kind}\n".encode() + content)
            if (problem := kinds.problem(kind, content, folder)) is not None:
                finds.put((kind, seed, content, problem))
            done[kind] += 1
    (CORPUS / f".running-{first}").unlink(missing_ok=True)
    finds.put(done)


def main() -> int:
    """Run; status 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10**9, help="most cases in all")
    parser.add_argument("--seconds", type=float, default=None, help="most seconds (default: 60 without --cases)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="seed to begin with")
    parser.add_argument("--kinds", nargs="*", default=[])
    args = parser.parse_args()
    seconds = args.seconds or (60.0 if args.cases == 10**9 else 1e9)
    context = multiprocessing.get_context("fork")
    finds: multiprocessing.Queue[Any] = context.Queue()  # type: ignore[assignment]
    last = min(args.first + args.cases, 10**12)
    workers = [
        context.Process(target=_work, args=(args.kinds, args.first + i, args.workers, last, seconds, finds))
        for i in range(args.workers)
    ]
    started = time.monotonic()
    for worker in workers:
        worker.start()
    done: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    crashed = 0
    while any(w.is_alive() for w in workers) or not finds.empty():
        with contextlib.suppress(Exception):
            found = finds.get(timeout=0.5)
            if isinstance(found, Counter):
                done += found
                continue
            kind, seed, content, problem = found
            line = problem.strip().splitlines()[-1]
            if (kind, line) not in seen:
                seen.add((kind, line))
                (CORPUS / f"{kind}-{seed}").write_bytes(content)
                print(f"{kind} {seed}: {problem}", flush=True)
    for i, worker in enumerate(workers):
        worker.join()
        running = CORPUS / f".running-{args.first + i}"
        if worker.exitcode != 0 and running.exists():
            crashed += 1
            kind_line, _, content = running.read_bytes().partition(b"\n")
            (CORPUS / f"{kind_line.decode()}-crash-{int(time.time())}-{i}").write_bytes(content)
            print(f"{kind_line.decode()}: the process ended with {worker.exitcode}", flush=True)
        running.unlink(missing_ok=True)
    counts = ", ".join(f"{kind} {number:,}" for kind, number in sorted(done.items()))
    print(f"{done.total():,} cases in {time.monotonic() - started:.0f} s ({counts}); {len(seen) + crashed} finds")
    return 1 if seen or crashed else 0


if __name__ == "__main__":
    sys.exit(main())
