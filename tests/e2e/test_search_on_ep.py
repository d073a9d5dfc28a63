"""What the search owes to judging on the EP itself: losses that only the EP has, nodes that only fall-back saves, answers that stay.

The EP is Qualcomm's own compiler and simulator of the NPU.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import planner
from examples import digits
from examples.fetch import EXAMPLES, fetch
from examples.inputs import digits_labelled, table_cls_labelled
from planner.cli.main import main
from planner.model.read import read_model
from planner.model.write import save
from planner.quantization import parameters
from planner.runtime.client import Worker
from planner.runtime.registry import CPU
from planner.verification.feed import AS_WRITTEN
from planner.verification.floor import Floor

pytestmark = pytest.mark.qnn
TARGET = ("--ep", "qnn", "--device", "snapdragon-x-elite")


def _target(capsys: pytest.CaptureFixture[str], model: Path, *options: str) -> tuple[int, dict[str, Any]]:
    status = main(["target", str(model), *TARGET, "--output", str(model.with_name("out.onnx")), "--json", *options])
    return status, json.loads(capsys.readouterr().out)


def _stage_of_table_cls(folder: Path) -> tuple[Path, Path]:
    """Two Convs of a trained classifier of tables, an expansion and a depthwise one with three dead channels, and what flows
    into them on twelve tables."""
    whole = folder / "whole.onnx"
    model = read_model(fetch("table-cls"), EXAMPLES["table-cls"].shapes)
    assert model.ir is not None
    save(model.ir, whole)
    graph = onnx.load(whole)
    nodes = {node.name: node for node in graph.graph.node}
    source, result = nodes["Conv_219"].input[0], nodes["Div_236"].output[0]
    onnx.utils.extract_model(str(whole), str(folder / "stage.onnx"), [source], [result])
    graph.graph.output.append(helper.make_tensor_value_info(source, onnx.TensorProto.FLOAT, None))
    exposed = folder / "exposed.onnx"
    onnx.save(graph, exposed)
    with Worker(CPU) as worker:
        worker.open(exposed, {})
        flowing = [worker.run(sample).outputs[source] for sample, _ in table_cls_labelled(12)]
    np.savez(folder / "stage.npz", allow_pickle=False, **{source: np.concatenate(flowing)})
    return folder / "stage.onnx", folder / "stage.npz"


@pytest.mark.models
@pytest.mark.slow
def test_a_loss_that_only_the_ep_has_is_seen_and_avoided_with_a_legal_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # With scales as wide apart as this the NPU gets the depthwise Conv wrong at w8a16; the quantizer keeps them closer.
    monkeypatch.setattr(parameters, "WIDEST_SPREAD", 2.0**10)
    model, inputs = _stage_of_table_cls(tmp_path)
    # The search itself: what is compared by schedule afterwards is another matter.
    status, document = _target(capsys, model, "--inputs", str(inputs), "--floor", "35", "--no-estimate")
    assert status == 0
    levels = {level["precision"]: level for level in document["search"]["levels"]}
    emulated, real = levels["w8a16"]["emulated"]["sqnr_db"], levels["w8a16"]["real"]["sqnr_db"]
    assert emulated > 40
    assert real < emulated - 15, "no loss that only the EP has"
    pairs = {n["name"]: (n["weight"], n["activation"]) for n in document["plan"]["nodes"]}
    assert pairs["Conv_228"] != ("int8", "uint16")
    assert pairs["Conv_219"][0] == "int8", "what the EP computes well keeps its 8-bit weight"
    verification = document["verification"]
    assert verification["ran_on"] == "QNNExecutionProvider"
    assert verification["placement"]["fallback"] == []
    assert min(f["sqnr_db"] for f in verification["fidelity"]) >= 35
    assert document["search"]["evaluations"]["real"] < 12


def _with_erf(path: Path) -> Path:
    """Two products with an Erf between them, which the NPU does not have."""
    rng = np.random.default_rng(5)
    weights = [numpy_helper.from_array(rng.normal(0, 0.2, (32, 32)).astype(np.float32), name) for name in ("w1", "w2")]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w1"], ["a"], name="into"),
            helper.make_node("Erf", ["a"], ["b"], name="only_on_the_cpu"),
            helper.make_node("MatMul", ["b", "w2"], ["y"], name="out_of"),
        ],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [4, 32])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4, 32])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    np.savez(path.with_suffix(".npz"), x=rng.normal(size=(12, 4, 32)).astype(np.float32))
    return path


def test_only_fallback_saves_a_node_that_the_ep_does_not_have_and_the_result_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = _with_erf(tmp_path / "erf.onnx")
    options = ("--inputs", str(model.with_suffix(".npz")), "--floor", "30")
    status, refused = _target(capsys, model, *options)
    assert status == 1
    assert not model.with_name("out.onnx").exists()
    assert [v["node"] for v in refused["violations"]] == ["only_on_the_cpu"]

    status, saved = _target(capsys, model, *options, "--allow-fallback")
    assert status == 0
    fallback = saved["verification"]["placement"]["fallback"]
    assert "only_on_the_cpu" in {entry["name"] for entry in fallback}
    assert {entry["op_type"] for entry in fallback} <= {"Erf", "QuantizeLinear", "DequantizeLinear"}
    lines = {n["name"]: n for n in saved["plan"]["nodes"]}
    assert "--allow-fallback" in lines["only_on_the_cpu"]["reason"]
    assert lines["into"]["activation"] != "float32" and lines["out_of"]["activation"] != "float32"
    assert any("only_on_the_cpu" in note for note in saved["verification"]["notes"])


@pytest.mark.slow
def test_a_top1_floor_keeps_the_answers_on_labelled_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "digits.onnx"
    model.write_bytes(digits.model()[0].read_bytes())
    status, document = _target(capsys, model, "--inputs", "examples.inputs:digits", "--floor", "top1=0.99")
    assert status == 0
    assert document["verification"]["floor"] == {"kind": "top1", "value": 0.99, "metric": None}
    assert all(f["top1_agreement"] >= 0.99 for f in document["verification"]["fidelity"])
    answers = {}
    labelled = list(digits_labelled())
    for path in (model, model.with_name("out.onnx")):
        with Worker(CPU) as worker:
            worker.open(path, {}, session_config=AS_WRITTEN)
            answers[path] = [int(worker.run(sample).outputs["logits"].argmax()) for sample, _ in labelled]
    float32, planned = answers.values()
    right = [sum(a == label for a, (_, label) in zip(got, labelled, strict=True)) for got in (float32, planned)]
    assert np.mean([a == b for a, b in zip(float32, planned, strict=True)]) >= 0.99
    assert right[1] >= right[0] - 0.01 * len(labelled), "within one point of float32"


def test_an_interrupted_search_judges_and_writes_its_best_plan_so_far(tmp_path: Path) -> None:
    tried: list[str] = []

    def interrupt(what: str, _done: int, _total: int) -> None:
        if what.startswith("searching: "):
            tried.append(what)
            if len(tried) == 4:
                raise KeyboardInterrupt

    result = planner.target(
        digits.model()[0], "qnn", tmp_path / "out.onnx", device="snapdragon-x-elite", inputs="examples.inputs:digits",
        floor=Floor("sqnr", 38), progress=interrupt,
    )  # fmt: skip
    assert len(tried) == 4
    assert (tmp_path / "out.onnx").exists()
    document = result.to_json()
    assert document["search"]["stopped"] == "interrupted"
    assert "best plan so far is kept" in document["search"]["note"]
    assert document["passed"] == all(f["low_db"] >= 38 for f in document["verification"]["fidelity"])
    assert document["verification"]["samples"] >= 8


@pytest.mark.slow
def test_samples_held_apart_that_refute_a_plan_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every fourth sample is held apart; here these are three times as bright as anything that calibration saw."""
    model = tmp_path / "digits.onnx"
    model.write_bytes(digits.model()[0].read_bytes())
    pictures = np.concatenate([sample["image"] for sample, _ in digits_labelled(32)])
    pictures[3::4] *= 3
    np.savez(tmp_path / "bright.npz", image=pictures)
    status, document = _target(capsys, model, "--inputs", str(tmp_path / "bright.npz"), "--floor", "30")
    judgements = document["search"]["judgements"]
    assert len(judgements) >= 2 and [j["passed"] for j in judgements] == [False] * (len(judgements) - 1) + [status == 0]
    assert judgements[0]["score"] < 30
    assert f"they chose between {len(judgements)} plans" in document["search"]["note"]
    assert len(document["attempts"]) == len(judgements)


