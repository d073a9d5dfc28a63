"""Histograms of what the float32 tensors of a model hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planner.errors import EPError
from planner.model.read import read_model
from planner.reporting.ranges import BINS, observed_ranges
from planner.runtime.client import Worker
from tests.unit.small_models import f32, graph, save


def test_ends_are_exact_and_counts_lie_where_the_values_do(tmp_path: Path) -> None:
    path = save(graph("(float[1,100] x) => (float[1,100] y)", "y = Relu(x)"), tmp_path)
    values = f32([[-1.0] + [0.0] * 98 + [3.0]])
    found = {r.tensor: r for r in observed_ranges(read_model(path), [{"x": values}, {"x": values * 2}])}
    x, y = found["x"], found["y"]
    assert (x.low, x.high, y.low, y.high) == (-2.0, 6.0, 0.0, 6.0)
    assert x.histogram is not None and y.histogram is not None
    assert len(x.histogram) == BINS and sum(x.histogram) == 200
    assert x.histogram[0] == 1 and x.histogram[-1] == 1 and max(x.histogram) == 196
    assert y.histogram[0] == 198


def test_a_constant_tensor_has_a_range_and_no_histogram(tmp_path: Path) -> None:
    path = save(graph("(float[1,4] x) => (float[1,4] y)", "y = Relu(x)"), tmp_path)
    found = {r.tensor: r for r in observed_ranges(read_model(path), [{"x": np.full((1, 4), -1, np.float32)}])}
    assert (found["y"].low, found["y"].high, found["y"].histogram) == (0.0, 0.0, None)


def test_a_worker_that_fails_costs_the_pictures_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise EPError("crashed")

    monkeypatch.setattr(Worker, "open", fail)
    path = save(graph("(float[1,4] x) => (float[1,4] y)", "y = Relu(x)"), tmp_path)
    assert observed_ranges(read_model(path), [{"x": np.zeros((1, 4), np.float32)}]) == ()
