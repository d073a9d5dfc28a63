"""Does a floor hold on samples that nobody has seen? Cost of the plan, and seconds, beside it.

    python -m benchmarks.floor                                      (all models, floors 20, 30, 40, five splits)
    python -m benchmarks.floor digits magika --floors 30 --splits 3
    python -m benchmarks.floor cls --simulator                      (on the EP's simulator, where it is installed: slow)

Of a model's samples, 16 are drawn at random and given to `planner target --floor F`; the plan that comes out runs on all the
others. The floor is met where the worst output has at least F - 1 dB there, over all of them. Plans run by emulation on the CPU EP,
as where the EP is not installed: an interpreter without it is named to planner. A trial in which planner itself says that the
floor is not reached makes no promise: it is counted apart.

*cost* is the plan's, by the profile, in multiples of the cheapest legal one's; *dB* the least seen on unseen samples.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.common import TASKS, task_of
from examples import inputs as examples_inputs
from planner.calibrate.inputs import Inputs, Sample
from planner.errors import PlannerError
from planner.model.load import load
from planner.model.read import Model
from planner.resolve.choose import resolve_each
from planner.resolve.target import Target
from planner.search.run import select
from planner.search.trials import Demands
from planner.verification.emulated import Emulation
from planner.verification.floor import Floor

MODELS = ("digits", "magika", "rec", "rec-v4", "det", "cls", "orientation", "silero-static", "minilm", "layout")
DEVICE = "snapdragon-x-elite"
GIVEN, POOL = 16, 48


@dataclass(frozen=True)
class Trial:
    """One split: what was promised, and what came of it on unseen samples.

    Attributes:
        promised: whether planner says that the plan reaches the floor. unseen_db: of the worst output there.
        cost: in multiples of the cheapest legal plan's.
    """

    promised: bool
    unseen_db: float
    cost: float
    precision: str
    seconds: float


def pool(name: str) -> list[Sample]:
    """At most 48 samples of a model."""
    counted = {
        "rec": examples_inputs.rec_labelled,
        "rec-v4": examples_inputs.rec_labelled,
        "cls": examples_inputs.cls_labelled,
        "orientation": examples_inputs.orientation_labelled,
        "silero-static": examples_inputs.silero_static_labelled,
    }
    if name in counted:
        return [sample for sample, _ in counted[name](POOL)]
    if name in ("det", "layout"):
        return list({"det": examples_inputs.det, "layout": examples_inputs.layout}[name](POOL))
    return [sample for sample, _ in islice(TASKS[name].labelled(), POOL)]


def try_split(target: Target, model: Model, samples: Sequence[Sample], floor: float, split: int) -> Trial:
    """Give some samples to the search, and judge its plan on the others."""
    order = np.random.default_rng(split).permutation(len(samples))
    given, unseen = [samples[i] for i in order[:GIVEN]], [samples[i] for i in order[GIVEN:]]
    apart = [s for i, s in enumerate(given) if i % 4 == 3]
    rest = [s for i, s in enumerate(given) if i % 4 != 3]
    made = Inputs(rest, apart, "benchmarks.floor", False, True, f"split {split}")
    with tempfile.TemporaryDirectory(prefix="planner-") as folder:
        output = Path(folder) / "plan.onnx"
        started = time.monotonic()
        demands = Demands(Floor("sqnr", floor))
        outcome = select(target, model, resolve_each(target, model, None), made, output, demands, auto=True)
        seconds = time.monotonic() - started
        emulation = Emulation(Path(model.path), unseen)
        decibels = min(f.least_db for f in emulation.fidelity(load(output), range(len(unseen))))
    found = outcome.search
    cost = float("nan") if found is None else found.cost / found.cheapest
    return Trial(outcome.kept.passed, decibels, cost, outcome.kept.plan.precision, seconds)


def measure(name: str, floors: Sequence[float], splits: int) -> Iterator[str]:
    """A row of the Markdown table for each floor."""
    target = Target.open("qnn", DEVICE)
    task = task_of(name)
    model = target.read(task.model, task.shapes)
    samples = pool(name)
    for floor in floors:
        trials = [try_split(target, model, samples, floor, split) for split in range(splits)]
        yield row(name, floor, len(samples) - GIVEN, trials)


def row(name: str, floor: float, unseen: int, trials: Sequence[Trial]) -> str:
    """Of trials that differ in their split alone."""
    promised = [t for t in trials if t.promised]
    met = sum(t.unseen_db >= floor - 1 for t in promised)
    least = f"{min(t.unseen_db for t in promised):.1f}" if promised else "-"
    costs = f"{np.mean([t.cost for t in promised]):.2f}" if promised else "-"
    seconds = np.mean([t.seconds for t in trials])
    return (
        f"| {name} | {floor:g} | {unseen} | {met} of {len(promised)} | {len(trials) - len(promised)} | {least} | {costs} | "
        f"{', '.join(dict.fromkeys(t.precision for t in promised)) or '-'} | {seconds:.0f} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--floors", nargs="+", type=float, default=[20, 30, 40])
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--simulator", action="store_true", help="search and judge on the EP itself")
    args = parser.parse_args()
    if not args.simulator:
        os.environ["PLANNER_PYTHON_QNN"] = os.path.realpath(sys.executable)
    print(
        "| model | floor | unseen | met | no promise | dB | cost | plans | s |\n|---|---|---|---|---|---|---|---|---|"
    )
    for name in args.models or MODELS:
        if name not in MODELS:
            parser.error(f"no model {name!r}: there are {', '.join(MODELS)}")
        try:
            for line in measure(name, args.floors, args.splits):
                print(line, flush=True)
        except PlannerError as error:
            print(f"{name}: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
