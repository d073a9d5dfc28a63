"""Fusing: every fusion computes the same numbers as what it replaces, near misses are left alone, names stay the user's."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.model.normalize import normalize
from planner.model.passes.fuse import FUSED_OPERATORS
from tests.unit.small_models import f32, graph, random_feed, run, sqnr

R2, RPI, C3 = math.sqrt(2), math.sqrt(2 / math.pi), 0.044715


def normalized(
    model: onnx.ModelProto, fused: frozenset[str] = FUSED_OPERATORS, opset: int = 20, *, as_stored: bool = False
) -> ir.Model:
    found: ir.Model = ir.from_proto(model)
    normalize(found, {}, opset, fused, as_stored=as_stored)
    return found


def operators(model: ir.Model) -> list[str]:
    return [n.op_type for n in model.graph.all_nodes()]


def same(model: onnx.ModelProto, found: ir.Model, least_db: float = 100.0) -> None:
    feed = random_feed(model)
    for reference, value in zip(run(model, feed), run(found, feed), strict=True):
        assert reference.shape == value.shape and reference.dtype == value.dtype
        assert sqnr(reference, value) > least_db


# -- Gelu ---------------------------------------------------------------------------------------------------------------

_INNER = {
    "x/r2": "i = Div(x, r2)",
    "x*(1/r2)": "i = Mul(x, inv)",
    "(1/r2)*x": "i = Mul(inv, x)",
}
_OUTER = {
    "0.5*(x*p)": "m = Mul(x, p)  y = Mul(half, m)",
    "(p*x)*0.5": "m = Mul(p, x)  y = Mul(m, half)",
    "(0.5*x)*p": "m = Mul(half, x)  y = Mul(m, p)",
    "p*(x*0.5)": "m = Mul(x, half)  y = Mul(p, m)",
    "x*(p*0.5)": "m = Mul(p, half)  y = Mul(x, m)",
    "(0.5*p)*x": "m = Mul(half, p)  y = Mul(m, x)",
    "(x/2)*p": "m = Div(x, two)  y = Mul(m, p)",
    "(x*p)/2": "m = Mul(x, p)  y = Div(m, two)",
    "x*(p/2)": "m = Div(p, two)  y = Mul(x, m)",
}
_CUBE = {
    "c*x^3": "q = Pow(x, three)  k = Mul(c, q)",
    "x^3*c": "q = Pow(x, three)  k = Mul(q, c)",
    "c*(x*(x*x))": "q = Mul(x, x)  r = Mul(x, q)  k = Mul(c, r)",
    "((c*x)*x)*x": "q = Mul(c, x)  r = Mul(q, x)  k = Mul(r, x)",
    "(c*x)*(x*x)": "q = Mul(c, x)  r = Mul(x, x)  k = Mul(q, r)",
    "(c*x)*x^2": "q = Mul(c, x)  r = Pow(x, two)  k = Mul(q, r)",
}
_CONSTANTS = {
    "r2": f32(R2), "inv": f32(1 / R2), "half": f32(0.5), "one": f32(1), "two": f32(2), "three": f32(3),
    "c": f32(C3), "rpi": f32(RPI),
}  # fmt: skip


def nodes(text: str) -> str:
    return "\n".join(part.strip() for part in text.replace(")  ", ")\n").splitlines() if part.strip())


def gelu(
    text: str, constants: Mapping[str, object] = _CONSTANTS, dims: str = "3,8", opset: int = 20
) -> onnx.ModelProto:
    return graph(f"(float[{dims}] x) => (float[{dims}] y)", nodes(text), constants, opset=opset)


@pytest.mark.parametrize("outer", _OUTER)
@pytest.mark.parametrize("plus", ["e, one", "one, e"])
@pytest.mark.parametrize("inner", _INNER)
def test_gelu_by_erf_in_any_order_of_operands(inner: str, plus: str, outer: str) -> None:
    model = gelu(f"{_INNER[inner]}  e = Erf(i)  p = Add({plus})  {_OUTER[outer]}")
    found = normalized(model)
    assert operators(found) == ["Gelu"]
    same(model, found)


@pytest.mark.parametrize(("before", "after"), [(False, False), (False, True), (True, False), (True, True)])
def test_gelu_of_a_file_that_is_judged_as_it_is_has_q_and_dq_at_both_ends_or_at_none(before: bool, after: bool) -> None:
    """What QNN's own fusion takes; one end quantized leaves an Erf that nobody takes."""
    text = "b = QuantizeLinear(x, s, z)  a = DequantizeLinear(b, s, z)" if before else "a = Abs(x)"
    text += "  i = Div(a, r2)  e = Erf(i)  p = Add(e, one)  m = Mul(half, p)  g = Mul(a, m)"
    text += "  q = QuantizeLinear(g, s, z)  y = DequantizeLinear(q, s, z)" if after else "  y = Neg(g)"
    model = gelu(text, {**_CONSTANTS, "s": f32(0.1), "z": np.uint8(7)}, opset=17)
    assert ("Gelu" in operators(normalized(model, as_stored=True))) is (before is after)


