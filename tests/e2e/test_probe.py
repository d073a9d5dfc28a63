"""Probing real EPs: the answers, the command line, and what a model teaches."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from planner.probe.build import build
from planner.probe.cases import all_cases, case_by_id
from planner.probe.evidence import load, stored
from planner.probe.from_model import from_model
from planner.probe.run import Outcome, Result, probe
from planner.profiles.load import load_profiles
from planner.runtime.registry import launcher
from tests.limits import HANGS

QNN = "QNNExecutionProvider"


def planner(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "planner", *arguments], capture_output=True, text=True, timeout=HANGS)


def answers(*ids: str, ep: str, options: dict[str, str]) -> dict[str, Outcome]:
    return probe([case_by_id(i) for i in ids], ep, options, workers=1)[0]


def test_the_cpu_takes_a_quantized_conv() -> None:
    found = answers("Conv/uint8-uint8", "Relu/float32", ep="CPUExecutionProvider", options={})
    assert {o.result for o in found.values()} == {Result.TAKEN}


def test_the_installed_registry_is_the_stored_one_or_says_what_changed() -> None:
    done = planner("probe", "--ep", "cpu", "--diff", "--json")
    document = json.loads(done.stdout)
    assert document["schema"] == "planner/probe/1"
    assert done.returncode == (1 if document["differences"] else 0)


@pytest.mark.qnn
class TestQnn:
    device = "snapdragon-x-elite"

    @property
    def options(self) -> dict[str, str]:
        return load_profiles().find("qnn").options(self.device)

    def test_three_outcomes_and_a_number(self) -> None:
        ids = ("Conv/uint8-uint8", "Conv/int16-uint8", "Erf/uint8")
        found = answers(*ids, ep=QNN, options=self.options)
        assert [found[i].result for i in ids] == [Result.TAKEN, Result.FAILS, Result.CPU]
        assert (found[ids[0]].sqnr_db or 0) > 30
        assert "not supported" in str(found[ids[2]].reason)

    def test_a_tanh_with_other_output_parameters_is_taken_and_wrong(self) -> None:
        found = answers("Tanh/uint16", "Tanh/uint16/free-output-range", ep=QNN, options=self.options)
        good, bad = (o.sqnr_db for o in found.values())
        assert good is not None and bad is not None
        assert good > 60 and bad < 20

    def test_a_sample_of_the_stored_evidence_is_answered_alike_today(self) -> None:
        evidence = stored(QNN, self.device)
        assert evidence is not None
        ids = [c for c in all_cases() if c in evidence.outcomes][::211]
        found = answers(*ids, ep=QNN, options=self.options)
        assert {i: o.result for i, o in found.items()} == {i: evidence.outcomes[i].result for i in ids}

    @pytest.mark.slow
    def test_diff_against_evidence_that_says_otherwise_exits_with_1(self, tmp_path: Path) -> None:
        path = tmp_path / "now.json"
        target = ("--ep", "qnn", "--device", self.device, "--op", "Softsign")
        assert planner("probe", *target, "-o", str(path)).returncode == 0
        assert planner("probe", *target, "--diff", "--against", str(path)).returncode == 0
        path.write_text(path.read_text().replace('"cpu 0"', '"taken"'))
        assert load(path).outcomes["Softsign/float32"].result is Result.TAKEN
        done = planner("probe", *target, "--diff", "--against", str(path), "--json")
        assert done.returncode == 1
        assert "Softsign/float32" in [d["case"] for d in json.loads(done.stdout)["differences"]]

    def test_the_nodes_of_a_model_become_evidence(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        path.write_bytes(build(case_by_id("Conv/int8-uint16/per-channel")).SerializeToString())
        found = from_model(path, load_profiles().find("qnn"), self.device)
        (conv,) = (n for n in found.nodes if n.signature.startswith("Conv"))
        assert conv.on_target is True and conv.predicted is True
        assert conv.signature.startswith("Conv int8/uint16 per channel (float32[1x4x8x8], constant float32[6x4x3x3]")


def test_explain_shows_rules_and_what_was_observed() -> None:
    done = planner("explain", "Conv", "--ep", "qnn", "--device", "snapdragon-x-elite", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert document["schema"] == "planner/explain/1" and document["op"] == "Conv"
    assert all("source" in rule for rule in document["rules"])
    assert any(c["case"] == "Conv/int16-uint8" and c["result"] == "fails" for c in document["evidence"]["cases"])


def test_explain_compares_two_chips() -> None:
    done = planner("explain", "Conv", "--ep", "qnn", "--compare", "snapdragon-x-elite", "snapdragon-8cx-gen3", "--json")
    rows = json.loads(done.stdout)["differences"]
    assert any(r["case"] == "Conv/float16" for r in rows)


def test_explain_of_an_unknown_operator_cannot_tell() -> None:
    assert planner("explain", "NoSuchOperator", "--ep", "directml").returncode == 4


def wrong_profile(folder: Path) -> Path:
    """The CPU's profile with a rule that forbids what it really takes."""
    path = folder / "wrong.yaml"
    path.write_text(
        "schema: planner/profile/2\nep: CPUExecutionProvider\ntitle: wrong\naliases: [cpu]\ndefault_device: cpu\n"
        "prefer: [fp32]\ndevices:\n  cpu: {title: t, class: cpu, source: {documented: nowhere}}\n"
        "source: {documented: nowhere}\n"
        "operators:\n"
        "  Relu: {refuses: [{why: not in this test, do: leave it}]}\n"
        "  '*': {takes: [{activation: float32}]}\n"
    )
    return path


