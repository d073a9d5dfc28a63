"""New values and nodes get names that the model does not have, and constants with several readers serve each of them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from planner.dtypes import DType, parse_precision
from planner.model.names import Names
from planner.quantization.walk import apply_plan
from planner.resolve.choose import make_plan, resolve
from tests.unit.quantization.test_walk import Sample, observe, plan_of, proto_of, read, session
from tests.unit.small_models import f32, graph, on_any_processor, sqnr

RNG = np.random.default_rng(0)
SAMPLES: list[Sample] = [{"x": f32(RNG.normal(size=(1, 8, 6, 6)))} for _ in range(4)]
INTEGERS = [(DType.INT8, DType.UINT8), (DType.INT8, DType.UINT16)]
MIX = {
    "Conv": (DType.INT8, DType.UINT16),
    "Mul": (None, DType.FLOAT16),
    "Add": (None, DType.UINT8),
    "MatMul": (DType.FLOAT16, DType.FLOAT16),
}
SIGNATURE = "(float[1,8,6,6] x) => (float[1,8,6,6] y)"
KERNEL = f32(RNG.normal(size=(8, 8, 1, 1)) / 3)


def assert_near(proto: onnx.ModelProto, choose: object, floor: float = 25) -> None:
    """The model as planned is valid, has no name twice, and computes nearly the same."""
    model = read(proto)
    plan = plan_of(model, choose)  # type: ignore[arg-type]
    made = proto_of(apply_plan(model, plan, observe(model, SAMPLES)))
    values = [name for node in made.graph.node for name in node.output] + [i.name for i in made.graph.initializer]
    nodes = [node.name for node in made.graph.node]
    assert len(set(values)) == len(values) and len(set(nodes)) == len(nodes)
    before, after = session(proto)(SAMPLES[0]), session(made)(SAMPLES[0])
    assert before.keys() == after.keys()
    assert min(sqnr(before[name], after[name]) for name in before) > floor


@pytest.mark.parametrize("choose", [*INTEGERS, MIX], ids=["w8a8", "w8a16", "mix"])
@pytest.mark.parametrize(
    "made_up",
    ["quantized", "dequantized", "scale", "zero_point", "uint8_scale", "uint16_quantized", "to_float16", "float16", "float"],
)  # fmt: skip
def test_names_that_a_quantizer_would_make_up_may_be_taken(made_up: str, choose: object) -> None:
    """Values and constants of the model carry them: behind the input, a result, a constant, the output."""
    body = (
        f"x_{made_up} = Mul(x, c_{made_up})\nc = Conv(x_{made_up}, w)\nc_{made_up} = Add(c, c_int8_{made_up})\n"
        f"y_{made_up} = Mul(c_{made_up}, c)\ny = Conv(y_{made_up}, w)"
    ).replace(f"Mul(x, c_{made_up})", f"Mul(x, f_{made_up})")
    constants = {"w": KERNEL, f"f_{made_up}": f32(0.5), f"c_int8_{made_up}": f32(RNG.normal(size=(8, 1, 1)))}
    assert_near(graph(SIGNATURE, body, constants), choose, 20)


def test_names_of_nodes_may_be_taken() -> None:
    proto = graph(SIGNATURE, "c = Conv(x, w)\ny = Relu(c)", {"w": KERNEL})
    proto.graph.node[0].name, proto.graph.node[1].name = "x_uint8_QuantizeLinear", "w_int8_DequantizeLinear"
    assert_near(proto, INTEGERS[0])


@pytest.mark.parametrize("choose", [*INTEGERS, MIX], ids=["w8a8", "w8a16", "mix"])
def test_one_bias_may_serve_two_layers(choose: object) -> None:
    """Exporters write equal tensors once. Each layer takes the error of its own weight off the bias that they share."""
    constants = {"v": f32(RNG.normal(size=(6, 6)) / 2), "w": f32(RNG.normal(size=(6, 6)) / 2), "b": f32(np.zeros(6))}
    body = "p = MatMul(x, v)\nq = Add(p, b)\nr = Relu(q)\ns = MatMul(r, w)\ny = Add(s, b)"
    assert_near(graph(SIGNATURE, body, constants), choose)


@pytest.mark.parametrize("choose", [*INTEGERS, MIX], ids=["w8a8", "w8a16", "mix"])
def test_one_constant_may_be_weight_bias_and_operand(choose: object) -> None:
    constants = {
        "w": KERNEL,
        "b": f32(RNG.normal(size=8)),
        "m": f32(RNG.normal(size=(6, 6))),
        "s": np.array([1, 8, 1, 1]),
    }
    body = "c = Conv(x, w, b)\nb4 = Reshape(b, s)\na = Add(c, b4)\nd = MatMul(a, m)\ny = Mul(d, m)"
    assert_near(graph(SIGNATURE, body, constants), choose, 20)


@pytest.mark.usefixtures("exact_sums")
@pytest.mark.parametrize("precision", ["w4", "w8a8-dynamic"])
def test_names_of_replaced_nodes_may_be_taken(precision: str, tmp_path: Path) -> None:
    w = f32(RNG.normal(size=(64, 32)) / 8)
    names = ("h_product", "h_cast", "h_scales", "x_dynamic_scale", "w_int4_packed_scale", "w_uint8_dynamic_quantized")
    body = "\n".join([f"{names[0]} = Relu(x)", *(f"{b} = Abs({a})" for a, b in pairwise(names))])
    body += f"\nh = MatMul(x, w)\nk = MatMul({names[-1]}, w)\ny = Add(h, k)"
    proto = graph("(float[4,64] x) => (float[4,32] y)", body, {"w": w})
    model, target = read(proto, tmp_path), on_any_processor("cpu")
    made = proto_of(apply_plan(model, make_plan(target, model, resolve(target, model, parse_precision(precision))), {}))
    feed = {"x": f32(RNG.normal(size=(4, 64)))}
    assert sqnr(session(proto)(feed)["y"], session(made)(feed)["y"]) > 10


def test_a_name_is_made_up_once() -> None:
    names = Names(ir.from_proto(graph("(float[2] x) => (float[2] y)", "x_2 = Relu(x)\ny = Abs(x_2)")))
    assert [names.value(n) for n in ("x", "x", "z", "z")] == ["x_3", "x_4", "z", "z_2"]
    assert names.node("x") == "x"
