"""Raising the opset: every older form of an operator computes the same numbers as its newest one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from planner.model.normalize import normalize
from tests.unit.small_models import f32, run

RNG = np.random.default_rng(11)
PICTURE = (1, 4, 6, 8)


def i64(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def normal(*shape: int) -> np.ndarray:
    return f32(RNG.normal(size=shape))


def model(
    op_type: str, opset: int, attributes: Mapping[str, Any], inputs: tuple[np.ndarray | None, ...], outputs: int = 1
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """One node whose first input is fed; the others are constants."""
    names = ["" if array is None else f"i{n}" for n, array in enumerate(inputs)]
    node = helper.make_node(op_type, names, [f"y{n}" for n in range(outputs)], name="old", **attributes)
    feed = {} if not inputs or inputs[0] is None else {"i0": inputs[0]}
    constants = [numpy_helper.from_array(a, n) for n, a in zip(names[1:], inputs[1:], strict=True) if a is not None]
    fed = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in feed.items()]
    given = [helper.make_tensor_value_info(c.name, c.data_type, c.dims) for c in constants]
    body = helper.make_graph([node], "g", fed + given, [onnx.ValueInfoProto(name=o) for o in node.output], constants)
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)
    inferred = onnx.shape_inference.infer_shapes(made)
    types = {v.name: v for v in inferred.graph.output}
    for out in made.graph.output:
        if types[out.name].type.WhichOneof("value"):
            out.CopyFrom(types[out.name])
        else:
            out.type.tensor_type.elem_type = TensorProto.FLOAT
    del made.graph.input[len(fed) :]
    made.ir_version = 8
    return made, feed


def raised(made: onnx.ModelProto, target: int = 21) -> tuple[ir.Model, list[str]]:
    found: ir.Model = ir.from_proto(made)
    notes = normalize(found, {}, target, frozenset())
    return found, notes


X, ROW = normal(*PICTURE), normal(3, 5)
SCALES = f32([1, 1, 2, 2])
WEIGHT, PER_CHANNEL = normal(2, 4, 3, 3), f32([0.5, 1, 2, 0.1])
GRID, ROIS = f32(RNG.uniform(-1, 1, (1, 3, 3, 2))), f32([[0, 0, 4, 4], [1, 2, 7, 5]])
LSTM = (normal(2, 1, 3), normal(1, 16, 3), normal(1, 16, 4))
U8 = np.array([[1, 200, 30]], np.uint8)
# Operator, opset, attributes, inputs, outputs: a node of each form that a later opset changed.
FORMS: list[tuple[str, int, dict[str, Any], tuple[np.ndarray | None, ...], int]] = [
    *[(op, v, {"axis": axis}, (ROW,), 1) for op in ("ArgMax", "ArgMin") for v in (7, 11) for axis in (0, 1)],
    *[("AveragePool", v, {"kernel_shape": [3, 3], "pads": [1] * 4}, (X,), 1) for v in (7, 10, 11)],
    ("AveragePool", 10, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, (X,), 1),
    *[("BatchNormalization", v, {}, (X, *[PER_CHANNEL] * 4), 1) for v in (7, 9, 13)],
    ("BatchNormalization", 7, {"spatial": 1, "epsilon": 0.1}, (X, *[PER_CHANNEL] * 4), 1),
    *[("Cast", v, {"to": TensorProto.INT32}, (X,), 1) for v in (7, 9, 13)],
    *[("Clip", v, a, (X,), 1) for v in (7, 10) for a in ({}, {"min": -0.5}, {"max": 0.2}, {"min": -0.5, "max": 0.2})],
    *[("DFT", 17, {"axis": axis}, (normal(1, 4, 6, 1),), 1) for axis in (1, 2)],
    ("DFT", 18, {}, (normal(1, 4, 1),), 1),
    ("DepthToSpace", 7, {"blocksize": 2}, (X,), 1),
    *[("DequantizeLinear", v, {}, (U8, f32(0.1), np.array(9, np.uint8)), 1) for v in (10, 13, 19)],
    *[("QuantizeLinear", v, {}, (ROW, f32(0.1), np.array(9, np.uint8)), 1) for v in (10, 13, 19)],
    *[("Dropout", v, {"ratio": 0.5}, (X,), 1) for v in (7, 10)],
    *[("Flatten", v, {"axis": axis}, (X,), 1) for v in (7, 9, 11) for axis in (0, 1, 2, 4)],
    *[("Gather", v, {"axis": 1}, (X, i64(2, 0)), 1) for v in (7, 11)],
    ("GatherND", 11, {}, (X, i64(0, 1, 0, 3).reshape(2, 2)), 1),
    *[("Gemm", v, {"alpha": 0.5, "transB": 1}, (ROW, normal(4, 5), normal(4)), 1) for v in (7, 9, 10)],
    *[("GridSample", v, {"mode": mode}, (X, GRID), 1) for v in (16, 19) for mode in ("bilinear", "nearest", "bicubic")],
    ("GridSample", 16, {"align_corners": 1}, (X, GRID), 1),
    *[("GroupNormalization", 18, {"num_groups": 2}, (X, f32([0.5, 2]), f32([0.1, -1])), 1)],
    *[(op, v, {"axis": axis}, (X,), 1) for op in ("Softmax", "LogSoftmax", "Hardmax") for v in (7, 11, 12)
      for axis in (0, 1, 3)],
    *[(op, 9, {}, (X,), 1) for op in ("Softmax", "LogSoftmax", "Hardmax")],
    *[(op, 12, {"axis": -2}, (X,), 1) for op in ("Softmax", "LogSoftmax", "Hardmax")],
    *[("LSTM", v, {"hidden_size": 4}, LSTM, 2) for v in (7, 13)],
    *[("GRU", v, {"hidden_size": 4}, (LSTM[0], normal(1, 12, 3), normal(1, 12, 4)), 2) for v in (7, 13)],
    *[("RNN", v, {"hidden_size": 4}, (LSTM[0], normal(1, 4, 3), normal(1, 4, 4)), 2) for v in (7, 13)],
    *[("LpPool", v, {"kernel_shape": [2, 2]}, (X,), 1) for v in (7, 11, 17)],
    *[("MaxPool", v, {"kernel_shape": [3, 3], "strides": [2, 2]}, (X,), 1) for v in (7, 8, 10, 11)],
    *[("OneHot", v, {}, (i64(0, 2), i64(4), f32([0, 1])), 1) for v in (9, 10)],
    *[("Pad", v, {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "mode": mode}, (X,), 1) for v in (7, 10)
      for mode in ("constant", "reflect", "edge")],
    ("Pad", 9, {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "value": 0.7}, (X,), 1),
    ("Pad", 9, {"pads": [0, 0, -1, 2, 0, 0, 0, -2]}, (X,), 1),
    *[("Pad", v, {"mode": "edge"}, (X, i64(0, 0, 1, 2, 0, 0, 0, 1)), 1) for v in (11, 13)],
    *[("PRelu", v, {}, (X, PER_CHANNEL.reshape(4, 1, 1)), 1) for v in (7, 9)],
    *[("Pow", v, {}, (np.abs(X), f32(2)), 1) for v in (7, 12, 13)],
    *[(f"Reduce{op}", v, a, (np.abs(X) + 0.1,), 1)
      for op in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
      for v in (7, 11, 12) for a in ({}, {"axes": [1, 3]}, {"axes": [2], "keepdims": 0})],
    *[(f"Reduce{op}", 17, {"axes": [-1]}, (np.abs(X) + 0.1,), 1)
      for op in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")],
    *[("Reshape", v, {}, (X, i64(0, -1, 4)), 1) for v in (7, 13)],
    *[("Resize", 10, {"mode": mode}, (X, f32(s)), 1) for mode in ("nearest", "linear")
      for s in ([1, 1, 2, 2], [1, 1, 0.5, 0.5], [1, 1, 1.5, 3], [1, 1, 0.7, 0.4], [1, 1, 0.5, 2])],
    *[("Resize", v, {"mode": mode}, (X, f32([]), SCALES), 1) for v in (11, 13, 17) for mode in ("nearest", "linear", "cubic")],
    ("Resize", 11, {"mode": "nearest", "nearest_mode": "ceil"}, (X, f32([]), f32([]), i64(1, 4, 9, 5)), 1),
    *[("RoiAlign", v, {"output_height": 2, "output_width": 2}, (X, ROIS, i64(0, 0)), 1) for v in (10, 15)],
    ("Scatter", 9, {"axis": 1}, (ROW, i64(1, 0).reshape(1, 2), normal(1, 2)), 1),
    *[("ScatterElements", v, {"axis": 1}, (ROW, i64(1, 0).reshape(1, 2), normal(1, 2)), 1) for v in (11, 13)],
    *[("ScatterND", v, {}, (ROW, i64(1).reshape(1, 1), normal(1, 5)), 1) for v in (11, 13)],
    *[("Shape", v, {}, (X,), 1) for v in (7, 13)],
    *[("Slice", v, a, (X,), 1) for v in (7, 9)
      for a in ({"starts": [1, -9], "ends": [3, 1000], "axes": [2, 3]}, {"starts": [0, 1], "ends": [1, 3]})],
    *[("Split", v, a, (X,), 2) for v in (7, 11, 12) for a in ({"axis": 1}, {"axis": 1, "split": [1, 3]})],
    *[("Split", v, {"axis": 1}, (X, i64(1, 3)), 2) for v in (13, 17)],
    *[("Split", v, {"axis": 3}, (X,), 2) for v in (13, 17)],
    *[("Squeeze", v, a, (normal(1, 3, 1, 2),), 1) for v in (7, 11, 12) for a in ({}, {"axes": [0, 2]})],
    *[("Unsqueeze", v, {"axes": [0, 2]}, (ROW,), 1) for v in (7, 11, 12)],
    *[("TopK", v, {"k": 3, "axis": 1}, (ROW,), 2) for v in (7, 9)],
    ("TopK", 10, {"axis": 1}, (ROW, i64(2)), 2),
    *[("Upsample", v, {"mode": mode, "scales": [1.0, 1.0, 2.0, 3.0]}, (X,), 1) for v in (7, 8) for mode in ("nearest", "linear")],
    *[("Upsample", 9, {"mode": mode}, (X, f32([1, 1, 2, 1.5])), 1) for mode in ("nearest", "linear")],
    *[(op, v, {}, (X,), 1) for op in ("Relu", "Sigmoid", "Exp", "Neg", "Identity") for v in (7, 12)],
    *[(op, v, {}, (X, normal(8)), 1) for op in ("Add", "Mul", "Div", "Max", "Min", "Greater") for v in (8, 12)],
    *[("Conv", v, {"pads": [1] * 4}, (X, WEIGHT), 1) for v in (7, 10)],
    *[("ConvTranspose", v, {"strides": [2, 2]}, (X, normal(4, 2, 2, 2)), 1) for v in (7, 10)],
    *[("InstanceNormalization", v, {}, (X, PER_CHANNEL, PER_CHANNEL), 1) for v in (7, 15)],
]  # fmt: skip


def same(made: onnx.ModelProto, feed: dict[str, np.ndarray], found: ir.Model) -> None:
    for reference, value in zip(run(made, feed), run(found, feed), strict=True):
        assert reference.shape == value.shape and reference.dtype == value.dtype
        np.testing.assert_allclose(value, reference, rtol=1e-5, atol=1e-6)


def label(form: tuple[str, int, dict[str, Any], tuple[np.ndarray | None, ...], int]) -> str:
    op_type, opset, attributes, *_ = form
    return f"{op_type}-{opset}-{','.join(f'{k}={v}' for k, v in attributes.items())}"


@pytest.mark.parametrize("form", FORMS, ids=label)
def test_a_raised_node_computes_what_the_old_one_did(form: tuple[Any, ...]) -> None:
    made, feed = model(*form)
    found, notes = raised(made)
    assert not notes and found.opset_imports[""] == 21
    onnx.checker.check_model(ir.to_proto(found))
    same(made, feed, found)


def test_every_form_that_changed_since_opset_7_is_looked_at() -> None:
    """A form is a schema whose inputs, outputs, attributes or defaults a later opset changed."""

    def form(schema: onnx.defs.OpSchema) -> object:
        return (
            [i.name for i in schema.inputs],
            [o.name for o in schema.outputs],
            {name: str(a.default_value) for name, a in schema.attributes.items()},
        )

    seen = {(op_type, onnx.defs.get_schema(op_type, opset).since_version) for op_type, opset, *_ in FORMS}
    # Constants are initializers by then; these take values that no float tensor is, or what they changed is an error.
    elsewhere = {"Constant", "CastLike", "OptionalHasElement", "Scan"}
    versions: dict[str, list[onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= 21:
            versions.setdefault(schema.name, []).append(schema)
    for name, schemas in versions.items():
        ordered = sorted(schemas, key=lambda s: s.since_version)
        for old, new in itertools.pairwise(ordered):
            if new.since_version > 7 and form(old) != form(new) and name not in elsewhere:
                assert (name, old.since_version) in seen, f"{name}-{old.since_version}"


def test_nodes_in_a_body_are_raised_too() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 11]>
    g (float[3,5] x, bool c) => (float[3] y) {
      y = If(c) <
        then_branch = a () => (float[3] t) { t = ReduceSum<axes = [1], keepdims = 0>(x) },
        else_branch = b () => (float[3] e) { e = ReduceMax<axes = [1], keepdims = 0>(x) }
      >
    }
    """
    made = onnx.parser.parse_model(text)
    found, notes = raised(made)
    assert not notes
    for taken in (True, False):
        same(made, {"x": ROW, "c": np.array(taken)}, found)


@pytest.mark.parametrize(
    "form",
    [
        ("Resize", 10, {"mode": "nearest"}, (X, f32([1, 1, 0.7, 1.5])), 1),
        ("BatchNormalization", 7, {"spatial": 0}, (normal(1, 4), *[normal(4)] * 4), 1),
    ],
    ids=label,
)
def test_what_has_no_newer_form_stays_and_is_told(form: tuple[Any, ...]) -> None:
    made, feed = model(*form)
    found, (note,) = raised(made)
    assert found.opset_imports[""] == form[1]
    assert note.startswith(f"opset {form[1]} could not be raised to 21: {form[0]} 'old'")
    same(made, feed, found)


def test_names_of_raised_nodes_stay_the_users() -> None:
    made, _ = model("Softmax", 11, {"axis": 1}, (X,))
    found, _ = raised(made)
    assert "old" in [node.name for node in found.graph] and found.graph.outputs[0].name == "y0"
