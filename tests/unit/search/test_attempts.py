"""An attempt that cannot run is an attempt that failed: the next is made, and what passed is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner import api
from planner.errors import EPError
from planner.quantization.walk import LEARNS
from planner.resolve.plan import Plan
from planner.runtime.client import RunFailed, Worker, WorkerCrashed
from planner.search import trials
from planner.search.evaluator import PlanEvaluator
from planner.search.report import SearchReport
from planner.search.run import _mixing_may_help
from planner.verification.floor import Floor
from planner.verification.placement import Fallback, Placement
from planner.verification.verify import Verification, verify
from tests.unit.small_models import f32, graph, save

RNG = np.random.default_rng(0)
BROKE = RunFailed("the EP broke", "look at its log", "CPUExecutionProvider")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    constants = {"w": f32(RNG.normal(size=(8, 16))), "b": f32(RNG.normal(size=16)), "v": f32(RNG.normal(size=(16, 4)))}
    body = "m = MatMul(x, w)\na = Add(m, b)\nr = Relu(a)\ny = MatMul(r, v)"
    return save(graph("(float[1,8] x) => (float[1,4] y)", body, constants), tmp_path)


@pytest.fixture
def samples(tmp_path: Path) -> str:
    np.savez(tmp_path / "s.npz", x=f32(RNG.normal(size=(8, 8))))
    return str(tmp_path / "s.npz")


def failing(monkeypatch: pytest.MonkeyPatch, times: int, error: EPError = BROKE) -> list[str]:
    """Let the first verifications fail as an EP that breaks does; what was verified, by file."""
    tried = list[str]()

    def broken(candidate: Path, *args: Any, **kwargs: Any) -> Verification:
        tried.append(candidate.name)
        if len(tried) <= times:
            raise error
        return verify(candidate, *args, **kwargs)

    monkeypatch.setattr("planner.search.trials.verify", broken)
    return tried


def test_auto_goes_on_after_an_attempt_that_cannot_run(
    model: Path, samples: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = failing(monkeypatch, 1)
    monkeypatch.setattr(trials.Trials, "time", lambda *_: None)
    found = api.target(model, "cpu", tmp_path / "out.onnx", inputs=samples)
    assert found.passed and len(tried) > 1 and found.selection is not None
    (failed,) = found.selection.failed
    assert "the EP broke" in str(failed.error)
    line = found.to_json()["attempts"][-1]
    assert line["passed"] is False and line["reasons"] == ["the EP broke"]


def test_a_process_that_is_ended_once_changes_no_answer(
    model: Path, samples: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials.Trials, "time", lambda *_: None)
    api.target(model, "cpu", tmp_path / "out.onnx", inputs=samples)
    tried = failing(monkeypatch, 1, WorkerCrashed("the EP crashed (signal SIGKILL)"))
    found = api.target(model, "cpu", tmp_path / "again.onnx", inputs=samples)
    assert tried[0] == tried[1]
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "out.onnx").read_bytes()
    assert found.selection is not None and not found.selection.failed


@pytest.mark.slow
def test_nor_does_one_that_is_ended_in_a_search(
    model: Path, samples: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials.Trials, "time", lambda *_: None)
    run, ended = PlanEvaluator._run, list[str]()

    def ended_first(self: PlanEvaluator, worker: Worker, *args: Any) -> Any:
        if len(ended) % 2 == 0:
            assert worker._process is not None
            worker._process.end()
        ended.append(worker.ep)
        return run(self, worker, *args)

    def searched(name: str) -> tuple[bytes, SearchReport | None]:
        floor = Floor("sqnr", 45)
        found = api.target(model, "cpu", tmp_path / name, inputs=samples, floor=floor)
        assert found.selection is not None
        return (tmp_path / name).read_bytes(), found.selection.search

    undisturbed, report = searched("out.onnx")
    monkeypatch.setattr(PlanEvaluator, "_run", ended_first)
    again, disturbed = searched("again.onnx")
    assert len(ended) >= 4 and again == undisturbed
    assert report is not None and disturbed is not None and disturbed.cost == report.cost


def test_a_plan_that_crashes_twice_has_failed(
    model: Path, samples: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, 2, WorkerCrashed("the EP crashed (signal SIGSEGV)"))
    monkeypatch.setattr(trials.Trials, "time", lambda *_: None)
    found = api.target(model, "cpu", tmp_path / "out.onnx", inputs=samples)
    assert found.selection is not None
    (failed,) = found.selection.failed
    assert "SIGSEGV" in str(failed.error)


def test_where_nothing_can_run_the_first_failure_is_told(
    model: Path, samples: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, 1000)
    with pytest.raises(EPError, match="the EP broke"):
        api.target(model, "cpu", tmp_path / "out.onnx", inputs=samples)
    assert not (tmp_path / "out.onnx").exists()


def test_one_precision_that_was_asked_for_fails_as_it_fails(
    model: Path, samples: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, 1)
    with pytest.raises(EPError, match="the EP broke"):
        api.target(model, "cpu", tmp_path / "out.onnx", precision="w8a8", inputs=samples)


def test_where_a_floor_needs_it_rounding_is_learned_and_the_plan_says_so(tmp_path: Path) -> None:
    constants = {"w": f32(RNG.normal(size=(32, 16))), "v": f32(RNG.normal(size=(16, 4)))}
    body = "m = MatMul(x, w)\nr = Relu(m)\ny = MatMul(r, v)"
    model = save(graph("(float[8,32] x) => (float[8,4] y)", body, constants), tmp_path)
    together = RNG.normal(size=(48, 8, 6)) @ RNG.normal(size=(6, 32)) + 0.1 * RNG.normal(size=(48, 8, 32))
    np.savez(tmp_path / "many.npz", x=f32(together))
    many = str(tmp_path / "many.npz")

    def attempted(floor: float) -> tuple[Plan, float, str]:
        found = api.target(
            model, "cpu", tmp_path / f"{floor}.onnx", precision="w8a16", inputs=many, floor=Floor("sqnr", floor)
        )
        assert found.selection is not None
        kept = found.selection.kept
        return kept.plan, kept.worst_db, kept.artifact.sha256

    plain, before, _ = attempted(20)
    assert LEARNS not in (plain.inputs or {})
    learned, after, sha256 = attempted(before + 1)
    assert (learned.inputs or {})[LEARNS] is True
    assert after > before + 0.5
    # Whoever applies the plan gets the same file.
    again = api.quantize(model, learned, tmp_path / "again.onnx", inputs=many)
    assert again.artifact.sha256 == sha256
    assert attempted(before + 40)[0].inputs == plain.inputs  # out of reach: it is not tried


def attempt(*left: str) -> Any:
    class Attempt:
        passed = False
        verification = Verification("EP", "simulator", {}, Placement(3, 3, tuple(Fallback(n, "Op") for n in left)), ())

    return Attempt()


def test_there_is_no_search_where_placement_is_the_cause() -> None:
    assert _mixing_may_help([attempt("a"), attempt()])  # one plan was wholly on the EP: its numbers are what is wrong
    assert _mixing_may_help([attempt("a"), attempt("b")])
    assert not _mixing_may_help([attempt("a", "b"), attempt("b")])
    assert not _mixing_may_help([])  # nothing ran at all
