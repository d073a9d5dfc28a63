"""ONNX's shape inference says nothing of its own, above all no traceback."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from planner.model.inference import infer_once
from tests.unit.small_models import graph


def test_what_cannot_be_inferred_stays_unknown_and_nothing_is_said(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    proto = graph("(float[2] x) => (float y)", "h = com.microsoft.Gelu(x)\ny = Relu(h)", check=False)
    model = ir.from_proto(proto)
    infer_once(model)
    assert not caplog.records and capsys.readouterr() == ("", "")
    assert next(iter(model.graph)).outputs[0].shape is None
