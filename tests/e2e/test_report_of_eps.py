"""`planner report` and `planner target --report-dir` on real EPs: what ran, what was emulated, and a crash in one cell."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from planner.cli import main as cli
from planner.reporting import Report, Row, read_report
from planner.runtime.client import Worker


def model(folder: Path, name: str, op: str) -> Path:
    text = f"""<ir_version: 8, opset_import: ["" : 20]>
    g (float[1,4] x) => (float[1,8] y) {{ h = MatMul(x, w)  y = {op}(h) }}"""
    made = parser.parse_model(text)
    weight = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    made.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    path = folder / name
    path.write_bytes(made.SerializeToString())
    return path


def by_cell(report: Report) -> dict[tuple[str, str], Row]:
    return {(row.model.name, row.target.ep): row for row in report.rows}


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_ep_that_crashes_costs_its_own_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: Callable[..., Any] = Worker.open

    def crash(self: Worker, path: Path, options: Any, **kwargs: Any) -> Any:
        """The worker that is to run a candidate with a Sin dies of a real SIGSEGV while it builds the session."""
        result = opened(self, path, options, **kwargs)
        if kwargs.get("log") and any(node.op_type == "Sin" for node in onnx.load(path).graph.node):
            assert self._process is not None
            os.kill(self._process._popen.pid, signal.SIGSEGV)
        return result

    monkeypatch.setattr(Worker, "open", crash)
    status = cli.main([
        "report", str(model(tmp_path, "good.onnx", "Relu")), str(model(tmp_path, "bad.onnx", "Sin")),
        "--ep", "cpu,directml", "--precision", "fp32", "-o", str(tmp_path / "out"), "--formats", "json,markdown",
    ])  # fmt: skip
    cells = by_cell(read_report(tmp_path / "out" / "report.json"))
    assert status == 3
    assert {key: row.status for key, row in cells.items()} == {
        ("good", "CPUExecutionProvider"): "passed",
        ("good", "DmlExecutionProvider"): "passed",
        ("bad", "CPUExecutionProvider"): "error",
        ("bad", "DmlExecutionProvider"): "passed",
    }
    assert "SIGSEGV" in cells["bad", "CPUExecutionProvider"].reason
    assert "SIGSEGV" in (tmp_path / "out" / "report.md").read_text()
    assert "4/4 bad on Dml" in capsys.readouterr().err


@pytest.mark.usefixtures("without_directml")
@pytest.mark.skipif(sys.platform == "win32", reason="DirectML may be real there")
def test_emulation_is_called_emulation_and_gives_neither_placement_nor_speed(tmp_path: Path) -> None:
    cli.main([
        "report", str(model(tmp_path, "m.onnx", "Relu")), "--ep", "cpu,directml", "--precision", "fp32,fp16",
        "-o", str(tmp_path / "out"), "--formats", "json,markdown",
    ])  # fmt: skip
    rows = {(r.target.ep, r.precision): r for r in read_report(tmp_path / "out" / "report.json").rows if r.verification}
    real, emulated = rows["CPUExecutionProvider", "fp32"], rows["DmlExecutionProvider", "fp16"]
    assert (real.tier, real.kind, real.placed) == ("measured", "hardware", True)
    assert real.speed_ms is not None and real.size_bytes and real.inputs and real.inputs.synthetic
    assert (emulated.tier, emulated.kind, emulated.placed) == ("emulated", "emulation", None)
    assert emulated.speed_ms is None
    assert emulated.faithful and emulated.legal and emulated.recommended
    text = (tmp_path / "out" / "report.md").read_text()
    assert "did not run on the target" in text and "synthetic inputs" in text


@pytest.mark.qnn
@pytest.mark.slow
def test_a_target_report_shows_what_was_tried(tmp_path: Path, digits: Path) -> None:
    status = cli.main([
        "target", str(digits), "--ep", "qnn", "--device", "snapdragon-x-elite", "--inputs", "examples.inputs:digits",
        "--output", str(tmp_path / "out.onnx"), "--report-dir", str(tmp_path / "report"),
    ])  # fmt: skip
    assert status == 0
    (row,) = read_report(tmp_path / "report" / "report.json").rows
    assert (row.status, row.tier, row.recommended) == ("passed", "simulated", True)
    assert row.size_bytes == (tmp_path / "out.onnx").stat().st_size
    assert row.placed and all(node.on_target for node in row.nodes)
    assert {r.tensor for r in row.ranges} >= {"image", "logits"}
    assert all(r.histogram and sum(r.histogram) for r in row.ranges)
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000
    assert list((tmp_path / "report" / "figures").glob("*-plan.svg"))


def test_a_target_report_of_an_illegal_precision_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.main([
        "target", str(model(tmp_path, "m.onnx", "Relu")), "--ep", "directml", "--precision", "w8a16",
        "--output", str(tmp_path / "out.onnx"), "--report-dir", str(tmp_path / "report"),
    ])  # fmt: skip
    assert status == 1
    (row,) = read_report(tmp_path / "report" / "report.json").rows
    assert (row.status, row.tier) == ("illegal", "declared")
    assert row.violations and row.reason
    assert not (tmp_path / "out.onnx").exists()
