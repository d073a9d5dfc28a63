"""ONNX Runtime's published list of kernels becomes a kernel table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner.derive.published import kernel_table
from planner.errors import RequestError
from planner.profiles.kernels import dump, read_kernel_table

DOCUMENT = """\
## Operators implemented by OtherExecutionProvider
|**Operator Domain:** *ai.onnx*||||
|Abs|*in* X:**T**<br> *out* Y:**T**|13+|**T** = tensor(int8)|
| |
## Operators implemented by AcmeExecutionProvider

| Op Name | Parameters | OpSet Version | Types Supported |
|---------|------------|---------------|-----------------|
|**Operator Domain:** *ai.onnx*||||
|Abs|*in* X:**T**<br> *out* Y:**T**|13+|**T** = tensor(bfloat16), tensor(float)|
|||[6, 12]|**T** = tensor(float)|
|If|*in* cond:**B**<br> *out* outputs:**V**|12|**B** = tensor(bool)<br/> **V** = seq(tensor(float)), tensor(float)|
| |
|**Operator Domain:** *com.microsoft*||||
|Gelu|*in* X:**T**<br> *out* Y:**T**|1+|**T** = tensor(float)|
"""


def test_each_row_is_a_kernel_of_the_operator_above_it() -> None:
    kernels = kernel_table(DOCUMENT, "AcmeExecutionProvider", "here")["kernels"]
    assert kernels["ai.onnx"]["Abs"] == [
        {"opset": "13+", "types": {"T": ["bfloat16", "float"]}},
        {"opset": "6-12", "types": {"T": ["float"]}},
    ]
    assert kernels["ai.onnx"]["If"] == [{"opset": "12", "types": {"B": ["bool"], "V": ["seq(tensor(float))", "float"]}}]
    assert list(kernels["com.microsoft"]) == ["Gelu"]


def test_what_is_written_is_read_as_a_kernel_table() -> None:
    table = read_kernel_table(Path("t"), dump(kernel_table(DOCUMENT, "AcmeExecutionProvider", "here")))
    assert table.types("Abs", "", 21) == {"T": frozenset({"bfloat16", "float32"})}
    assert json.loads(dump(kernel_table(DOCUMENT, "OtherExecutionProvider", "x")))["source"] == "x"


def test_an_ep_without_a_section_is_refused() -> None:
    with pytest.raises(RequestError, match="no kernels of NoneExecutionProvider"):
        kernel_table(DOCUMENT, "NoneExecutionProvider", "here")
