"""The floor: what --floor and --metric mean, and when a fidelity reaches it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from planner.errors import RequestError
from planner.resolve.plan import TargetIdentity
from planner.runtime.registry import CPU
from planner.verification.fidelity import Fidelity, PartFidelity
from planner.verification.floor import Floor, load_metric, parse_floor
from planner.verification.verify import Criteria, verify


def _fidelity(db: float, top1: float | None = None, finite: bool = True) -> Fidelity:
    return Fidelity("y", db, 1.0, 0.0, top1, finite)


@pytest.mark.parametrize(
    ("text", "metric", "floor"),
    [
        ("30", None, Floor("sqnr", 30)),
        ("sqnr=12.5", None, Floor("sqnr", 12.5)),
        ("top1=0.99", None, Floor("top1", 0.99)),
        ("0.95", "mine:accuracy", Floor("metric", 0.95, "mine:accuracy")),
    ],
)
def test_a_floor_is_decibels_a_share_or_the_users_metric(text: str, metric: str | None, floor: Floor) -> None:
    assert parse_floor(text, metric) == floor


@pytest.mark.parametrize(
    ("text", "metric"),
    [("", None), ("nan", None), ("inf", None), ("300", None), ("top1=99", None), ("psnr=3", None), ("top1=", None),
     ("top1=0.9", "mine:accuracy"), ("0.9", "mine"), ("0.9", ":f")],
)  # fmt: skip
def test_a_senseless_floor_is_refused(text: str, metric: str | None) -> None:
    with pytest.raises(RequestError):
        parse_floor(text, metric)


def test_the_least_faithful_output_counts() -> None:
    fidelity = (_fidelity(40), _fidelity(25))
    assert Floor("sqnr", 25).passes(fidelity)
    assert not Floor("sqnr", 25.1).passes(fidelity)
    assert list(Floor("sqnr", 30).shortfalls(fidelity)) == ["output 'y' has 25.0 dB SQNR, below the floor of 30 dB"]


def test_from_eight_samples_on_the_lower_end_of_the_interval_must_reach_the_floor() -> None:
    few, enough = (replace(_fidelity(31), samples=n, low_db=26.0, worst_sample_db=12.0) for n in (7, 8))
    assert Floor("sqnr", 30).passes((few,))
    assert not Floor("sqnr", 30).passes((enough,))
    assert Floor("sqnr", 26).passes((enough,))
    (reason,) = Floor("sqnr", 30).shortfalls((enough,))
    assert "31.0 dB SQNR over 8 samples" in reason and "26.0 dB" in reason and "worst sample has 12.0 dB" in reason
    assert "8 would do" in Floor("sqnr", 30).too_few(7)
    assert not Floor("sqnr", 30).too_few(8)
    assert not Floor("top1", 0.9).too_few(2)


def test_the_lower_end_of_the_weakest_part_counts() -> None:
    part = PartFidelity("scores", 28.0, 22.0)
    whole = replace(_fidelity(40), samples=16, low_db=39.0, parts=(part,))
    assert Floor("sqnr", 20).score((whole,)) == 22.0


@pytest.mark.parametrize(
    "dead",
    [
        Fidelity("y", -200, top1_agreement=1.0, dead=True),
        Fidelity(
            "y", 40, top1_agreement=1.0, parts=(PartFidelity("boxes", 45), PartFidelity("scores", -200, dead=True))
        ),
    ],
)
def test_an_output_or_a_part_that_is_dead_meets_no_floor_of_any_kind(dead: Fidelity) -> None:
    for floor in (Floor("sqnr", -10), Floor("top1", 0.5), Floor("metric", 0.5, "mine:accuracy")):
        assert not floor.passes((dead,), 0.9)
        assert list(floor.shortfalls((dead,), 0.9))


def test_top1_counts_outputs_that_look_like_scores_alone() -> None:
    assert Floor("top1", 0.9).passes((_fidelity(3, 0.95), _fidelity(-10)))
    assert not Floor("top1", 0.99).passes((_fidelity(3, 0.95),))
    with pytest.raises(RequestError, match="class scores"):
        Floor("top1", 0.9).score((_fidelity(30),))


def test_an_output_that_is_not_finite_passes_no_floor() -> None:
    for floor in (Floor("sqnr", -200), Floor("top1", 0), Floor("metric", 0, "m:f")):
        assert not floor.passes((_fidelity(-200, 1.0, finite=False),), 1.0)


def test_a_metric_runs_the_candidate_and_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = []
    for factor in (1.0, 0.5):
        graph = helper.make_graph(
            [helper.make_node("Mul", ["x", "f"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
            [helper.make_tensor("f", TensorProto.FLOAT, [], [factor])],
        )
        paths.append(tmp_path / f"{factor}.onnx")
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), paths[-1])
    (tmp_path / "my_metric.py").write_text(
        "import numpy as np\n"
        "def largest(run):\n    return run({'x': np.ones((1, 2), np.float32)})['y'].max()\n"
        "def broken(run):\n    raise KeyError('scores')\n"
    )
    monkeypatch.chdir(tmp_path)
    sample = {"x": np.ones((1, 2), np.float32)}
    floor = parse_floor("0.75", "my_metric:largest")
    found = verify(paths[1], paths[0], TargetIdentity(CPU, "cpu"), [sample], Criteria(floor))
    assert found.metric is not None
    assert (found.metric.value, found.metric.reference) == (0.5, 1.0)
    assert found.reasons[0] == "my_metric:largest is 0.5, below the floor of 0.75"
    assert verify(paths[0], paths[0], TargetIdentity(CPU, "cpu"), [sample], Criteria(floor)).passed
    with pytest.raises(RequestError, match="KeyError"):
        verify(paths[0], paths[0], TargetIdentity(CPU, "cpu"), [sample], Criteria(parse_floor("1", "my_metric:broken")))
    with pytest.raises(RequestError, match="no_such"):
        load_metric("my_metric:no_such")


def test_answers_that_change_above_a_floor_in_decibels_are_told() -> None:
    changed = [Fidelity("y", 24, top1_agreement=0.75), Fidelity("z", 24, top1_agreement=0.99), Fidelity("h", 24)]
    (told,) = Floor("sqnr", 20).other_answers(changed)
    assert "'y'" in told and "75 %" in told and "--floor top1=" in told
    assert not list(Floor("sqnr", 30).other_answers(changed)) and not list(Floor("top1", 0.7).other_answers(changed))
