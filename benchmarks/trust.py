"""What the command answers to models that nobody chose for it, and what it leaves behind.

    python -m benchmarks.trust nodes                   # every test model of onnx through check
    python -m benchmarks.trust nodes --every 40 --run  # every 40th through check, plan, quantize and verify too
    python -m benchmarks.trust nodes --run --ep qnn    # through check and verify on QNN's simulator
    python -m benchmarks.trust nodes --run --part 1/2  # half of them, beside a process for the other half
    python -m benchmarks.trust repeat --models 200     # so many small models in one process: does anything grow?
    python -m benchmarks.trust faults                  # killed processes, full disks, files that change while they are read
    python -m benchmarks.trust faults --only samples   # those with this in their name

The first two run in this one process, as `planner.cli.main.main` does it; sessions are built in planner's workers. A
status that is none of the contract's, a traceback, an internal error, or a file that is left behind counts as a fault. The
models are those that onnx generates (onnx.backend.test.case.node), one operator each for the most part, and those that lie in its
package (exported by PyTorch, small and well-known networks).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from benchmarks.faults import faults
from planner.cli.main import main as command
from planner.runtime import spare

_PRECISIONS = ("w8a8", "w8a16", "fp16")
_STATUSES = range(5)


def ask(*arguments: object) -> tuple[int, str]:
    """Run a command in this process; its status, and what it said on standard error."""
    out, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        status = command([str(argument) for argument in arguments])
    return status, said.getvalue()


def fault(status: int, said: str) -> bool:
    """Whether an answer is none that the contract has."""
    return status not in _STATUSES or "Traceback" in said or "internal error" in said


def steps(model: Path, ep: str) -> Iterator[tuple[str, int, str]]:
    """Each command's answer about a model: what was asked, status, words."""
    yield "check", *ask("check", model, "--ep", ep)
    if ep != "cpu":
        yield "verify", *ask("verify", model, "--reference", model, "--ep", ep)
        return
    for precision in _PRECISIONS:
        plan, output = model.with_name("plan.json"), model.with_name("out.onnx")
        asked = ("plan", model, "--ep", ep, "--precision", precision, "--allow-unknown", "-o", plan, "--overwrite")
        status, said = ask(*asked)
        yield f"plan {precision}", status, said
        if status == 0:
            status, said = ask("quantize", model, "--plan", plan, "--output", output, "--overwrite")
            yield f"quantize {precision}", status, said
            if status == 0:
                yield f"verify {precision}", *ask("verify", output, "--reference", model, "--ep", ep)
        for file in (plan, output):
            file.unlink(missing_ok=True)


def models_of_onnx() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Onnx's node cases and the models in its package: a name, and what gives its bytes."""
    from onnx.backend.test.case.node import collect_testcases

    for case in collect_testcases(None):
        if case.model is not None:
            yield case.name, case.model.SerializeToString
    bundled = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for path in sorted(bundled.rglob("*.onnx")):
        if "node" not in path.relative_to(bundled).parts:
            yield str(path.relative_to(bundled)).removesuffix("/model.onnx"), path.read_bytes


def nodes(every: int, part: tuple[int, int], ep: str, only: str, *, run: bool) -> int:
    """Onnx's node cases and models with these words in their name; the number of faults."""
    warnings.simplefilter("ignore")  # of numpy, while onnx makes its cases
    tally: Counter[tuple[str, int]] = Counter()
    faults = blamed = models = 0
    first, parts = part
    with tempfile.TemporaryDirectory() as folder, spare.reused():
        path = Path(folder, "case.onnx")
        for name, content in [m for m in models_of_onnx() if only in m[0]][::every][first - 1 :: parts]:
            path.write_bytes(content())
            models += 1
            answers = steps(path, ep) if run else [("check", *ask("check", path, "--ep", ep))]
            for what, status, said in answers:
                tally[what, status] += 1
                if status == 3:
                    blamed += 1
                    print(f"{name}: {what}: 3: {_last(said)}", flush=True)
                if fault(status, said):
                    faults += 1
                    print(f"FAULT {name}: {what}: {status}: {_last(said)}", flush=True)
            left = sorted(p.name for p in Path(folder).iterdir() if p != path)
            if left:
                faults += 1
                print(f"FAULT {name}: files left: {left}", flush=True)
    for what in dict.fromkeys(what for what, _ in tally):
        counts = ", ".join(f"{status}: {tally[what, status]}" for status in _STATUSES if tally[what, status])
        print(f"{what}: {counts}")
    print(f"{models} models, {tally.total()} commands, {blamed} put down to the EP, {faults} faults")
    return faults


