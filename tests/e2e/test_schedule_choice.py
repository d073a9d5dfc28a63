"""Plans are chosen by what their very file costs on the very chip, as its compiler schedules it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from planner.cli.main import main

pytestmark = pytest.mark.qnn


def dense_network(path: Path, layers: int = 6, channels: int = 64, side: int = 40, growth: int = 16) -> Path:
    """Layers whose input is everything before them, scaled and shifted, as in DenseNet.

    In float16 the chip scales and shifts at once, with integers one after the other; and joined tensors have other scales.
    """
    random, nodes, weights = np.random.default_rng(0), list[onnx.NodeProto](), list[onnx.TensorProto]()

    def add(op: str, inputs: list[str], name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def weight(name: str, values: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def conv(x: str, outputs: int, inputs: int, kernel: int, name: str) -> str:
        values = random.normal(0, (2 / (inputs * kernel**2)) ** 0.5, (outputs, inputs, kernel, kernel))
        return add("Conv", [x, weight(f"{name}.w", values)], name, pads=[kernel // 2] * 4)

    x, width = conv("image", channels, 3, 3, "stem"), channels
    for layer in map("layer{}".format, range(layers)):
        scale, shift = (np.linspace(*ends, width).reshape(1, width, 1, 1) for ends in ((0.5, 1.5), (-0.5, 0.5)))
        y = add("Mul", [x, weight(f"{layer}.scales", scale)], f"{layer}.scale")
        y = add("Add", [y, weight(f"{layer}.shifts", shift)], f"{layer}.shift")
        y = add("Relu", [conv(y, growth, width, 1, f"{layer}.narrow")], f"{layer}.relu")
        x = add("Concat", [x, conv(y, growth, growth, 3, f"{layer}.conv")], f"{layer}.concat", axis=1)
        width += growth
    add("GlobalAveragePool", [x], "pool")
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("pool", TensorProto.FLOAT, [1, width, 1, 1])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.slow
def test_float16_goes_before_w8a16_where_the_compiled_schedule_shows_it_to_be_faster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = dense_network(tmp_path / "dense.onnx")
    asked = ["target", str(model), "--ep", "qnn", "--device", "snapdragon-x-elite", "-o", str(tmp_path / "out.onnx")]
    assert main([*asked, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    finalists = {f["precision"]: f for f in document["finalists"]}
    assert document["plan"]["precision"] == "fp16"
    assert finalists["fp16"]["outcome"] == "kept"
    assert finalists["fp16"]["ms"]["mid"] < finalists["w8a16"]["ms"]["mid"]
    # Both passed: the schedule alone decided.
    assert {a["precision"] for a in document["attempts"] if a["passed"]} == {"w8a16", "fp16"}

    assert main([*asked, "--overwrite", "--no-estimate", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["plan"]["precision"], document["finalists"]) == ("w8a16", [])
