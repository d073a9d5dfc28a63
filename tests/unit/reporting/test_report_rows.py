"""From plans and verifications to rows: the three rungs, the tier, who ran which node, and what would change the verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.calibrate.inputs import Inputs
from planner.dtypes import parse_precision
from planner.quantization.write import Artifact
from planner.reporting import rows, single
from planner.reporting.data import Row
from planner.reporting.single import target_report
from planner.resolve.choose import check_model, make_plan
from planner.resolve.target import Target
from planner.runtime.latency import Latency
from planner.search.attempt import Attempt
from planner.search.run import Selection
from planner.verification.fidelity import Fidelity
from planner.verification.floor import DEFAULT_FLOOR
from planner.verification.placement import Fallback, Placement
from planner.verification.verify import Seconds, Verification
from tests.unit.small_models import f32, graph, save

INPUTS = Inputs([{}] * 6, [{}] * 2, "data.npz", False, True, "0" * 64)


@pytest.fixture
def target() -> Target:
    return Target.open("qnn", "snapdragon-x-elite")


@pytest.fixture
def model(tmp_path: Path, target: Target) -> Any:
    weight = f32(np.random.default_rng(0).normal(size=(4, 8)))
    body = "h = MatMul(x, w)\ny = Relu(h)"
    return target.read(save(graph("(float[1,4] x) => (float[1,8] y)", body, {"w": weight}), tmp_path))


def attempt(
    target: Target,
    model: Any,
    precision: str = "w8a16",
    *,
    sqnr: float = 40.0,
    kind: Any = "simulator",
    fallback: tuple[Fallback, ...] = (),
    reasons: tuple[str, ...] = (),
    latency: Latency | None = None,
) -> Attempt:
    plan = make_plan(target, model, check_model(target, model, parse_precision(precision)), INPUTS)
    total = len(plan.nodes)
    off = {entry.name for entry in fallback}
    placement = Placement(
        total,
        None if kind == "emulation" else total - len(fallback),
        fallback,
        {n.name: "CPUExecutionProvider" if n.name in off else target.ep for n in plan.nodes},
    )
    verified = Verification(
        "CPUExecutionProvider" if kind == "emulation" else target.ep, kind, {"onnxruntime": "1.32.0"}, placement,
        (Fidelity("y", sqnr, 0.99, 0.1, None, True),), (), (), Seconds(0.5, 0.01), 100.0, 2, DEFAULT_FLOOR, reasons,
    )  # fmt: skip
    return Attempt(plan, Artifact("out.onnx", "0" * 64, 1234), verified, latency)


def row(target: Target, model: Any, made: Attempt, inputs: Inputs = INPUTS) -> Row:
    shown = rows.model_of(model, "model")
    return rows.attempt_row(made, shown, target.identity, made.plan.precision, legal=True, inputs=inputs)


def test_a_verified_plan_is_a_row_that_passed_on_all_three_rungs(target: Target, model: Any) -> None:
    made = row(target, model, attempt(target, model))
    assert (made.status, made.legal, made.placed, made.faithful) == ("passed", True, True, True)
    assert (made.tier, made.kind, made.floor_db, made.size_bytes) == ("simulated", "simulator", 20.0, 1234)
    assert [(n.op_type, n.weight, n.activation, n.on_target) for n in made.nodes] == [
        ("MatMul", "int8", "uint16", True),
        ("Relu", None, "uint16", True),
    ]
    assert made.inputs is not None and (made.inputs.source, made.inputs.samples) == ("data.npz", 8)
    assert made.suggestions == () and made.reason == ""


def test_only_hardware_has_a_speed(target: Target, model: Any) -> None:
    timed = Latency(2.0, 1.5)
    assert row(target, model, attempt(target, model, kind="hardware", latency=timed)).speed_ms == 1.5
    assert row(target, model, attempt(target, model, kind="simulator", latency=timed)).speed_ms is None


def test_emulation_knows_no_placement(target: Target, model: Any) -> None:
    made = row(target, model, attempt(target, model, kind="emulation"))
    assert (made.tier, made.placed, made.status) == ("emulated", None, "passed")
    assert {node.on_target for node in made.nodes} == {None}
    assert made.fallback is None


def test_a_node_off_target_is_marked_with_the_eps_reason(target: Target, model: Any) -> None:
    name = model.nodes[1].name
    reasons = (f"1 of 2 nodes are not on {target.ep}",)
    off = (Fallback(name, "Relu", "unsupported"),)
    made = row(target, model, attempt(target, model, fallback=off, reasons=reasons))
    assert (made.status, made.placed, made.faithful, made.reason) == ("failed", False, True, reasons[0])
    assert [(n.on_target, n.reason) for n in made.nodes][1] == (False, "unsupported")
    assert made.nodes[0].on_target is True
    assert "--allow-fallback" in made.suggestions[0]


def test_below_the_floor_the_way_on_is_named(target: Target, model: Any) -> None:
    made = row(target, model, attempt(target, model, sqnr=12.0, reasons=("output 'y' has 12.0 dB",)))
    assert (made.status, made.placed, made.faithful) == ("failed", True, False)
    assert "--floor 20" in made.suggestions[0]
    guessed = row(target, model, attempt(target, model, sqnr=12.0, reasons=("low",)), replace(INPUTS, synthetic=True))
    assert "--inputs" in guessed.suggestions[0]


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is observed."""
    monkeypatch.setattr(single, "observed_ranges", lambda model, samples: ())


@pytest.mark.usefixtures("still")
def test_a_target_report_has_a_row_for_each_precision_tried_and_recommends_what_was_kept(
    target: Target, model: Any
) -> None:
    low = attempt(target, model, "w8a8", sqnr=12.0, reasons=("low",))
    good = attempt(target, model, "w8a16")
    again = replace(attempt(target, model, "w8a16", sqnr=30.0), artifact=Artifact("again.onnx", "1" * 64, 99))
    asked = parse_precision("w8a16")
    tried = Selection(good, (low, good, again))
    report = target_report(target, model, asked, check_model(target, model, asked), tried, INPUTS, date="2026-01-01")
    assert [(r.precision, r.status, r.recommended, r.size_bytes) for r in report.rows] == [
        ("w8a8", "failed", False, 1234),
        ("w8a16", "passed", True, 1234),
    ]
    assert report.cells[0].best.precision == "w8a16"


@pytest.mark.usefixtures("still")
def test_what_failed_is_kept_but_not_recommended(target: Target, model: Any) -> None:
    low = attempt(target, model, "w8a8", sqnr=12.0, reasons=("low",))
    judged = check_model(target, model, None)
    report = target_report(target, model, parse_precision("w8a8"), judged, Selection(low, (low,)), INPUTS)
    assert [(r.status, r.recommended) for r in report.rows] == [("failed", False)]


def test_an_illegal_precision_is_a_row_with_its_violations(model: Any) -> None:
    old = Target.open("qnn", "snapdragon-8cx-gen3")
    asked = parse_precision("fp16")
    report = target_report(old, model, asked, check_model(old, model, asked))
    (only,) = report.rows
    assert (only.precision, only.status, only.legal) == ("fp16", "illegal", False)
    assert {v.op_type for v in only.violations} == {"MatMul", "Relu"}
