"""`planner target` with a floor: the plan is as cheap as the floor allows, and every claim in the JSON can be checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from examples import digits
from planner.cli.main import main


def _target(capsys: pytest.CaptureFixture[str], tmp_path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    model, _, _ = digits.model()
    status = main(
        [
            "target",
            str(model),
            "--inputs",
            "examples.inputs:digits",
            "--output",
            str(tmp_path / "out.onnx"),
            "--json",
            *options,
        ]
    )
    out = capsys.readouterr().out
    return status, json.loads(out) if out else {}


@pytest.mark.slow
@pytest.mark.qnn
def test_a_low_floor_takes_the_cheapest_precision_and_a_higher_one_promotes_nodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ep = ("--ep", "qnn", "--device", "snapdragon-x-elite", "--overwrite")
    status, low = _target(capsys, tmp_path, *ep, "--floor", "20")
    assert status == 0
    assert low["plan"]["precision"] == "w8a8"
    between = min(f["sqnr_db"] for f in low["verification"]["fidelity"]) + 4
    status, high = _target(capsys, tmp_path, *ep, "--floor", f"{between:.1f}")
    assert status == 0
    assert min(f["sqnr_db"] for f in high["verification"]["fidelity"]) >= between - 0.05
    assert high["verification"]["placement"]["fallback"] == []
    search = high["search"]
    assert search["cost"] > low["search"]["cost"]
    assert search["cost"] < max(level["cost"] for level in search["levels"])
    assert search["promoted"]
    reasons = {node["name"]: node["reason"] for node in high["plan"]["nodes"]}
    for entry in search["promoted"]:
        assert entry["cost"] > 0
        for name in entry["nodes"]:
            assert reasons[name].startswith(f"promoted from {entry['from']} to ")
    assert search["evaluations"]["emulated"] + search["evaluations"]["real"] < 100


@pytest.mark.qnn
def test_a_metric_on_labelled_data_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labelled_digits.py").write_text(
        "from examples.inputs import digits_labelled\n"
        "def accuracy(run):\n"
        "    answers = [run(sample)['logits'].argmax() == label for sample, label in digits_labelled(40)]\n"
        "    return sum(answers) / len(answers)\n"
        "def names(run):\n    raise SystemError(', '.join(run(next(digits_labelled(1))[0])))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    options = ("--ep", "qnn", "--device", "snapdragon-x-elite", "--metric", "labelled_digits:accuracy", "--overwrite")
    status, document = _target(capsys, tmp_path, *options, "--floor", "0.9")
    assert status == 0, document
    metric = document["verification"]["metric"]
    assert metric["name"] == "labelled_digits:accuracy"
    assert metric["value"] >= 0.9
    assert abs(metric["reference"] - metric["value"]) <= 0.05


@pytest.mark.qnn
def test_a_floor_that_nothing_reaches_is_a_no_with_the_most_faithful_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, document = _target(capsys, tmp_path, "--ep", "qnn", "--device", "snapdragon-x-elite", "--floor", "190")
    assert status == 1
    assert document["passed"] is False
    assert "below the floor of 190 dB" in document["verification"]["reasons"][0]


@pytest.mark.slow
def test_on_the_cpu_the_fastest_precision_within_the_floor_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, document = _target(capsys, tmp_path, "--ep", "cpu")
    assert status == 0
    passed = [a for a in document["attempts"] if a["passed"]]
    assert {a["precision"] for a in passed} >= {"w8a8", "fp32"}
    assert document["speedup"] == max(a["speedup"] for a in passed)
    assert document["speedup"] == pytest.approx(document["latency_ms"]["float32"] / document["latency_ms"]["candidate"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--floor", "high"], "is no number"),
        (["--floor", "top1=2"], "between 0 and 1"),
        (["--metric", "m:f"], "--metric needs --floor"),
        (["--metric", "no_such_module:f", "--floor", "1"], "no_such_module"),
    ],
)
def test_a_senseless_floor_is_a_wrong_request(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _, _ = digits.model()
    assert main(["target", str(model), "--ep", "cpu", "--output", str(tmp_path / "o.onnx"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o.onnx").exists()
