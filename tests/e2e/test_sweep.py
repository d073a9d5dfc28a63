"""A sweep on local processes and on a Dask cluster: the same results, nothing computed twice, a killed worker loses nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import planner
from planner.cli import main as cli
from planner.reporting import Row
from planner.sweeps.sweep import SweepResult
from tests.unit.small_models import f32, graph, save

distributed = pytest.importorskip("distributed", reason="needs dask.distributed (extra: sweep)")

SPEC = "models:\n  - path: m*.onnx\ntargets:\n  - ep: cpu\nprecisions: [fp32, w8a8]\noptions: {time_limit: 600}\n"
CELLS = 6


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    for i in range(CELLS // 2):
        weight = f32(np.random.default_rng(i).normal(size=(4, 8)))
        save(
            graph("(float[2,4] x) => (float[2,8] y)", "h = MatMul(x, w)\ny = Relu(h)", {"w": weight}),
            tmp_path,
            f"m{i}.onnx",
        )
    path = tmp_path / "sweep.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as started:
        yield started


def untimed(result: SweepResult) -> list[Any]:
    """The rows without what a clock or the memory of a process says."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            timed = ("seconds", "peak_rss_mb", "latency_ms", "speedup")
            return {key: plain(inner) for key, inner in value.items() if key not in timed}
        return [plain(item) for item in value] if isinstance(value, list) else value

    return [plain(cell) for cell in result.to_json()["cells"]]


def test_a_cluster_gives_what_local_processes_give_and_survives_a_killed_worker(
    spec: Path, tmp_path: Path, cluster: Any
) -> None:
    local = planner.sweep(spec, tmp_path / "local", workers=2)
    killed: list[int] = []

    def told(row: Row, done: int, total: int) -> None:
        if not killed:
            worker = next(iter(cluster.workers.values()))
            killed.append(worker.process.pid)
            os.kill(worker.process.pid, signal.SIGKILL)

    remote = planner.sweep(spec, tmp_path / "remote", scheduler=cluster.scheduler_address, told=told)
    assert killed and (remote.computed, remote.failed) == (CELLS, 0) == (local.computed, local.failed)
    assert untimed(remote) == untimed(local)


@pytest.mark.slow
def test_a_second_sweep_computes_only_what_changed(spec: Path, tmp_path: Path) -> None:
    first = planner.sweep(spec, tmp_path / "out", workers=1)
    again = planner.sweep(spec, tmp_path / "out", workers=1)
    assert (first.computed, again.computed, again.reused) == (CELLS, 0, CELLS)
    assert again.report.rows == first.report.rows
    weight = f32(np.random.default_rng(9).normal(size=(4, 8)))
    save(graph("(float[2,4] x) => (float[2,8] y)", "y = MatMul(x, w)", {"w": weight}), tmp_path, "m1.onnx")
    changed = planner.sweep(spec, tmp_path / "out", workers=1)
    assert (changed.computed, changed.reused) == (2, CELLS - 2)


@pytest.mark.slow
def test_a_damaged_result_is_computed_again(spec: Path, tmp_path: Path) -> None:
    planner.sweep(spec, tmp_path / "out", workers=1)
    damaged = next((tmp_path / "out" / "cells").iterdir())
    damaged.write_text(damaged.read_text()[:100])
    again = planner.sweep(spec, tmp_path / "out", workers=1)
    assert (again.computed, again.reused) == (1, CELLS - 1)


def test_a_version_of_an_ep_is_a_target_beside_another(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = metadata.version("onnxruntime")
    # A second environment of the same packages, laid where `planner env create` makes them.
    made = tmp_path / "cache" / "environments" / f"cpu@{version}"
    (made / "bin").mkdir(parents=True)
    (made / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", made)
    (made / "lib").symlink_to(Path(sys.prefix) / "lib")
    monkeypatch.setenv("PLANNER_CACHE", str(tmp_path / "cache"))
    spec.write_text(f"models:\n  - path: m0.onnx\ntargets:\n  - ep: cpu\n  - ep: cpu@{version}\nprecisions: [fp32]\n")
    swept = planner.sweep(spec, tmp_path / "out", workers=1)
    assert [row.target.ep for row in swept.report.rows] == ["CPUExecutionProvider", f"CPUExecutionProvider@{version}"]
    for row in swept.report.rows:
        assert row.status == "passed" and row.verification is not None
        assert (row.verification.ran_on, row.verification.kind) == (row.target.ep, "hardware")


@pytest.mark.slow
def test_the_command_and_its_diff(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.main(["sweep", str(spec), "-o", str(out), "--workers", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "planner/sweep/1"
    assert (document["computed"], document["reused"], document["failed"], len(document["cells"])) == (
        CELLS,
        0,
        0,
        CELLS,
    )
    worse = json.loads((out / "report.json").read_text())
    worse["rows"][0].update(status="illegal", legal=False)
    (tmp_path / "new.json").write_text(json.dumps(worse))
    assert cli.main(["diff", str(out), str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changes"] == []
    assert cli.main(["diff", str(out), str(tmp_path / "new.json"), "-o", str(tmp_path / "diff")]) == 1
    assert re.search(r"worse: m0 on .*status passed → illegal", capsys.readouterr().out)
    assert sorted(p.name for p in (tmp_path / "diff").iterdir()) == ["diff.html", "diff.json", "diff.md", "diff.xml"]
