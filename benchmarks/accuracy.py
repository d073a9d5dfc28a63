"""Accuracy on labelled data of the plan that planner chooses, beside float32 and onnxruntime's own tools.

    python -m benchmarks.accuracy                                 (all tasks, --floor 30, Snapdragon X Elite)
    python -m benchmarks.accuracy magika digits --floor 40 --simulated 32 --json
    python -m benchmarks.accuracy cls --precision w8a16           (one precision throughout, nothing searched)

A row: the metric of float32, of the plan's QDQ model on the CPU EP over the whole set (computed as the file says: emulation), of
the same model on the EP's simulator over the last samples of the set; the least SQNR of any output on samples held apart, on
the simulator; the nodes on the NPU; the share of multiply-accumulates with 8-bit weights; the plans that the search ran
(emulated + on the EP). Then, calibrated on the same samples at the activation type that most of the plan's nodes have:
get_qnn_qdq_config with quantize, and quantize_static at its defaults. Every third sample or so of a task's inputs was seen
in calibration; labels never were.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.common import TASKS, Task, onnxruntime_qnn, onnxruntime_static, score_on_cpu, score_on_ep
from planner.calibrate.inputs import load_inputs
from planner.dtypes import DType, Precision, parse_precision
from planner.errors import PlannerError
from planner.model.write import save
from planner.resolve.choose import resolve_each
from planner.resolve.plan import Plan
from planner.resolve.target import Target
from planner.search.cost import share_in_8_bit, work
from planner.search.run import select
from planner.search.trials import Demands
from planner.verification.floor import Floor, parse_floor
from planner.verification.verify import Criteria, verify


@dataclass(frozen=True)
class Theirs:
    """A model that onnxruntime's tools made: shares of right answers, 0 to 1; dB of the worst output on the simulator.

    Attributes:
        problem: what went wrong, where there is no model.
    """

    cpu: float | None = None
    db: float | None = None
    on_npu: str = "-"
    problem: str = ""


@dataclass(frozen=True)
class Row:
    """One task. Metrics are shares, 0 to 1; dB are of the worst output on the simulator; None where it did not run.

    Attributes:
        float32, plan_cpu: over all samples. float32_simulated, plan_npu: over the last ``simulated`` ones.
        emulated, real: plans that the search ran. activation: of onnxruntime's models.
    """

    task: str
    metric: str
    samples: int
    float32: float
    plan_cpu: float
    simulated: int
    float32_simulated: float | None
    plan_npu: float | None
    plan_db: float
    passed: bool
    precision: str
    on_npu: str
    macs_in_8_bit: float | None
    emulated: int
    real: int
    seconds: float
    activation: str
    qnn: Theirs
    static: Theirs


def measure(task: Task, precision: Precision | None, floor: Floor, simulated: int, device: str) -> Row:
    """Plan, and score everything."""
    target = Target.open("qnn", device)
    model = target.read(task.model, task.shapes)
    assert model.ir is not None
    inputs = load_inputs(task.inputs, model)
    with tempfile.TemporaryDirectory(prefix="planner-") as folder:
        reference, output, theirs = (Path(folder) / name for name in ("float32.onnx", "plan.onnx", "ort.onnx"))
        save(model.ir, reference)
        started = time.monotonic()
        resolutions = resolve_each(target, model, precision)
        first = next(resolutions)
        if first.legal is False:
            raise PlannerError(f"{task.name}: {precision} is not legal on {device}")
        outcome = select(
            target, model, itertools.chain([first], resolutions), inputs, output, Demands(floor), auto=precision is None
        )
        seconds = time.monotonic() - started
        kept, found = outcome.kept, outcome.search
        place = kept.verification.placement
        activation = _activation(kept.plan)

        def compare(make: Callable[[Task, Path, DType], None], *, on_ep: bool) -> Theirs:
            try:
                make(task, theirs, activation)
                cpu = score_on_cpu(task, theirs)
                if not on_ep:
                    return Theirs(cpu)
                judged = verify(
                    theirs, reference, target.identity, inputs.evaluation[:1], Criteria(floor), bisect=False
                )
                db = min((f.sqnr_db for f in judged.fidelity), default=None)
                return Theirs(cpu, db, f"{judged.placement.on_target}/{judged.placement.total}")
            except Exception as error:  # its failures are part of the comparison
                return Theirs(problem=f"{type(error).__name__}: {error}")

        samples = sum(1 for _ in task.labelled())
        last = slice(max(0, samples - simulated), samples)
        share = share_in_8_bit(
            (work(node), line.config) for node, line in zip(model.nodes, kept.plan.nodes, strict=True)
        )
        return Row(
            task.name,
            task.metric,
            samples,
            score_on_cpu(task, reference),
            score_on_cpu(task, output),
            last.stop - last.start,
            score_on_cpu(task, reference, last) if simulated else None,
            score_on_ep(task, output, target.ep, target.options, last) if simulated else None,
            kept.worst_db,
            kept.passed,
            kept.plan.precision,
            f"{place.on_target}/{place.total}",
            share,
            found.evaluations.emulated if found else 0,
            found.evaluations.real if found else 0,
            seconds,
            activation.value,
            compare(lambda t, path, kind: onnxruntime_qnn(t, path, inputs.calibration, kind), on_ep=True),
            compare(lambda t, path, kind: onnxruntime_static(t, path, inputs.calibration, kind), on_ep=False),
        )


def _activation(plan: Plan) -> DType:
    """The integer type that most nodes have; uint16 where none has any."""
    types = Counter(n.activation.bits for n in plan.nodes if n.activation is not None and not n.activation.is_float)
    return DType.UINT8 if types and types.most_common(1)[0][0] == 8 else DType.UINT16


_HEADER = (
    "| model, metric | samples | float32 % | plan, CPU EP % | plan, simulator % (float32) | dB | plan | on NPU | "
    "MACs in 8 bit % | plans run | s | ORT QNN % | dB | on NPU | ORT static % | ORT's activations |"
)


def line(row: Row) -> str:
    """The row of a Markdown table."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    def of(theirs: Theirs) -> str:
        return percent(theirs.cpu) if not theirs.problem else f"fails ({theirs.problem.partition(':')[0]})"

    db = "-" if row.qnn.db is None else f"{row.qnn.db:.1f}"
    cells = [
        f"{row.task}, {row.metric}",
        f"{row.samples}",
        percent(row.float32),
        percent(row.plan_cpu),
        f"{percent(row.plan_npu)} ({percent(row.float32_simulated)}) of {row.simulated}",
        f"{row.plan_db:.1f}{'' if row.passed else ' (below)'}",
        row.precision,
        row.on_npu,
        percent(row.macs_in_8_bit),
        f"{row.emulated} + {row.real}",
        f"{row.seconds:.0f}",
        of(row.qnn),
        db,
        row.qnn.on_npu,
        of(row.static),
        row.activation,
    ]
    return f"| {' | '.join(cells)} |"


def markdown(rows: list[Row]) -> str:
    """The table."""
    rule = "|" + "---|" * (_HEADER.count("|") - 1)
    return "\n".join([_HEADER, rule, *map(line, rows)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)}")
    parser.add_argument("--floor", default="30")
    parser.add_argument("--precision", help="one for all nodes, instead of searching")
    parser.add_argument("--device", default="snapdragon-x-elite")
    parser.add_argument("--simulated", type=int, default=16, help="samples of the metric on the simulator")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    floor = parse_floor(args.floor)
    precision = None if args.precision is None else parse_precision(args.precision)
    rows = []
    for name in args.tasks or TASKS:
        if name not in TASKS:
            parser.error(f"no task {name!r}: there are {', '.join(TASKS)}")
        try:
            rows.append(measure(TASKS[name], precision, floor, args.simulated, args.device))
        except PlannerError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        print(line(rows[-1]), file=sys.stderr, flush=True)
        for theirs in (rows[-1].qnn, rows[-1].static):
            if theirs.problem:
                print(f"{name}: onnxruntime: {theirs.problem[:300]}", file=sys.stderr)
    print(json.dumps([asdict(r) for r in rows], indent=2) if args.json else markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
