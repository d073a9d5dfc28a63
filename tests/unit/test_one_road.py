"""Each public function and its command say the same of the same work: their documents are compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner import api
from planner.cli import main as cli
from planner.errors import PlannerError, RequestError
from planner.model.node import signature
from planner.profiles.learned import LearnedFile, LearnedNode, dump
from planner.resolve.choose import check_model
from planner.resolve.target import Target
from planner.results import NotLegalError, ReportResult
from planner.search.attempt import FailedAttempt
from planner.verification.floor import parse_floor
from tests.unit.small_models import f32, graph, save

WEIGHT = f32(np.random.default_rng(0).normal(size=(4, 8)))
# What a clock, or a busy machine, makes of the same work.
UNSTEADY = {"load", "run", "peak_rss_mb", "float32", "candidate", "speedup", "seconds", "date"}

Command = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command with --json: its status and its document."""

    def run(*args: object) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        status = cli.main([*map(str, args), "--json"])
        return status, json.loads(capsys.readouterr().out)

    return run


def steady(value: Any) -> Any:
    """The document without what differs from run to run."""
    if isinstance(value, Mapping):
        return {k: steady(v) for k, v in value.items() if k not in UNSTEADY}
    return [steady(v) for v in value] if isinstance(value, list) else value


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(graph("(float[1,4] x) => (float[1,8] y)", "h = MatMul(x, w)\ny = Relu(h)", {"w": WEIGHT}), tmp_path)


ACME = """\
schema: planner/profile/2
ep: AcmeExecutionProvider
title: Acme
aliases: [acme]
default_device: npu
prefer: [w8a8]
devices: {npu: {title: x, class: npu, source: {documented: x}}}
source: {documented: x}
operators:
  MatMul: {takes: [{weight: uint8-per-tensor, activation: uint8}]}
"""


@pytest.fixture
def acme(tmp_path: Path) -> Path:
    """A profile that says nothing of Relu."""
    path = tmp_path / "acme.yaml"
    path.write_text(ACME)
    return path


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    path = tmp_path / "samples.npz"
    np.savez(path, x=f32(np.random.default_rng(1).normal(size=(8, 1, 4))))
    return path


@pytest.fixture
def evidence(tmp_path: Path, model: Path) -> Path:
    """A file that says: the CPU EP left the model's MatMul in float32 to another."""
    target = Target.open("cpu")
    lines = [
        LearnedNode(signature(v.node, v.config), 1, v.node.op_type != "MatMul", True, v.ruling.rule, "not taken")
        for v in check_model(target, target.read(model, stored=True), None, stored=True).verdicts
    ]
    found = LearnedFile("0" * 64, target.ep, target.device, {"onnxruntime": "1.0"}, tuple(lines))
    path = tmp_path / "evidence.json"
    path.write_text(dump(found), encoding="utf-8")
    return path


# -- check --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", [None, "auto", "w8a16", "fp16"])
@pytest.mark.parametrize("ep", ["qnn", "cpu"])
def test_check(command: Command, model: Path, ep: str, precision: str | None) -> None:
    options = [] if precision is None else ["--precision", precision]
    result = api.check(model, ep, precision=precision)
    assert command("check", model, "--ep", ep, *options) == (0 if result.legal else 1, result.to_json())


def test_check_with_evidence(command: Command, model: Path, evidence: Path) -> None:
    result = api.check(model, "cpu", evidence=[evidence])
    assert api.check(model, "cpu").legal and result.legal is False
    assert command("check", model, "--ep", "cpu", "--evidence", evidence) == (1, result.to_json())


def test_check_of_an_unknown_operator(command: Command, model: Path, acme: Path) -> None:
    result = api.check(model, "acme", precision="w8a8", profiles=[acme])
    assert result.legal is None
    options = ("--ep", "acme", "--precision", "w8a8", "--profile", acme)
    assert command("check", model, *options) == (4, result.to_json())


# -- plan and quantize --------------------------------------------------------------------------------------------------


def test_plan_and_quantize(command: Command, model: Path, samples: Path, tmp_path: Path) -> None:
    plan = api.plan(model, "qnn", precision="w8a16", inputs=str(samples))
    file = tmp_path / "plan.json"
    found = command("plan", model, "--ep", "qnn", "--precision", "w8a16", "--inputs", samples, "-o", file)
    assert found == (0, plan.to_json()) and json.loads(file.read_text()) == plan.to_json()

    result = api.quantize(model, plan, tmp_path / "out.onnx")
    status, document = command("quantize", model, "--plan", file, "-o", tmp_path / "out.onnx", "--overwrite")
    assert (status, document) == (0, result.to_json())


def test_a_plan_is_made_with_an_unknown_operator_only_where_that_is_allowed(
    command: Command, model: Path, acme: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotLegalError) as refused:
        api.plan(model, "acme", precision="w8a8", profiles=[acme])
    options = ("--ep", "acme", "--precision", "w8a8", "--profile", acme, "-o", tmp_path / "plan.json")
    assert command("plan", model, *options) == (refused.value.exit_status, refused.value.check.to_json())
    assert refused.value.exit_status == 4
    plan = api.plan(model, "acme", precision="w8a8", allow_unknown=True, profiles=[acme])
    assert command("plan", model, *options, "--allow-unknown") == (0, plan.to_json())


def test_an_illegal_precision_has_no_plan(command: Command, model: Path, tmp_path: Path) -> None:
    with pytest.raises(NotLegalError) as refused:
        api.plan(model, "qnn", device="snapdragon-8cx-gen3", precision="fp16")
    options = ("--ep", "qnn", "--device", "snapdragon-8cx-gen3", "--precision", "fp16", "-o", tmp_path / "plan.json")
    assert command("plan", model, *options) == (1, refused.value.check.to_json())


