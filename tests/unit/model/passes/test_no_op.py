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