@pytest.mark.parametrize(
    ("opset", "text", "fused"),
    [
        (17, "i = Mul(a, inv)", True),
        (17, "i = Mul(inv, a)", False),
        (20, "i = Mul(inv, a)", False),
        # A copy of DQ lies before the steps, or of Q behind them: onnxruntime spreads both over a Reshape.
        (17, "d = DequantizeLinear(b, s, z)  a = Reshape(d, to)  i = Div(a, r2)", False),
        (20, "d = DequantizeLinear(b, s, z)  a = Reshape(d, to)  i = Div(a, r2)", True),
    ],
)
def test_gelu_of_a_file_is_fused_where_onnxruntime_or_the_ep_does(opset: int, text: str, fused: bool) -> None:
    before = "b = QuantizeLinear(x, s, z)  " if "(b," in text else "a = Abs(x)  "
    behind = "  e = Erf(i)  p = Add(e, one)  m = Mul(a, p)  g = Mul(m, half)  "
    behind += (
        "h = Reshape(g, back)  q = QuantizeLinear(h, s, z)  y = DequantizeLinear(q, s, z)"
        if "(b," in text
        else "y = Neg(g)"
    )
    constants = {**_CONSTANTS, "s": f32(0.1), "z": np.uint8(7), "to": np.array([8, 3]), "back": np.array([3, 8])}
    model = gelu(before + text + behind, constants, opset=opset)
    assert ("Gelu" in operators(normalized(model, as_stored=True))) is fused


def test_nothing_else_is_fused_in_a_file_that_is_judged_as_it_is() -> None:
    by_tanh = (
        f"{_CUBE['x^3*c']}  s = Add(x, k)  i = Mul(rpi, s)  e = Tanh(i)  p = Add(one, e)  {next(iter(_OUTER.values()))}"
    )
    for model, operator in ((gelu(by_tanh), "Gelu"), (layer_norm("pow", "div"), "LayerNormalization")):
        assert operators(normalized(model)) == [operator]
        assert operator not in operators(normalized(model, as_stored=True))


@pytest.mark.parametrize(
    ("cube", "outer"), [*zip(_CUBE, itertools.cycle(_OUTER)), *zip(itertools.cycle(_CUBE), _OUTER)]
)
@pytest.mark.parametrize("sides", ["x, k", "k, x"])
def test_gelu_by_tanh_in_any_order_of_operands(sides: str, cube: str, outer: str) -> None:
    model = gelu(f"{_CUBE[cube]}  s = Add({sides})  i = Mul(rpi, s)  e = Tanh(i)  p = Add(one, e)  {_OUTER[outer]}")
    found = normalized(model)
    assert operators(found) == ["Gelu"]
    assert found.graph[0].attributes["approximate"].as_string() == "tanh"
    same(model, found)


