"""What a test may need and a machine may lack. A test without it is skipped, and the end of the run says so."""

from __future__ import annotations

import os
from collections import Counter

import pytest

_REQUIRED = frozenset(filter(None, os.environ.get("PLANNER_REQUIRE", "").split(",")))
# What the tests of this run did without: how many tests, by capability and reason.
missing: Counter[str] = Counter()


def lacking(capability: str, reason: str) -> None:
    """Skip the running test for want of a capability ("qnn", "models"), or fail it where PLANNER_REQUIRE names that."""
    if capability in _REQUIRED:
        pytest.fail(f"{capability} is required here: {reason}", pytrace=False)
    missing[f"{capability}: {reason}"] += 1
    pytest.skip(f"{capability}: {reason}")
