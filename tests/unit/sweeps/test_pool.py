"""A child process that computes cells: what it does to itself costs its own cell alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from planner.sweeps.pool import CellDied, CellTimeout, Child
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
