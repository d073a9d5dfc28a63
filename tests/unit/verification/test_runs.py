"""Who is to blame for a sample that does not run, and what there is where the EP told its placement and built nothing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
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
