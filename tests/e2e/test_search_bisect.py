"""`planner verify --bisect`: the tensors at which the EP's run leaves the reference."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from examples import digits
from planner.cli.main import main


def _candidate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, Path]:
    """The digits model at w8a8, and a copy whose second Conv has its weights' scale spoilt."""
    model, _, _ = digits.model()
    good = tmp_path / "good.onnx"
    options = ["--ep", "cpu", "--precision", "w8a8", "--inputs", "examples.inputs:digits", "--output", str(good)]
    assert main(["target", str(model), *options]) == 0
    capsys.readouterr()
    spoilt = onnx.load(good)
    convolutions = [node for node in spoilt.graph.node if node.op_type == "Conv"]
    dequantize = next(n for n in spoilt.graph.node if n.output[0] == convolutions[1].input[1])
    scale = next(t for t in spoilt.graph.initializer if t.name == dequantize.input[1])
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * 3, scale.name))
    bad = tmp_path / "bad.onnx"
    onnx.save(spoilt, bad)
    return good, bad


@pytest.mark.slow
@pytest.mark.parametrize("ep", ["cpu", pytest.param("qnn", marks=pytest.mark.qnn)])
def test_the_spoilt_node_is_named_first(ep: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = _candidate(tmp_path, capsys)
    model, _, _ = digits.model()
    command = ["--reference", str(model), "--ep", ep, "--inputs", "examples.inputs:digits", "--bisect", "--json"]
    assert main(["verify", str(bad), *command, "--floor", "30"]) == 1
    divergence = json.loads(capsys.readouterr().out)["verification"]["divergence"]
    convolution = [n for n in onnx.load(model).graph.node if n.op_type == "Conv"][1]
    first = divergence["first"]
    assert (first["tensor"], first["op_type"]) == (convolution.output[0], "Conv")
    assert divergence["ranked"][0] == convolution.output[0]
    assert first["precision"] == "uint8"
    low, high = first["reference_range"]
    assert low < 0 < high
    # A model that passes is bisected as well, where that is asked for.
    assert main(["verify", str(good), *command, "--floor", "20"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["passed"]
    assert document["verification"]["divergence"]["tensors"]
