"""`planner report` without running an EP: which cells there are, what they say, gates, baseline, files. And its rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.cli import main as cli
from planner.dtypes import parse_precision
from planner.errors import EPError, RequestError
from planner.model.node import signature
from planner.profiles.learned import LearnedFile, LearnedNode, dump
from planner.reporting import Report, Row, matrix, read_report, rows
from planner.reporting.matrix import Subject, make_report, open_targets, read_subjects
from planner.resolve.choose import check_model
from tests.unit import report_samples as samples
from tests.unit.small_models import f32, graph, save

WEIGHT = f32(np.random.default_rng(0).normal(size=(4, 8)))
PROFILE = """\
schema: planner/profile/2
ep: ToyExecutionProvider
title: A toy
aliases: [toy]
default_device: big
prefer: [w8a8, fp16]
devices:
  big: {title: big, class: npu, traits: [floats], source: {documented: here}}
  small: {title: small, class: npu, prefer: [w8a8], source: {documented: here}}
source: {documented: here}
operators:
  MatMul, Relu: {takes: [{weight: int8-per-tensor, activation: uint8}, {activation: uint8}, {on: floats, activation: float16}]}
  Sin: {takes: [{on: floats, activation: float16}]}
"""


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(PROFILE)
    return path


def model(folder: Path, op: str = "Relu", name: str = "model.onnx") -> Path:
    body = f"h = MatMul(x, w)\ny = {op}(h)"
    return save(graph("(float[1,4] x) => (float[1,8] y)", body, {"w": WEIGHT}, check=False), folder, name)


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


Planner = Callable[..., Result]


@pytest.fixture
def planner(capsys: pytest.CaptureFixture[str]) -> Planner:
    def run(*args: object) -> Result:
        capsys.readouterr()
        status = cli.main(["report", *map(str, args)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err + out
        assert status == 0 or err.strip()
        return Result(status, out, err)

    return run


def report_of(folder: Path) -> Report:
    return read_report(folder / "report.json")


def cells(report: Report) -> list[tuple[str, str, str, str]]:
    return [(r.model.name, r.target.device, r.precision, r.status) for r in report.rows]


def test_a_cell_for_every_model_target_and_preferred_precision(planner: Planner, profile: Path, tmp_path: Path) -> None:
    a, b = model(tmp_path, "Relu", "a.onnx"), model(tmp_path, "Sin", "b.onnx")
    out = tmp_path / "out"
    ran = planner(a, b, "--ep", "toy", "--device", "all", "--profile", profile, "--no-run", "-o", out)
    report = report_of(out)
    assert cells(report) == [
        ("a", "big", "w8a8", "passed"),
        ("a", "big", "fp16", "passed"),
        ("a", "small", "w8a8", "passed"),
        ("b", "big", "w8a8", "illegal"),
        ("b", "big", "fp16", "passed"),
        ("b", "small", "w8a8", "unknown"),
    ]
    assert ran.status == 4, "nothing is known of Sin on the small one, and every other cell has a precision that passes"
    assert {row.tier for row in report.rows} == {"declared"}
    assert [row.precision for row in report.rows if row.recommended] == ["w8a8", "w8a8", "fp16"]
    assert {path.name for path in out.iterdir()} == {
        "report.html", "report.md", "report.json", "report.sarif", "report.junit.xml",
    }  # fmt: skip


def test_a_no_has_its_nodes_reason_and_suggestion(planner: Planner, profile: Path, tmp_path: Path) -> None:
    ran = planner(
        model(tmp_path, "Sin"), "--ep", "toy", "--precision", "w8a8", "--profile", profile, "--no-run",
        "-o", tmp_path / "out", "--json",
    )  # fmt: skip
    assert ran.status == 1
    document = json.loads(ran.out)
    assert next(iter(document.items())) == ("schema", "planner/report/1")
    (row,) = document["rows"]
    assert (row["status"], row["legal"], row["chosen"], row["verification"]) == ("illegal", False, None, None)
    (violation,) = row["violations"]
    assert violation["op_type"] == "Sin" and "uint8" in violation["reason"]
    (failure,) = document["failures"]
    assert (failure["rule"], failure["exit_status"]) == ("verdict", 1)
    assert set(document["files"]) == {str(path) for path in (tmp_path / "out").iterdir()}


def test_unknown_is_status_4_and_can_be_accepted(planner: Planner, profile: Path, tmp_path: Path) -> None:
    arguments = [
        model(tmp_path, "Sin"),
        "--ep",
        "toy",
        "--device",
        "small",
        "--profile",
        profile,
        "--no-run",
        "--overwrite",
    ]
    assert planner(*arguments, "-o", tmp_path / "out").status == 4
    assert planner(*arguments, "-o", tmp_path / "out", "--allow-unknown").status == 0


def test_devices_are_shared_out_among_the_eps_that_have_them(profile: Path) -> None:
    def names(eps: list[str], devices: list[str] = []) -> list[tuple[str, str]]:  # noqa: B006
        return [(s.profile.file.aliases[0], s.device) for s in open_targets(eps, devices, [profile])]

    assert names(["toy", "cpu", "ToyExecutionProvider"]) == [("toy", "big"), ("cpu", "cpu")]
    assert names(["toy", "cpu"], ["small", "cpu"]) == [("toy", "small"), ("cpu", "cpu")]
    assert names(["all"], ["small"]) == [("toy", "small")]
    assert ("toy", "small") in names(["all"], ["all"]) and ("toy", "big") in names(["all"])
    with pytest.raises(RequestError, match="has none of the devices small") as caught:
        names(["toy", "cpu"], ["small"])
    assert caught.value.hint == "it has: cpu"
    with pytest.raises(RequestError, match="no EP asked for has a device 'huge'"):
        names(["all"], ["huge", "small"])


def test_evidence_of_a_model_stands_above_the_rules_of_its_ep(planner: Planner, profile: Path, tmp_path: Path) -> None:
    path = model(tmp_path, "Relu")
    (toy,) = open_targets(["toy"], [], [profile])
    kinds = [
        LearnedNode(signature(v.node, v.config), 1, v.node.op_type != "Relu", True, "integers", "seen to fail")
        for v in check_model(toy, toy.read(path), parse_precision("w8a8")).verdicts
    ]
    seen = tmp_path / "seen.json"
    seen.write_text(dump(LearnedFile("0" * 64, "ToyExecutionProvider", "big", {"toy": "1.0"}, tuple(kinds))))
    arguments = [path, "--ep", "toy,cpu", "--profile", profile, "--precision", "w8a8", "--no-run", "--formats", "json"]
    assert planner(*arguments, "-o", tmp_path / "rules").status == 0
    assert planner(*arguments, "-o", tmp_path / "seen", "--evidence", seen).status == 1
    assert {r.target.ep: r.status for r in report_of(tmp_path / "seen").rows} == {
        "ToyExecutionProvider": "illegal",
        "CPUExecutionProvider": "passed",
    }
    ran = planner(path, "--ep", "cpu", "--no-run", "-o", tmp_path / "other", "--evidence", seen)
    assert ran.status == 2 and "not asked for" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.onnx", "--ep", "cpu"], "missing.onnx"),
        (["model.onnx", "--ep", "nonsense"], "unknown EP"),
        (["model.onnx", "--ep", "cpu", "--precision", "w3a3"], "w3a3"),
        (["model.onnx", "--ep", "cpu", "--formats", "pdf"], "unknown report format"),
        (["model.onnx", "--ep", "cpu", "--gate", "fast"], "unknown gate rule"),
        (["model.onnx", "--ep", "cpu", "--baseline", "missing.json"], "cannot read the report"),
        (["model.onnx", "--ep", "cpu", "--inputs", "missing.npz"], "missing.npz"),
        (["--ep", "cpu"], "no model given"),
        (["model.onnx", "model.onnx", "--ep", "cpu", "--shape", "x=1,4"], "for one model"),
        (["model.onnx", "--models", "m.yaml", "--ep", "cpu"], "excludes MODEL"),
        (["--models", "missing.yaml", "--ep", "cpu"], "missing.yaml"),
        (["model.onnx", "--ep", ","], "nothing to report on"),
    ],
)
def test_a_wrong_request_is_status_2_and_leaves_nothing_behind(
    planner: Planner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model(tmp_path)
    ran = planner(*arguments, "-o", "out")
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err
    assert not Path("out").exists()


def test_an_earlier_report_stays_unless_overwriting_is_asked_for(planner: Planner, tmp_path: Path) -> None:
    arguments = [model(tmp_path), "--ep", "cpu", "--no-run", "-o", tmp_path / "out", "--formats", "json"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text("mine")
    ran = planner(*arguments)
    assert ran.status == 2 and "exists already" in ran.err
    assert (tmp_path / "out" / "report.json").read_text() == "mine"
    assert planner(*arguments, "--overwrite").status == 0
    assert report_of(tmp_path / "out").rows
    assert planner(model(tmp_path), "--ep", "cpu", "--no-run", "-o", tmp_path / "toy").status == 0
    ran = planner(model(tmp_path), "--ep", "cpu", "--no-run", "-o", tmp_path / "model.onnx")
    assert ran.status == 2 and "no folder" in ran.err


def test_with_a_baseline_only_what_got_worse_fails(planner: Planner, profile: Path, tmp_path: Path) -> None:
    base = [model(tmp_path, "Sin"), "--ep", "toy", "--profile", profile, "--no-run"]
    planner(*base, "--precision", "w8a8,fp16", "-o", tmp_path / "old")
    # Illegal as before: no worse. A gate that the old one broke too: no worse.
    ran = planner(
        *base, "--precision", "w8a8,fp16", "-o", tmp_path / "same", "--baseline", tmp_path / "old" / "report.json",
        "--gate", "real-run", "--json",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    assert json.loads(ran.out)["changes"] == []
    assert "no change" in (tmp_path / "same" / "baseline.md").read_text()
    # The profile takes a precision back.
    taken = "Sin: {takes: [{on: floats, activation: float16}]}"
    assert taken in PROFILE
    profile.write_text(PROFILE.replace(taken, "Sin: {takes: [{activation: uint8}]}"))
    ran = planner(
        *base,
        "--precision",
        "w8a8,fp16",
        "-o",
        tmp_path / "new",
        "--baseline",
        tmp_path / "old" / "report.json",
        "--json",
    )
    assert ran.status == 1
    changes = json.loads(ran.out)["changes"]
    assert {(c["precision"], c["direction"], c["before"], c["after"]) for c in changes if c["what"] == "status"} == {
        ("w8a8", "better", "illegal", "passed"),
        ("fp16", "worse", "passed", "illegal"),
    }
    assert "worse" in (tmp_path / "new" / "baseline.md").read_text()


def test_a_manifest_gives_every_model_its_own_shapes_inputs_and_name(tmp_path: Path) -> None:
    (tmp_path / "data.npz").touch()
    path = tmp_path / "models.yaml"
    path.write_text(
        "models:\n  - {path: a.onnx, shapes: {x: [1, 4]}, inputs: data.npz}\n  - {path: a.onnx, name: again}\n"
    )
    assert read_subjects(path) == (
        Subject(tmp_path / "a.onnx", {"x": [1, 4]}, str(tmp_path / "data.npz")),
        Subject(tmp_path / "a.onnx", {}, None, "again"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "models.yaml"),
        ("models: []", r"models: expected a list with at least 1, not \[\]"),
        ("models: [{name: a}]", "path"),
        ("models: [{path: a.onnx, shape: {x: [1]}}]", "shape"),
        (
            "models: [{path: a.onnx, shapes: {x: [0]}}]",
            r"models\[0\].shapes.x\[0\]: expected an integer of at least 1, not 0",
        ),
        ("models: [{path: a.onnx, shapes: {x: [one]}}]", r"models\[0\].shapes.x\[0\]: expected an integer"),
        ("models: [{path: a.onnx, inputs: 'my.module:samples'}]", "is a function"),
        ("models: [{path: a.onnx, inputs: gone.npz}]", "no such file"),
        ("models: [", "not valid YAML"),
        ("&a [*a]", "anchors and aliases are not allowed"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("models: [{path: a.onnx}]\nmodels: []", "models.yaml:2: duplicate key models"),
        ("models: [{path: 'a.onnx\0'}]", "models.yaml"),
        ("models: " + "[" * 50 + "]" * 50, "nested more than 32 deep"),
        ("# " + "x" * (5 << 20), "larger than 4 MiB"),
    ],
)
def test_a_malformed_manifest_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(text)
    with pytest.raises(RequestError, match=message) as caught:
        read_subjects(path)
    assert "models.yaml" in str(caught.value)


def test_models_of_one_name_are_told_apart_and_chosen_names_must_differ(tmp_path: Path) -> None:
    path = model(tmp_path)
    (cpu,) = open_targets(["cpu"])
    named = make_report([Subject(path), Subject(path)], [cpu], run=False)
    assert len({row.model.name for row in named.rows}) == 2
    with pytest.raises(RequestError, match="two models are called 'same'"):
        make_report([Subject(path, name="same"), Subject(path, name="same")], [cpu], run=False)


def test_what_fails_in_one_cell_stays_in_that_cell(
    planner: Planner, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [
        EPError("the worker crashed (SIGSEGV)", "report it to the vendor"),
        ZeroDivisionError("division by zero"),
    ]

    def select(target: Any, *args: Any, **kwargs: Any) -> Any:
        raise failures.pop(0)

    monkeypatch.setattr(matrix, "select", select)
    monkeypatch.delenv("PLANNER_DEBUG", raising=False)
    out = tmp_path / "out"
    ran = planner(
        model(tmp_path, "Sin", "a.onnx"), "--ep", "toy", "--precision", "fp16,w8a8", "--device", "all",
        "--profile", profile, "-o", out, "--allow-unknown",
    )  # fmt: skip
    statuses = [(r.target.device, r.precision, r.status, r.reason) for r in report_of(out).rows]
    assert [s[:3] for s in statuses] == [
        ("big", "fp16", "error"),
        ("big", "w8a8", "illegal"),
        ("small", "fp16", "illegal"),
        ("small", "w8a8", "error"),
    ]
    assert statuses[0][3] == "the worker crashed (SIGSEGV)"
    assert report_of(out).rows[0].suggestions == ("report it to the vendor",)
    assert statuses[3][3] == "internal error: ZeroDivisionError: division by zero"
    assert ran.status == 1, "both targets have a proven no beside the crash"


def test_an_ep_that_fails_every_precision_is_status_3(
    planner: Planner, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def select(*args: Any, **kwargs: Any) -> Any:
        raise EPError("time-out")

    monkeypatch.setattr(matrix, "select", select)
    ran = planner(model(tmp_path), "--ep", "toy", "--profile", profile, "-o", tmp_path / "out")
    assert ran.status == 3
    assert "error: time-out" in ran.err


def test_the_cheapest_precision_that_passed_is_recommended() -> None:
    def row(precision: str, status: Any) -> Row:
        return replace(samples.passed(), precision=precision, status=status, recommended=False)

    cell = [row("fp32", "passed"), row("fp16", "passed"), row("w8a8", "failed"), row("odd", "passed")]
    marked = rows.recommend(cell, ["w8a8", "fp16", "fp32"])
    assert [r.precision for r in marked if r.recommended] == ["fp16"]
    assert [r.precision for r in rows.recommend([row("odd", "passed")], ["w8a8"]) if r.recommended] == ["odd"]
    assert not any(r.recommended for r in rows.recommend([row("w8a8", "error")], ["w8a8"]))


def test_a_date_can_be_given_so_that_the_same_findings_make_the_same_report(tmp_path: Path) -> None:
    (cpu,) = open_targets(["cpu"])
    subjects = [Subject(model(tmp_path))]
    one, two = (make_report(subjects, [cpu], run=False, date="2026-01-01") for _ in range(2))
    assert one == two
    assert Report.from_json(json.loads(json.dumps(one.to_json()))) == one
