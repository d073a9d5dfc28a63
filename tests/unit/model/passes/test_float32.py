"""Models in another float type become float32 inside; 16-bit inputs and outputs keep their type."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from planner.model.normalize import normalize
from tests.unit.small_models import f32, graph, run, sqnr


def normalized(made: onnx.ModelProto, *, as_stored: bool = False) -> tuple[ir.Model, list[str]]:
    found: ir.Model = ir.from_proto(made)
    notes = normalize(found, {}, 21, frozenset(), as_stored=as_stored)
    onnx.checker.check_model(ir.to_proto(found))
    return found, notes


def dtypes(model: ir.Model) -> set[ir.DataType]:
    """Types of all that lies between the graph's inputs and outputs."""
    outer = {id(v) for v in (*model.graph.inputs, *model.graph.outputs)}
    values = [*model.graph.initializers.values(), *(out for node in model.graph.all_nodes() for out in node.outputs)]
    return {v.dtype for v in values if id(v) not in outer and v.dtype is not None}


def test_a_float16_model_computes_in_float32_between_casts() -> None:
    rng = np.random.default_rng(5)
    weight, bias = rng.normal(size=(8, 8)).astype(np.float16), rng.normal(size=8).astype(np.float16)
    made = graph(
        "(float16[2,8] x) => (float16[2,8] y)",
        "m = MatMul(x, w)  a = Add(m, b)  h = Cast<to = 10>(a)  y = Relu(h)",
        {"w": weight, "b": bias},
    )
    found, notes = normalized(made)
    assert not notes and dtypes(found) == {ir.DataType.FLOAT}
    assert [n.op_type for n in found.graph] == ["Cast", "MatMul", "Add", "Relu", "Cast"]
    assert found.graph.inputs[0].dtype == found.graph.outputs[0].dtype == ir.DataType.FLOAT16
    feed = {"x": rng.normal(size=(2, 8)).astype(np.float16)}
    (reference,), (value,) = run(made, feed), run(found, feed)
    assert value.dtype == np.float16 and sqnr(reference, value) > 60


def test_as_it_is_stored_it_stays_float16() -> None:
    made = graph("(float16[2,8] x) => (float16[2,8] y)", "y = Relu(x)")
    found, _ = normalized(made, as_stored=True)
    assert [n.op_type for n in found.graph] == ["Relu"]


def test_float64_becomes_float32_and_this_is_told() -> None:
    rng = np.random.default_rng(6)
    made = graph(
        "(double[2,8] x) => (double[2,4] y)", "m = MatMul(x, w)  y = Sigmoid(m)", {"w": rng.normal(size=(8, 4))}
    )
    found, notes = normalized(made)
    assert notes == ["float64 is computed and given out in float32: x, y"]
    assert found.graph.inputs[0].dtype == found.graph.outputs[0].dtype == ir.DataType.FLOAT
    x = rng.normal(size=(2, 8))
    (reference,), (value,) = run(made, {"x": x}), run(found, {"x": f32(x)})
    assert value.dtype == np.float32 and sqnr(reference, value) > 100


def test_float64_inside_a_float32_model_is_not_told() -> None:
    made = graph("(float[3] x) => (float[3] y)", "d = Cast<to = 11>(x)  e = Exp(d)  y = Cast<to = 1>(e)")
    found, notes = normalized(made)
    assert not notes and [n.op_type for n in found.graph] == ["Exp"]


@pytest.mark.parametrize("taken", [True, False])
def test_bodies_are_widened_too(taken: bool) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 20]>
    g (float16[3] x, bool c) => (float16[3] y) <float16[3] w = {1, 2, 3}> {
      y = If(c) <
        then_branch = a () => (float16[3] t) { t = Mul(x, w) },
        else_branch = b () => (float16[3] e) { e = Neg(x) }
      >
    }
    """
    made = onnx.parser.parse_model(text)
    found, _ = normalized(made)
    assert ir.DataType.FLOAT16 not in dtypes(found)
    feed = {"x": np.array([1, -2, 0.5], np.float16), "c": np.array(taken)}
    np.testing.assert_array_equal(run(found, feed)[0], run(made, feed)[0])


def test_names_that_are_taken_are_not_given_twice() -> None:
    made = graph(
        "(float16[3] x) => (float16[3] y)", "x_widened = Neg(x)  y_to_narrow = Exp(x_widened)  y = Relu(y_to_narrow)"
    )
    found, _ = normalized(made)
    names = [out.name for node in found.graph for out in node.outputs]
    assert len(names) == len(set(names))
    feed = {"x": np.array([1, -2, 0.5], np.float16)}
    assert sqnr(run(made, feed)[0], run(found, feed)[0]) > 60


@pytest.mark.parametrize("dtype", ["float16", "float"])
def test_constants_of_three_digits_are_known_again_where_the_file_has_no_more(dtype: str) -> None:
    held = {
        name: np.array(value, np.float16).astype(np.float16 if dtype == "float16" else np.float32)
        for name, value in (("root", 2**0.5), ("one", 1.0), ("half", 0.5))
    }
    body = "d = Div(x, root)\ne = Erf(d)\na = Add(e, one)\nh = Mul(half, a)\ny = Mul(x, h)"
    found: ir.Model = ir.from_proto(graph(f"({dtype}[4] x) => ({dtype}[4] y)", body, held, opset=18))
    normalize(found, {}, 21, {"Gelu"})
    # A float32 model says what it means to more digits: 1.4140625 is not the root of 2 there.
    fused = "Gelu" in {node.op_type for node in found.graph}
    assert fused is (dtype == "float16")
