"""New names never meet the user's own."""

from __future__ import annotations

import time

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from planner.calibrate.extend import extend
from planner.model.names import Names, name_nodes
from planner.model.normalize import normalize
from tests.unit.small_models import f32, graph, run

# What a pass would name a new constant, a new value and a new node, as a graph input, a value and a node of the user.
TAKEN = {
    "flat_gather": (
        "(float[6] x, float[2,2] y_shape) => (float[2,2] y)",
        "y_flat = Relu(y_shape)\ng = Gather(x, i)\ny = Add(g, y_flat)",
        {"i": np.array([[5, 4], [0, 1]])},
        "g",
    ),
    "gemm": (
        "(float[2,4] x, float[3,2] y_bias) => (float[2,3] y)",
        "y_before_with_bias = Transpose(y_bias)\ng = Gemm<alpha = 2.0>(x, w, c)\ny = Mul(g, y_before_with_bias)",
        {"w": f32(np.arange(12).reshape(4, 3)), "c": f32([[1.0], [2.0]])},
        "g",
    ),
}


def renamed(made: onnx.ModelProto, old: str) -> onnx.ModelProto:
    """The model, where a pass would meet what `y_...` names: the value ``old`` is `y`, and what was `y` is `result`."""
    names = {"y": "result", old: "y"}
    for node in made.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    made.graph.output[0].name = "result"
    return made


@pytest.mark.parametrize("case", TAKEN)
def test_a_pass_names_nothing_as_the_user_does(case: str) -> None:
    signature, body, constants, old = TAKEN[case]
    made = renamed(graph(signature, body, constants), old)
    found = ir.from_proto(made)
    before = [node.op_type for node in found.graph]
    normalize(found, {}, 21, frozenset())
    assert [node.op_type for node in found.graph] != before, "the pass has something to do"
    onnx.checker.check_model(ir.to_proto(found), full_check=True)
    feed = {v.name: f32(np.random.default_rng(0).normal(size=v.shape.numpy())) for v in found.graph.inputs if v.shape}
    assert set(feed) == {value.name for value in made.graph.input}
    kept = {name for node in made.graph.node for name in node.output}
    assert kept <= {out.name for node in found.graph for out in node.outputs}, "the user's values keep their names"
    for expected, value in zip(run(made, feed), run(found, feed), strict=True):
        np.testing.assert_allclose(expected, value, rtol=1e-6)


def test_what_observes_a_model_names_nothing_as_the_user_does() -> None:
    model = ir.from_proto(
        graph(
            "(float[2] x) => (float[2] y)", "planner_ReduceMin_0_0_out = Relu(x)\ny = Relu(planner_ReduceMin_0_0_out)"
        )
    )
    name_nodes(model)
    onnx.checker.check_model(ir.to_proto(extend(model).model))


def test_a_name_that_is_taken_gets_a_number() -> None:
    model = ir.from_proto(graph("(float[2] x) => (float[2] y)", "y_2 = Relu(x)\ny = Relu(y_2)"))
    names = Names(model)
    assert [names.value("y"), names.value("y"), names.value("x"), names.value("new")] == ["y_3", "y_4", "x_2", "new"]


def test_one_name_for_all_nodes_takes_no_time() -> None:
    model = ir.from_proto(graph("(float[2] x) => (float[2] y)", "y = Relu(x)"))
    model.graph.extend(ir.Node("", "Relu", [model.graph.inputs[0]], name="n") for _ in range(20_000))
    start = time.process_time()
    name_nodes(model)
    assert time.process_time() - start < 5
    assert len({node.name for node in model.graph}) == 20_001


def test_a_first_result_that_nothing_reads_keeps_a_name() -> None:
    weights = {"w": f32(np.ones((1, 16, 3))), "r": f32(np.ones((1, 16, 4)))}
    text = "u, y = LSTM<hidden_size = 4>(x, w, r)"
    model: ir.Model = ir.from_proto(graph("(float[5,2,3] x) => (float[1,2,4] y)", text, weights))
    normalize(model, {}, 21, frozenset())
    (node,) = (n for n in model.graph if n.op_type == "LSTM")
    assert node.outputs[0].name and node.outputs[1].name == "y"
