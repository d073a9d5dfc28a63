"""Parsing without copying weights: the same model as parsing at once, whatever the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from planner.files import Snapshot
from planner.model.load import load
from planner.model.read import read_model
from planner.model.weights import Weight, parse
from tests.unit.small_models import graph, save

TYPES = [
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.INT64,
    TensorProto.UINT8,
    TensorProto.INT4,
]


def model_of(weights: list[tuple[int, int]]) -> onnx.ModelProto:
    """A model with a weight of each (element type, bytes), in that order, small ones between large ones."""
    rng = np.random.default_rng(0)
    tensors = []
    for i, (kind, size) in enumerate(weights):
        data_type = helper.tensor_dtype_to_np_dtype(kind)
        count = 2 * size if kind == TensorProto.INT4 else size // data_type.itemsize
        tensors.append(helper.make_tensor(f"w{i}", kind, [count], rng.bytes(size), raw=True))
    model = graph("(float[4] x) => (float[4] y)", "y = Relu(x)")
    model.graph.initializer.extend(tensors)
    return model


def at_once(path: Path) -> bytes:
    return bytes(onnx.load(path, load_external_data=False).SerializeToString(deterministic=True))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(TYPES), st.sampled_from([8, 4088, 4096, 20_000])), max_size=6))
def test_the_model_is_the_one_that_protobuf_parses(
    tmp_path_factory: pytest.TempPathFactory, weights: list[tuple[int, int]]
) -> None:
    path = save(model_of(weights), tmp_path_factory.mktemp("parsed"))
    parsed, own = parse(Snapshot.of(path))
    assert all(len(t.raw_data) <= 4096 for t in parsed.graph.initializer)
    assert {i for i, t in enumerate(parsed.graph.initializer) if t.data_location == TensorProto.EXTERNAL} == set(own)
    for position, offset in own.items():
        tensor = parsed.graph.initializer[position]
        length = int(tensor.external_data[-1].value)
        tensor.raw_data = path.read_bytes()[offset : offset + length]
        tensor.ClearField("data_location")
        del tensor.external_data[:]
    assert parsed.SerializeToString(deterministic=True) == at_once(path)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(TYPES), st.integers(0, 7))
def test_a_weight_has_its_values_wherever_it_lies_in_the_file(
    tmp_path_factory: pytest.TempPathFactory, kind: int, shift: int
) -> None:
    model = model_of([(kind, 8192)])
    model.producer_name = "p" * shift  # moves what follows, so that numbers lie at any address
    path = save(model, tmp_path_factory.mktemp("parsed"))
    tensor = load(path).graph.initializers["w0"].const_value
    assert isinstance(tensor, Weight)
    expected = ir.from_proto(model.graph.initializer[0])
    assert tensor.numpy().dtype == expected.numpy().dtype
    assert tensor.numpy().tobytes() == expected.numpy().tobytes()  # bits, since some of them are NaN
    assert tensor.tobytes() == model.graph.initializer[0].raw_data


def test_a_message_that_comes_in_pieces_is_merged_as_protobuf_merges_it(tmp_path: Path) -> None:
    whole = model_of([(TensorProto.FLOAT, 8192)])
    first, second = onnx.ModelProto(), onnx.ModelProto()
    first.CopyFrom(whole)
    del first.graph.initializer[:]
    second.graph.initializer.extend(whole.graph.initializer)
    path = tmp_path / "model.onnx"
    path.write_bytes(first.SerializeToString() + second.SerializeToString())
    assert len(parse(Snapshot.of(path)).proto.graph.initializer) == 1
    assert read_model(path).nodes[0].op_type == "Relu"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_where_protobuf_refuses_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = model_of([(TensorProto.FLOAT, 4100), (TensorProto.INT64, 8)]).SerializeToString()
    head = [*range(120), *range(len(whole) - 60, len(whole))]
    cut = data.draw(st.sampled_from(head))
    damaged = bytearray(whole[:cut] if data.draw(st.booleans()) else whole)
    if cut < len(damaged):
        damaged[cut] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("parsed") / "model.onnx"
    path.write_bytes(damaged)
    try:
        at_once(path)
    except DecodeError:
        with pytest.raises(DecodeError):
            parse(Snapshot.of(path))
    else:
        parse(Snapshot.of(path))


def test_weights_in_the_file_are_not_read_to_judge_the_model(tmp_path: Path) -> None:
    import tracemalloc

    model = graph("(float[2,4] x) => (float[2,8388608] y)", "y = MatMul(x, w)", {"w": np.zeros((4, 8))}, check=False)
    big = np.zeros((4, 8 << 20), np.float32)  # 128 MiB
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(big, "w"))
    path = save(model, tmp_path)
    del model, big
    tracemalloc.start()
    try:
        parse(Snapshot.of(path))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
