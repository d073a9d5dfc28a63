"""The fit behind the shipped rates: what bends it, and which published figures take part."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls

from benchmarks.latency import Row, contradicted, fit

X, Y = "Snapdragon X Elite CRD", "Samsung Galaxy S24"


def row(model: str, onnx: float, dlc: float, precision: str = "float", on: str = X) -> Row:
    return Row(model, model, precision, 1.0, {}, {on: onnx}, {on: dlc})


def test_a_model_is_contradicted_where_onnxruntime_takes_more_than_twice_as_long_by_a_millisecond() -> None:
    rows = [
        row("slow", 13.1, 6.1),
        row("slow elsewhere", 13.1, 6.1, on=Y),
        row("slow when quantized", 13.1, 6.1, "w8a8"),
        row("nearly", 12.0, 6.1),
        row("small", 0.9, 0.3),
        row("faster", 3.0, 9.0),
        Row("measured once", "m", "float", 1.0, {}, {X: 50.0}),
    ]
    assert contradicted(rows, X) == {"slow"}
    assert contradicted(rows, Y) == {"slow elsewhere"}


def test_one_model_that_no_rates_explain_does_not_bend_those_of_the_others() -> None:
    rng = np.random.default_rng(0)
    work = rng.uniform(1, 10, (20, 2))
    ms = work @ [0.5, 0.2]
    ms[0] /= 3
    rows = [Row(str(i), str(i), "float", 1.0, {"run": a, "dram_mb": b}) for i, (a, b) in enumerate(work.tolist())]
    assert fit(rows, ms, ("run", "dram_mb")) == pytest.approx([0.5, 0.2], rel=0.15)
    assert nnls(work / ms[:, None], np.ones(20))[0] != pytest.approx([0.5, 0.2], rel=0.4), "by squares alone it does"
    assert (fit(rows, work @ [0.5, -0.01], ("run", "dram_mb")) >= 0).all()
