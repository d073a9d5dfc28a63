"""Functions of a model's own are written out; what cannot be is said to be broken, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from onnx import NodeProto, TensorProto, helper, save

from planner.errors import RequestError
from planner.model.read import read_model


def calling(folder: Path, nodes: Sequence[NodeProto], inputs: Sequence[str], opset: int = 17) -> Path:
    """A model of opset 17 that calls a function of these nodes with a single input."""
    function = helper.make_function("own", "f", inputs, ["b"], nodes, [helper.make_opsetid("", opset)])
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("f", ["x"], ["y"], domain="own")],
        "g",
        [value("x", TensorProto.FLOAT, [2, 4])],
        [value("y", TensorProto.FLOAT, [2, 4])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=[function]), folder / "m.onnx")
    return folder / "m.onnx"


def test_an_input_that_a_call_leaves_out_is_named_where_an_operator_needs_it(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"m\.onnx: broken ONNX model: Add .* has no input 'B'"):
        read_model(calling(tmp_path, [helper.make_node("Add", ["a", "c"], ["b"])], ["a", "c"]))
    clip = calling(tmp_path, [helper.make_node("Clip", ["a", "c"], ["b"])], ["a", "c"])
    assert [n.op_type for n in read_model(clip).nodes] == ["Clip"], "an optional one may be left out"


def test_a_function_of_another_opset_is_read_where_its_operators_mean_the_same(tmp_path: Path) -> None:
    relu = calling(tmp_path, [helper.make_node("Relu", ["a"], ["b"])], ["a"], opset=11)
    assert [n.op_type for n in read_model(relu).nodes] == ["Relu"]
    softmax = calling(tmp_path, [helper.make_node("Softmax", ["a"], ["b"])], ["a"], opset=11)
    with pytest.raises(RequestError, match="'f' is written for opset 11, the model for 17, and Softmax is another"):
        read_model(softmax)
