"""What equalizing channels between Conv pairs gains, by emulation on samples that did not calibrate.

    python -m benchmarks.equalization
    python -m benchmarks.equalization det cls --precisions w8a8

Between two Conv, with nothing or a Relu in the way, channel i may be divided by any s > 0: the first weight and bias are divided by it,
the second multiplied, and the model computes what it did (Nagel et al. 2019, cross-layer equalization). Here s brings each channel to the
range of the widest, as calibration saw it. Weights have a scale for each output channel, so that the first Conv loses nothing, and a
depthwise second one neither: *depthwise* equalizes those pairs alone. In *all* pairs the others are brought half the way in decibels.

*dB* is the least of any output, over samples that calibrated, and over others.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from benchmarks.common import task_of
from benchmarks.floor import GIVEN, pool
from planner.calibrate.inputs import Sample
from planner.calibrate.run import calibrate
from planner.dtypes import parse_precision
from planner.model.exposed import exposed
from planner.model.read import Model
from planner.model.values import constant_array, is_read_once
from planner.model.write import save
from planner.quantization.walk import apply_plan
from planner.resolve.choose import make_plan, resolve
from planner.resolve.target import Target
from planner.runtime.client import Worker
from planner.runtime.registry import CPU
from planner.verification.emulated import Emulation
from planner.verification.feed import AS_WRITTEN

MODELS = ("digits", "cls", "silero-static", "table-cls", "det", "rec")
# No channel is widened by more than this.
_MOST = 64.0


@dataclass(frozen=True)
class Pair:
    """Two Conv, and the tensor that the second reads."""

    first: ir.Node
    tensor: ir.Value
    second: ir.Node

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel of the tensor meets numbers of its own in the second weight."""
        return _array(self.second.inputs[1]).shape[1] == 1 and _groups(self.second) > 1


def pairs(graph: ir.Graph) -> Iterator[Pair]:
    """Conv that read one another and nothing else does."""
    for node in graph:
        if node.op_type != "Conv":
            continue
        value = node.outputs[0]
        if is_read_once(value) and (user := next(iter(value.uses())).node).op_type == "Relu":
            value = user.outputs[0]
        if not is_read_once(value):
            continue
        second = next(iter(value.uses())).node
        weights = [n.inputs[1] for n in (node, second) if n.op_type == "Conv"]
        if len(weights) == 2 and all(
            w is not None and constant_array(w) is not None and is_read_once(w) for w in weights
        ):
            pair = Pair(node, value, second)
            if pair.is_depthwise or _groups(second) == 1:
                yield pair


def channel_ranges(model: ir.Model, tensors: Sequence[str], samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """The largest magnitude of each channel, by name of the tensor."""
    found: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory(prefix="planner-") as folder, Worker(CPU) as worker:
        path = Path(folder) / "exposed.onnx"
        save(exposed(model, list(tensors)), path)
        worker.open(path, {}, session_config=AS_WRITTEN)
        for sample in samples:
            outputs = worker.run(sample).outputs
            for name in tensors:
                array = np.abs(outputs[name])
                most = array.max(axis=(0, *range(2, array.ndim)))
                found[name] = np.maximum(most, found.get(name, 0.0))
    return found


def equalize(graph: ir.Graph, ranges: dict[str, np.ndarray], *, depthwise_alone: bool) -> int:
    """Equalize pairs in place; how many."""
    count = 0
    for pair in pairs(graph):
        if depthwise_alone and not pair.is_depthwise:
            continue
        most = ranges[pair.tensor.name or ""].astype(np.float64)
        share = np.where(most > 0, np.maximum(most / most.max(), 1 / _MOST), 1.0)
        divisor = share if pair.is_depthwise else np.sqrt(share)
        first, second = _array(pair.first.inputs[1]), _array(pair.second.inputs[1])
        around = [1] * (second.ndim - 2)
        _put(pair.first.inputs[1], first / divisor.reshape(-1, 1, *[1] * (first.ndim - 2)))
        _put(pair.second.inputs[1], second * divisor.reshape(*((-1, 1) if pair.is_depthwise else (1, -1)), *around))
        if len(pair.first.inputs) > 2 and pair.first.inputs[2] is not None:
            _put(pair.first.inputs[2], _array(pair.first.inputs[2]) / divisor)
        count += 1
    return count


def _groups(node: ir.Node) -> int:
    attribute = node.attributes.get("group")
    return 1 if attribute is None else attribute.as_int()


def _array(value: ir.Value | None) -> np.ndarray:
    array = constant_array(value)
    assert array is not None
    return array


def _put(value: ir.Value | None, array: np.ndarray) -> None:
    assert value is not None
    value.const_value = ir.tensor(array.astype(np.float32), name=value.name)


def measure(name: str, precisions: Sequence[str]) -> Iterator[str]:
    """A row of the Markdown table for each precision."""
    target, task, samples = Target.open("qnn"), task_of(name), pool(name)
    read = [target.read(task.model, task.shapes) for _ in range(3)]
    given, unseen = range(GIVEN), range(GIVEN, len(samples))
    with tempfile.TemporaryDirectory(prefix="planner-") as folder:
        reference = Path(folder) / "reference.onnx"
        save(_graph(read[0]), reference)
        tensors = [pair.tensor.name or "" for pair in pairs(_graph(read[0]).graph)]
        ranges = channel_ranges(_graph(read[0]), tensors, samples[:GIVEN])
        counts = [
            equalize(_graph(model).graph, ranges, depthwise_alone=alone)
            for model, alone in zip(read[1:], (True, False), strict=True)
        ]
        emulation = Emulation(reference, samples)
        seen = [calibrate(model, samples[:GIVEN]) for model in read]
        for precision in precisions:
            cells = []
            for model, observed in zip(read, seen, strict=True):
                plan = make_plan(target, model, resolve(target, model, parse_precision(precision)))
                made = apply_plan(model, plan, observed).model
                some, others = (min(f.least_db for f in emulation.fidelity(made, where)) for where in (given, unseen))
                cells.append(f"{some:.1f}, {others:.1f}")
            yield f"| {name} | {precision} | {counts[1]}, {counts[0]} | {' | '.join(cells)} |"


def _graph(model: Model) -> ir.Model:
    assert model.ir is not None
    return model.ir


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--precisions", nargs="+", default=["w8a8", "w8a16"])
    args = parser.parse_args()
    print("| model | precision | pairs, depthwise | as it stands | depthwise | all |\n|---|---|---|---|---|---|")
    for name in args.models:
        for line in measure(name, args.precisions):
            print(line, flush=True)


if __name__ == "__main__":
    main()
