"""The opset that a model is written at: where the target has most of its operators."""

from __future__ import annotations

import pytest

from planner.profiles.load import load_profiles
from planner.resolve.opset import written_opset


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
    ],
)
def test_the_preferred_opset_unless_it_loses_operators(
    ep: str, device: str, operators: set[str], have: int, opset: int
) -> None:
    assert written_opset(load_profiles().find(ep), device, operators, have) == opset


def test_an_operator_that_newer_opsets_lose_keeps_its_older_form() -> None:
    profile = load_profiles().find("directml")
    table = next(iter(profile.tables.values()))
    found = written_opset(profile, "gpu", {"Conv", "GridSample"}, 16)
    assert found < 20 and table.types("GridSample", "", found) is not None
    assert table.types("GridSample", "", 21) is None
