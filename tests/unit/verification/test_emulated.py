"""Emulating candidates: the reference runs on each sample once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from planner.calibrate.inputs import Sample
from planner.runtime.client import Worker
from planner.verification.emulated import Emulation
from tests.unit.small_models import f32, graph, save

RNG = np.random.default_rng(0)
SAMPLES: list[Sample] = [{"x": f32(RNG.normal(size=(1, 4)) * (1 + i))} for i in range(4)]


def times(folder: Path, factor: float) -> Path:
    folder.mkdir()
    return save(graph("(float[1,4] x) => (float[1,4] y)", "y = Mul(x, k)", {"k": f32(factor)}), folder)


def test_a_candidate_is_compared_with_the_reference_on_the_samples_asked_for(tmp_path: Path) -> None:
    emulation = Emulation(times(tmp_path / "a", 1.0), SAMPLES)
    (found,) = emulation.fidelity(ir.load(times(tmp_path / "b", 1.01)), [0, 2])
    assert found.output == "y" and found.sqnr_db == pytest.approx(40.0, abs=1e-3)
    (same,) = emulation.fidelity(ir.load(times(tmp_path / "c", 1.0)), [3])
    assert same.sqnr_db > 150


def test_the_reference_runs_on_each_sample_once_however_many_candidates_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, candidate = times(tmp_path / "a", 1.0), ir.load(times(tmp_path / "b", 1.01))
    ran: list[str] = []
    run, opened = Worker.run, Worker.open

    def open_one(worker: Worker, model: Path, *args: Any, **kwargs: Any) -> Any:
        vars(worker)["what"] = "reference" if model == reference else "candidate"
        return opened(worker, model, *args, **kwargs)

    def run_one(worker: Worker, sample: Sample) -> Any:
        ran.append(vars(worker)["what"])
        return run(worker, sample)

    monkeypatch.setattr(Worker, "open", open_one)
    monkeypatch.setattr(Worker, "run", run_one)
    emulation = Emulation(reference, SAMPLES)
    for places in ([0, 2], [0, 1, 2], [2]):
        emulation.fidelity(candidate, places)
    assert (ran.count("reference"), ran.count("candidate")) == (3, 6)


def test_groups_of_samples_are_judged_each_by_itself_in_one_session(tmp_path: Path) -> None:
    emulation, candidate = Emulation(times(tmp_path / "a", 1.0), SAMPLES), ir.load(times(tmp_path / "b", 1.01))
    groups = [[0, 2], [], [1, 2, 3]]
    found = emulation.fidelity_of_each(candidate, groups)
    assert [[f.samples for f in each] for each in found] == [[2], [], [3]]
    assert [found[0], found[2]] == [emulation.fidelity(candidate, groups[0]), emulation.fidelity(candidate, groups[2])]
