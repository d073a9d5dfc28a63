"""The float16 emulation shows what a float16 EP would give, where running the float16 file on the CPU EP does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, checker, helper, numpy_helper

from planner.runtime.client import Worker
from planner.verification.emulation import emulate_float16, uses_float16


def overflowing(io: int = TensorProto.FLOAT16) -> ir.Model:
    """[256, 256] @ [256, 256]^T = 2 * 256 * 256 = 131072, above 65504; then * 2^-3 = 16384."""
    half = TensorProto.FLOAT16
    weight = numpy_helper.from_array(np.full((2, 1), 256, np.float16), "w")
    scale = numpy_helper.from_array(np.array(0.125, np.float16), "s")
    nodes = [helper.make_node("MatMul", ["a", "w"], ["product"], name="matmul")]
    nodes.append(helper.make_node("Mul", ["product", "s"], ["b"], name="scale"))
    if io != half:
        nodes.insert(0, helper.make_node("Cast", ["x"], ["a"], name="in", to=half))
        nodes.append(helper.make_node("Cast", ["b"], ["y"], name="out", to=io))
    inputs = [helper.make_tensor_value_info("a" if io == half else "x", io, [1, 2])]
    outputs = [helper.make_tensor_value_info("b" if io == half else "y", io, [1, 1])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight, scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model, full_check=True)
    made: ir.Model = ir.from_proto(model)
    return made


def run(model: ir.Model, folder: Path, sample: dict[str, np.ndarray], *, optimize: bool) -> dict[str, np.ndarray]:
    path = folder / "model.onnx"
    ir.save(model, path)
    with Worker("CPUExecutionProvider") as worker:
        worker.open(path, {}, optimize=optimize)
        return worker.run(sample).outputs


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("io", [TensorProto.FLOAT16, TensorProto.FLOAT])
def test_a_product_above_65504_becomes_infinite(io: int, optimize: bool, tmp_path: Path) -> None:
    model = overflowing(io)
    dtype = helper.tensor_dtype_to_np_dtype(io)
    sample = {model.graph.inputs[0].name or "": np.full((1, 2), 256, dtype)}
    emulated = emulate_float16(model)
    (result,) = run(emulated, tmp_path, sample, optimize=optimize).values()
    assert np.isinf(result).all()
    assert result.dtype == dtype


def test_the_float16_file_itself_hides_the_overflow_on_the_cpu_ep(tmp_path: Path) -> None:
    model = overflowing(TensorProto.FLOAT16)
    (result,) = run(model, tmp_path, {"a": np.full((1, 2), 256, np.float16)}, optimize=False).values()
    assert result.item() == 16384


def test_results_equal_numpy_float16_step_by_step(tmp_path: Path) -> None:
    model = overflowing(TensorProto.FLOAT16)
    values = np.array([[0.3337, 1.7771]], np.float16)
    (result,) = run(emulate_float16(model), tmp_path, {"a": values}, optimize=True).values()
    product = np.float16(np.float32(values[0, 0]) * 256 + np.float32(values[0, 1]) * 256)
    assert result.item() == np.float16(product * np.float16(0.125))


def test_the_interface_and_the_names_of_inner_values_stay() -> None:
    model = overflowing(TensorProto.FLOAT)
    emulated = emulate_float16(model)
    assert [(v.name, v.dtype, v.shape) for v in emulated.graph.inputs] == [
        (v.name, v.dtype, v.shape) for v in model.graph.inputs
    ]
    assert [(v.name, v.dtype) for v in emulated.graph.outputs] == [(v.name, v.dtype) for v in model.graph.outputs]
    names = {out.name for node in emulated.graph for out in node.outputs}
    assert {"product", "product_unrounded", "b"} <= names
    checker.check_model(ir.to_proto(emulated), full_check=True)


def test_no_new_value_takes_a_name_of_the_models_own() -> None:
    model = overflowing()
    inner = next(out for node in model.graph for out in node.outputs if out.name == "b")
    inner.name = "product_unrounded"
    emulated = emulate_float16(model)
    names = [out.name for node in emulated.graph for out in node.outputs]
    assert len(set(names)) == len(names)
    assert {"product", "product_unrounded"} <= set(names)
    checker.check_model(ir.to_proto(emulated), full_check=True)


def test_the_model_given_is_left_alone_and_one_without_float16_is_not_changed() -> None:
    model = overflowing()
    assert uses_float16(model)
    before = ir.to_proto(model).SerializeToString()
    emulate_float16(model)
    assert ir.to_proto(model).SerializeToString() == before

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out])
    plain = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    assert not uses_float16(plain)
    assert [n.op_type for n in emulate_float16(plain).graph] == ["Relu"]


def test_branches_are_emulated_too(tmp_path: Path) -> None:
    half = TensorProto.FLOAT16

    def branch(name: str, factor: float) -> object:
        constant = numpy_helper.from_array(np.array(factor, np.float16), f"{name}_k")
        nodes = [
            helper.make_node("Mul", ["x", f"{name}_k"], [f"{name}_big"]),
            helper.make_node("Div", [f"{name}_big", f"{name}_k"], [f"{name}_out"]),
        ]
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}_out", half, [1])], [constant])

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("t", 1000.0), else_branch=branch("e", 2.0))
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("c", TensorProto.BOOL, []), helper.make_tensor_value_info("x", half, [1])],
        [helper.make_tensor_value_info("y", half, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model, full_check=True)
    emulated = emulate_float16(ir.from_proto(model))
    sample = {"x": np.array([100], np.float16)}
    assert np.isinf(run(emulated, tmp_path, {**sample, "c": np.array(True)}, optimize=False)["y"]).all()
    assert run(emulated, tmp_path, {**sample, "c": np.array(False)}, optimize=False)["y"].item() == 100
