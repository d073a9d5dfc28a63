"""Plain integers are moved and cast in types that the target takes, and mean the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from planner.model.passes.integers import PlainIntegers
from planner.model.read import Model, read_model
from planner.resolve.target import Target
from tests.unit.small_models import f32, graph, run, save

# What the HTP takes: no move of these types, no Cast of a float to int64.
HTP = PlainIntegers(
    moves=lambda _op_type, dtype: dtype not in ("uint8", "int64"),
    casts=lambda source, to: source in ("int32", "int64", "uint8") or to != TensorProto.INT64,
)
TABLE = {"t": f32(np.random.default_rng(0).normal(size=(20, 4)))}


def both(proto: onnx.ModelProto, folder: Path, feed: dict[str, np.ndarray]) -> list[str]:
    """Operators of the model as the target gets it, which computes what the file does."""
    path = save(proto, folder)
    model = read_model(path, integers=HTP)
    assert model.ir is not None
    for ours, theirs in zip(run(model.ir, feed), run(proto, feed), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [n.op_type for n in read_model(path).nodes] == [n.op_type for n in proto.graph.node]
    return [_told(model, index) for index in range(len(model.nodes))]


def _told(model: Model, index: int) -> str:
    node = model.nodes[index]
    return f"{node.op_type} {node.output_dtypes[0]}" if node.op_type == "Cast" else node.op_type


def test_an_image_is_made_float_before_it_is_transposed(tmp_path: Path) -> None:
    body = "t = Transpose<perm=[0,3,1,2]>(x)\ns = Slice(t, b, e)\nc = Cast<to=1>(s)\ny = Relu(c)"
    held = {"b": np.zeros(4, np.int64), "e": np.array([1, 3, 3, 3])}
    feed = {"x": np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)}
    proto = graph("(uint8[1,4,4,3] x) => (float[1,3,3,3] y)", body, held)
    assert both(proto, tmp_path, feed) == ["Cast float32", "Transpose", "Slice", "Relu"]


def test_what_is_read_as_an_integer_too_stays(tmp_path: Path) -> None:
    body = "t = Transpose<perm=[1,0]>(x)\nc = Cast<to=1>(t)\ny = Relu(c)\nz = Identity(t)"
    proto = graph("(uint8[2,3] x) => (float[3,2] y, uint8[3,2] z)", body)
    operators = [n.op_type for n in read_model(save(proto, tmp_path), integers=HTP).nodes]
    assert operators[0] == "Transpose"


def test_indices_are_moved_as_int32(tmp_path: Path) -> None:
    proto = graph("(int64[2,3] x) => (float[3,2,4] y)", "i = Transpose<perm=[1,0]>(x)\ny = Gather(t, i)", TABLE)
    feed = {"x": np.array([[1, 19, 3], [0, -1, 7]])}
    assert both(proto, tmp_path, feed) == ["Cast int32", "Transpose", "Cast int64", "Gather"]


def test_indices_that_are_computed_are_cast_by_way_of_int32(tmp_path: Path) -> None:
    body = "r = Round(x)\ni = Cast<to=7>(r)\nj = Add(i, one)\nu = Unsqueeze(j, zero)\ny = GatherElements(t, u)"
    held = {**TABLE, "one": np.array([1]), "zero": np.array([0])}
    proto = graph("(float[4] x) => (float[1,4] y)", body, held)
    feed = {"x": f32([0.2, 3.7, 17.9, -1.2])}
    told = both(proto, tmp_path, feed)
    through = ["Cast int32", "Cast int64"]
    assert told == ["Round", *through, "Add", "Cast int32", "Unsqueeze", "Cast int64", "GatherElements"]


@pytest.mark.parametrize("body", ["i = Cast<to=7>(x)\ny = Neg(i)", "i = Cast<to=7>(x)\nj = Mul(i, i)\ny = Abs(j)"])
def test_other_numbers_keep_all_their_bits(body: str, tmp_path: Path) -> None:
    proto = graph("(float[4] x) => (int64[4] y)", body)
    assert both(proto, tmp_path, {"x": f32([1e12, -3e10, 0, 5])}) == [
        "Cast int64" if n.op_type == "Cast" else n.op_type for n in proto.graph.node
    ]


def test_a_picture_of_integers_is_cast_in_three_dimensions(tmp_path: Path) -> None:
    """Onnxruntime would transpose the picture behind the Cast, which the HTP does not take."""
    proto = graph("(float[1,2,3,4] x) => (uint8[1,2,3,4] y)", "r = Round(x)\ny = Cast<to=2>(r)")
    taken = PlainIntegers(moves=lambda op_type, dtype: (op_type, dtype) != ("Transpose", "uint8"))
    model = read_model(save(proto, tmp_path), integers=taken)
    assert [n.op_type for n in model.nodes] == ["Round", "Reshape", "Cast", "Reshape"] and model.ir is not None
    assert model.nodes[2].output_shapes == ((1, 2, 12),)
    feed = {"x": f32(np.arange(24).reshape(1, 2, 3, 4) * 1.3)}
    np.testing.assert_array_equal(run(model.ir, feed)[0], run(proto, feed)[0])


def test_targets_say_what_they_take() -> None:
    htp, cpu = Target.open("qnn", "snapdragon-x-elite"), Target.open("cpu", None)
    assert not htp.moves("Transpose", "int64") and htp.moves("Transpose", "int32") and htp.moves("Reshape", "int64")
    assert not htp.casts("float32", TensorProto.INT64) and htp.casts("float32", TensorProto.INT32)
    assert cpu.moves("Transpose", "uint8") and cpu.casts("float32", TensorProto.INT64)
