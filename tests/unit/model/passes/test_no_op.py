"""Attributes and nodes that change nothing are dropped."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from planner.model.normalize import normalize
from tests.unit.small_models import graph, random_feed, run


@pytest.mark.parametrize(("shape", "stays"), [([2, -1, 6], False), ([2, 2, 6], False), ([0, 4, 6], True)])
def test_allowzero_goes_where_no_zero_stands_in_the_shape(shape: list[int], stays: bool) -> None:
    rows = 0 if stays else 4
    model = graph(
        f"(float[{rows},6] x) => (float[?,?,6] y)", "y = Reshape<allowzero = 1>(x, s)", {"s": np.array(shape)}
    )
    found: ir.Model = ir.from_proto(model)
    normalize(found, {}, 21, [])
    (reshape,) = [node for node in found.graph if node.op_type == "Reshape"]
    assert ("allowzero" in reshape.attributes) is stays
    feed = random_feed(model)
    np.testing.assert_array_equal(run(found, feed)[0], run(model, feed)[0])


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("y = ReduceSum<noop_with_empty_axes = 1>(x, none)", "Identity"),
        ("y = ReduceMax<noop_with_empty_axes = 1>(x)", "Identity"),
        ("y = ReduceSum<noop_with_empty_axes = 1>(x, one)", "ReduceSum"),
        ("y = ReduceSum(x, none)", "ReduceSum"),
    ],
)
def test_a_reduction_over_no_axes_is_dropped_where_it_reduces_nothing(body: str, left: str) -> None:
    axes = {"none": np.zeros(0, np.int64), "one": np.array([1])}
    model = graph("(float[2,3] x) => (float[?,?] y)", body.replace("y =", "r =") + "\ny = Neg(r)", axes, check=False)
    found: ir.Model = ir.from_proto(model)
    normalize(found, {}, 21, [])
    operators = [node.op_type for node in found.graph]
    assert operators == (["Neg"] if left == "Identity" else [left, "Neg"])
    feed = random_feed(model)
    np.testing.assert_array_equal(run(found, feed)[0], run(model, feed)[0])


def test_one_that_does_more_than_to_select_stays() -> None:
    model = graph("(float[2,3] x) => (float[2,3] y)", "y = ReduceL1<noop_with_empty_axes = 1>(x)")
    found: ir.Model = ir.from_proto(model)
    normalize(found, {}, 21, [])
    assert [node.op_type for node in found.graph] == ["ReduceL1"]
