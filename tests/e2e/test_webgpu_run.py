"""WebGPU itself runs: on a GPU, or on one in software."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from planner.cli import main as cli
from planner.runtime.client import Worker
from planner.runtime.registry import launcher

pytestmark = pytest.mark.webgpu
WEBGPU, CPU = "WebGpuExecutionProvider", "CPUExecutionProvider"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """One process for all tests."""
    with Worker(WEBGPU) as started:
        yield started


def write(path: Path, nodes: list[onnx.NodeProto], dtype: int = TensorProto.FLOAT, **external: Any) -> Path:
    """A model from x [1, 4, 8, 8] to y, with weights w [4, 4, 3, 3]."""
    weight = np.full((4, 4, 3, 3), 0.25, helper.tensor_dtype_to_np_dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", dtype, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(made, path, **external)
    return path


CONV = helper.make_node("Conv", ["x", "w"], ["c"], name="conv")


def test_every_node_is_named_whether_or_not_all_are_taken_and_the_numbers_are_right(
    worker: Worker, tmp_path: Path
) -> None:
    path = write(tmp_path / "m.onnx", [CONV, helper.make_node("Relu", ["c"], ["y"], name="relu")])
    opened = worker.open(path, {}, log=True)
    assert {a.ep for a in opened.assignment} == {WEBGPU}
    assert any(a.name.startswith("conv") for a in opened.assignment)
    result = worker.run({"x": np.ones((1, 4, 8, 8), np.float32)}).outputs
    assert list(result) == ["y"]
    np.testing.assert_allclose(result["y"], np.full((1, 4, 6, 6), 9.0))

    left = write(tmp_path / "left.onnx", [CONV, helper.make_node("Det", ["c"], ["y"], name="det")])
    opened = worker.open(left, {}, log=True)
    assert (CPU, "det") in {(a.ep, a.name) for a in opened.assignment}
    assert [(r.op_type, r.name) for r in opened.refusals] == [("Det", "det")]


def test_a_model_with_external_data_is_placed_too(worker: Worker, tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.onnx",
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")],
        save_as_external_data=True,
        location="w.bin",
        size_threshold=0,
    )
    assert (tmp_path / "w.bin").is_file()
    opened = worker.open(path, {})
    assert opened.assignment and {a.ep for a in opened.assignment} == {WEBGPU}
    assert "onnxruntime-webgpu" in opened.runtime


def test_target_runs_float32_on_webgpu_and_places_float16_whether_or_not_the_gpu_has_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = launcher(WEBGPU).availability()
    path = write(tmp_path / "m.onnx", [CONV, helper.make_node("Relu", ["c"], ["y"], name="relu")])
    for precision in ("fp32", "fp16"):
        output = tmp_path / f"{precision}.onnx"
        asked = ["target", str(path), "--ep", "webgpu", "--precision", precision, "--output", str(output), "--json"]
        assert cli.main(asked) == 0
        verification = json.loads(capsys.readouterr().out)["verification"]
        runs = found.runs_model(float16=precision == "fp16")
        assert verification["kind"] == (found.kind if runs else "emulation")
        placement = verification["placement"]
        assert placement["fallback"] == [] and placement["on_target"] == placement["total"] > 0
        assert "onnxruntime-webgpu" in placement["by"]


def test_four_bit_weights_run_on_webgpu_as_matmulnbits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weight = np.random.default_rng(1).normal(size=(64, 32)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 32])],
        [numpy_helper.from_array(weight, "w")],
    )
    path, output = tmp_path / "m.onnx", tmp_path / "w4.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    asked = [
        "target",
        str(path),
        "--ep",
        "webgpu",
        "--precision",
        "w4",
        "--floor",
        "10",
        "--output",
        str(output),
        "--json",
    ]
    assert cli.main(asked) == 0
    assert [node.op_type for node in onnx.load(output).graph.node] == ["MatMulNBits"]
    verification = json.loads(capsys.readouterr().out)["verification"]
    assert verification["ran_on"] == WEBGPU and verification["placement"]["fallback"] == []
    (fidelity,) = verification["fidelity"]
    assert 10 < fidelity["sqnr_db"] < 40  # 4 bits: neither lost nor left in float32
