"""Functions of the user's own: what they do wrong is told, and never ends the program as if all were well."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from planner.errors import EPError, RequestError
from planner.user_code import load_function, running


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("import sys\nsys.exit(0)", "ended the program"),
        ("import argparse\nargparse.ArgumentParser().parse_args(['--no-such'])", "ended the program"),
        ("raise OSError('gone')", "OSError: gone"),
        ("f = 3", "is no function"),
        ("g = 3", "no attribute 'f'"),
    ],
)
def test_a_module_that_fails_is_named(body: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_own.py").write_text(body)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "users_own", raising=False)
    before = list(sys.path)
    with pytest.raises(RequestError, match=f"--metric users_own:f.*{says}"):
        load_function("users_own:f", "--metric")
    assert sys.path == before


def test_where_modules_are_looked_for_is_told() -> None:
    with pytest.raises(RequestError, match="No module named 'no_such'") as caught:
        load_function("no_such:f", "--inputs")
    assert "PYTHONPATH" in caught.value.hint


def test_a_function_that_ends_the_program_is_named_and_planners_own_errors_stay() -> None:
    with pytest.raises(RequestError, match="ended the program"), running("a:f", "--inputs"):
        sys.exit(0)
    with pytest.raises(EPError, match="crashed"), running("a:f", "--inputs"):
        raise EPError("crashed")
    with pytest.raises(KeyboardInterrupt), running("a:f", "--inputs"):
        raise KeyboardInterrupt


def test_planner_stays_where_it_is_and_the_users_code_where_it_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "data"
    there.mkdir()
    with running("a:f", "--inputs"):
        os.chdir(there)
    assert Path.cwd() == tmp_path
    with running("a:f", "--inputs"):
        assert Path.cwd() == there
    with pytest.raises(RequestError, match="gone"), running("a:f", "--inputs"):
        raise OSError("gone")
    assert Path.cwd() == tmp_path
