"""Clipping operators in a row become one, which clips to the same ends."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from planner.model.normalize import normalize
from tests.unit.small_models import f32, graph, run

CONSTANTS = {"two": f32(2), "six": f32(6), "low": f32(-2), "row": f32([[6]])}


def normalized(body: str, outputs: str = "float[9] y") -> tuple[ir.Model, list[np.ndarray], list[np.ndarray]]:
    model = graph(f"(float[9] x) => ({outputs})", body, {k: v for k, v in CONSTANTS.items() if k in body})
    found: ir.Model = ir.from_proto(model)
    normalize(found, {}, 21, frozenset())
    feed = {"x": np.linspace(-8, 8, 9, dtype=np.float32)}
    return found, run(model, feed), run(found, feed)


@pytest.mark.parametrize(
    ("body", "operator"),
    [
        ("q = Relu(x)  y = Clip(q, , six)", "Clip"),
        ("q = Clip(x, low, two)  y = Relu(q)", "Clip"),
        ("q = Relu(x)  y = Relu(q)", "Relu"),
        ("q = Relu(x)  y = Min(q, six)", "Clip"),
        ("q = Min(six, x)  y = Max(low, q)", "Clip"),
        ("q = Clip(x, six)  y = Clip(q, , two)", "Clip"),
        ("q = Clip(x, low)  y = Relu(q)", "Relu"),
        ("p = Relu(x)  q = Clip(p, , six)  y = Min(q, two)", "Clip"),
    ],
)
def test_a_chain_is_one_operator(body: str, operator: str) -> None:
    found, reference, value = normalized(body)
    assert [node.op_type for node in found.graph] == [operator]
    np.testing.assert_array_equal(value, reference)


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("q = Relu(x)  y = Clip(q, , six)", "float[9] y, float[9] q"),
        ("q = Relu(x)  c = Clip(q, , six)  y = Add(c, q)", "float[9] y"),
        ("s = ReduceMax<keepdims = 0>(x)  q = Relu(x)  y = Clip(q, , s)", "float[9] y"),
        ("q = Relu(x)  y = Min(q, row)", "float[1,9] y"),
    ],
)
def test_what_others_read_and_ends_that_are_not_known_stay(body: str, outputs: str) -> None:
    found, reference, value = normalized(body, outputs)
    assert "Relu" in [node.op_type for node in found.graph]
    np.testing.assert_array_equal(value[0], reference[0])
