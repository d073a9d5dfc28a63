"""Lowering the opset: a newer file at an older opset computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from planner.model.normalize import normalize
from tests.unit.small_models import f32, graph, random_feed, run


def lowered(made: onnx.ModelProto, target: int = 21) -> tuple[ir.Model, list[str]]:
    found: ir.Model = ir.from_proto(made)
    notes = normalize(found, {}, target, frozenset())
    return found, notes


def same(made: onnx.ModelProto, found: ir.Model) -> None:
    onnx.checker.check_model(ir.to_proto(found))
    feed = random_feed(made)
    for reference, value in zip(run(made, feed), run(found, feed), strict=True):
        np.testing.assert_allclose(value, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [22, 23, 24])
@pytest.mark.parametrize(
    "body",
    ["c = Conv(x, w)  y = MaxPool<kernel_shape = [2, 2]>(c)", "s = Softplus(x)  y = Transpose<perm = [0, 2, 3, 1]>(s)"],
)
def test_operators_that_gained_only_types_stay(opset: int, body: str) -> None:
    shape = "1,2,5,5" if "Conv" in body else "1,6,6,3"
    constants = {"w": f32(np.ones((2, 3, 1, 1)))} if "Conv" in body else {}
    made = graph(f"(float[1,3,6,6] x) => (float[{shape}] y)", body, constants, opset=opset)
    found, notes = lowered(made)
    assert not notes and found.opset_imports[""] == 21
    assert [n.op_type for n in found.graph] == [n.op_type for n in made.graph.node]
    same(made, found)


@pytest.mark.parametrize(
    ("opset", "body"),
    [
        (23, "y = RMSNormalization(x, g)"),
        (24, "y = Swish<alpha = 1.5>(x)"),
        (24, "y = Swish(x)"),
        (23, "y = Attention<q_num_heads = 2, kv_num_heads = 2>(x, x, x)"),
        (24, "n = RMSNormalization(x, g)  s = Swish(n)  y = Attention<q_num_heads = 4, kv_num_heads = 2>(s, k, k)"),
    ],
)
def test_an_operator_that_only_the_newer_opset_has_is_replaced_by_its_definition(opset: int, body: str) -> None:
    rng = np.random.default_rng(0)
    constants = {"g": f32(rng.normal(size=16)), "k": f32(rng.normal(size=(1, 5, 8)))}
    used = {name: array for name, array in constants.items() if f", {name}" in body}
    made = graph("(float[1,5,16] x) => (float[1,5,16] y)", body, used, opset=opset)
    found, notes = lowered(made)
    assert not notes and found.opset_imports == {"": 21}
    same(made, found)


def test_what_the_older_opset_cannot_say_stays_and_is_told() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.BFLOAT16),
        helper.make_node("Softplus", ["h"], ["s"], name="plus"),
        helper.make_node("Cast", ["s"], ["y"], to=TensorProto.FLOAT),
    ]
    body = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
    )
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    found, (note,) = lowered(made)
    assert found.opset_imports[""] == 22
    assert note == "opset 22 could not be lowered to 21: Softplus 'plus' computes with BFLOAT16"


def test_an_operator_without_a_definition_stays_and_is_told() -> None:
    nodes = [helper.make_node("TensorScatter", ["x", "u", "i"], ["y"], name="put")]
    body = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 4, 2])],
        [numpy_helper.from_array(f32(np.ones((1, 1, 1, 2))), "u"), numpy_helper.from_array(np.array([1]), "i")],
    )
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", 24)], ir_version=10)
    found, (note,) = lowered(made)
    assert found.opset_imports[""] == 24
    assert note == "opset 24 could not be lowered to 21: TensorScatter 'put' is not in it"


_GRID, _SIZES = f32(np.random.default_rng(1).uniform(-1, 1, size=(1, 4, 4, 2))), f32([1, 1, 1.5, 1.5])


@pytest.mark.parametrize(
    ("opset", "target", "inputs", "result", "body", "constants"),
    [
        (22, 18, "1,3,6,6", "1,3,4,4", 'y = GridSample<mode = "linear">(x, g)', {"g": _GRID}),
        (22, 18, "1,3,6,6", "1,3,4,4", "y = GridSample(x, g)", {"g": _GRID}),
        (20, 19, "1,3,6,6", "1,3,4,4", 'y = GridSample<mode = "cubic">(x, g)', {"g": _GRID}),
        (21, 18, "1,8,6,1", "1,8,6,2", "y = DFT(x, , a)", {"a": np.array(-3)}),
        (21, 18, "1,8,6,1", "1,8,6,2", "y = DFT(x)", {}),
        (22, 18, "1,3,6,6", "1,3,5,5", "y = AveragePool<kernel_shape = [2, 2], dilations = [1, 1]>(x)", {}),
        (21, 18, "1,3,6,6", "1,3,9,9", 'y = Resize<mode = "linear">(x, , s)', {"s": _SIZES}),
    ],
)
def test_a_form_that_has_changed_since_opset_18_is_changed_back(
    opset: int, target: int, inputs: str, result: str, body: str, constants: dict[str, np.ndarray]
) -> None:
    made = graph(f"(float[{inputs}] x) => (float[{result}] y)", body, constants, opset=opset)
    found, notes = lowered(made, target)
    assert not notes and found.opset_imports[""] == target
    same(made, found)


@pytest.mark.parametrize(
    ("inputs", "result", "body", "constants", "why"),
    [
        (
            "1,3,6,6",
            "1,3,10,6",
            'y = Pad<mode = "wrap">(x, p)',
            {"p": np.array([0, 0, 2, 0, 0, 0, 2, 0])},
            "wraps around",
        ),
        (
            "1,3,6,6",
            "1,3,9,9",
            'y = Resize<mode = "linear", coordinate_transformation_mode = "half_pixel_symmetric">(x, , s)',
            {"s": _SIZES},
            "has half_pixel_symmetric",
        ),
        (
            "1,3,6,6",
            "1,3,4,4",
            "y = AveragePool<kernel_shape = [2, 2], dilations = [2, 2]>(x)",
            {},
            "attribute dilations",
        ),
        (
            "1,3,4,4,4",
            "1,3,2,2,2",
            'y = GridSample<mode = "linear">(x, g)',
            {"g": f32(np.zeros((1, 2, 2, 2, 3)))},
            "samples volumes",
        ),
    ],
)
def test_a_meaning_that_the_older_opset_lacks_stays_and_is_told(
    inputs: str, result: str, body: str, constants: dict[str, np.ndarray], why: str
) -> None:
    made = graph(f"(float[{inputs}] x) => (float[{result}] y)", body, constants, opset=21)
    found, (note,) = lowered(made, 18)
    assert found.opset_imports[""] == 21 and why in note
    same(made, found)