def _last(said: str) -> str:
    return next((line for line in reversed(said.splitlines()) if line.startswith("planner:")), "")[:300]


def held() -> dict[str, int]:
    """What this process holds now: MiB of its own memory, descriptors, children (Linux)."""
    status = Path("/proc/self/status").read_text()
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))
    children = [p for task in Path("/proc/self/task").iterdir() for p in (task / "children").read_text().split()]
    return {"MiB": own >> 10, "descriptors": len(os.listdir("/proc/self/fd")), "children": len(children)}  # noqa: PTH208


def small(path: Path, width: int) -> None:
    """A matrix product of some width."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "g",
        [info("x", TensorProto.FLOAT, [1, width])],
        [info("y", TensorProto.FLOAT, [1, width])],
        [helper.make_tensor("w", TensorProto.FLOAT, [width, width], [0.1] * width * width)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def repeat(count: int, *, every: int) -> int:
    """So many models, each checked, planned and quantized, every few of them also verified; the number of faults."""
    faults, first = 0, held()
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder, "tmp")
        temporary.mkdir()
        tempfile.tempdir = str(temporary)  # what other processes of the machine leave is not ours
        model, plan, output = (Path(folder, name) for name in ("m.onnx", "plan.json", "out.onnx"))
        for i in range(count):
            small(model, 8 + i % 8)
            asked = [
                ("check", model, "--ep", "cpu"),
                ("plan", model, "--ep", "cpu", "--precision", "fp16", "--allow-unknown", "-o", plan, "--overwrite"),
            ]
            if i % every == 0:
                asked += [
                    ("quantize", model, "--plan", plan, "--output", output, "--overwrite"),
                    ("verify", output, "--reference", model, "--ep", "cpu"),
                ]
            for arguments in asked:
                status, said = ask(*arguments)
                if status != 0:
                    faults += 1
                    print(f"FAULT model {i}: {arguments[0]}: {status}: {_last(said)}", flush=True)
            if i + 1 == every or (i + 1) % 50 == 0:
                print(f"{i + 1} models: {held()}", flush=True)
                first = held() if i + 1 == every else first
        tempfile.tempdir = None
        left = {p.name for p in temporary.iterdir()}
        left |= {p.name for p in Path(folder).iterdir()} - {"tmp", "m.onnx", "plan.json", "out.onnx"}
    last = held()
    faults += last["MiB"] > first["MiB"] + 20 or last["children"] > 0 or last["descriptors"] > first["descriptors"]
    faults += bool(left)
    print(f"{count} models: from {first} to {last}, files left: {sorted(left)}, {faults} faults")
    return faults


def _part(text: str) -> tuple[int, int]:
    first, _, parts = text.partition("/")
    return int(first), int(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of them; status 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("nodes", "repeat", "faults"))
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth case; repeat: run every Nth")
    parser.add_argument("--run", action="store_true", help="plan, quantize and verify too")
    parser.add_argument("--part", type=_part, default=(1, 1), metavar="K/N", help="nodes: the Kth of N parts")
    parser.add_argument("--ep", default="cpu", choices=("cpu", "qnn"), help="nodes: on this EP")
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument(
        "--only", default="", metavar="WORDS", help="nodes, faults: those with these words in their name"
    )
    args = parser.parse_args(argv)
    match args.what:
        case "nodes":
            found = nodes(args.every, args.part, args.ep, args.only, run=args.run)
        case "repeat":
            found = repeat(args.models, every=args.every)
        case _:
            found = faults(args.only)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
