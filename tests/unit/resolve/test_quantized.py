"""Models that are quantized already are told apart by name, and refused where a precision is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planner.dtypes import parse_precision
from planner.errors import RequestError
from planner.model.read import read_model
from planner.resolve.choose import check_model
from planner.resolve.target import Target
from tests.unit.small_models import f32, graph, save

U8 = {"s": f32(0.1), "z": np.array(3, np.uint8)}
BODIES = {
    "Q/DQ": ("q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  r = Relu(d)  p = QuantizeLinear(r, s, z)  "
             "y = DequantizeLinear(p, s, z)", U8),
    "Q/DQ behind a Relu": ("q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  v = DequantizeLinear(w, s, z)  "
                           "m = MatMul(d, v)  r = Relu(m)  p = QuantizeLinear(r, s, z)  y = DequantizeLinear(p, s, z)",
                           {**U8, "w": np.eye(32, dtype=np.uint8)}),
    "QLinear operators": ("q = QuantizeLinear(x, s, z)  m = QLinearMatMul(q, s, z, w, s, z, s, z)  "
                          "y = DequantizeLinear(m, s, z)", {**U8, "w": np.eye(32, dtype=np.uint8)}),
    "dynamic quantization": ("q, sx, zx = DynamicQuantizeLinear(x)  i = MatMulInteger(q, w, zx)  c = Cast<to = 1>(i)  "
                             "y = Mul(c, sx)", {"w": np.eye(32, dtype=np.uint8)}),
    "integer operators": ("i = Cast<to = 2>(x)  m = MatMulInteger(i, w)  y = Cast<to = 1>(m)",
                          {"w": np.eye(32, dtype=np.uint8)}),
    "weights in blocks": ("y = com.microsoft.MatMulNBits<K = 32, N = 32, bits = 4, block_size = 32>(x, w, t)",
                          {"w": np.ones((32, 1, 16), np.uint8), "t": f32(np.ones(32))}),
}  # fmt: skip


@pytest.mark.parametrize("form", BODIES)
def test_each_form_has_a_name_and_a_next_step(form: str, tmp_path: Path) -> None:
    body, constants = BODIES[form]
    proto = graph("(float[1,32] x) => (float[1,32] y)", body, constants, domains=["com.microsoft"], check=False)
    model, target = read_model(save(proto, tmp_path)), Target.open("cpu")
    with pytest.raises(RequestError, match="is quantized already") as caught:
        check_model(target, model, parse_precision("w8a8"))
    assert f"({form.partition(' behind')[0]})" in str(caught.value) and "float32 model" in (caught.value.hint or "")
    check_model(target, model, None, stored=True)


def test_a_context_of_an_ep_is_compiled(tmp_path: Path) -> None:
    body = 'y = com.microsoft.EPContext<embed_mode = 1, ep_cache_context = "x">(x)'
    proto = graph("(float[1,32] x) => (float[1,32] y)", body, domains=["com.microsoft"], check=False)
    with pytest.raises(RequestError, match="compiled for one execution provider"):
        check_model(Target.open("qnn"), read_model(save(proto, tmp_path)), parse_precision("w8a8"))


@pytest.mark.parametrize("precision", ["w8a8", "w8a16", "fp16"])
def test_a_plan_in_which_nothing_has_the_precision_is_none(precision: str, tmp_path: Path) -> None:
    proto = graph("(int64[1,32] x) => (int64[1,32] y)", "a = Add(x, x)  y = Abs(a)")
    found = check_model(Target.open("cpu"), read_model(save(proto, tmp_path)), parse_precision(precision))
    assert found.legal is False
    assert precision in (found.violations[0].ruling.reason or "") and found.violations[0].ruling.suggestion
