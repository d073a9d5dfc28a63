"""Operands of ONNX Runtime's own operators: what is shipped is what the installed onnxruntime says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planner import api
from planner.contrib import _shipped, installed, type_parameter
from tests.unit.small_models import f32, graph, save


def test_the_file_says_what_the_installed_onnxruntime_says() -> None:
    shipped, found = _shipped(), installed()
    for domain, operators in found.items():
        for name, operands in operators.items():
            assert shipped[domain][name] == operands, f"{domain}:{name}"


@pytest.mark.parametrize(
    ("op_type", "domain", "position", "output", "name"),
    [
        ("Attention", "com.microsoft", 0, False, "T"),
        ("Attention", "com.microsoft", 3, False, "M"),
        ("GroupQueryAttention", "com.microsoft", 5, False, "M"),
        ("EmbedLayerNormalization", "com.microsoft", 0, False, "T1"),
        ("SimplifiedLayerNormalization", "", 0, True, "V"),
        ("Unheard", "com.microsoft", 0, False, None),
    ],
)
def test_the_type_parameter_of_an_operand(
    op_type: str, domain: str, position: int, output: bool, name: str | None
) -> None:
    assert type_parameter(op_type, domain, position, output=output) == name


@pytest.mark.parametrize(("declared", "legal"), [("int32", True), ("float", False)])
def test_a_result_of_another_type_than_its_operator_gives_is_told(declared: str, legal: bool, tmp_path: Path) -> None:
    body = "y, m = com.microsoft.EmbedLayerNormalization(ids, , E, P, , g, b, mask)"
    held = {"E": f32(np.ones((20, 8))), "P": f32(np.ones((6, 8))), "g": f32(np.ones(8)), "b": f32(np.zeros(8))}
    proto = graph(
        f"(int32[1,6] ids, int32[1,6] mask) => (float[1,6,8] y, {declared}[1] m)", body, held, opset=17,
        domains=["com.microsoft"], check=False,
    )  # fmt: skip
    found = api.check(save(proto, tmp_path), "cpu")
    assert found.legal is legal
    if not legal:
        assert "gives int32" in found.sentence() and "'m'" in found.sentence()
