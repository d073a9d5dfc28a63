"""An operator over more dimensions than a target takes is the same over fewer, and gives the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from planner.model.normalize import normalize
from planner.resolve.target import Target
from tests.unit.small_models import f32, graph, random_feed, run

_X = "float[2,3,4,5,6] x"


def normalized(made: onnx.ModelProto, most: int = 4) -> ir.Model:
    found: ir.Model = ir.from_proto(made)
    normalize(found, {}, 21, frozenset(), most_rank=lambda op_type: 5 if op_type == "Reshape" else most)
    onnx.checker.check_model(ir.to_proto(found), full_check=True)
    return found


def rank(model: ir.Model, *, but: tuple[str, ...] = ("Reshape",)) -> int:
    nodes = [node for node in model.graph if node.op_type not in but]
    return max(len(v.shape or ()) for node in nodes for v in (*node.inputs, *node.outputs) if v is not None)


@pytest.mark.parametrize(
    ("signature", "body", "constants"),
    [
        (f"({_X}) => (float[2,3,4,5,6] y)", "y = Tanh(x)", {}),
        (f"({_X}) => (float[2,3,4,5,6] y)", "y = Elu<alpha = 0.7>(x)", {}),
        (f"({_X}) => (float[2,3,4,5,6] y)", "y = Clip(x, low, high)", {"low": f32(-0.5), "high": f32(0.5)}),
        (f"({_X}, float[3,1,1,1] z) => (float[2,3,4,5,6] y)", "y = Max(x, z)", {}),
        (f"({_X}, float[2,1,4,1,6] z) => (float[2,3,4,5,6] y)", "y = Tanh(x)", {}),
        (
            "(float[1,3,4,5,6] x) => (float[1,3,4,5,6] y)",
            "y = Max(x, c)",
            {"c": f32(np.arange(12).reshape(3, 4, 1, 1))},
        ),
        (f"({_X}) => (float[2,3,4,5,6] y)", "n = Less(x, c)\nm = Not(n)\ny = Where(m, x, c)", {"c": f32(0.1)}),
        (f"({_X}) => (float[2,3,4,5,6] y)", "y = LogSoftmax<axis = 1>(x)", {}),
        (f"({_X}) => (int64[2,4,5,6] y)", "y = ArgMax<axis = 1, keepdims = 0>(x)", {}),
        (f"({_X}) => (int64[2,3,4,5,1] y)", "y = ArgMin<axis = -1>(x)", {}),
        (f"({_X}) => (float[2,3,4,5,2] y, int64[2,3,4,5,2] i)", "y, i = TopK(x, k)", {"k": np.array([2])}),
        (f"({_X}) => (float[2,3,4,5,6] y)", "y = CumSum(x, a)", {"a": np.array(-2)}),
        (f"({_X}) => (float[2,3,1,1,1] y)", "y = ReduceL2(x, a)", {"a": np.array([-1, 2, 3])}),
        (f"({_X}) => (float[2,4,5] y)", "y = ReduceLogSumExp<keepdims = 0>(x, a)", {"a": np.array([1, 4])}),
        ("(float[2,1,4,5,6] x) => (float[2,4,5,6] y)", "y = ReduceL2<keepdims = 0>(x, a)", {"a": np.array([1])}),
        (
            f"({_X}) => (float[2,3,4,5,6] y)",
            "y = LayerNormalization<axis = -1>(x, s, b)",
            {"s": f32(range(6)), "b": f32([0.1] * 6)},
        ),
        (
            f"({_X}) => (float[2,3,4,5,6] y)",
            "y = LayerNormalization<axis = 3>(x, s)",
            {"s": f32(np.arange(30).reshape(5, 6))},
        ),
        (
            f"({_X}) => (float[2,3,4,5,6] y)",
            "y = InstanceNormalization(x, s, b)",
            {"s": f32([1, 2, 3]), "b": f32([0.1, 0.2, 0.3])},
        ),
        (
            f"({_X}) => (float[2,3,4,5,6] y)",
            "r = Relu(x)\ny = BatchNormalization(r, s, b, b, s)",
            {"s": f32([1, 2, 3]), "b": f32([0.1, 0.2, 0.3])},
        ),
        (f"({_X}) => (float[2,3,1,1,1] y)", "y = GlobalMaxPool(x)", {}),
        ("(int64[2,3,4,5] x) => (float[2,3,4,5,3] y)", "y = OneHot(x, n, v)", {"n": np.array(3), "v": f32([0, 1])}),
        (f"({_X}) => (float[2,3,2,2,3] y)", "y = MaxPool<kernel_shape = [2,2,2], strides = [2,2,2]>(x)", {}),
        (
            f"({_X}) => (float[2,3,2,6,4] y)",
            "y = MaxPool<kernel_shape = [3,2,3], strides = [2,1,1], pads = [1,1,0,0,1,0]>(x)",
            {},
        ),
        (f"({_X}) => (float[2,3,4,5,7] y)", "y = MatMul(x, w)", {"w": f32(np.arange(42).reshape(6, 7) / 9)}),
        (f"({_X}, float[2,3,4,6,2] z) => (float[2,3,4,5,2] y)", "y = MatMul(x, z)", {}),
        (f"({_X}, float[4,6,2] z) => (float[2,3,4,5,2] y)", "y = MatMul(x, z)", {}),
        ("(float[1,3,1,5,6] x, float[2,1,1,6,2] z) => (float[2,3,1,5,2] y)", "y = MatMul(x, z)", {}),
    ],
)
def test_dimensions_that_are_treated_alike_are_one(signature: str, body: str, constants: dict[str, Any]) -> None:
    made = graph(signature, body, constants)
    found = normalized(made)
    assert rank(found) <= 4
    feed = random_feed(made)
    for one, other in zip(run(found, feed), run(made, feed), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_six_dimensions_and_more_of_what_only_moves_are_five_or_fewer() -> None:
    # Attention over the frames of a video: queries, keys and values lie in one tensor of seven dimensions.
    made = graph(
        "(float[1,4,6,6,48] x) => (float[1,6,6,2,4,8] y)",
        "v = Reshape(x, wide)\nt = Transpose<perm = [4,0,2,3,5,1,6]>(v)\nq = Gather<axis = 0>(t, first)\n"
        "s = Mul(q, c)\nk = Slice(t, a, b, zero)\nl = Squeeze(k, zero)\ny = Add(s, l)",
        {
            "wide": np.array([1, 4, 6, 6, 3, 2, 8]), "first": np.array(0), "a": np.array([2]), "b": np.array([3]),
            "zero": np.array([0]), "c": f32(0.3),
        },
    )  # fmt: skip
    found, feed = normalized(made, 5), random_feed(made)
    assert rank(found, but=()) <= 6  # the output's own
    assert rank(found) <= 5
    np.testing.assert_allclose(run(found, feed)[0], run(made, feed)[0], rtol=1e-6)


def test_patches_that_exporters_gather_through_six_dimensions_take_five() -> None:
    # torch.nn.functional.unfold
    made = graph(
        "(float[1,2,5,5] x) => (float[1,18,9] y)",
        "r = Gather<axis = 2>(x, at)\nc = Gather<axis = 4>(r, at)\nt = Transpose<perm = [0,1,2,4,3,5]>(c)\ny = Reshape(t, flat)",
        {"at": np.array([[0, 1, 2], [1, 2, 3], [2, 3, 4]]), "flat": np.array([1, 18, -1])},
    )
    found, feed = normalized(made, 5), random_feed(made)
    assert rank(found, but=()) <= 5
    np.testing.assert_array_equal(run(found, feed)[0], run(made, feed)[0])


@pytest.mark.parametrize(
    ("dims", "perm"),
    [
        ((1, 2, 2, 3, 4, 2, 4, 5), (0, 1, 3, 5, 2, 4, 6, 7)),  # windows of a video, as Swin cuts them
        ((1, 2, 3, 2, 2, 4, 4, 5), (0, 1, 4, 2, 5, 3, 6, 7)),  # and joins them again
        ((2, 3, 2, 4, 2, 3, 2), (6, 5, 4, 3, 2, 1, 0)),
    ],
)
def test_a_transpose_of_more_runs_than_fit_is_several(dims: tuple[int, ...], perm: tuple[int, ...]) -> None:
    size = int(np.prod(dims))
    made = graph(
        f"(float[{size}] x) => (float[{size}] y)",
        f"v = Reshape(x, wide)\n[perm] t = Transpose<perm = [{','.join(map(str, perm))}]>(v)\ny = Reshape(t, flat)",
        {"wide": np.array(dims), "flat": np.array([-1])},
    )
    found, feed = normalized(made, 5), random_feed(made)
    assert rank(found, but=()) <= 5
    np.testing.assert_array_equal(run(found, feed)[0], run(made, feed)[0])


def test_what_is_reshaped_is_not_reshaped_twice() -> None:
    made = graph(f"({_X}) => (float[2,3,4,5,6] y)", "a = Tanh(x)\nb = Neg(a)\ny = Sqrt(b)")
    assert [node.op_type for node in normalized(made).graph] == ["Reshape", "Tanh", "Neg", "Sqrt", "Reshape"]


def test_what_the_target_takes_stays_as_it_is() -> None:
    made = graph(f"({_X}) => (float[2,3,4,5,6] y)", "y = Tanh(x)")
    assert [node.op_type for node in normalized(made, 5).graph] == ["Tanh"]


@pytest.mark.parametrize(("op_type", "most"), [("Relu", 5), ("Tanh", 4), ("ArgMax", 4), ("OneHot", 2), ("Gather", 5)])
def test_the_dimensions_that_a_target_takes_are_those_of_its_refusals(op_type: str, most: int) -> None:
    assert Target.open("qnn").most_rank(op_type) == most
