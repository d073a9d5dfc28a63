"""Weights in blocks and dynamic int8 on trained models and real inputs, on the CPU EP itself, beside onnxruntime's own tools."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.common import TASKS
from benchmarks.weights import metric, onnxruntime_tools, ours, sqnr
from planner.calibrate.inputs import load_inputs
from planner.cli.main import main
from planner.resolve.target import Target

pytestmark = pytest.mark.models


@pytest.mark.slow
def test_a_sentence_encoder_keeps_its_retrieval_at_a_third_of_its_size(
    example: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At w8 its nearest neighbours stay right; static w8a8, calibrated on real sentences, keeps few decibels."""
    example("minilm")
    monkeypatch.setattr(logging.root.manager, "disable", logging.WARNING)
    task = TASKS["minilm"]
    model = Target.open("cpu").read(task.model, task.shapes)
    samples = list(load_inputs(task.inputs, model).evaluation)
    made = {label: tmp_path / f"{i}.onnx" for i, (label, _) in enumerate(ours(task))}
    for label, make in ours(task):
        make(made[label])
    reference = made["planner fp32"]
    decibels = {label: sqnr(reference, path, samples) for label, path in made.items()}
    size = {label: path.stat().st_size for label, path in made.items()}
    assert decibels["planner w8"] > 28 and size["planner w8"] < size["planner fp32"] / 3
    assert decibels["planner w4"] > 11 and size["planner w4"] < size["planner fp32"] / 5.5
    assert decibels["planner w8a8-dynamic"] > 16 and size["planner w8a8-dynamic"] < size["planner fp32"] / 3.5
    float32 = metric(task, reference, None)
    assert metric(task, made["planner w8"], None) >= float32 - 0.02
    assert decibels["planner w8a8"] < 10 < decibels["planner w8a8-dynamic"]

    dynamic = tmp_path / "theirs.onnx"
    dict(onnxruntime_tools(task, tmp_path))["onnxruntime dynamic"](dynamic)
    assert decibels["planner w8a8-dynamic"] >= sqnr(reference, dynamic, samples) - 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision", "least", "operators"),
    [
        ("magika", "w4", 36, {"MatMulNBits"}),
        ("magika", "w8", 55, {"MatMulNBits", "DequantizeLinear"}),
        ("magika", "dynamic", 45, {"MatMulInteger", "DynamicQuantizeLinear"}),
        ("rec", "w8", 20, {"MatMulNBits", "DequantizeLinear"}),
    ],
)
def test_target_asks_for_no_calibration_and_verifies_on_the_cpu_ep(
    name: str, precision: str, least: float, operators: set[str], example: Callable[[str], Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import onnx

    example(name)
    task, output = TASKS[name], tmp_path / "out.onnx"
    shapes = [f"--shape={n}={','.join(map(str, dims))}" for n, dims in task.shapes.items()]
    arguments = [
        "target",
        str(task.model),
        "--ep",
        "cpu",
        "--precision",
        precision,
        "--inputs",
        task.inputs,
        "--floor",
        "12",
    ]
    status = main([*arguments, *shapes, "--output", str(output), "--json"])
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert status == 0 and result["passed"], said.err
    assert "calibrating" not in said.err
    plan, verification = result["plan"], result["verification"]
    assert plan["inputs"] is None and plan["precision"] == ("w8a8-dynamic" if precision == "dynamic" else precision)
    assert verification["kind"] == "hardware" and not verification["placement"]["fallback"]
    assert min(f["sqnr_db"] for f in verification["fidelity"]) > least
    assert operators <= {n.op_type for n in onnx.load(output).graph.node}
    assert result["artifact"]["bytes"] < task.model.stat().st_size
    replaced = [n for n in plan["nodes"] if n["replacement"] is not None]
    assert replaced and all(n["block_size"] == 32 or n["dynamic"] for n in replaced)
