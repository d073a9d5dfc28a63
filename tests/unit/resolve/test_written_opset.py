"""The opset that a model is written at: where the target has most of its operators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planner.resolve.choose import check_model
from planner.resolve.opset import PREFERRED, written_opset
from planner.resolve.target import Target
from tests.unit.small_models import graph, save


def chosen(target: Target, operators: set[str], have: int) -> int:
    return written_opset(lambda op, opset: target.takes(op, opset, or_defined=True), operators, have)


@pytest.mark.parametrize(
    ("ep", "device", "operators", "have", "opset"),
    [
        ("cpu", "cpu", {"Conv", "Relu", "GridSample"}, 13, 21),
        ("qnn", "snapdragon-x-elite", {"Conv", "Relu", "GridSample"}, 16, 21),
        ("qnn", "snapdragon-x-elite", {"RMSNormalization", "NonZero"}, 23, 23),
        ("cpu", "cpu", {"Attention", "RMSNormalization"}, 23, 23),
        ("directml", "gpu", {"Conv", "Relu"}, 11, 21),
        ("directml", "gpu", {"Conv", "MaxPool"}, 22, 21),
        ("directml", "gpu", {"Attention", "RMSNormalization"}, 23, 21),
        ("directml", "gpu", {"Conv", "Elu"}, 22, 21),
        ("directml", "gpu", {"Conv", "GridSample"}, 20, 19),
        ("directml", "gpu", {"Conv", "GridSample"}, 22, 19),
        ("webgpu", "gpu", {"Conv", "AveragePool"}, 11, 18),
        ("webgpu", "gpu", {"Conv", "GlobalAveragePool"}, 22, 21),
    ],
)
def test_the_preferred_opset_unless_it_loses_operators(
    ep: str, device: str, operators: set[str], have: int, opset: int
) -> None:
    assert chosen(Target.open(ep, device), operators, have) == opset


def test_an_operator_that_newer_opsets_lose_keeps_its_older_form() -> None:
    target = Target.open("directml")
    found = chosen(target, {"Conv", "GridSample"}, 16)
    assert target.takes("GridSample", found)
    assert not target.takes("GridSample", 21)


@pytest.mark.parametrize("have", [28, 29])
def test_an_opset_without_a_kernel_for_what_plans_add_is_lowered(have: int, tmp_path: Path) -> None:
    """Onnxruntime 1.32 has a kernel for Relu at opset 28, none for QuantizeLinear there, and loads no opset 29."""
    path = save(graph("(float[2,4] x) => (float[2,4] y)", "y = Relu(x)", opset=have, check=False), tmp_path)
    assert Target.open("cpu").read(path).normalized_opset == PREFERRED


@pytest.mark.parametrize("ep", ["cpu", "qnn"])
def test_a_file_above_the_opsets_that_the_runtime_loads_is_illegal_as_it_is(ep: str, tmp_path: Path) -> None:
    path = save(graph("(float[2,4] x) => (float[2,4] y)", "y = Relu(x)", opset=29, check=False), tmp_path)
    target = Target.open(ep)
    found = check_model(target, target.read(path, stored=True), None, stored=True)
    assert found.legal is False
    assert "loads no opset above 28" in (found.violations[0].ruling.reason or "")


def test_open_dimensions_are_bound_where_the_target_leaves_shapes_to_others(tmp_path: Path) -> None:
    """DirectML takes a model with an open batch, unless something in it computes with shapes as it runs."""
    plain = save(graph("(float[N,4] x) => (float[N,4] y)", "y = Relu(x)"), tmp_path, "plain.onnx")
    body = (
        "s = Shape(x)\nn = Gather(s, zero)\nb = Unsqueeze(n, zeros)\nt = Concat<axis = 0>(b, four)\ny = Reshape(x, t)"
    )
    constants = {"zero": np.array(0), "zeros": np.array([0]), "four": np.array([2, 2])}
    shaped = save(graph("(float[N,4] x) => (float[N,2,2] y)", body, constants), tmp_path, "shaped.onnx")
    target = Target.open("directml")
    assert target.read(plain).dynamic_inputs == ("x=N,4",)
    bound = target.read(shaped, seen=lambda _: {"x": (3, 4)})
    assert (bound.dynamic_inputs, [node.op_type for node in bound.nodes]) == ((), ["Reshape"])
    assert bound.shapes == {"x": (3, 4)}
    assert target.read(shaped, stored=True).dynamic_inputs == ("x=N,4",)
