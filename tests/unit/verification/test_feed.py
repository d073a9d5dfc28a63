"""Samples on their way to a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, ValueInfoProto

from planner.model.load import load
from planner.model.read import read_model
from planner.verification.feed import cast_feed, input_dtypes, shapes_of_candidate, warn_of_quantized
from tests.unit.small_models import f32, graph, save


def test_weights_that_are_listed_among_the_inputs_need_no_sample(tmp_path: Path) -> None:
    """Files of IR version 3 list every initializer so."""
    proto = graph("(float[2,3] x, float[3,3] w) => (float[2,3] y)", "y = MatMul(x, w)", {"w": f32(np.eye(3))})
    dtypes = input_dtypes(load(save(proto, tmp_path)))
    assert set(cast_feed({"x": np.ones((2, 3))}, dtypes)) == {"x"}


def test_a_map_among_the_outputs_is_read(tmp_path: Path) -> None:
    """scikit-learn's classifiers give a sequence of maps: ZipMap."""
    proto = graph(
        "(float[1,2] x) => (float[1,2] z)",
        "p = Softmax(x)  z = ai.onnx.ml.ZipMap<classlabels_int64s = [0, 1]>(p)",
        domains=["ai.onnx.ml"],
        check=False,
    )
    result = ValueInfoProto(name="z")
    kind = result.type.sequence_type.elem_type.map_type
    kind.key_type, kind.value_type.tensor_type.elem_type = TensorProto.INT64, TensorProto.FLOAT
    proto.graph.output[0].CopyFrom(result)
    assert [node.op_type for node in read_model(save(proto, tmp_path)).nodes] == ["Softmax", "ZipMap"]


def test_a_reference_that_is_quantized_itself_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = graph("(float[2] x) => (float[2] y)", "y = Relu(x)")
    warn_of_quantized(read_model(save(plain, tmp_path)))
    assert not caplog.records
    scale = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}
    text = "h = Relu(x)\nq = QuantizeLinear(h, s, z)\ny = DequantizeLinear(q, s, z)"
    warn_of_quantized(read_model(save(graph("(float[2] x) => (float[2] y)", text, scale), tmp_path)))
    assert "is quantized itself (Q/DQ)" in caplog.text


def test_a_reference_is_run_at_the_shapes_of_its_candidate(tmp_path: Path) -> None:
    reference = save(graph("(float[n,3] x, float[m] k) => (float[n,3] y)", "y = Mul(x, k)"), tmp_path, "reference.onnx")
    candidate = save(graph("(float[2,3] x, float[m] k) => (float[2,3] y)", "y = Mul(x, k)"), tmp_path, "candidate.onnx")
    assert shapes_of_candidate(candidate, reference, None) == {"x": (2, 3)}
    assert shapes_of_candidate(candidate, reference, {"k": (3,), "x": (4, 3)}) == {"x": (4, 3), "k": (3,)}
    assert shapes_of_candidate(candidate, candidate, None) == {}
