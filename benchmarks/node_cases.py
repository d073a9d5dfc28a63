"""ONNX's own one-operator test models as a second ground truth: what `planner check` says of each, and what the EP does.

    python -m benchmarks.node_cases --ep cpu
    python -m benchmarks.node_cases --ep qnn --device snapdragon-x-elite

The models are those that onnx generates (onnx.backend.test.case.node), most of one operator, some with the expansion of a
function. A case counts as taken where a session can be built and no node but Q and DQ is left to another EP.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import onnx

from planner.errors import PlannerError
from planner.resolve.choose import check_model
from planner.resolve.target import Target
from planner.runtime.client import SessionFailed, Worker, WorkerCrashed, WorkerTimeout
from planner.runtime.registry import CPU


def real(worker: Worker, path: Path, target: Target) -> tuple[bool | None, str]:
    """Whether the EP takes the whole model, and its reason; None where every node was folded away before it was asked."""
    try:
        opened = worker.open(path, target.options, log=target.ep != CPU)
    except (SessionFailed, WorkerCrashed, WorkerTimeout) as error:
        return False, str(error)
    own = [a for a in opened.assignment if a.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    if not own:
        return None, "folded"
    left = [a for a in own if a.ep != target.ep]
    return not left, "; ".join(r.reason for r in opened.refusals[:2]) if left else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ep", required=True)
    parser.add_argument("--device")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth case")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    from onnx.backend.test.case.node import collect_testcases

    target = Target.open(args.ep, args.device)
    tally: Counter[str] = Counter()
    wrong: dict[str, list[dict[str, object]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, Worker(target.ep, timeout=30) as worker:
        path = Path(folder, "case.onnx")
        for case in list(collect_testcases(None))[:: args.every]:
            if case.model is None:
                continue
            onnx.save(case.model, path)
            try:
                resolution = check_model(target, target.read(path, stored=True), None, stored=True)
                predicted = resolution.legal
            except PlannerError as error:
                # Refused as a request (no nodes, an input that is read as a tensor but is none): no verdict to compare.
                tally[f"not judged: {str(error).partition(': ')[2][:40]}"] += 1
                continue
            taken, reason = real(worker, path, target)
            if taken is None:
                tally["folded"] += 1
            elif predicted is None:
                tally["unknown"] += 1
            elif predicted is taken:
                tally["agree"] += 1
            else:
                kind = "called legal, not taken" if predicted else "called illegal, taken"
                tally[kind] += 1
                said = reason if predicted else str(resolution.violations[0].ruling.reason)
                wrong[kind].append({"case": case.name, "reason": said[:200]})
    if args.json:
        print(
            json.dumps(
                {"ep": target.ep, "device": target.device, "cases": dict(tally), "wrong": wrong},
                indent=1,
            )
        )
    else:
        print(f"{target.ep} on {target.device}: {dict(tally)}")
        for kind, entries in wrong.items():
            print(f"\n{kind}:")
            for entry in entries:
                print(f"  {entry['case']}: {entry['reason']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
