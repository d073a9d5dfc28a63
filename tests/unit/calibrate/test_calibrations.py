"""A model is calibrated once for all the plans that are made of it, and anew where anything about it differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.calibrate import run
from planner.calibrate.inputs import load_inputs
from planner.calibrate.run import Calibrations
from planner.dtypes import parse_precision
from planner.reporting.matrix import Subject, make_report, open_targets
from planner.resolve.target import Target
from tests.unit.small_models import f32, graph, save

WEIGHT = f32(np.random.default_rng(0).normal(size=(4, 8)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    body = "h = MatMul(x, w)\ny = Relu(h)"
    return save(graph("(float[1,4] x) => (float[1,8] y)", body, {"w": WEIGHT}, opset=21), tmp_path)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []
    real = run.observe

    def observe(model: Any, samples: Any, *args: Any) -> Any:
        made.append(model.path)
        return real(model, samples, *args)

    monkeypatch.setattr(run, "observe", observe)
    return made


def test_the_same_model_and_inputs_are_calibrated_once(path: Path, calls: list[Any]) -> None:
    target = Target.open("cpu")
    model, again = target.read(path), target.read(path)
    inputs = load_inputs(None, model)
    calibrations = Calibrations()
    assert calibrations.of(model, inputs) is calibrations.of(again, inputs)
    assert len(calls) == 1


def test_other_inputs_or_another_method_are_another_calibration(path: Path, calls: list[Any]) -> None:
    model = Target.open("cpu").read(path)
    inputs = load_inputs(None, model)
    calibrations = Calibrations()
    for other in (inputs, load_inputs(None, model, seed=1), replace(inputs, method="average")):
        calibrations.of(model, other)
    assert len(calls) == 3


def test_a_report_calibrates_a_model_once_for_all_its_precisions(path: Path, calls: list[Any]) -> None:
    precisions = [parse_precision(name) for name in ("w8a8", "w8a16")]
    report = make_report([Subject(path)], open_targets(["cpu"]), precisions, histograms=False)
    assert [row.status for row in report.rows] == ["passed", "passed"]
    assert len(calls) == 1
