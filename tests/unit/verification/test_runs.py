"""Who is to blame for a sample that does not run, and what there is where the EP told its placement and built nothing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from planner.resolve.plan import TargetIdentity
from planner.runtime.client import Assigned, Opened, Ran, RunFailed
from planner.runtime.eps.launcher import Availability
from planner.runtime.registry import CPU
from planner.verification.fidelity import Comparison
from planner.verification.runs import Runs
from tests.unit.small_models import graph, save

NPU = "QNNExecutionProvider"


class Failing:
    """A worker whose runs fail, or not."""

    def __init__(self, ep: str, *, fails: bool) -> None:
        self.ep, self.fails = ep, fails

    def run(self, _sample: Mapping[str, np.ndarray[Any, Any]]) -> Ran:
        if self.fails:
            raise RunFailed(f"{self.ep} failed", ep=self.ep)
        return Ran({}, 0.0, None)


@pytest.mark.parametrize(("reference_fails", "blamed"), [(True, CPU), (False, NPU)])
def test_a_sample_that_the_float32_model_does_not_take_is_not_the_eps_fault(reference_fails: bool, blamed: str) -> None:
    reference, worker = Failing(CPU, fails=reference_fails), Failing(NPU, fails=True)
    nothing: Any = None
    runs = Runs(reference, {}, worker, None, {}, nothing, nothing, NPU, "simulator", ())  # type: ignore[arg-type]
    with pytest.raises(RunFailed) as found:
        list(runs.ran(iter([{"x": np.zeros(1)}]), 1))
    assert found.value.ep == blamed


class Unbuilt:
    """A worker of an EP that tells its placement, and whose session this machine could not build."""

    def __init__(self, ep: str, timeout: float | None = None) -> None:
        self.ep, self.runtime = ep, {"some-package": "1"}

    def __enter__(self) -> Unbuilt:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def open(self, _model: Path, _options: Mapping[str, str], **_others: object) -> Opened:
        why = "" if self.ep == CPU else "no shader"
        return Opened((Assigned(self.ep, "Relu", "r"),), (), None, 0.1, None, {}, why)


def test_a_session_that_this_machine_does_not_build_is_placed_by_the_ep_and_emulated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpu = "WebGpuExecutionProvider"
    available = Availability("software", {"some-package": "1"}, "", Path(sys.executable))
    monkeypatch.setattr("planner.verification.runs.Worker", Unbuilt)
    monkeypatch.setattr(
        "planner.verification.runs.launcher",
        lambda _: SimpleNamespace(availability=lambda _: available, schedules=False),
    )
    path = save(graph("(float[2] x) => (float[2] y)", "[r] y = Relu(x)"), tmp_path)
    with contextlib.ExitStack() as stack:
        runs = Runs.start(stack, path, path, ir.load(path), TargetIdentity(gpu, "gpu", {}), None, None)
    assert (runs.kind, runs.ran_on, runs.placement.on_target) == ("emulation", CPU, 1)
    assert "this machine built no session of it: no shader" in runs.notes


class Scaling:
    """A worker that gives its input times a number, which may hang on the input."""

    def __init__(self, factor: Callable[[float], float]) -> None:
        self.factor = factor

    def run(self, sample: Mapping[str, np.ndarray[Any, Any]]) -> Ran:
        return Ran({"y": sample["x"] * self.factor(float(sample["x"][0]))}, 0.0, None)


@pytest.mark.parametrize("kind", ["simulator", "hardware"])
def test_the_target_runs_the_sample_that_was_begun_and_then_the_hardest(kind: Any) -> None:
    # By emulation the larger a sample is, the worse.
    types, exact, worse = {"x": np.dtype(np.float64)}, Scaling(lambda _: 1.0), Scaling(lambda x: 1 + x / 100)
    nothing: Any = None
    runs = Runs(exact, types, exact, worse, types, nothing, nothing, NPU, kind, ())  # type: ignore[arg-type]
    samples, more = ([{"x": np.array([float(x)])} for x in numbers] for numbers in ((2, 1, 6), (5, 9, 3, 4, 8, 7)))
    emulated = Comparison()
    own, further = runs.emulate(samples, emulated), runs.emulate(more, emulated)
    assert emulated.results()[0].samples == 9 and min(range(6), key=further.__getitem__) == 1
    places = runs.choose(0, [*own, *further], 3, None)
    assert [([*samples, *more][place])["x"][0] for place in places[:4]] == [2, 9, 8, 7]
    assert set(places) >= {0, 1, 2}, "all samples held apart run there"
    all_places = runs.choose(0, [*own, *further], 3, 1.0)
    assert all_places[: len(places)] == places and sorted(all_places) == list(range(9))
