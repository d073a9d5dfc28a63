"""ONNX's shape inference says nothing of its own, above all no traceback."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from planner.model.inference import infer_once
from planner.model.passes.fold import fold
from planner.model.shapes import infer_shapes
from tests.unit.small_models import graph


def test_what_cannot_be_inferred_stays_unknown_and_nothing_is_said(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    proto = graph("(float[2] x) => (float y)", "h = com.microsoft.Gelu(x)\ny = Relu(h)", check=False)
    model = ir.from_proto(proto)
    infer_once(model)
    assert not caplog.records and capsys.readouterr() == ("", "")
    assert next(iter(model.graph)).outputs[0].shape is None


def branches(*, stated: bool = False) -> ir.Model:
    """y = If(c, |Relu(x)|, |-x|) @ w, with a weight that is large."""
    body = """
        k = If(c) <then_branch = t () => (float[2,64] a) { a0 = Relu(x)  a = Abs(a0) },
                   else_branch = e () => (float[2,64] b) { b0 = Neg(x)  b = Abs(b0) }>
        y = MatMul(k, w)
    """
    proto = graph("(float[2,64] x, bool c) => (float[2,8] y)", body, {"w": np.ones((64, 8), np.float32)})
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto) if stated else proto)


def test_shapes_are_known_within_subgraphs_too_and_constants_stay_what_they_are() -> None:
    model = branches()
    infer_once(model)
    known = {out.name: out.shape for node in model.graph.all_nodes() for out in node.outputs}
    assert known == {name: [2, 64] for name in ("k", "a0", "a", "b0", "b")} | {"y": [2, 8]}
    (weight,) = model.graph.initializers.values()
    assert weight.is_initializer() and not weight.is_graph_input() and weight.const_value is not None
    assert [value.name for value in model.graph.inputs] == ["x", "c"]


def test_a_map_leaves_the_other_shapes_known() -> None:
    proto = graph(
        "(float[2,3] x) => (y)", "h = Relu(x)\ny = ai.onnx.ml.ZipMap <classlabels_int64s = [1, 2, 3]> (h)", check=False
    )
    proto.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 3))
    model = ir.from_proto(proto)
    infer_once(model)
    assert model.graph.node(0).outputs[0].shape == [2, 3]


def test_nothing_is_inferred_where_all_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ir.Model] = []
    monkeypatch.setattr("planner.model.shapes.infer_once", lambda model, **_: asked.append(model))
    known = branches(stated=True)
    infer_shapes(known)
    assert not asked and not fold(known, as_stored=False), "nothing is folded either: a second round finds no more"
    infer_shapes(branches())
    assert len(asked) == 1
