"""Accuracy with real labelled data at the plan that the search chooses, beside onnxruntime's own recipe.

    python -m benchmarks.search                          (all tasks, --floor 30, Snapdragon X Elite, QNN's simulator)
    python -m benchmarks.search magika digits --floor 40 --simulated 32 --json

A row: the metric of float32, of the plan's QDQ model on the CPU EP over the whole set, of the same model on the simulator over
the first samples; the least SQNR of any output on samples held apart, on the simulator; the nodes on the NPU; the share of
multiply-accumulates with 8-bit weights; the plans that the search ran (emulated + on the EP). Then the same of
get_qnn_qdq_config with quantize, calibrated on the same samples, at the activation type that most of the plan's nodes have.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.common import TASKS, Task, onnxruntime_qnn, score_on_cpu, score_on_ep
from planner.calibrate.inputs import load_inputs
from planner.dtypes import DType
from planner.errors import PlannerError
from planner.model.write import save
from planner.pipeline import Session, run_target
from planner.verify.floor import Floor, parse_floor
from planner.verify.verify import verify


@dataclass(frozen=True)
class Row:
    """One task. Metrics are shares, 0 to 1; dB are of the worst output on the simulator; None where it did not run."""

    task: str
    metric: str
    float32: float
    plan_cpu: float
    plan_npu: float
    float32_same_samples: float
    plan_db: float
    passed: bool
    precision: str
    on_npu: str
    macs_in_8_bit: float | None
    promoted: int
    emulated: int
    real: int
    seconds: float
    ort_cpu: float | None
    ort_db: float | None
    ort_on_npu: str
    ort_precision: str


def measure(task: Task, floor: Floor, simulated: int, device: str) -> Row:
    """Search, and score everything."""
    session = Session.open("qnn", device)
    model = session.read(task.model, task.shapes)
    assert model.ir is not None
    inputs = load_inputs(task.inputs, model)
    with tempfile.TemporaryDirectory(prefix="planner-") as folder:
        reference, output, theirs = (Path(folder) / name for name in ("float32.onnx", "plan.onnx", "ort.onnx"))
        save(model.ir, reference)
        started = time.monotonic()
        outcome = run_target(session, model, None, inputs, output, floor=floor)
        seconds = time.monotonic() - started
        kept, found = outcome.kept, outcome.search
        assert kept is not None and found is not None
        place = kept.verification.placement
        types = Counter(n.activation for n in kept.plan.nodes if n.activation is not None and not n.activation.is_float)
        narrow = bool(types) and types.most_common(1)[0][0].bits == 8
        activation = DType.UINT8 if narrow else DType.UINT16
        ort_cpu = ort_db = None
        ort_on_npu = "no model"
        try:
            onnxruntime_qnn(task, theirs, inputs.calibration, activation)
            ort_cpu = score_on_cpu(task, theirs)
            judged = verify(theirs, reference, session.target, inputs.evaluation[:2], floor=floor, explain=False)
            ort_db = min((f.sqnr_db for f in judged.fidelity), default=None)
            ort_on_npu = f"{judged.placement.on_target}/{judged.placement.total}"
        except Exception as error:
            print(f"{task.name}: onnxruntime's recipe: {type(error).__name__}: {error}", file=sys.stderr)
        return Row(
            task.name,
            task.metric,
            score_on_cpu(task, reference),
            score_on_cpu(task, output),
            score_on_ep(task, output, session.target.ep, session.target.options, simulated),
            score_on_cpu(task, reference, simulated),
            kept.worst_db,
            kept.passed,
            kept.plan.precision,
            f"{place.on_target}/{place.total}",
            found.macs_in_8_bit,
            sum(len(p.nodes) for p in found.promoted),
            found.evaluations.emulated,
            found.evaluations.real,
            seconds,
            ort_cpu,
            ort_db,
            ort_on_npu,
            "w8a8" if activation is DType.UINT8 else "w8a16",
        )


def markdown(rows: list[Row], floor: Floor, simulated: int) -> str:
    """The table."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    def db(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    lines = [
        f"Floor: {floor}. Simulated metric over the first {simulated} samples (float32 on the same in brackets).",
        "",
        "| model, metric | float32 % | plan, CPU EP % | plan, simulator % | dB | plan | on NPU | MACs in 8 bit % | promoted | "
        "plans run | s | ORT % | ORT dB | ORT on NPU |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r.task}, {r.metric} | {percent(r.float32)} | {percent(r.plan_cpu)} | {percent(r.plan_npu)} "
            f"({percent(r.float32_same_samples)}) | {db(r.plan_db)}{'' if r.passed else ' (below)'} | {r.precision} | "
            f"{r.on_npu} | {percent(r.macs_in_8_bit)} | {r.promoted} | {r.emulated} + {r.real} | {r.seconds:.0f} | "
            f"{percent(r.ort_cpu)} ({r.ort_precision}) | {db(r.ort_db)} | {r.ort_on_npu} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)}")
    parser.add_argument("--floor", default="30")
    parser.add_argument("--device", default="snapdragon-x-elite")
    parser.add_argument("--simulated", type=int, default=16, help="samples of the metric on the simulator")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    floor = parse_floor(args.floor)
    rows = []
    for name in args.tasks or TASKS:
        try:
            rows.append(measure(TASKS[name], floor, args.simulated, args.device))
        except PlannerError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        print(markdown(rows[-1:], floor, args.simulated).splitlines()[-1], file=sys.stderr, flush=True)
    print(json.dumps([asdict(r) for r in rows], indent=2) if args.json else markdown(rows, floor, args.simulated))
    return 0


if __name__ == "__main__":
    sys.exit(main())