@pytest.mark.parametrize(
    "inner",
    [
        # Hugging Face's FastGELU, and JAX: sqrt(2/pi) * x * (1 + 0.044715 * x * x)
        "a = Mul(x, rpi)  q = Mul(x, x)  r = Mul(c, q)  s = Add(one, r)  i = Mul(a, s)",
        "q = Pow(x, two)  r = Mul(q, c)  s = Add(r, one)  b = Mul(x, s)  i = Mul(rpi, b)",
        "q = Mul(c, x)  r = Mul(q, x)  s = Add(r, one)  b = Mul(rpi, s)  i = Mul(x, b)",
    ],
)
def test_gelu_by_tanh_with_the_input_taken_out_of_the_sum(inner: str) -> None:
    model = gelu(f"{inner}  e = Tanh(i)  p = Add(e, one)  m = Mul(half, x)  y = Mul(m, p)")
    found = normalized(model)
    assert operators(found) == ["Gelu"]
    same(model, found)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["r2", "half", "one"]),
    factor=st.floats(0.5, 2).filter(lambda f: abs(f - 1) > 2e-4),
)
def test_gelu_with_another_constant_is_no_gelu(name: str, factor: float) -> None:
    constants = {**_CONSTANTS, name: f32(_CONSTANTS[name] * factor)}
    model = gelu("i = Div(x, r2)  e = Erf(i)  p = Add(e, one)  m = Mul(x, p)  y = Mul(m, half)", constants)
    found = normalized(model)
    assert "Gelu" not in operators(found)
    same(model, found)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["rpi", "half", "one", "three", "c"]),
    factor=st.floats(0.5, 2).filter(lambda f: abs(f - 1) > 2e-4),
)
def test_tanh_gelu_with_another_constant_is_no_gelu(name: str, factor: float) -> None:
    constants = {**_CONSTANTS, name: f32(_CONSTANTS[name] * factor)}
    text = "q = Pow(x, three)  k = Mul(c, q)  s = Add(x, k)  i = Mul(rpi, s)  e = Tanh(i)  p = Add(one, e)"
    found = normalized(gelu(f"{text}  m = Mul(x, p)  y = Mul(m, half)", constants))
    assert "Gelu" not in operators(found)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("i = Div(x, r2)  e = Erf(i)  p = Add(e, one)  m = Mul(z, p)  y = Mul(m, half)", id="another tensor"),
        pytest.param("i = Div(r2, x)  e = Erf(i)  p = Add(e, one)  m = Mul(x, p)  y = Mul(m, half)", id="divided by x"),
        pytest.param("i = Div(x, r2)  e = Erf(i)  p = Sub(e, one)  m = Mul(x, p)  y = Mul(m, half)", id="minus one"),
        pytest.param("i = Div(x, r2)  e = Erf(i)  p = Add(e, one)  m = Mul(x, p)  y = Div(half, m)", id="half over it"),
        pytest.param("i = Div(x, r2)  e = Erf(i)  p = Add(e, one)  m = Mul(p, p)  y = Mul(m, half)", id="squared"),
        pytest.param("i = Div(x, r2)  e = Erf(i)  p = Add(e, e)  m = Mul(x, p)  y = Mul(m, half)", id="twice erf"),
    ],
)  # fmt: skip
def test_what_only_resembles_gelu_is_left_alone(text: str) -> None:
    model = graph("(float[3,8] x, float[3,8] z) => (float[3,8] y)", nodes(text), _CONSTANTS)
    found = normalized(model)
    assert "Gelu" not in operators(found)
    same(model, found)


