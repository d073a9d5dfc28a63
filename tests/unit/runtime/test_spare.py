"""Processes of the CPU EP serve one worker after another within a block, and none outlives it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from planner import limits
from planner.runtime import spare
from planner.runtime.client import SessionFailed, Worker, prepare
from planner.runtime.process import Process
from planner.runtime.registry import CPU
from tests.unit.small_models import graph, save


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(graph("(float[2] x) => (float[2] y)", "y = Neg(x)"), tmp_path)


def served_by(model: Path) -> int:
    """Run the model in a worker; the process that did."""
    with Worker(CPU) as worker:
        worker.open(model, {})
        result = worker.run({"x": np.array([1, -2], np.float32)}).outputs["y"]
        np.testing.assert_array_equal(result, [-1, 2])
        assert worker.runtime["onnxruntime"] and worker._process is not None
        return worker._process._popen.pid


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_process_serves_the_next_worker_and_ends_with_the_block(model: Path) -> None:
    with spare.reused():
        first = served_by(model)
        with spare.reused():
            assert served_by(model) == first
        assert served_by(model) == first
    assert not alive(first)
    assert served_by(model) != first


def test_two_at_a_time_are_two_processes(model: Path) -> None:
    with spare.reused():
        first = served_by(model)
        with Worker(CPU) as worker:
            worker.open(model, {})
            assert served_by(model) != first


def test_a_worker_with_other_limits_has_a_process_of_its_own(model: Path) -> None:
    with spare.reused():
        first = served_by(model)
        with limits.limited(memory=3 << 30):
            assert served_by(model) != first


def test_a_session_that_could_not_be_built_costs_no_process(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08")
    with spare.reused():
        first = served_by(model)
        with pytest.raises(SessionFailed), Worker(CPU) as worker:
            worker.open(broken, {})
        assert served_by(model) == first


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_process_that_died_while_it_waited_is_not_handed_out(model: Path) -> None:
    with spare.reused():
        first = served_by(model)
        os.kill(first, signal.SIGKILL)
        time.sleep(0.2)
        assert served_by(model) != first


def test_a_process_that_was_prepared_serves_the_next_worker(model: Path) -> None:
    prepare(CPU)
    assert not spare.wanted(), "outside of a block nothing is started"
    with spare.reused():
        prepare(CPU)
        ((_, waiting),) = spare._kept
        assert isinstance(waiting, Process)
        assert served_by(model) == waiting._popen.pid
    assert not alive(waiting._popen.pid)


def test_a_process_that_was_prepared_for_nothing_ends_with_the_block() -> None:
    with spare.reused():
        prepare(*[CPU] * 6)
        pids = [kept._popen.pid for _, kept in spare._kept if isinstance(kept, Process)]
        assert len(pids) == 4
    assert not any(map(alive, pids))


def test_an_interrupt_ends_the_process(model: Path) -> None:
    with spare.reused():
        pid = 0
        with pytest.raises(KeyboardInterrupt), Worker(CPU) as worker:
            worker.open(model, {})
            assert worker._process is not None
            pid = worker._process._popen.pid
            raise KeyboardInterrupt
        assert not alive(pid)


def test_no_more_are_kept_than_a_comparison_takes(model: Path) -> None:
    with spare.reused():
        workers = [Worker(CPU) for _ in range(6)]
        for worker in workers:
            worker.open(model, {})
        pids = [worker._process._popen.pid for worker in workers if worker._process is not None]
        for worker in workers:
            worker.close()
        assert sum(map(alive, pids)) == 4
    assert not any(map(alive, pids))
