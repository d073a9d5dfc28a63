"""The shapes of samples, told from headers alone."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from planner.calibrate.peek import sample_shapes


def test_the_leading_axis_counts_samples_and_the_rest_is_the_shape(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((16, 3, 8)), ids=np.zeros((16, 1, 12)))
    found = sample_shapes(str(tmp_path / "a.npz"), {"x": (None, 3, None), "ids": (None, None)})
    assert found == {"x": (1, 3, 8), "ids": (1, 12)}


def test_a_folder_of_different_lengths_leaves_the_length_open(tmp_path: Path) -> None:
    for length in (8, 9):
        np.savez(tmp_path / f"{length}.npz", x=np.zeros((1, 1, length)))
    assert sample_shapes(str(tmp_path), {"x": (None, None)}) == {"x": (1, None)}


def test_what_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_text("no archive")
    assert sample_shapes(str(tmp_path / "bad.npz"), {"x": (None,)}) == {}
    assert sample_shapes(str(tmp_path / "missing.npz"), {"x": (None,)}) == {}
    assert sample_shapes(None, {"x": (None,)}) == {}


def test_lists_of_different_lengths_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ragged_inputs.py").write_text("def f():\n    yield {'x': [[1], [1, 2]], 'y': [1]}\n")
    monkeypatch.chdir(tmp_path)
    assert sample_shapes("ragged_inputs:f", {"x": (None, None), "y": (None,)}) == {"y": (1,)}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no named pipes")
def test_a_pipe_holds_up_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.npz")
    assert sample_shapes(str(tmp_path / "x.npz"), {"x": (None,)}) == {}