@pytest.mark.slow
def test_what_a_model_teaches_is_read_by_check_and_verify(tmp_path: Path) -> None:
    model, learned = tmp_path / "relu.onnx", tmp_path / "learned.json"
    model.write_bytes(build(case_by_id("Relu/float32")).SerializeToString())
    target = ("--ep", "cpu", "--profile", str(wrong_profile(tmp_path)))
    assert planner("check", str(model), *target).returncode == 1

    # A verification on the EP says that the profile is wrong, and what to do.
    verify = ("verify", str(model), "--reference", str(model), *target)
    done = planner(*verify, "--json")
    (found,) = json.loads(done.stdout)["verification"]["contradictions"]
    assert (found["op_type"], found["predicted"], found["observed"]) == ("Relu", False, True)
    assert "planner probe --from-model" in done.stderr

    # What --from-model writes is believed by every later command.
    assert planner("probe", *target, "--from-model", str(model), "-o", str(learned)).returncode == 0
    checked = planner("check", str(model), *target, "--evidence", str(learned), "--json")
    assert checked.returncode == 0
    assert [n["rule"] for n in json.loads(checked.stdout)["nodes"]] == ["learned"]
    done = planner(*verify, "--evidence", str(learned), "--json")
    assert json.loads(done.stdout)["verification"]["contradictions"] == []


def test_evidence_that_is_none_or_about_another_ep_is_refused(tmp_path: Path) -> None:
    model, bad = tmp_path / "relu.onnx", tmp_path / "bad.json"
    model.write_bytes(build(case_by_id("Relu/float32")).SerializeToString())
    for content in ("", "[]", "{}", '{"schema": "planner/learned/1", "nodes": 3}', '{"schema": "planner/evidence/1"}'):
        bad.write_text(content)
        done = planner("check", str(model), "--ep", "cpu", "--evidence", str(bad))
        assert done.returncode == 2 and "Traceback" not in done.stderr and "bad.json" in done.stderr
    other = {"schema": "planner/learned/1", "model": "", "ep": QNN, "device": "npu", "runtime": {}, "nodes": []}
    bad.write_text(json.dumps(other))
    done = planner("check", str(model), "--ep", "cpu", "--evidence", str(bad))
    assert done.returncode == 2 and "is about QNNExecutionProvider" in done.stderr


@pytest.mark.skipif(
    launcher("OpenVINOExecutionProvider").availability().kind is None, reason="onnxruntime-openvino is not installed"
)
def test_openvino_answers_today_as_its_evidence_says() -> None:
    evidence = stored("OpenVINOExecutionProvider", "cpu")
    assert evidence is not None
    ids = [c for c in all_cases() if c in evidence.outcomes][::307]
    found = answers(*ids, ep=evidence.ep, options=dict(evidence.options))
    assert {i: o.result for i, o in found.items()} == {i: evidence.outcomes[i].result for i in ids}
