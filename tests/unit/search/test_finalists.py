"""Choosing among plans that pass by what they are estimated to cost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from planner.errors import EPError
from planner.estimation.latency import Interval
from planner.resolve.plan import ModelIdentity, Plan, ProfileIdentity, TargetIdentity
from planner.search.finalists import LEAST_GAIN, Estimator, Finalist, fastest, is_faster


def ms(mid: float) -> Interval:
    return Interval(0.8 * mid, mid, 1.3 * mid)


def outcomes(found: tuple[Finalist, ...]) -> dict[str, str]:
    return {finalist.precision: finalist.outcome for finalist in found}


def test_a_plan_that_is_estimated_is_faster_takes_the_place_of_the_first() -> None:
    found = fastest(("w8a16", ms(2.0)), [("fp16", ms(1.0))], lambda name: True)
    assert outcomes(found) == {"w8a16": "not needed", "fp16": "kept"}


def test_a_slightly_lower_estimate_changes_nothing_and_runs_nothing() -> None:
    found = fastest(("w8a16", ms(2.0)), [("fp16", ms(1.98))], lambda name: pytest.fail(name))
    assert outcomes(found) == {"w8a16": "kept", "fp16": "not faster"}


def test_the_fastest_is_tried_first_and_the_next_only_where_it_does_not_pass() -> None:
    tried = []

    def passes(name: str) -> bool:
        tried.append(name)
        return name != "w8a8"

    found = fastest(("fp16", ms(4.0)), [("w16a16", ms(3.0)), ("w8a16", ms(2.0)), ("w8a8", ms(1.0))], passes)
    assert tried == ["w8a8", "w8a16"]
    assert outcomes(found) == {"fp16": "not needed", "w16a16": "not needed", "w8a16": "kept", "w8a8": "not faithful"}


def test_without_estimates_the_declared_order_stands() -> None:
    found = fastest(("w8a16", None), [("fp16", ms(1.0))], lambda name: pytest.fail(name))
    assert outcomes(found) == {"w8a16": "kept", "fp16": "not estimated"}
    found = fastest(("w8a16", ms(1.0)), [("fp16", None)], lambda name: pytest.fail(name))
    assert outcomes(found) == {"w8a16": "kept", "fp16": "not estimated"}


def test_alone_a_plan_is_kept() -> None:
    assert outcomes(fastest(("fp16", ms(1.0)), [], lambda name: True)) == {"fp16": "kept"}


def test_a_plan_that_is_not_run_is_not_called_unfaithful() -> None:
    asked: list[str] = []

    def passes(name: str) -> bool | None:
        asked.append(name)
        return False if name == "fastest" else None

    outcomes = fastest(("first", ms(3.0)), [("fastest", ms(1.0)), ("faster", ms(2.0))], passes)
    assert asked == ["fastest", "faster"]
    assert {f.precision: f.outcome for f in outcomes} == {
        "first": "kept",
        "fastest": "not faithful",
        "faster": "not needed",
    }


def test_is_faster_is_a_share_of_the_time() -> None:
    assert is_faster(ms(LEAST_GAIN), ms(1.0))
    assert not is_faster(ms(LEAST_GAIN + 0.001), ms(1.0))
    assert not is_faster(None, ms(1.0))


class FakeCompiler:
    """Takes as many milliseconds as the file says; a file that says "slow" until it is abandoned."""

    compiled: list[str]
    begun = threading.Event()

    def __init__(self, _ep: str) -> None:
        self.given_up = threading.Event()

    def compile(self, model: Path, _options: Mapping[str, str]) -> Any:
        self.compiled.append(said := model.read_text())
        self.begun.set()
        if said == "slow":
            assert self.given_up.wait(10)
            raise EPError("it crashed")
        if said == "refused":
            raise EPError("the EP took nothing")
        return SimpleNamespace(elsewhere=("Add",) if said == "in part" else (), schedule=said)

    def abandon(self) -> None:
        self.given_up.set()

    def close(self) -> None:
        pass


@pytest.fixture
def estimator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Estimator:
    FakeCompiler.compiled, FakeCompiler.begun = [], threading.Event()
    model = SimpleNamespace(of=lambda _options: SimpleNamespace(interval=lambda said: ms(len(said))))
    monkeypatch.setattr("planner.search.finalists.Compiler", FakeCompiler)
    monkeypatch.setattr("planner.search.finalists.latency_model", lambda _ep: model)
    return Estimator(TargetIdentity("EP", "chip"), lambda plan, path: path.write_text(plan.precision), tmp_path)


def plans(*precisions: str) -> list[Plan]:
    model, profile = ModelIdentity("m.onnx", "0" * 64, 21, 0), ProfileIdentity("EP", "0" * 64)
    return [Plan(model, TargetIdentity("EP", "chip"), precision, 21, (), profile) for precision in precisions]


def test_each_plan_is_estimated_once_whether_or_not_it_was_foreseen(estimator: Estimator) -> None:
    first, second, other = plans("a", "bb", "ccc")
    with estimator:
        estimator.foresee(lambda: [first, second])
        assert [estimator.of(p) for p in (second, first, other, second)] == [ms(2), ms(1), ms(3), ms(2)]
    assert FakeCompiler.compiled == ["a", "bb", "ccc"]


def test_what_is_refused_or_runs_in_part_elsewhere_has_no_estimate(estimator: Estimator) -> None:
    with estimator:
        assert [estimator.of(p) for p in plans("refused", "in part", "a")] == [None, None, ms(1)]


def test_what_nobody_asks_for_any_more_is_given_up_at_once(estimator: Estimator) -> None:
    started = time.monotonic()
    with estimator:
        estimator.foresee(lambda: plans("slow", "never"))
        assert FakeCompiler.begun.wait(10)
    assert time.monotonic() - started < 5
    assert FakeCompiler.compiled == ["slow"]


def test_a_defect_in_what_is_foreseen_is_told_to_whoever_asks(estimator: Estimator) -> None:
    def broken() -> Iterable[Plan]:
        raise ZeroDivisionError

    with estimator, pytest.raises(ZeroDivisionError):
        estimator.foresee(broken)
        estimator.of(plans("a")[0])
