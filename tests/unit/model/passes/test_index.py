"""A GatherND of every element is a Reshape, a Pad that cuts off a Slice, a OneHot that is cast one of other values."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from planner.model.normalize import normalize
from tests.unit.small_models import f32, graph, run


def normalized(made: onnx.ModelProto) -> ir.Model:
    found: ir.Model = ir.from_proto(made)
    normalize(found, {}, 21, frozenset())
    onnx.checker.check_model(ir.to_proto(found), full_check=True)
    return found


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def gathered(
    indices: np.ndarray, dims: tuple[int, ...] = (2, 3)
) -> tuple[ir.Model, list[np.ndarray], list[np.ndarray]]:
    shape = (*indices.shape[:-1], *dims[indices.shape[-1] :])
    made = graph(
        f"(bool[{','.join(map(str, dims))}] x) => (bool[{','.join(map(str, shape))}] y)",
        "n = Not(x)  y = GatherND(n, i)",
        {"i": indices},
    )
    found = normalized(made)
    feed = {"x": np.random.default_rng(2).random(dims) > 0.5}
    return found, run(made, feed), run(found, feed)


def every(*dims: int) -> np.ndarray:
    """Indices of each element, in order."""
    return np.stack(np.meshgrid(*(np.arange(d) for d in dims), indexing="ij"), axis=-1)


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        (every(2, 3), ["Not", "Reshape"]),
        (every(2, 3).reshape(2, 1, 1, 3, 2), ["Not", "Reshape"]),
        (every(2, 3) - np.array([2, 3]), ["Not", "Reshape"]),
        (every(2), ["Not", "Reshape"]),
        (np.broadcast_to(every(2, 3).reshape(2, 1, 1, 3, 2), (2, 1, 4, 3, 2)).copy(), ["Not", "Reshape", "Expand"]),
        (every(2, 3)[::-1].copy(), ["Not", "GatherND"]),
        (every(2, 3)[:1].copy(), ["Not", "GatherND"]),
    ],
)
def test_gathering_every_element_in_order_is_no_gathering(indices: np.ndarray, expected: list[str]) -> None:
    found, reference, value = gathered(indices)
    assert operators(found) == expected
    np.testing.assert_array_equal(value[0], reference[0])


@pytest.mark.parametrize(
    ("pads", "mode", "expected"),
    [
        ([0, -1, 0, -2], "constant", ["Relu", "Slice"]),
        ([0, -1, 0, 2], "constant", ["Relu", "Slice", "Pad"]),
        ([-1, 0, 0, -2], "edge", ["Relu", "Slice"]),
        ([0, -1, 1, 0], "edge", ["Relu", "Pad"]),
        ([0, 1, 0, 2], "constant", ["Relu", "Pad"]),
    ],
)
def test_padding_by_less_than_nothing_is_slicing(pads: list[int], mode: str, expected: list[str]) -> None:
    rows, columns = 3 + pads[0] + pads[2], 5 + pads[1] + pads[3]
    made = graph(
        f"(float[3,5] x) => (float[{rows},{columns}] y)",
        f'r = Relu(x)  y = Pad<mode = "{mode}">(r, pads)',
        {"pads": np.array(pads)},
    )
    found = normalized(made)
    assert operators(found) == expected
    feed = {"x": f32(np.random.default_rng(1).normal(size=(3, 5)))}
    np.testing.assert_array_equal(run(found, feed)[0], run(made, feed)[0])


def test_padding_along_some_axes() -> None:
    made = graph(
        "(float[3,5] x) => (float[3,4] y)",
        "r = Relu(x)  y = Pad(r, pads, , axes)",
        {"pads": np.array([-2, 1]), "axes": np.array([1])},
    )
    found = normalized(made)
    assert operators(found) == ["Relu", "Slice", "Pad"]
    feed = {"x": f32(np.random.default_rng(1).normal(size=(3, 5)))}
    np.testing.assert_array_equal(run(found, feed)[0], run(made, feed)[0])


@pytest.mark.parametrize("results", ["(float[3,4] y)", "(float[4,3] y)"])
def test_a_one_hot_that_is_cast_has_values_of_that_type(results: str) -> None:
    # torch.nn.functional.one_hot(x, 4).float()
    last = "y = Cast<to = 1>(h)" if "3,4" in results else "f = Cast<to = 1>(h)  y = Transpose(f)"
    made = graph(
        f"(int64[3] x) => {results}",
        f"h = OneHot(x, n, v)  {last}",
        {"n": np.array(4), "v": np.array([0, 1])},
    )
    found, feed = normalized(made), {"x": np.array([0, 3, 1])}
    values = found.graph[0].inputs[2]
    assert found.graph[0].op_type == "OneHot" and values is not None and values.dtype == ir.DataType.FLOAT
    np.testing.assert_array_equal(run(found, feed)[0], run(made, feed)[0])


def test_a_one_hot_that_something_else_reads_stays() -> None:
    made = graph(
        "(int64[3] x) => (float[3,4] y, int64[3,4] z)",
        "h = OneHot(x, n, v)  y = Cast<to = 1>(h)  z = Add(h, h)",
        {"n": np.array(4), "v": np.array([0, 1])},
    )
    assert operators(normalized(made)) == operators(ir.from_proto(made))
