"""An EP whose package excludes ours runs in an environment of its own, reached by the same worker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from planner.runtime.client import Worker
from planner.runtime.registry import launcher

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
