"""GroupNormalization as InstanceNormalization between Reshapes: the same numbers, whatever the opset counts scales by."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from planner.model.normalize import normalize
from planner.resolve.target import Target
from tests.unit.small_models import f32, graph, random_feed, run


def spelled(made: onnx.ModelProto, target: int = 21, *, taken: bool = False) -> ir.Model:
    found: ir.Model = ir.from_proto(made)
    normalize(found, {}, target, ["GroupNormalization"] if taken else [])
    onnx.checker.check_model(ir.to_proto(found), full_check=True)
    return found


def made(opset: int, shape: str = "2,8,5,6", *, epsilon: float = 1e-5) -> onnx.ModelProto:
    rng, count = np.random.default_rng(0), 8 if opset >= 21 else 2
    body = f"[norm] y = GroupNormalization<num_groups = 2, epsilon = {epsilon}>(x, s, b)"
    constants = {"s": f32(rng.normal(size=count)), "b": f32(rng.normal(size=count))}
    # The checker calls the form before 21 deprecated.
    return graph(f"(float[{shape}] x) => (float[{shape}] y)", body, constants, opset=opset, check=opset >= 21)


@pytest.mark.parametrize("shape", ["2,8,5,6", "1,8,7", "1,8,3,4,5"])
@pytest.mark.parametrize(("opset", "target"), [(18, 18), (18, 21), (20, 20), (21, 21), (21, 20), (22, 18)])
def test_the_numbers_are_the_operators(opset: int, target: int, shape: str) -> None:
    model = made(opset, shape, epsilon=0.01)
    found = spelled(model, target)
    assert found.opset_imports[""] == target
    assert "InstanceNormalization" in [n.op_type for n in found.graph]
    assert "norm" in [n.name for n in found.graph], "the last one keeps the user's name"
    feed = random_feed(model)
    np.testing.assert_allclose(run(found, feed)[0], run(model, feed)[0], rtol=1e-4, atol=1e-5)


def test_one_open_dimension_beside_the_batch_is_no_obstacle() -> None:
    found = spelled(made(21, "N,8,5,W"))
    assert [n.op_type for n in found.graph] == ["Reshape", "InstanceNormalization", "Reshape", "Mul", "Add"]
    feed = {"x": f32(np.random.default_rng(1).normal(size=(3, 8, 5, 4)))}
    np.testing.assert_allclose(run(found, feed)[0], run(made(21, "N,8,5,W"), feed)[0], rtol=1e-4, atol=1e-5)


def test_it_stays_where_it_is_taken_and_where_too_little_is_known() -> None:
    for found in (spelled(made(21), taken=True), spelled(made(21, "N,8,H,W"))):
        assert [n.op_type for n in found.graph] == ["GroupNormalization"]


@pytest.mark.parametrize(("ep", "stays"), [("qnn", True), ("directml", False), ("webgpu", False)])
def test_a_target_that_takes_it_keeps_it(ep: str, stays: bool) -> None:
    assert Target.open(ep).takes("GroupNormalization", 21) is stays
