"""Operators with bodies."""

from __future__ import annotations

from typing import Any

from onnx import TensorProto, helper

from planner.probe.forms import Form, Forms, given, ints


def _branch(op: str) -> Any:
    out = helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, [1, 8])
    return helper.make_graph([helper.make_node(op, ["x1"], [f"{op}_out"], name=f"{op}_inner")], op, [], [out])


def _sequence_branch(op: str) -> Any:
    out = helper.make_tensor_sequence_value_info(f"{op}_out", TensorProto.FLOAT, [1, 8])
    nodes = [
        helper.make_node(op, ["x1"], [f"{op}_inner"], name=f"{op}_inner"),
        helper.make_node("SequenceConstruct", [f"{op}_inner"], [f"{op}_out"], name=f"{op}_sequence"),
    ]
    return helper.make_graph(nodes, op, [], [out])


def _loop_body() -> Any:
    nodes = [
        helper.make_node("Identity", ["condition_in"], ["condition_out"], name="body_condition"),
        helper.make_node("Relu", ["state_in"], ["state_out"], name="body_relu"),
    ]
    inputs = [
        helper.make_tensor_value_info("count", TensorProto.INT64, []),
        helper.make_tensor_value_info("condition_in", TensorProto.BOOL, []),
        helper.make_tensor_value_info("state_in", TensorProto.FLOAT, [1, 8]),
    ]
    outputs = [
        helper.make_tensor_value_info("condition_out", TensorProto.BOOL, []),
        helper.make_tensor_value_info("state_out", TensorProto.FLOAT, [1, 8]),
    ]
    return helper.make_graph(nodes, "body", inputs, outputs)


def _scan_body() -> Any:
    nodes = [
        helper.make_node("Add", ["sum_in", "next"], ["sum_out"], name="body_add"),
        helper.make_node("Identity", ["sum_out"], ["part"], name="body_part"),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [8]) for n in ("sum_in", "next")]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [8]) for n in ("sum_out", "part")]
    return helper.make_graph(nodes, "body", inputs, outputs)


def control_flow() -> Forms:
    """If, Loop and Scan."""
    x = given(1, 8, dtype="float32", low=-1, high=2)
    yield Form(
        "If",
        (given(dtype="bool"), x),
        body={"then_branch": lambda: _branch("Relu"), "else_branch": lambda: _branch("Neg")},
    )
    yield Form(
        "If",
        (given(dtype="bool"), x),
        condition="sequence",
        body={"then_branch": lambda: _sequence_branch("Relu"), "else_branch": lambda: _sequence_branch("Neg")},
    ).as_rule({"static_outputs": False})
    yield Form(
        "Loop", (given(dtype="int64", low=2, high=3), ints(1, dtype="bool", shape=()), x), body={"body": _loop_body}
    )
    for opset in (11, 13, 16, 19, 23, 24, 25):
        yield Form(
            "Loop",
            (given(dtype="int64", low=2, high=3), ints(1, dtype="bool", shape=()), x),
            condition=f"opset={opset}",
            opset=opset,
            body={"body": _loop_body},
        )
    yield Form(
        "Scan",
        (given(8, dtype="float32"), given(4, 8, dtype="float32")),
        {"num_scan_inputs": 1},
        outputs=2,
        body={"body": _scan_body},
    )
