"""Operands of ONNX Runtime's own operators: what is shipped is what the installed onnxruntime says."""

from __future__ import annotations

import pytest

from planner.contrib import _shipped, installed, type_parameter


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