def test_an_inner_value_that_others_use_is_kept() -> None:
    text = "i = Div(x, r2)  e = Erf(i)  p = Add(e, one)  m = Mul(x, p)  y = Mul(m, half)"
    model = graph("(float[3,8] x) => (float[3,8] y, float[3,8] p)", nodes(text), _CONSTANTS)
    found = normalized(model)
    assert "Gelu" not in operators(found)
    same(model, found)


def test_a_constant_of_higher_rank_would_change_the_shape() -> None:
    constants = {**_CONSTANTS, "half": f32([[[0.5]]])}
    text = "i = Div(x, r2)  e = Erf(i)  p = Add(e, one)  m = Mul(x, p)  y = Mul(m, half)"
    model = graph("(float[3,8] x) => (float[1,3,8] y)", nodes(text), constants)
    same(model, normalized(model))


def test_gelu_is_fused_only_where_the_target_takes_it_and_the_opset_has_it() -> None:
    text = "i = Div(x, r2)  e = Erf(i)  p = Add(e, one)  m = Mul(x, p)  y = Mul(m, half)"
    assert "Gelu" not in operators(normalized(gelu(text), frozenset()))
    assert "Gelu" not in operators(normalized(gelu(text, opset=17), opset=17))
    assert operators(normalized(gelu(text, opset=13))) == ["Gelu"]


def test_the_fused_node_stands_for_the_users_nodes(tmp_path: Path) -> None:
    from planner.model.read import read_model
    from tests.unit.small_models import save

    text = "i = Div(x, r2)  e = Erf(i)  p = Add(e, one)  m = Mul(x, p)  y = Mul(m, half)  w = Relu(y)"
    model = graph("(float[3,8] x) => (float[3,8] w)", nodes(text), _CONSTANTS)
    for node in model.graph.node:
        node.name = f"user/{node.op_type}_{node.output[0]}"
    read = read_model(save(model, tmp_path))
    gelu_node, relu = read.nodes
    assert gelu_node.op_type == "Gelu"
    assert set(gelu_node.origins) == {"user/Div_i", "user/Erf_e", "user/Add_p", "user/Mul_m", "user/Mul_y"}
    assert gelu_node.name in gelu_node.origins
    assert relu.name == "user/Relu_w" and relu.origins == ("user/Relu_w",)


# -- LayerNormalization -------------------------------------------------------------------------------------------------

_EPS = f32(1e-5)
# Name to (mean, variance) of x over `axes`; keepdims in every one.
_VARIANCE = {
    "pow": "u = ReduceMean(x, axes)  d = Sub(x, u)  q = Pow(d, two)  v = ReduceMean(q, axes)",
    "mul": "u = ReduceMean(x, axes)  d = Sub(x, u)  q = Mul(d, d)  v = ReduceMean(q, axes)",
    "flax": (
        "t = ReduceSum(x, axes)  u = Mul(t, invn)  d = Sub(x, u)  q = Mul(x, x)  s = ReduceSum(q, axes)"
        "  ms = Mul(s, invn)  uu = Mul(u, u)  vv = Sub(ms, uu)  v = Max(vv, zero)"
    ),
    "flax, divided": (
        "t = ReduceSum(x, axes)  u = Div(t, n)  d = Sub(x, u)  q = Pow(x, two)  s = ReduceSum(q, axes)"
        "  ms = Div(s, n)  uu = Pow(u, two)  vv = Sub(ms, uu)  v = Relu(vv)"
    ),
    "keras": (
        "u = ReduceMean(x, axes)  d = Sub(x, u)  q = Mul(x, x)  ms = ReduceMean(q, axes)  uu = Mul(u, u)"
        "  v = Sub(ms, uu)"
    ),
}  # fmt: skip
_END = {
    "div": "a = Div(d, r)  b = Mul(a, scale)  y = Add(b, bias)",
    "div, bias first": "a = Div(d, r)  b = Mul(scale, a)  y = Add(bias, b)",
    "reciprocal": "k = Reciprocal(r)  a = Mul(d, k)  b = Mul(a, scale)  y = Add(b, bias)",
    "reciprocal times scale": "k = Reciprocal(r)  a = Mul(k, scale)  b = Mul(d, a)  y = Add(b, bias)",
    "no scale": "y = Div(d, r)",
    "no bias": "a = Div(d, r)  y = Mul(a, scale)",
}


