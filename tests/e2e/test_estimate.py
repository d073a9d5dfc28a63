"""Estimates from the real compiler: numbers that can be worked out by hand, and the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from planner.cli.main import main
from planner.errors import RequestError
from planner.estimation.compile import Compiled, Compiler
from planner.estimation.schedule import Unit
from planner.runtime.client import Worker

_QNN = "QNNExecutionProvider"
_OPTIONS = {"soc_model": "60", "enable_htp_fp16_precision": "1", "offload_graph_io_quantization": "0"}
pytestmark = pytest.mark.qnn


def save(path: Path, node: onnx.NodeProto, shapes: dict[str, list[int]], weight: list[int] | None = None) -> Path:
    """A model of one float32 node that reads every input but ``y``, which it writes."""
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    weights = [] if weight is None else [numpy_helper.from_array(np.ones(weight, np.float32), "w")]
    graph = helper.make_graph([node], "g", [v for n, v in values.items() if n != "y"], [values["y"]], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def compiler() -> Iterator[Compiler]:
    with Compiler(_QNN) as made:
        yield made


def save_conv(folder: Path, channels: int = 64, side: int = 32) -> Path:
    """A convolution "conv" with a 1x1 kernel that keeps the shape of what it reads."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    shapes = {name: [1, channels, side, side] for name in ("x", "y")}
    return save(folder / "conv.onnx", node, shapes, [channels, channels, 1, 1])


def compile_conv(compiler: Compiler, folder: Path) -> Compiled:
    return compiler.compile(save_conv(folder), _OPTIONS)


def test_a_convolution_reads_its_input_and_weights_and_writes_its_output(compiler: Compiler, tmp_path: Path) -> None:
    schedule = compile_conv(compiler, tmp_path).schedule
    assert schedule.dram_write == 64 * 32 * 32 * 4
    # Weights go as float16, padded and with the bias beside them.
    assert 0 <= schedule.dram_read - 64 * 32 * 32 * 4 - 64 * 64 * 2 <= 4096
    assert [(p.node, p.activation, p.macs) for p in schedule.products] == [("conv_token_1", "float", 64 * 64 * 32 * 32)]
    assert schedule.count(Unit.HMX) > 0
    assert schedule.spilled == 0
    assert 0 < schedule.vtcm_peak <= 8 * 2**20


