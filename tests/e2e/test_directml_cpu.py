"""DirectML (by emulation where it is not Windows) and the CPU EP, on real models: both end verified, and labelled for what they are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from planner.cli import main as cli

_MODELS = {
    "magika": "bytes=1,2048",
    "rec": "x=1,3,48,320",
    "det": "x=1,3,480,480",
    "cls": "x=1,3,48,192",
    "digits": "",
}


def _target(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, dict[str, Any], str]:
    capsys.readouterr()
    status = cli.main(["target", *map(str, args), "--json"])
    out, err = capsys.readouterr()
    return status, json.loads(out), err


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.parametrize("ep", ["directml", "cpu"])
@pytest.mark.parametrize("name", _MODELS)
def test_real_models_end_verified(
    name: str, ep: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = request.getfixturevalue(name)
    output = tmp_path / "out.onnx"
    shape = ["--shape", _MODELS[name]] if _MODELS[name] else []
    status, document, err = _target(
        capsys, path, "--ep", ep, *shape, "--inputs", f"examples.inputs:{name}", "--output", output
    )
    assert status == 0 and document["passed"] is True, err
    assert output.is_file() and document["artifact"]["bytes"] == output.stat().st_size
    onnx.checker.check_model(output)
    verification = document["verification"]
    emulated = ep == "directml" and sys.platform != "win32"
    assert verification["kind"] == ("emulation" if emulated else "hardware")
    if emulated:
        assert verification["ran_on"] == "CPUExecutionProvider"
        assert "emulat" in " ".join([*verification.get("notes", []), err]).lower()
        # Mixed where float16 cannot hold some values.
        assert document["plan"]["precision"] in ("fp16", "mixed"), (document["attempts"], err)
    else:
        assert verification["placement"]["fallback"] == []
    assert document["plan"]["inputs"] is None or document["plan"]["inputs"]["synthetic"] is False
    for output_ in verification["fidelity"]:
        assert -200 <= output_["sqnr_db"] <= 200


def _overflow(folder: Path) -> Path:
    """x times ones over 2,000 channels of 100: 200,000, then scaled down to what float16 could hold."""
    info = helper.make_tensor_value_info
    weight = np.full((2000, 4), 1.0, np.float32)
    proto = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("MatMul", ["x", "w"], ["h"], name="sum_of_many"),
                helper.make_node("Mul", ["h", "small"], ["y"], name="scale_down"),
            ],
            "g",
            [info("x", TensorProto.FLOAT, [1, 2000])],
            [info("y", TensorProto.FLOAT, [1, 4])],
            [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.float32(0.01), "small")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    path = folder / "overflow.onnx"
    path.write_bytes(proto.SerializeToString())
    np.savez(folder / "x.npz", x=np.random.default_rng(0).uniform(90, 110, (8, 1, 2000)).astype(np.float32))
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="here DirectML is emulated")
def test_a_float16_file_that_overflows_fails_and_its_node_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run as it is on the CPU EP the file would pass: that drops the casts between neighbours."""
    path, plan, candidate = _overflow(tmp_path), tmp_path / "plan.json", tmp_path / "fp16.onnx"
    assert cli.main(["plan", str(path), "--ep", "directml", "--precision", "fp16", "-o", str(plan)]) == 0
    assert cli.main(["quantize", str(path), "--plan", str(plan), "-o", str(candidate)]) == 0
    capsys.readouterr()
    asked = ["--reference", str(path), "--ep", "directml", "--inputs", str(tmp_path / "x.npz"), "--json"]
    status = cli.main(["verify", str(candidate), *asked])
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert status == 1 and document["passed"] is False
    assert document["verification"]["kind"] == "emulation"
    assert document["verification"]["fidelity"][0]["sqnr_db"] == -200
    assert "sum_of_many" in err and "scale_down" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="here DirectML is emulated")
def test_a_node_that_float16_cannot_hold_gets_another_type_and_the_result_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _overflow(tmp_path)
    status, document, err = _target(
        capsys, path, "--ep", "directml", "--inputs", tmp_path / "x.npz", "-o", tmp_path / "o.onnx"
    )
    assert status == 0 and document["plan"]["precision"] == "mixed", err
    (node,) = [n for n in document["plan"]["nodes"] if n["name"] == "sum_of_many"]
    assert node["activation"] == "float32" and "65504" in node["reason"]
    assert "sum_of_many" in " ".join(document["artifact"]["notes"])


@pytest.mark.skipif(sys.platform == "win32", reason="here DirectML is emulated")
def test_a_precision_that_was_asked_for_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _overflow(tmp_path)
    asked = ["--ep", "directml", "--precision", "fp16", "--inputs", tmp_path / "x.npz", "-o", tmp_path / "o.onnx"]
    status, document, err = _target(capsys, path, *asked)
    assert status == 1 and document["passed"] is False
    assert document["plan"]["precision"] == "fp16"
    assert {n["activation"] for n in document["plan"]["nodes"]} == {"float16"}
    assert "sum_of_many" in err


def test_the_table_for_people_says_emulated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _overflow(tmp_path)
    cli.main(
        ["target", str(path), "--ep", "directml", "--inputs", str(tmp_path / "x.npz"), "-o", str(tmp_path / "o.onnx")]
    )
    out = capsys.readouterr().out
    if sys.platform != "win32":
        assert "EMULATED by the CPU EP" in out
