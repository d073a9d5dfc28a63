"""Writing models: one weight at a time, the same bytes for the same graph, readable by ONNX and onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from planner.model.read import read_model
from planner.model.write import save, weight_bytes

SIDE = 256


def chain(weights: int = 3) -> ir.Model:
    """A chain of matrix products, large enough to be streamed, with a small constant beside them."""
    rng = np.random.default_rng(0)
    values = [f"v{i}" for i in range(weights)]
    nodes = [
        helper.make_node("MatMul", [source, f"w{i}"], [out], name=f"mm{i}")
        for i, (source, out) in enumerate(zip(["x", *values], values, strict=False))
    ]
    nodes.append(helper.make_node("Add", [values[-1], "c"], ["y"], name="add"))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, SIDE])],
        [numpy_helper.from_array(rng.normal(0, 0.06, (SIDE, SIDE)).astype(np.float32), f"w{i}") for i in range(weights)]
        + [numpy_helper.from_array(np.ones(1, np.float32), "c")],
    )
    made: ir.Model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    return made


def lazy(model: ir.Model, name: str, asked: list[str]) -> None:
    """Let a weight be made only when somebody asks for it, and note who did."""
    value = model.graph.initializers[name]
    assert value.const_value is not None
    array = value.const_value.numpy()

    def make() -> ir.TensorProtocol:
        asked.append(name)
        return ir.tensor(array, name=name)

    value.const_value = ir.LazyTensor(make, ir.DataType.FLOAT, ir.Shape(array.shape), name=name)


def outputs(path: Path) -> np.ndarray:
    x = np.linspace(-1, 1, SIDE, dtype=np.float32)[None]
    return np.asarray(ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0])


@pytest.mark.parametrize("embed", [True, False])
def test_what_was_written_is_the_model(tmp_path: Path, embed: bool) -> None:
    model, path, plain = chain(), tmp_path / "m.onnx", tmp_path / "plain.onnx"
    onnx.save(ir.to_proto(model), plain)
    save(model, path, embed=embed)
    onnx.checker.check_model(str(path), full_check=True)
    assert (outputs(path) == outputs(plain)).all()
    assert path.with_name("m.onnx.data").exists() is not embed


def test_the_same_graph_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(chain(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("embed", [True, False])
def test_each_weight_is_made_once_and_not_kept(tmp_path: Path, embed: bool) -> None:
    model, asked = chain(), list[str]()
    for i in range(3):
        lazy(model, f"w{i}", asked)
    assert weight_bytes(model) == 3 * 4 * SIDE * SIDE + 4
    assert not asked
    save(model, tmp_path / "m.onnx", embed=embed)
    assert asked == ["w0", "w1", "w2"]


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = chain()
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    save(model, tmp_path / "m.onnx")
    assert all(model.graph.initializers[name].const_value is tensor for name, tensor in before.items())


def test_four_bit_weights_take_half_a_byte(tmp_path: Path) -> None:
    model = chain(1)
    codes = np.arange(SIDE * SIDE * 4).reshape(2 * SIDE, 2 * SIDE) % 16 - 8
    import ml_dtypes

    tensor = ir.Tensor(codes.astype(ml_dtypes.int4), dtype=ir.DataType.INT4, name="codes")
    value = ir.Value(name="codes", const_value=tensor, type=ir.TensorType(ir.DataType.INT4), shape=tensor.shape)
    model.graph.register_initializer(value)
    model.graph.outputs.append(value)
    path = tmp_path / "m.onnx"
    save(model, path)
    found = {t.name: t for t in onnx.load(path).graph.initializer}["codes"]
    assert len(found.raw_data) == codes.size // 2
    assert (numpy_helper.to_array(found).astype(int) == codes).all()


def test_a_weight_of_another_size_than_it_says_is_no_silent_damage(tmp_path: Path) -> None:
    model = chain(1)
    value = model.graph.initializers["w0"]
    value.const_value = ir.LazyTensor(
        lambda: ir.tensor(np.zeros(5, np.float32)), ir.DataType.FLOAT, ir.Shape([SIDE, SIDE]), name="w0"
    )
    with pytest.raises(AssertionError, match="another size"):
        save(model, tmp_path / "m.onnx")


def test_planner_reads_what_it_wrote_without_copying_it(tmp_path: Path) -> None:
    save(chain(), tmp_path / "m.onnx")
    read = read_model(tmp_path / "m.onnx")
    assert read.ir is not None
    tensor = read.ir.graph.initializers["w1"].const_value
    assert tensor is not None
    array = tensor.numpy()
    assert not array.flags.writeable and not array.flags.owndata
