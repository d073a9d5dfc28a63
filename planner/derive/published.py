"""A kernel table out of ONNX Runtime's published list of kernels, docs/OperatorKernels.md.

python -m planner.derive.published OperatorKernels.md CUDAExecutionProvider "SOURCE" > ep_profiles/cuda/kernels.json
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from planner.errors import RequestError
from planner.files import read_text
from planner.profiles.kernels import dump

_SECTION = re.compile(r"^## Operators implemented by (\w+)$")
_DOMAIN = re.compile(r"^\|\*\*Operator Domain:\*\* \*([\w.]+)\*\|")
_CONSTRAINT = re.compile(r"\*\*(\w+)\*\* = ([^*]+)")
_BARS = 5  # of a row: operator, parameters, opsets, types
_TENSOR = re.compile(r"tensor\((\w+)\)")


def kernel_table(document: str, ep: str, source: str) -> dict[str, Any]:
    """The EP's kernels as a kernel table holds them.

    Args:
        document: text of OperatorKernels.md.
        ep: full provider name, as its section is called.
        source: where the document comes from, with its commit.

    Raises:
        RequestError: it has no such section.
    """
    kernels: dict[str, dict[str, list[dict[str, Any]]]] = {}
    section = domain = operator = ""
    for line in document.splitlines():
        if found := _SECTION.match(line):
            section = found[1]
        elif section == ep and (found := _DOMAIN.match(line)):
            domain = found[1]
        elif section == ep and domain and line.count("|") == _BARS:
            name, _parameters, opset, types = (cell.strip() for cell in line.strip()[1:-1].split("|"))
            operator = name or operator
            kernels.setdefault(domain, {}).setdefault(operator, []).append(
                {"opset": _opsets(opset), "types": {c: _types(listed) for c, listed in _CONSTRAINT.findall(types)}}
            )
    if not kernels:
        raise RequestError(f"the document has no kernels of {ep}", "give docs/OperatorKernels.md of ONNX Runtime")
    return {"source": source, "kernels": kernels}


def _types(text: str) -> list[str]:
    """The names between commas: tensor(float) as float, a sequence as it is."""
    names = [name.strip() for name in text.replace("<br/>", "").split(",")]
    return [found[1] if (found := _TENSOR.fullmatch(name)) else name for name in names]


def _opsets(text: str) -> str:
    """A range [6, 12] as 6-12."""
    return text.strip("[]").replace(", ", "-")


if __name__ == "__main__":
    path, ep, source = sys.argv[1:]
    sys.stdout.write(dump(kernel_table(read_text(Path(path), limit=1 << 24), ep, source)))
