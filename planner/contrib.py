"""Operands of ONNX Runtime's own operators: the names of their type parameters, as kernel tables use them.

ONNX knows nothing of these operators. The file beside this one holds what onnxruntime says of them:
`python -m planner.contrib > planner/contrib.json`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

# Type parameters of the inputs and of the outputs, by domain and operator; the last one of a list that goes on repeats.
Operands = Mapping[str, Mapping[str, Sequence[Sequence[str]]]]


@functools.cache
def _shipped() -> Operands:
    text = resources.files("planner").joinpath("contrib.json").read_text(encoding="utf-8")
    found: Operands = json.loads(text)
    return found


def type_parameter(op_type: str, domain: str, position: int, *, output: bool = False) -> str | None:
    """The type parameter of an operand ("T"); None where the operator is not known.

    Args:
        op_type: the operator.
        domain: of it; "" for those that ONNX Runtime adds to ONNX's own domain.
        position: of the operand, from 0.
        output: of a result instead of an input.
    """
    operands = _shipped().get(domain or "ai.onnx", {}).get(op_type)
    names = None if operands is None else operands[1 if output else 0]
    return names[min(position, len(names) - 1)] if names else None


def installed() -> dict[str, dict[str, list[list[str]]]]:
    """What the installed onnxruntime says of the operators that ONNX does not have."""
    import onnx
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    found: dict[str, dict[str, list[list[str]]]] = {}
    schemas: list[Any] = sorted(get_all_operator_schema(), key=lambda s: (s.domain, s.name, s.since_version))
    for schema in schemas:
        if schema.domain == "com.microsoft" or (schema.domain == "" and not onnx.defs.has(schema.name)):
            operands = [[operand.typeStr for operand in side] for side in (schema.inputs, schema.outputs)]
            found.setdefault(schema.domain or "ai.onnx", {})[schema.name] = operands
    return found


def dump(operands: Operands) -> str:
    """The file's text, a line an operator."""
    domains = []
    for domain, operators in operands.items():
        rows = [f"  {json.dumps(name)}: {json.dumps(sides)}" for name, sides in operators.items()]
        domains.append(f" {json.dumps(domain)}: {{\n" + ",\n".join(rows) + "\n }")
    return "{\n" + ",\n".join(domains) + "\n}\n"


if __name__ == "__main__":
    print(dump(installed()), end="")