def layer_norm(
    variance: str, end: str, shape: tuple[int, ...] = (2, 3, 8), axes: tuple[int, ...] = (-1,), **other: Any
) -> onnx.ModelProto:
    dims = ",".join(map(str, shape))
    kept = [d if i - len(shape) in axes or i in axes else 1 for i, d in enumerate(shape)]
    n = math.prod(shape[a] for a in axes)
    rng = np.random.default_rng(3)
    constants = {
        "axes": np.array(axes, np.int64), "two": f32(2), "n": f32(n), "invn": f32(1 / n), "zero": f32(0), "eps": _EPS,
        "scale": f32(rng.uniform(0.5, 2, kept)), "bias": f32(rng.normal(size=kept)), **other,
    }  # fmt: skip
    body = nodes(f"{_VARIANCE[variance]}  w = Add(v, eps)  r = Sqrt(w)  {_END[end]}")
    return graph(f"(float[{dims}] x) => (float[{dims}] y)", body, constants)


@pytest.mark.parametrize("end", _END)
@pytest.mark.parametrize("variance", _VARIANCE)
def test_layer_normalization_over_the_last_axis(variance: str, end: str) -> None:
    model = layer_norm(variance, end)
    found = normalized(model)
    assert operators(found) == ["LayerNormalization"]
    same(model, found)


@pytest.mark.parametrize("axes", [(-2, -1), (1,), (1, 2), (0,), (2, 0)])
@pytest.mark.parametrize("variance", _VARIANCE)
def test_layer_normalization_over_other_axes_is_put_between_transposes(variance: str, axes: tuple[int, ...]) -> None:
    model = layer_norm(variance, "div", axes=axes)
    found = normalized(model)
    last = axes == (-2, -1) or axes == (1, 2)
    assert operators(found) == (["LayerNormalization"] if last else ["Transpose", "LayerNormalization", "Transpose"])
    same(model, found)


def test_layer_normalization_of_a_batch_of_unknown_size() -> None:
    model = layer_norm("flax", "div")
    fixed = random_feed(model)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    found = normalized(model)
    assert operators(found) == ["LayerNormalization"]
    assert sqnr(run(model, fixed)[0], run(found, fixed)[0]) > 100