def test_a_matrix_product_has_no_multiply_accumulate_too_many(compiler: Compiler, tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul")
    model = save(tmp_path / "matmul.onnx", node, {"x": [64, 256], "y": [64, 512]}, [256, 512])
    schedule = compiler.compile(model, _OPTIONS).schedule
    assert [(p.node, p.macs) for p in schedule.products] == [("matmul", 64 * 256 * 512)]
    assert schedule.dram_write == 64 * 512 * 4


def test_tensors_beyond_vtcm_are_spilled(compiler: Compiler, tmp_path: Path) -> None:
    node = helper.make_node("Add", ["x", "z"], ["y"], name="add")
    shapes = {name: [1, 64, 256, 256] for name in ("x", "z", "y")}
    schedule = compiler.compile(save(tmp_path / "add.onnx", node, shapes), _OPTIONS).schedule
    assert schedule.dram_write >= 64 * 256 * 256 * 4
    assert schedule.spilled > 0


def test_the_same_model_has_the_same_schedule(compiler: Compiler, tmp_path: Path) -> None:
    first, second = (compile_conv(compiler, tmp_path).schedule for _ in range(2))
    assert [(o.kind, o.dram, o.vtcm) for o in first.operators] == [(o.kind, o.dram, o.vtcm) for o in second.operators]


def test_an_ep_without_a_schedule_is_a_wrong_request() -> None:
    with pytest.raises(RequestError, match="writes no schedule"):
        Compiler("CPUExecutionProvider")


def test_the_command_estimates_float_and_quantized_and_traces_the_time_to_the_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_conv(tmp_path)
    asked = ["--device", "snapdragon-x-elite", "--precision", "fp16,w8a8", "--by-node", "--json"]
    assert main(["estimate", str(model), "--ep", "qnn", *asked]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "planner/estimate/1"
    assert [row["precision"] for row in document["rows"]] == ["fp16", "w8a8"]
    for row in document["rows"]:
        assert row["device"] == "snapdragon-x-elite"
        assert row["ms"]["low"] < row["ms"]["mid"] < row["ms"]["high"]
        assert row["evidence"].startswith("estimated from")
        assert "conv" in {node["node"] for node in row["nodes"]}
    wide, narrow = document["rows"]
    assert narrow["vtcm_bytes"] < wide["vtcm_bytes"]


def test_a_finished_float16_file_is_told_to_be_as_large_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, half = save_conv(tmp_path), tmp_path / "half.onnx"
    assert main(["target", str(model), "--ep", "qnn", "--precision", "fp16", "-o", str(half), "--json"]) == 0
    capsys.readouterr()
    assert main(["estimate", str(half), "--ep", "qnn", "--device", "snapdragon-x-elite", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["bytes"] == half.stat().st_size


def test_what_is_illegal_has_no_estimate_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_conv(tmp_path, channels=8, side=8)
    asked = ["--device", "snapdragon-8cx-gen3", "--precision", "w16a16", "--json"]
    assert main(["estimate", str(model), "--ep", "qnn", *asked]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["rows"][0]["ms"] is None
    assert "illegal" in said.err


def test_a_session_whose_schedule_is_written_down_computes_the_same(tmp_path: Path) -> None:
    model = save_conv(tmp_path)
    sample = {"x": np.random.default_rng(0).normal(size=(1, 64, 32, 32)).astype(np.float32)}
    with Worker(_QNN) as worker:
        worker.open(model, _OPTIONS)
        plain = worker.run(sample).outputs["y"]
        worker.open(model, _OPTIONS, schedule=tmp_path)
        assert list(tmp_path.glob("*_schematic.bin"))
        np.testing.assert_array_equal(worker.run(sample).outputs["y"], plain)


def test_the_whole_job_carries_the_schedule_and_the_estimate_unless_it_is_spared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_conv(tmp_path)
    asked = [
        "target",
        str(model),
        "--ep",
        "qnn",
        "--precision",
        "fp16",
        "-o",
        str(tmp_path / "out.onnx"),
        "--overwrite",
    ]
    assert main([*asked, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["estimate"]["ms"]["low"] < document["estimate"]["ms"]["high"]
    schedule = document["verification"]["schedule"]
    assert schedule["dram_write_bytes"] == 64 * 32 * 32 * 4
    assert sum(schedule["operators"].values()) == document["estimate"]["operators"]
    # The course adds up to the estimate less what a run costs however little it does.
    course = sum(sum(part["cost"].values()) for part in schedule["timeline"]["slices"])
    assert 0 < course < document["estimate"]["ms"]["mid"]
    assert main(asked) == 0
    assert "not measured" in capsys.readouterr().out
    assert main([*asked, "--no-estimate", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["estimate"] is None
    assert document["verification"]["schedule"] is None


def test_a_node_is_explained_by_its_cost_at_each_precision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    shapes = {"x": [1, 64, 32, 32], "y": [1, 64, 32, 32]}
    model = str(save(tmp_path / "conv.onnx", node, shapes, [64, 64, 1, 1]))
    asked = ["--ep", "qnn", "--device", "snapdragon-x-elite"]
    assert main(["explain", model, "--node", "conv", *asked, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    costs = {price["precision"]: price["cost"]["ms"] for price in document["prices"] if price["cost"]}
    assert {"w8a16", "fp16", "w8a8"} <= costs.keys()
    assert document["cheapest"] == min(costs, key=costs.__getitem__)
    assert document["op"] == "Conv"
    assert main(["explain", model, "--node", "con", *asked]) == 2
    assert "near it: conv" in capsys.readouterr().err
