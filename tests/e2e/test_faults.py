"""What goes wrong around a run, the quickest of it; all of it: python -m benchmarks.trust faults."""

from __future__ import annotations

import sys

import pytest

from benchmarks.faults import FAULTS, provoke
from tests.capabilities import lacking

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes as Linux shows them")


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("SIGHUP of the command", "calibrating"),
        ("another model in its place", "timing"),
        ("no room for temporary files", ""),
        ("a second writer", ""),
    ],
)
def test_nothing_is_lost_half_written_or_left(name: str, stage: str) -> None:
    fault = next(fault for fault in FAULTS if fault.name == name)
    if fault.lacks:
        lacking("faults", f"{name}: {fault.lacks}")
    outcome = provoke(fault, stage)
    assert not outcome.wrong, outcome
