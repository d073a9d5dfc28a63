"""DirectML itself says which nodes it takes: Microsoft's libraries under Wine."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from planner.cli import main as cli
from planner.runtime.client import RunFailed, SessionFailed, Worker
from planner.runtime.eps.directml import environment
from planner.runtime.eps.directml.server import Server

pytestmark = pytest.mark.directml
DML, CPU = "DmlExecutionProvider", "CPUExecutionProvider"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """One process for all tests."""
    with Worker(DML) as started:
        yield started


def write(
    path: Path, nodes: list[onnx.NodeProto], constants: dict[str, Any], *, opset: int = 20, **external: Any
) -> Path:
    """A model from x to y, both float32 [1, 4, 8, 8], or of the dtype that `x` names."""
    dtype = external.pop("dtype", TensorProto.FLOAT)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", dtype, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)], ir_version=10
    )
    onnx.save(made, path, **external)
    return path


def gelu(path: Path, dtype: int, domain: str) -> Path:
    return write(path, [helper.make_node("Gelu", ["x"], ["y"], name="gelu", domain=domain)], {}, dtype=dtype)


def eps(worker: Worker, path: Path) -> dict[str, str]:
    return {entry.op_type: entry.ep for entry in worker.open(path, {}, log=True).assignment}


def test_gelu_of_onnx_is_left_in_float32_and_that_of_onnxruntime_is_taken(worker: Worker, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    assert eps(worker, gelu(path, TensorProto.FLOAT, "")) == {"Gelu": CPU}
    assert eps(worker, gelu(path, TensorProto.FLOAT, "com.microsoft")) == {"Gelu": DML}
    assert set(eps(worker, gelu(path, TensorProto.FLOAT16, "")).values()) == {DML}


def test_a_model_with_external_data_is_asked_whatever_its_folder_is_called(worker: Worker, tmp_path: Path) -> None:
    folder = tmp_path / 'a: "b" | c?'
    folder.mkdir()
    weight = np.ones((4, 4, 3, 3), np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    path = write(
        folder / "m.onnx", [node], {"w": weight}, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    assert (folder / "w.bin").is_file()
    assert eps(worker, path) == {"Conv": DML}


def test_a_model_runs_where_the_machine_computes_and_nothing_is_made_up_elsewhere(
    worker: Worker, tmp_path: Path
) -> None:
    found = environment.find()
    assert found is not None
    worker.open(gelu(tmp_path / "m.onnx", TensorProto.FLOAT, "com.microsoft"), {})
    feed = {"x": np.linspace(-3, 3, 256, dtype=np.float32).reshape(1, 4, 8, 8)}
    if found.computes:
        halves = 1 + np.vectorize(math.erf)(feed["x"] / math.sqrt(2))
        np.testing.assert_allclose(worker.run(feed).outputs["y"], feed["x"] * halves / 2, atol=1e-4)
    else:
        with pytest.raises(RunFailed, match="computes nothing"):
            worker.run(feed)


def test_a_reshape_that_no_kernel_is_built_for_is_written_in_another_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = {"s": np.array([1, -1, 16])}
    model = write(tmp_path / "m.onnx", [helper.make_node("Reshape", ["x", "s"], ["y"], name="r", allowzero=1)], shape)
    assert cli.main(["check", str(model), "--ep", "directml"]) == 1
    assert "allowzero" in capsys.readouterr().out
    made = tmp_path / "made.onnx"
    assert cli.main(["target", str(model), "--ep", "directml", "--precision", "fp16", "--output", str(made)]) == 0
    assert all(not node.attribute for node in onnx.load(made).graph.node if node.op_type == "Reshape")


def test_a_broken_model_is_an_answer_like_any_other(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\x0a\xff\xff")
    with pytest.raises(SessionFailed):
        worker.open(tmp_path / "broken.onnx", {})
    assert eps(worker, gelu(tmp_path / "m.onnx", TensorProto.FLOAT, "com.microsoft")) == {"Gelu": DML}


def test_after_the_program_died_the_next_model_is_asked_of_a_new_one(tmp_path: Path) -> None:
    found = environment.find()
    assert found is not None
    server = Server(found)
    try:
        server._asker.close()
        request = {"model": str(gelu(tmp_path / "m.onnx", TensorProto.FLOAT, "com.microsoft")), "optimize": True}
        assert server.open(request)["assignment"] == [(DML, "Gelu", "gelu")]
    finally:
        server._asker.close()


def test_a_quantized_model_is_taken_whole_with_its_biases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Flatten", ["r"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "v", "d"], ["g"], name="gemm"),
        helper.make_node("Gelu", ["g"], ["y"], name="gelu"),
    ]
    shapes = {"w": (4, 4, 3, 3), "b": (4,), "v": (144, 8), "d": (8,)}
    model = write(
        tmp_path / "m.onnx", nodes, {n: rng.normal(0, 0.2, s).astype(np.float32) for n, s in shapes.items()}, opset=22
    )
    samples = rng.normal(size=(6, 1, 4, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=samples)
    for precision in ("fp32", "fp16", "w8a8"):
        status = cli.main(
            ["target", str(model), "--ep", "directml", "--precision", precision, "--inputs", str(tmp_path / "x.npz"),
             "--output", str(tmp_path / f"{precision}.onnx"), "--json"]
        )  # fmt: skip
        out, err = capsys.readouterr()
        assert status == 0, err
        verification = json.loads(out)["verification"]
        found = environment.find()
        assert verification["kind"] == ("software" if found is not None and found.computes else "emulation")
        placement = verification["placement"]
        assert placement["by"] == "onnxruntime-directml 1.24.4"
        assert placement["on_target"] == placement["total"] > 0, placement["fallback"]
