"""Whatever a file holds, planner reads it or refuses it in plain words: some seconds of cases, and all that ever failed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.fuzz.run import CORPUS, Kinds, case

_KINDS = ("model-bytes", "model-structure", "profile", "plan", "npz", "evidence", "manifest", "sweep", "report")
_SECONDS = 1.5


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Kinds:
    found = Kinds(tmp_path_factory.mktemp("kinds"))
    assert tuple(found.table) == _KINDS
    return found


@pytest.mark.parametrize("kind", _KINDS)
def test_a_case_is_read_or_refused(kind: str, kinds: Kinds, tmp_path: Path) -> None:
    deadline, seed = time.monotonic() + _SECONDS, 0
    while time.monotonic() < deadline or seed < 20:
        problem = kinds.problem(kind, case(kinds, kind, seed), tmp_path)
        assert problem is None, f"{kind} {seed}: {problem}"
        seed += 1


@pytest.mark.parametrize("find", sorted(p.name for p in CORPUS.iterdir() if not p.name.startswith(".")))
def test_what_once_failed_is_read_or_refused(find: str, kinds: Kinds, tmp_path: Path) -> None:
    kind = next(k for k in _KINDS if find.startswith(f"{k}-"))
    assert kinds.problem(kind, (CORPUS / find).read_bytes(), tmp_path) is None