def test_layer_normalization_in_float16_keeps_the_type() -> None:
    body = nodes(f"{_VARIANCE['mul']}  w = Add(v, eps)  r = Sqrt(w)  y = Div(d, r)")
    constants = {"axes": np.array([-1]), "eps": np.float16(1e-3)}
    model = graph("(float16[2,3,8] x) => (float16[2,3,8] y)", body, constants)
    found = normalized(model)
    onnx.checker.check_model(ir.to_proto(found), full_check=True)
    same(model, found, 50)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"n": f32(7), "invn": f32(1 / 7)}, id="divided by another count"),
        pytest.param({"zero": f32(0.5)}, id="clamped above zero"),
        pytest.param({"two": f32(3)}, id="cubed"),
        pytest.param({"two": f32(2.01)}, id="almost squared"),
    ],
)
def test_what_only_resembles_layer_normalization_is_left_alone(change: dict[str, Any]) -> None:
    variance = "pow" if "two" in change else "flax"
    model = layer_norm(variance, "div", **change)
    found = normalized(model)
    assert "LayerNormalization" not in operators(found)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("u = ReduceMean(x, axes)  d = Sub(x, u)  q = Mul(d, d)  v = ReduceMean(q, other)", id="other axes"),
        pytest.param("u = ReduceMean(x, axes)  d = Sub(u, x)  q = Mul(d, d)  v = ReduceMean(q, axes)", id="mean minus x"),
        pytest.param("u = ReduceMean(z, axes)  d = Sub(x, u)  q = Mul(d, d)  v = ReduceMean(q, axes)", id="other mean"),
        pytest.param("u = ReduceMean(x, axes)  d = Sub(x, u)  q = Mul(d, x)  v = ReduceMean(q, axes)", id="no square"),
        pytest.param("u = ReduceMean(x, axes)  d = Sub(x, u)  q = Mul(x, x)  v = ReduceMean(q, axes)", id="not centred"),
        pytest.param("u = ReduceMean(x, axes)  d = Sub(x, u)  q = Mul(d, d)  t = ReduceMean(q, axes)  v = Reshape(t, flat)", id="turned"),
    ],
)  # fmt: skip
def test_a_variance_of_something_else_is_left_alone(text: str) -> None:
    constants = {
        "axes": np.array([-1]), "other": np.array([0]), "flat": np.array([1, 8]), "eps": f32(1e-3),
    }  # fmt: skip
    body = nodes(
        f"{text}  p = Abs(v)  w = Add(p, eps)  r = Sqrt(w)  y = Div(d, r)".replace(
            "  p = Abs(v)  w = Add(p,", "  w = Add(v,"
        )
    )
    model = graph("(float[8,8] x, float[8,8] z) => (float[8,8] y)", body, constants)
    found = normalized(model)
    assert "LayerNormalization" not in operators(found)
    same(model, found)


@pytest.mark.parametrize("shape", [(3, 1), (2, 3, 1), (3, 8)], ids=str)
def test_a_scale_that_varies_along_other_axes_stays_a_multiplication(shape: tuple[int, ...]) -> None:
    model = layer_norm("mul", "no bias", scale=f32(np.random.default_rng(1).normal(size=shape)))
    found = normalized(model)
    assert operators(found) == ["LayerNormalization", "Mul"]
    same(model, found)


# -- Softmax ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize(
    "peak", ["m = ReduceMax(x, axes)", "n = ReduceMax(x, axes)  m = Max(least, n)"], ids=["plain", "as JAX writes it"]
)
def test_softmax_of_exponentials(axis: int, peak: str) -> None:
    body = nodes(f"{peak}  d = Sub(x, m)  e = Exp(d)  s = ReduceSum(e, axes)  y = Div(e, s)")
    constants = {"axes": np.array([axis]), "least": f32(-np.inf)}
    model = graph("(float[2,3,8] x) => (float[2,3,8] y)", body, constants)
    found = normalized(model)
    assert operators(found) == ["Softmax"]
    same(model, found)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("m = ReduceMax(x, axes)  d = Sub(x, m)  e = Exp(d)  s = ReduceSum(e, other)  y = Div(e, s)", id="other axis"),
        pytest.param("m = ReduceMax(x, axes)  d = Sub(m, x)  e = Exp(d)  s = ReduceSum(e, axes)  y = Div(e, s)", id="softmin"),
        pytest.param("m = ReduceMax(x, axes)  d = Sub(x, m)  e = Exp(d)  s = ReduceSum(e, axes)  y = Div(s, e)", id="upside down"),
        pytest.param("m = ReduceMax(x, axes)  d = Sub(x, m)  e = Exp(d)  t = ReduceSum(e, axes)  s = Reshape(t, flat)  y = Div(e, s)", id="turned"),
    ],
)  # fmt: skip
def test_what_only_resembles_softmax_is_left_alone(text: str) -> None:
    constants = {"axes": np.array([1]), "other": np.array([0]), "flat": np.array([1, 8])}
    model = graph("(float[8,8] x) => (float[8,8] y)", nodes(text), constants)
    found = normalized(model)
    assert "Softmax" not in operators(found)
    same(model, found)


