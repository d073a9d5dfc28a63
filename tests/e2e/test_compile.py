"""--compile: an EPContext model for the chip, written, loaded back and run."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from examples import digits
from planner.cli.main import main


@pytest.mark.qnn
def test_the_compiled_model_is_for_the_chip_and_computes_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _, _ = digits.model()
    output = tmp_path / "digits.onnx"
    status = main(
        [
            "target",
            str(model),
            "--ep",
            "qnn",
            "--device",
            "snapdragon-x-elite",
            "--precision",
            "w8a16",
            "--inputs",
            "examples.inputs:digits",
            "--output",
            str(output),
            "--compile",
            "--json",
        ]
    )
    document = json.loads(capsys.readouterr().out)
    assert status == 0
    compiled = document["artifact"]["compiled"]
    path = Path(compiled["path"])
    assert path == tmp_path / "digits_ctx.onnx"
    assert compiled["bytes"] == path.stat().st_size
    assert compiled["soc"] == "60"
    assert compiled["equal"] is True
    (node,) = onnx.load(path).graph.node
    assert (node.op_type, node.domain) == ("EPContext", "com.microsoft")


def test_an_ep_that_compiles_nothing_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _, _ = digits.model()
    output = tmp_path / "out.onnx"
    status = main(["target", str(model), "--ep", "cpu", "--output", str(output), "--compile"])
    assert status == 2
    assert "compiles nothing ahead of time" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.qnn
def test_an_existing_compiled_model_is_not_overwritten_by_surprise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _, _ = digits.model()
    (tmp_path / "out_ctx.onnx").write_bytes(b"mine")
    status = main(["target", str(model), "--ep", "qnn", "--output", str(tmp_path / "out.onnx"), "--compile"])
    assert status == 2
    assert (tmp_path / "out_ctx.onnx").read_bytes() == b"mine"
    assert "out_ctx.onnx: exists already" in capsys.readouterr().err
