"""What `planner check` costs: wall time and peak memory of the whole process, and how both grow with the number of nodes.

    python -m benchmarks.check
    python -m benchmarks.check --winml DIR/bin/winml     (winml-cli's `analyze` beside it, in the same run)

The model of two hundred nodes is PP-OCRv6 rec at opset 21, its shapes bound. The larger ones are chains of blocks as exporters
write them: Conv, a decomposed Gelu, a decomposed LayerNormalization, a projection, a residual Add, a Reshape and its way back.
Times are the medians of several runs, the tools in turns, so that a busy machine slows both; memory is the peak resident
size of the process.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from examples.fetch import EXAMPLES, fetch
from planner.model.write import save
from planner.resolve.target import Target

SIZES = (200, 2_000, 20_000)
_CHANNELS, _LENGTH = 8, 4
_INSTALL = "see --help: winml-cli in an environment of its own, given with --winml"


def chain(nodes: int) -> onnx.ModelProto:
    """A model of about so many nodes: blocks of 23, each with weights of its own."""
    rng = np.random.default_rng(0)
    made: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, value: np.ndarray[Any, Any]) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def add(op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        made.append(helper.make_node(op, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    flat = constant("flat", np.array([1, _CHANNELS, _LENGTH * _LENGTH]))
    square = constant("square", np.array([1, _CHANNELS, _LENGTH, _LENGTH]))
    scalars = {
        k: constant(k, np.array(v, np.float32))
        for k, v in {"root2": 2**0.5, "one": 1, "half": 0.5, "eps": 1e-5, "two": 2}.items()
    }
    x = "x"
    for b in range(max(1, nodes // 23)):
        start, p = x, f"/block.{b}"

        def weight(name: str, *shape: int, p: str = p) -> str:
            return constant(f"{p}.{name}", rng.standard_normal(shape).astype(np.float32) * 0.1)

        y = add(
            "Conv", [x, weight("w", _CHANNELS, _CHANNELS, 3, 3), weight("b", _CHANNELS)], f"{p}/conv", pads=[1, 1, 1, 1]
        )
        erf = add("Erf", [add("Div", [y, scalars["root2"]], f"{p}/div")], f"{p}/erf")
        y = add(
            "Mul",
            [add("Mul", [y, add("Add", [erf, scalars["one"]], f"{p}/add")], f"{p}/mul"), scalars["half"]],
            f"{p}/gelu",
        )
        y = add("Reshape", [y, flat], f"{p}/flat")
        mean = add("ReduceMean", [y], f"{p}/mean", axes=[-1])
        centred = add("Sub", [y, mean], f"{p}/sub")
        variance = add("ReduceMean", [add("Pow", [centred, scalars["two"]], f"{p}/pow")], f"{p}/variance", axes=[-1])
        root = add("Sqrt", [add("Add", [variance, scalars["eps"]], f"{p}/eps")], f"{p}/sqrt")
        y = add("Mul", [add("Div", [centred, root], f"{p}/norm"), weight("scale", _LENGTH**2)], f"{p}/scaled")
        y = add("Add", [y, weight("shift", _LENGTH**2)], f"{p}/shifted")
        y = add("MatMul", [y, weight("proj", _LENGTH**2, _LENGTH**2)], f"{p}/project")
        y = add("Relu", [add("Add", [y, weight("proj_b", _LENGTH**2)], f"{p}/project_bias")], f"{p}/relu")
        y = add("Transpose", [y], f"{p}/there", perm=[0, 2, 1])
        y = add("Transpose", [y], f"{p}/back", perm=[0, 2, 1])
        y = add("Reshape", [y, square], f"{p}/square")
        x = add("Add", [y, start], f"{p}/residual")
    graph = helper.make_graph(
        made,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, _CHANNELS, _LENGTH, _LENGTH])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, _CHANNELS, _LENGTH, _LENGTH])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


# A child's peak begins at the size of the process that started it: a small one stands between.
_MEASURE = """
import resource, subprocess, sys, time
started = time.perf_counter()
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, status)
"""


def measure(command: list[str]) -> tuple[float, float, int]:
    """(seconds, peak resident MiB, exit status) of a process."""
    done = subprocess.run([sys.executable, "-S", "-c", _MEASURE, *command], capture_output=True, text=True, check=True)
    seconds, peak, status = done.stdout.split()
    return float(seconds), float(peak), int(status)


def planner(model: Path) -> list[str]:
    return [sys.executable, "-m", "planner", "check", str(model), "--ep", "qnn", "--json"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--winml", metavar="PROGRAM", help="winml-cli 0.4.0's `winml`, to measure beside planner")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    args = parser.parse_args()
    winml = shutil.which(args.winml or "winml")
    found: dict[str, Any] = {"rec": {}, "chain": {}}
    with tempfile.TemporaryDirectory(prefix="planner-") as name:
        folder = Path(name)
        rec = folder / "rec.onnx"
        # At opset 21 and with its shapes bound: winml's analyze fails on the file as shipped.
        read = Target.open("qnn").read(fetch("rec"), EXAMPLES["rec"].shapes)
        assert read.ir is not None
        save(read.ir, rec)
        tools = {"planner check": planner(rec)}
        if winml is None:
            print(f"SKIPPED winml analyze: no program {args.winml or 'winml'!r}; {_INSTALL}", file=sys.stderr)
        else:
            tools["winml analyze"] = [winml, "analyze", "-m", str(rec), "--ep", "qnn", "--device", "npu"]
        runs: dict[str, list[tuple[float, float, int]]] = {tool: [] for tool in tools}
        for _ in range(args.rounds):
            for tool, command in tools.items():
                runs[tool].append(measure(command))
        for tool, results in runs.items():
            found["rec"][tool] = {
                "seconds": statistics.median(r[0] for r in results),
                "peak_mib": statistics.median(r[1] for r in results),
                "exit_status": sorted({r[2] for r in results}),
            }
        for size in args.sizes:
            path = folder / f"{size}.onnx"
            model = chain(size)
            onnx.save(model, path)
            results = [measure(planner(path)) for _ in range(args.rounds)]
            found["chain"][len(model.graph.node)] = {
                "seconds": statistics.median(r[0] for r in results),
                "peak_mib": statistics.median(r[1] for r in results),
                "exit_status": sorted({r[2] for r in results}),
            }
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