@pytest.mark.parametrize("shape", [(2, 10), (2, 3, 10)], ids=str)
def test_softmax_before_opset_13_loses_its_flatten_where_it_is_over_the_last_axis(shape: tuple[int, ...]) -> None:
    dims = ",".join(map(str, shape))
    axis = len(shape) - 1
    model = graph(f"(float[{dims}] x) => (float[{dims}] y)", f"y = Softmax<axis = {axis}>(x)", opset=11)
    found = normalized(model, opset=21)
    assert operators(found) == ["Softmax"]
    same(model, found)


def test_softmax_before_opset_13_over_several_axes_keeps_its_flatten() -> None:
    model = graph("(float[2,3,5] x) => (float[2,3,5] y)", "y = Softmax<axis = 1>(x)", opset=11)
    found = normalized(model, opset=21)
    assert "Softmax" in operators(found) and len(operators(found)) > 1
    same(model, found)


def test_a_softmax_over_the_first_of_the_flattened_axes_is_left_alone() -> None:
    body = nodes("f = Flatten<axis = 2>(x)  s = Softmax<axis = 0>(f)  y = Reshape(s, shape)")
    model = graph("(float[2,3,5] x) => (float[2,3,5] y)", body, {"shape": np.array([2, 3, 5])})
    same(model, normalized(model))


# -- bias of a convolution ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (4, 1, 1), (1, 1, 1, 1), (1,), ()], ids=str)
@pytest.mark.parametrize("old", [False, True], ids=["no bias", "a bias"])
@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_a_constant_added_to_a_convolution_is_its_bias(operator: str, old: bool, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    weight = f32(rng.normal(size=(4, 3, 1, 1) if operator == "Conv" else (3, 4, 1, 1)))
    constants = {"w": weight, "b": f32(rng.normal(size=4)), "c": f32(rng.normal(size=shape))}
    if not old:
        del constants["b"]
    body = f"h = {operator}(x, w{', b' if old else ''})\ny = Add(c, h)"
    model = graph("(float[1,3,5,5] x) => (float[1,4,5,5] y)", body, constants)
    found = normalized(model)
    assert operators(found) == [operator]
    same(model, found)


@pytest.mark.parametrize("shape", [(4,), (1, 1, 4, 1), (1, 4, 4, 4), (2, 4, 1, 1), (1, 1, 4, 1, 1)], ids=str)
def test_a_constant_that_varies_otherwise_is_no_bias(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    constants = {"w": f32(rng.normal(size=(4, 3, 1, 1))), "c": f32(rng.normal(size=shape))}
    out = np.broadcast_shapes((1, 4, 4, 4), shape)
    model = graph(
        f"(float[1,3,4,4] x) => (float[{','.join(map(str, out))}] y)", "h = Conv(x, w)\ny = Add(h, c)", constants
    )
    found = normalized(model)
    assert operators(found) == ["Conv", "Add"]
    same(model, found)


def test_a_convolution_that_others_use_keeps_its_own_bias() -> None:
    constants = {"w": f32(np.ones((4, 3, 1, 1))), "c": f32(np.ones((4, 1, 1)))}
    body = "h = Conv(x, w)\ny = Add(h, c)"
    model = graph("(float[1,3,5,5] x) => (float[1,4,5,5] y, float[1,4,5,5] h)", body, constants)
    found = normalized(model)
    assert operators(found) == ["Conv", "Add"]
    same(model, found)


def test_a_reshape_to_the_same_shape_goes_and_any_other_stays() -> None:
    body = nodes("a = Relu(x)  b = Reshape(a, same)  c = Flatten(b)  d = Reshape(c, turned)  y = Relu(d)")
    constants = {"same": np.array([2, 6]), "turned": np.array([3, 4])}
    model = graph("(float[2,6] x) => (float[3,4] y)", body, constants)
    found = normalized(model)
    assert operators(found) == ["Relu", "Reshape", "Relu"]
    same(model, found)
