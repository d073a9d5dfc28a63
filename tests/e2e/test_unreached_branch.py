"""A trained model with a branch that its inputs hardly ever reach: the wake word's second opinion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import planner
from planner.dtypes import DType
from planner.runtime.processor import traits

pytestmark = pytest.mark.models


@pytest.mark.parametrize("precision", ["w8a8", "w8a16"])
def test_the_branch_stays_float_and_the_rest_is_quantized(
    example: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    outcome = planner.target(
        example("wake-word"), "cpu", tmp_path / "out.onnx", precision=precision, inputs="examples.inputs:wake_word"
    )
    assert outcome.kept is not None and outcome.kept.passed
    lines = {line.name: line for line in outcome.kept.plan.nodes}
    island = [line for line in lines.values() if "then_branch of If 'If_32'" in line.reason]
    assert {line.op_type for line in island} == {"Flatten", "Gemm", "LayerNormalization", "Relu", "Sigmoid"}
    assert all(line.activation is DType.FLOAT32 and line.weight in (None, DType.FLOAT32) for line in island)
    unsigned = precision == "w8a8" and "no-vnni" in traits()
    assert lines["Gemm_1"].weight is (DType.UINT8 if unsigned else DType.INT8)
    assert lines["Identity_62"].activation is not DType.FLOAT32
    assert any("no calibration sample reached it" in note for note in outcome.kept.artifact.notes)