def _reaching_further(folder: Path) -> tuple[Path, Path]:
    """A perceptron, and samples of which those held apart lie outside of what integers keep of the range seen while calibrating."""
    rng = np.random.default_rng(0)
    weights = [(rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32) for shape in ((12, 32), (32,), (32, 4))]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["m"], name="fc1"),
        helper.make_node("Add", ["m", "b1"], ["a"], name="add1"),
        helper.make_node("Relu", ["a"], ["r"], name="relu1"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], name="fc2"),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n]) for name, n in (("x", 12), ("y", 4)))
    named = [numpy_helper.from_array(w, name) for w, name in zip(weights, ("w1", "b1", "w2"), strict=True)]
    model = folder / "mlp.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(
        helper.make_model(helper.make_graph(nodes, "g", [x], [y], named), opset_imports=opset, ir_version=8), model
    )
    noise = rng.normal(size=(32, 12)).astype(np.float32)
    noise[3::4] *= 1.2
    np.savez(folder / "noise.npz", x=noise)
    return model, folder / "noise.npz"


@pytest.mark.slow
def test_where_they_refute_two_plans_the_next_dearer_precision_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only float reaches so far."""
    model, noise = _reaching_further(tmp_path)
    status, document = _target(capsys, model, "--inputs", str(noise), "--floor", "35", "--no-estimate")
    assert status == 0 and document["plan"]["precision"] == "fp16"
    assert [j["passed"] for j in document["search"]["judgements"]] == [False, False, False, True]
    assert document["verification"]["fidelity"][0]["low_db"] >= 35


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said", "status"),
    [
        (("--floor", "35"), "ran 1 of 32 samples: by emulation on all of them the floor is not reached", 1),
        (("--floor", "5"), "interrupted: the verdict rests on 1 of 32", 0),
        ((), "interrupted: the verdict rests on 1 of 32", 1),
    ],
    ids=["searched, no", "searched, yes", "in order"],
)
def test_who_interrupts_the_judging_keeps_the_plan_that_is_judged(
    options: tuple[str, ...],
    said: str,
    status: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("planner.search.trials.stopping", lambda: contextlib.nullcontext(lambda: True))
    model, noise = _reaching_further(tmp_path)
    ended, document = _target(capsys, model, "--inputs", str(noise), *options)
    assert (tmp_path / "out.onnx").exists() and ended == status
    assert (len(document["attempts"]), document["verification"]["samples"]) == (1, 1)
    assert any(said in note for note in document["verification"]["notes"])
    assert not (document.get("search") or {}).get("stopped"), "the search itself came to its end"
