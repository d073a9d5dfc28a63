"""Windows through six dimensions are written through five or fewer, and hold the same numbers."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from planner.model.normalize import normalize
from tests.unit.small_models import graph, run


def windows(
    dims: tuple[int, ...], perm: tuple[int, ...], body: str | None = None
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    size = math.prod(dims)
    made = graph(
        f"(float[{size}] x) => (float[4,{size // 4}] y)",
        body
        or f"v = Reshape(x, wide)\n[perm] t = Transpose<perm = [{','.join(map(str, perm))}]>(v)\ny = Reshape(t, flat)",
        {"wide": np.array(dims), "flat": np.array([4, -1])},
    )
    return made, {"x": np.arange(size, dtype=np.float32)}


def normalized(made: onnx.ModelProto, *, as_stored: bool = False) -> ir.Model:
    found: ir.Model = ir.from_proto(made)
    normalize(found, {}, 21, frozenset(), as_stored=as_stored)
    onnx.checker.check_model(ir.to_proto(found), full_check=True)
    return found


def rank(model: ir.Model) -> int:
    return max(len(out.shape or ()) for node in model.graph for out in node.outputs)


@pytest.mark.parametrize(
    ("dims", "perm", "most"),
    [
        ((1, 2, 4, 2, 4, 16), (0, 1, 3, 2, 4, 5), 4),
        ((3, 2, 4, 2, 4, 16), (0, 1, 3, 2, 4, 5), 4),
        ((2, 3, 4, 1, 5, 1), (4, 3, 0, 5, 1, 2), 2),
        ((2, 3, 2, 3, 2, 2), (5, 4, 3, 2, 1, 0), 6),
        ((1, 2, 3, 1, 4, 1, 2), (0, 2, 1, 3, 4, 5, 6), 3),
        ((1, 1, 1, 1, 1, 4), (5, 4, 3, 2, 1, 0), 2),
    ],
)
def test_dimensions_that_stay_together_are_one(dims: tuple[int, ...], perm: tuple[int, ...], most: int) -> None:
    made, feed = windows(dims, perm)
    found = normalized(made)
    assert rank(found) <= most
    np.testing.assert_array_equal(run(found, feed)[0], run(made, feed)[0])


def test_as_it_is_stored_only_a_dimension_of_one_that_stays_in_its_place_goes() -> None:
    made, feed = windows((1, 2, 4, 2, 4, 16), (0, 1, 3, 2, 4, 5))
    found = normalized(made, as_stored=True)
    assert rank(found) == 5
    np.testing.assert_array_equal(run(found, feed)[0], run(made, feed)[0])
    assert rank(normalized(windows((2, 2, 4, 2, 4, 16), (0, 1, 3, 2, 4, 5))[0], as_stored=True)) == 6


def test_what_others_read_in_between_stays() -> None:
    body = "v = Reshape(x, wide)\nt = Transpose<perm = [0,1,3,2,4,5]>(v)\nr = Relu(t)\ny = Reshape(r, flat)"
    made, _ = windows((1, 2, 4, 2, 4, 16), (), body)
    assert rank(normalized(made)) == 6


def test_five_dimensions_are_joined_as_three_behind_a_sigmoid() -> None:
    body = "a = Sigmoid(x)  y = Concat<axis = 3>(a, x)"
    made = graph("(float[1,2,3,4,5] x) => (float[1,2,3,8,5] y)", body)
    found: ir.Model = ir.from_proto(made)
    normalize(found, {}, 21, frozenset())
    concat = next(node for node in found.graph if node.op_type == "Concat")
    assert [list(v.shape.numpy()) for v in concat.inputs] == [[6, 4, 5], [6, 4, 5]]  # type: ignore[union-attr]
    feed = {"x": np.random.default_rng(0).normal(size=(1, 2, 3, 4, 5)).astype(np.float32)}
    np.testing.assert_allclose(run(found, feed)[0], run(made, feed)[0])
