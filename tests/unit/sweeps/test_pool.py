"""A child process that computes cells: what it does to itself costs its own cell alone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.sweeps.pool import CellDied, CellTimeout, Child
from tests.limits import HANGS
from tests.unit.sweeps.crashing import compute

PATIENCE = 300.0


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child(compute)
    yield child
    child.close()


def test_cells_are_computed_one_after_another_in_one_process(child: Child) -> None:
    assert child.run("a", PATIENCE) == child.run("b", PATIENCE)


def test_after_a_crash_the_next_cell_starts_a_new_process(child: Child) -> None:
    first = child.run("a", PATIENCE)
    with pytest.raises(CellDied, match="exit status -9"):
        child.run("crash", PATIENCE)
    assert child.run("b", PATIENCE) not in ("", first)


def test_a_cell_that_takes_too_long_is_killed(child: Child) -> None:
    child.run("a", PATIENCE)
    with pytest.raises(CellTimeout, match=r"within 0\.5 s"):
        child.run("hang", 0.5)
    assert child.run("b", PATIENCE)


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux")
def test_a_limit_in_which_nothing_starts_is_told_as_memory(capfd: pytest.CaptureFixture[str]) -> None:
    child = Child(Hungry(), memory_limit=1)
    try:
        with pytest.raises(MemoryError):
            child.run("a", PATIENCE)
    finally:
        child.close()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="processes end with another one on Linux")
@pytest.mark.parametrize("task", ["hang", "a"])
def test_a_cell_ends_with_the_process_that_asked_for_it(task: str, tmp_path: Path) -> None:
    asking = (
        "import os, sys, threading, time\nfrom planner.sweeps.pool import Child\nfrom tests.unit.sweeps.crashing import compute\n"
        "child = Child(compute)\n"
        f"threading.Thread(target=child.run, args=({task!r}, 600.0), daemon=True).start()\n"
        "while child._process is None: time.sleep(0.01)\n"
        f"time.sleep({1.5 if task == 'hang' else 0})\n"
        "print(child._process.pid, flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", asking], capture_output=True, text=True, cwd=root, check=False)
    cell = Path(f"/proc/{int(done.stdout)}/stat")
    ends = time.monotonic() + HANGS
    while cell.exists() and cell.read_text().split()[2] != "Z":
        assert time.monotonic() < ends, "the cell goes on"
        time.sleep(0.05)


class Hungry:
    """What computes, and takes more than the limit when it is loaded."""

    def __reduce__(self) -> tuple[object, ...]:
        return bytearray, (1 << 30,)

    def __call__(self, task: object) -> None:
        raise AssertionError


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux")
def test_a_cell_that_wants_too_much_memory_is_told_so() -> None:
    child = Child(compute, memory_limit=4096)
    try:
        with pytest.raises(MemoryError):
            child.run("eat", PATIENCE)
        assert child.run("b", PATIENCE)
    finally:
        child.close()
