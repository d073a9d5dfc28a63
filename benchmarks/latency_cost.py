"""Fits the declared cost of a profile (planner/search/cost.py) to what compiled schedules cost: the source of QNN's `cost`.

    python -m benchmarks.latency_cost FOLDER --most 60

FOLDER is that of `python -m benchmarks.latency collect`. Of each model up to so many MB the multiply-accumulates and the bytes that
its nodes move are counted as the search counts them; the milliseconds are those of its schedule at the shipped rates of a Snapdragon
X Elite, less what a run costs however little it does. The rates are the least squares of the relative error, none negative, in
units of one 8-bit multiply-accumulate.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.latency import SCHEDULES, Rows
from planner.codec import from_json
from planner.errors import PlannerError
from planner.estimation.latency import latency_model
from planner.resolve.target import Target
from planner.search.cost import work

_COLUMNS = {"float": "float16", "w8a8": "8x8", "w8a16": "8x16"}
# Bytes of a weight and of an activation.
_WIDTHS = {"float": (2, 2), "w8a8": (1, 1), "w8a16": (1, 2)}
_NAMES = ("8x8", "8x16", "float16", "byte")


def main() -> None:
    from scipy.optimize import nnls

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most", type=float, default=60, help="MB of a float model, at most")
    args = parser.parse_args()
    target, model = Target.open("qnn", "snapdragon-x-elite"), latency_model("QNNExecutionProvider")
    assert model is not None
    rates = model.of(target.options)
    assert rates is not None
    counted: dict[str, tuple[float, float, float]] = {}
    asked, ms = [], []
    for row in from_json(Rows, json.loads(SCHEDULES.read_text(encoding="utf-8"))).rows:
        path = args.folder / "float" / f"{row.model}.onnx"
        if not path.exists() or path.stat().st_size > args.most * 1e6:
            continue
        if row.model not in counted:
            try:
                done = [work(node) for node in target.read(path).nodes]
            except PlannerError as error:
                print(f"{row.model}: {error}")
                continue
            macs, weights, activations = (sum(getattr(w, n) for w in done) for n in ("macs", "weights", "activations"))
            counted[row.model] = (macs / 1e9, weights / 1e9, activations / 1e9)
        macs, weights, activations = counted[row.model]
        wide, narrow = _WIDTHS[row.precision]
        columns = dict.fromkeys(_NAMES, 0.0) | {_COLUMNS[row.precision]: macs}
        columns["byte"] = weights * wide + activations * narrow
        asked.append([columns[name] for name in _NAMES])
        ms.append(rates.price({**row.work, "run": 0.0}))
    table, cost = np.array(asked), np.array(ms)
    found = nnls(table / cost[:, None], np.ones(len(cost)))[0]
    off = np.abs(table @ found / cost - 1)
    print(f"{len(cost)} models and precisions; median error of declared cost against the schedule {np.median(off):.0%}")
    for name, rate in zip(_NAMES, found, strict=True):
        print(f"{name}: {rate:.4g} ms per 10^9, {rate / found[0]:.3g} of 8x8")


if __name__ == "__main__":
    main()