def test_evidence_is_part_of_a_plan_and_applied_with_it(
    command: Command, model: Path, evidence: Path, tmp_path: Path
) -> None:
    plan = api.plan(model, "cpu", precision="w8a8", evidence=[evidence])
    file = tmp_path / "plan.json"
    options = ("--ep", "cpu", "--precision", "w8a8", "--evidence", evidence)
    assert command("plan", model, *options, "-o", file) == (0, plan.to_json())
    digest = hashlib.sha256(evidence.read_bytes()).hexdigest()
    assert plan.to_json()["evidence"] == [{"path": str(evidence), "sha256": digest}]

    result = api.quantize(model, plan, tmp_path / "out.onnx")
    quantize = ("quantize", model, "--plan", file, "-o", tmp_path / "out.onnx", "--overwrite")
    assert command(*quantize) == (0, result.to_json())
    moved = evidence.rename(tmp_path / "moved.json")
    with pytest.raises(RequestError, match="evidence"):
        api.quantize(model, plan, tmp_path / "out.onnx", overwrite=True)
    assert command(*quantize)[0] == 2
    assert command(*quantize, "--evidence", moved) == (0, result.to_json())
    moved.write_text(moved.read_text() + "\n")
    with pytest.raises(RequestError, match="evidence"):
        api.quantize(model, plan, tmp_path / "out.onnx", overwrite=True, evidence=[moved])


# -- verify and target --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("floor", ["20", "90", "top1=0.5"])
def test_verify(command: Command, model: Path, samples: Path, tmp_path: Path, floor: str) -> None:
    made = api.quantize(model, api.plan(model, "cpu", precision="w8a8", inputs=str(samples)), tmp_path / "out.onnx")
    result = api.verify(made.path, model, "cpu", inputs=str(samples), floor=parse_floor(floor))
    assert result.verification.samples == 8, "every one of the user's samples is looked at"
    options = ("--reference", model, "--ep", "cpu", "--inputs", samples, "--floor", floor)
    status, document = command("verify", made.path, *options)
    assert (status, steady(document)) == (0 if result.passed else 1, steady(result.to_json()))


@pytest.mark.slow
@pytest.mark.parametrize("floor", [None, "30"])
def test_target(command: Command, model: Path, samples: Path, tmp_path: Path, floor: str | None) -> None:
    output, wanted = tmp_path / "out.onnx", None if floor is None else parse_floor(floor)
    # Emulated: on hardware the fastest is kept, and the clock decides.
    result = api.target(model, "directml", output, inputs=str(samples), floor=wanted)
    options = [] if floor is None else ["--floor", floor]
    status, document = command(
        "target", model, "--ep", "directml", "--inputs", samples, "-o", output, "--overwrite", *options
    )
    assert (status, steady(document)) == (0 if result.passed else 1, steady(result.to_json()))
    failed = FailedAttempt("w8a8", PlannerError("it crashed")).to_json()
    assert all(attempt.keys() == failed.keys() for attempt in document["attempts"]) and document["attempts"]


@pytest.mark.parametrize(("precision", "status"), [("fp16", 1), ("w8a8", 4)])
def test_target_of_what_is_not_known_to_be_legal(
    command: Command, model: Path, acme: Path, tmp_path: Path, precision: str, status: int
) -> None:
    output = tmp_path / "out.onnx"
    result = api.target(model, "acme", output, precision=precision, profiles=[acme])
    assert result.kept is None and not output.exists()
    options = ("--ep", "acme", "--precision", precision, "--profile", acme, "-o", output)
    assert command("target", model, *options) == (status, result.to_json())


# -- report -------------------------------------------------------------------------------------------------------------


def test_report(command: Command, model: Path, acme: Path, evidence: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"

    def made(**more: Any) -> ReportResult:
        return api.report(
            [model], ["acme", "cpu"], out, precisions=["w8a8", "fp32"], run=False, gate=["no-fallback"], formats=["json"],
            profiles=[acme], evidence=[evidence], overwrite=True, **more,
        )  # fmt: skip

    result = made()
    status, document = command(
        "report", model, "--ep", "acme,cpu", "--precision", "w8a8,fp32", "--no-run", "--gate", "no-fallback",
        "--formats", "json", "--profile", acme, "--evidence", evidence, "-o", out, "--overwrite",
    )  # fmt: skip
    assert (status, steady(document)) == (result.exit_status, steady(result.to_json()))
    assert [row.status for row in result.report.rows] == ["unknown", "illegal", "passed", "illegal"]
    again = made(baseline=out / "report.json")
    assert again.exit_status == 0 and again.to_json()["changes"] == []


# -- errors -------------------------------------------------------------------------------------------------------------


def test_an_error_is_a_document(command: Command, model: Path, tmp_path: Path) -> None:
    with pytest.raises(PlannerError) as refused:
        api.check(model, "no-such-ep")
    status, document = command("check", model, "--ep", "no-such-ep")
    error = {"status": 2, "kind": "request", "message": str(refused.value), "hint": refused.value.hint}
    assert (status, document) == (2, {"schema": "planner/error/1", "error": error})


def test_options_that_cannot_be_parsed_are_a_document_as_well(command: Command, model: Path) -> None:
    status, document = command("check", model)
    assert status == 2 and document["error"]["kind"] == "request" and "--ep" in document["error"]["message"]
