"""The switched model says of blocks what the written models say of the whole."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from examples import digits
from examples.inputs import digits_labelled
from planner.calibrate.ranges import Range
from planner.calibrate.run import calibrate
from planner.dtypes import parse_precision
from planner.model.read import Model, read_model
from planner.model.write import save
from planner.quantization.walk import apply_plan
from planner.resolve.choose import make_plan, resolve
from planner.resolve.plan import Plan
from planner.resolve.target import Target
from planner.runtime.client import Worker
from planner.runtime.registry import CPU
from planner.search.candidates import units
from planner.search.switched import make_switched
from planner.verification.feed import AS_WRITTEN
from planner.verification.fidelity import Comparison
from tests.unit.small_models import f32, graph
from tests.unit.small_models import save as save_proto

SAMPLES = [sample for sample, _ in digits_labelled(6)]


def _outputs(path: Path, switches: Mapping[str, np.ndarray]) -> list[Mapping[str, np.ndarray]]:
    with Worker(CPU) as worker:
        worker.open(path, {}, session_config=AS_WRITTEN)
        return [worker.run({**sample, **switches}).outputs for sample in SAMPLES]


def _db(expected: list[Mapping[str, np.ndarray]], got: list[Mapping[str, np.ndarray]]) -> float:
    comparison = Comparison()
    for one, other in zip(expected, got, strict=True):
        comparison.add(one, other)
    return min(entry.sqnr_db for entry in comparison.results())


def _applied(model: Model, plan: Plan, ranges: Mapping[str, Range]) -> ir.Model:
    return apply_plan(model, plan, ranges).model


@pytest.mark.parametrize("precision", ["w8a8", "fp16"])
def test_all_switches_on_come_to_the_written_model_and_none_to_float32(precision: str, tmp_path: Path) -> None:
    target, model = Target.open("cpu"), read_model(digits.model()[0])
    assert model.ir is not None
    plan = make_plan(target, model, resolve(target, model, parse_precision(precision)))
    written = apply_plan(model, plan, calibrate(model, SAMPLES)).model
    parts = units(model.nodes)
    switched = make_switched(model.ir, [[model.nodes[i].name for i in part] for part in parts], {4: lambda: written})
    assert switched is not None
    for name, made in (("float32", model.ir), ("switched", switched.model), ("written", written)):
        save(made, tmp_path / f"{name}.onnx")
    expected = _outputs(tmp_path / "float32.onnx", {})
    off, one, on = (
        _db(expected, _outputs(tmp_path / "switched.onnx", switched.feed(by_unit)))
        for by_unit in ({}, {0: 4}, dict.fromkeys(range(len(parts)), 4))
    )
    assert off > 100
    assert off > one >= on
    if precision == "w8a8":  # the CPU EP does not round between float16 nodes: only the emulation does
        assert on == pytest.approx(_db(expected, _outputs(tmp_path / "written.onnx", {})), abs=1.5)
    else:
        assert 40 < on < 90


def test_a_mix_comes_to_the_mix_that_is_written(tmp_path: Path) -> None:
    # Every other unit computes in 8 bits: what it reads from those beside it is rounded for it alone.
    target, model = Target.open("cpu"), read_model(digits.model()[0])
    assert model.ir is not None
    ranges = calibrate(model, SAMPLES)
    plans = [make_plan(target, model, resolve(target, model, parse_precision(name))) for name in ("w8a8", "w8a16")]
    parts = units(model.nodes)
    level = {index: place % 2 for place, part in enumerate(parts) for index in part}
    lines = tuple(plans[level.get(index, 1)].nodes[index] for index in range(len(model.nodes)))
    switched = make_switched(
        model.ir,
        [[model.nodes[i].name for i in part] for part in parts],
        dict(enumerate(functools.partial(_applied, model, plan, ranges) for plan in plans)),
    )
    assert switched is not None
    written = _applied(model, replace(plans[1], nodes=lines), ranges)
    for name, made in (("float32", model.ir), ("switched", switched.model), ("written", written)):
        save(made, tmp_path / f"{name}.onnx")
    expected = _outputs(tmp_path / "float32.onnx", {})
    by_unit = {place: place % 2 for place in range(len(parts))}
    mixed = _db(expected, _outputs(tmp_path / "switched.onnx", switched.feed(by_unit)))
    assert mixed == pytest.approx(_db(expected, _outputs(tmp_path / "written.onnx", {})), abs=0.5)


def test_a_model_with_branches_is_left_to_real_plans(tmp_path: Path) -> None:
    proto = graph(
        "(float[2] x, bool c) => (float[2] y)",
        "y = If(c) <then_branch = t () => (float[2] a) { a = Relu(x) }, else_branch = e () => (float[2] b) { b = Neg(x) }>",
        {"unused": f32(np.eye(1))},
        check=False,
    )
    model = read_model(save_proto(proto, tmp_path))
    whole = model.ir
    assert whole is not None
    assert make_switched(whole, [[node.name] for node in model.nodes], {0: lambda: whole}) is None
