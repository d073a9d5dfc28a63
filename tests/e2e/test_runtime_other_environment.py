"""An EP whose package excludes ours runs in an environment of its own, reached by the same worker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save

import planner
from planner.runtime.client import Worker
from planner.runtime.registry import launcher
from tests.unit.small_models import graph
from tests.unit.small_models import save as write

OPENVINO = "OpenVINOExecutionProvider"


def test_openvino_runs_from_its_own_environment(tmp_path: Path) -> None:
    found = launcher(OPENVINO).availability()
    if found.kind is None:
        pytest.skip(found.reason)
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], name="relu")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    with Worker(OPENVINO) as worker:
        opened = worker.open(tmp_path / "m.onnx", {"device_type": "CPU"}, log=True)
        result = worker.run({"x": np.array([[-1, 2, -3], [4, -5, 6]], np.float32)}).outputs["y"]
    assert {a.ep for a in opened.assignment} == {OPENVINO}
    assert "onnxruntime-openvino" in opened.runtime
    np.testing.assert_array_equal(result, [[0, 2, 0], [4, 0, 6]])


@pytest.mark.parametrize(("body", "weight", "given"), [
    ("MatMul(x, w)", (64, 32), "1,16,64,32"), ("Conv(x, w)", (32, 16, 3, 3), "1,32,62,62"), ("ConvTranspose(x, w)", (16, 8, 3, 3), "1,8,66,66"),
])  # fmt: skip
def test_openvino_keeps_its_sums_on_a_processor_without_vnni(
    body: str, weight: tuple[int, ...], given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of one sign, whose sums are the first to saturate, on kernels held to AVX2."""
    found = launcher(OPENVINO).availability()
    if found.kind is None:
        pytest.skip(found.reason)
    monkeypatch.setenv("PLANNER_PROCESSOR", "no-vnni")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    random = np.random.default_rng(0)
    constants = {"w": random.uniform(-0.1, 1, weight).astype(np.float32)}
    model = write(graph(f"(float[1,16,64,64] x) => (float[{given}] y)", f"y = {body}", constants), tmp_path)
    (tmp_path / "in").mkdir()
    for index in range(4):
        np.savez(tmp_path / "in" / f"{index}.npz", x=random.uniform(1, 3, (1, 16, 64, 64)).astype(np.float32))
    made = planner.target(model, "openvino", tmp_path / "out.onnx", precision="w8a8", inputs=str(tmp_path / "in"))
    assert made.kept is not None and made.kept.worst_db > 45
