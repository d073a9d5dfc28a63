"""What a test may need and a machine may lack. A test without it is skipped, and the end of the run says so."""

from __future__ import annotations

import os

import pytest

_REQUIRED = frozenset(filter(None, os.environ.get("PLANNER_REQUIRE", "").split(",")))


def lacking(capability: str, reason: str) -> None:
    """Skip the running test for want of a capability ("qnn", "models"), or fail it where PLANNER_REQUIRE names that."""
    if capability in _REQUIRED:
        pytest.fail(f"{capability} is required here: {reason}", pytrace=False)
    pytest.skip(f"{capability}: {reason}")
