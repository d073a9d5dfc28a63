"""How often the lower end of a plan's interval holds on other samples, by bootstrap alone and with the tail that planner adds.

    python -m benchmarks.low_end
    python -m benchmarks.low_end magika rec --floors 40

Each model is quantized at four precisions with ranges of its first 12 samples, and runs on all others by emulation. Of these, 12 are
drawn 40 times to judge, and the rest are unseen. The precision taken is the first of w8a8, w8a16, w16a16 and fp16 whose lower end
reaches the floor; it *holds* where the worst output has at least the floor less 1 dB on the unseen ones. *None*: draws in which no precision
reaches the floor. *Step*: the mean place of the one taken among the four, from 0.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import task_of
from benchmarks.floor import MODELS, pool
from planner.calibrate.run import calibrate
from planner.dtypes import parse_precision
from planner.model.write import save
from planner.quantization.walk import apply_plan
from planner.resolve.choose import make_plan, resolve
from planner.resolve.target import Target
from planner.runtime.client import Worker
from planner.runtime.registry import CPU
from planner.verification import fidelity
from planner.verification.emulation import emulate_float16, uses_float16
from planner.verification.feed import AS_WRITTEN, cast_feed, input_dtypes
from planner.verification.fidelity import Comparison

PRECISIONS = ("w8a8", "w8a16", "w16a16", "fp16")
_GIVEN, _DRAWS, _UNSEEN = 12, 40, 8
# By output: energies of reference and error of each sample.
Energies = Mapping[str, Sequence[tuple[float, float]]]


def energies(name: str) -> Iterator[Energies]:
    """What each precision comes to on every sample that did not calibrate."""
    target, task, samples = Target.open("qnn"), task_of(name), pool(name)
    model = target.read(task.model, task.shapes)
    assert model.ir is not None
    ranges = calibrate(model, samples[:_GIVEN])
    with tempfile.TemporaryDirectory(prefix="planner-") as folder, Worker(CPU) as reference, Worker(CPU) as worker:
        file = Path(folder) / "model.onnx"
        save(model.ir, file)
        reference.open(file, {})
        expected = [reference.run(sample).outputs for sample in samples[_GIVEN:]]
        for precision in PRECISIONS:
            plan = make_plan(target, model, resolve(target, model, parse_precision(precision)))
            made = apply_plan(model, plan, ranges).model
            dtypes = input_dtypes(made)
            save(emulate_float16(made) if uses_float16(made) else made, file)
            worker.open(file, {}, session_config=AS_WRITTEN)
            compared = Comparison()
            for sample, outputs in zip(samples[_GIVEN:], expected, strict=True):
                compared.add(outputs, worker.run(cast_feed(sample, dtypes)).outputs)
            yield {
                output: found.energies
                for output, found in compared.outputs.items()
                if sum(e[0] for e in found.energies)
            }


def by_bootstrap(own: Sequence[tuple[float, float]]) -> float:
    """The lower end without a tail."""
    return fidelity.bootstrap(fidelity.ordered(own))


def with_tail(own: Sequence[tuple[float, float]]) -> float:
    """As planner has it."""
    found = fidelity.low_end(own)
    assert found is not None
    return found


def least(found: Energies, places: Sequence[int], of: Callable[[Sequence[tuple[float, float]]], float]) -> float:
    """Of the worst output, over these samples."""
    return min(of([own[place] for place in places]) for own in found.values())


def whole(own: Sequence[tuple[float, float]]) -> float:
    """SQNR over samples."""
    return fidelity.sqnr(*(sum(pair[i] for pair in own) for i in range(2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "models",
        nargs="*",
        default=[*(m for m in MODELS if m not in ("rec-v4", "layout")), "table-cls"],
        metavar="MODEL",
    )
    parser.add_argument("--floors", nargs="+", type=float, default=[20, 30, 40])
    args = parser.parse_args()
    print("| model | floor | holds by bootstrap | none | step | holds with the tail | none | step |")
    print("|---|---|---|---|---|---|---|---|")
    kept = {rule: [0, 0] for rule in (by_bootstrap, with_tail)}
    for name in args.models:
        found = list(energies(name))
        count = len(next(iter(found[0].values())))
        rng = np.random.default_rng(1)
        draws = [rng.permutation(count).tolist() for _ in range(_DRAWS)]
        given = min(_GIVEN, count - _UNSEEN)
        for floor in args.floors:
            cells = []
            for rule, sums in kept.items():
                taken = [
                    next((i for i, own in enumerate(found) if least(own, draw[:given], rule) >= floor), None)
                    for draw in draws
                ]
                steps = [step for step in taken if step is not None]
                holds = sum(
                    least(found[step], draw[given:], whole) >= floor - 1
                    for step, draw in zip(taken, draws, strict=True)
                    if step is not None
                )
                sums[0], sums[1] = sums[0] + holds, sums[1] + len(steps)
                step = f"{np.mean(steps):.1f}" if steps else "-"
                cells.append(f"{holds} of {len(steps)} | {_DRAWS - len(steps)} | {step}")
            print(f"| {name} | {floor:g} | {' | '.join(cells)} |", flush=True)
    print(
        "; ".join(f"{rule.__name__}: {holds} of {total}, {holds / total:.1%}" for rule, (holds, total) in kept.items())
    )


if __name__ == "__main__":
    main()
