"""The opset that a model is written at: where the target has most of its operators."""

from __future__ import annotations

import pytest

from planner.resolve.opset import written_opset
from planner.resolve.target import Target


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
