"""Activations with a zero point of 0 where an EP takes no other: judged in a file, and written by a plan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from planner.calibrate.ranges import Range
from planner.dtypes import DType, parse_precision
from planner.model.read import Model, read_model
from planner.model.write import save as write
from planner.quantization.parameters import activation_parameters
from planner.quantization.walk import apply_plan
from planner.resolve.choose import check_model, make_plan
from planner.resolve.target import Target
from tests.unit.small_models import Array, f32, graph, run, save, sqnr

X = f32(np.random.default_rng(5).uniform(-1, 3, (4, 8)))


def network(folder: Path) -> Model:
    """A product, a constant added, a Relu: all that is seen of it is skewed."""
    random = np.random.default_rng(6)
    constants = {"w": f32(random.normal(size=(8, 6))), "c": f32(random.uniform(0.5, 1, 6))}
    return read_model(
        save(
            graph("(float[4,8] x) => (float[4,6] y)", "p = MatMul(x, w)\ns = Add(p, c)\ny = Relu(s)", constants), folder
        )
    )


def planned(ep: str, folder: Path) -> Path:
    """The network in w8a8 as it is written for an EP."""
    target, model = Target.open(ep), network(folder)
    plan = make_plan(target, model, check_model(target, model, parse_precision("w8a8")))
    ranges = {"x": Range(-1, 3), "p": Range(-4, 9), "s": Range(-3, 10), "y": Range(0, 10)}
    path = folder / f"{ep}.onnx"
    write(apply_plan(model, plan, ranges).model, path)
    return path


def zero_points(path: Path) -> list[Array]:
    model = onnx.load(path)
    stored = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    return [stored[n.input[2]] for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]


def judged(ep: str, path: Path) -> dict[str, bool | None]:
    target = Target.open(ep)
    found = check_model(target, target.read(path, stored=True), None, stored=True)
    return {v.node.op_type: v.ruling.legal for v in found.verdicts}


def test_a_plan_for_tensorrt_rtx_has_no_zero_point(tmp_path: Path) -> None:
    path = planned("tensorrt-rtx", tmp_path)
    assert len(zero_points(path)) >= 8
    assert {str(z.dtype) for z in zero_points(path)} == {"int8"} and not any(z.any() for z in zero_points(path))
    assert judged("tensorrt-rtx", path) == {"MatMul": True, "Add": True, "Relu": True}
    reference = network(tmp_path).ir
    assert reference is not None and sqnr(run(reference, {"x": X})[0], run(path, {"x": X})[0]) > 25


def test_a_file_with_zero_points_is_refused_for_them(tmp_path: Path) -> None:
    path = planned("cpu", tmp_path)
    model = onnx.load(path)
    assert any(z.any() for z in zero_points(path))
    for initializer in model.graph.initializer:  # the same codes, as int8
        codes = numpy_helper.to_array(initializer)
        if codes.dtype == np.uint8:
            initializer.CopyFrom(
                numpy_helper.from_array((codes.astype(np.int16) - 128).astype(np.int8), initializer.name)
            )
    for info in model.graph.value_info:
        if info.type.tensor_type.elem_type == onnx.TensorProto.UINT8:
            info.type.tensor_type.elem_type = onnx.TensorProto.INT8
    onnx.save(model, path)
    target = Target.open("tensorrt-rtx")
    found = check_model(target, target.read(path, stored=True), None, stored=True)
    assert {v.ruling.reason for v in found.verdicts} == {"TensorRT takes int8 with a zero point of 0 only"}


@pytest.mark.parametrize("ep", ["cuda", "migraphx", "vitisai", "cpu"])
def test_other_eps_take_the_symmetric_file_as_well(ep: str, tmp_path: Path) -> None:
    assert set(judged(ep, planned("tensorrt-rtx", tmp_path)).values()) == {True}


@pytest.mark.parametrize("ep", ["cuda", "migraphx", "vitisai", "cpu"])
def test_plans_for_eps_that_take_zero_points_have_them(ep: str, tmp_path: Path) -> None:
    assert any(z.any() for z in zero_points(planned(ep, tmp_path)))


@pytest.mark.parametrize(("dtype", "middle"), [(DType.INT8, 0), (DType.UINT8, 128)])
def test_symmetric_parameters_cover_the_larger_side(dtype: DType, middle: int) -> None:
    found = activation_parameters(Range(-1, 2.54), dtype, zero_at_middle=True)
    assert int(found.zero_point) == middle and float(found.scale) == pytest.approx(0.02)
