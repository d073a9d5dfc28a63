"""A model of an opset whose kernels onnxruntime has given up: planner brings it to a newer one, reference included."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import planner
from tests.unit.small_models import f32, graph, save


def test_a_model_of_opset_6_is_planned_run_and_compared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    constants = {"w": f32(rng.normal(size=(8, 4))), "b": f32(rng.normal(size=4))}
    body = "h = Gemm<broadcast = 1>(x, w, b)\ny = Relu(h)"
    model = save(graph("(float[2,8] x) => (float[2,4] y)", body, constants, opset=6, check=False), tmp_path)
    found = planner.target(model, "cpu", tmp_path / "out.onnx", precision="w8a8")
    assert found.passed and found.kept is not None
    assert found.kept.verification.kind == "hardware" and found.kept.worst_db > 25
    assert found.kept.latency is None, "the model itself runs nowhere: there is nothing to compare its time with"
