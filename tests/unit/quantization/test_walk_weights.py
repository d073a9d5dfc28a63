"""Weight-only and dynamic plans, applied to small graphs and run on the CPU EP: the result is near, the operators are those."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.dtypes import parse_precision
from planner.model.read import Model, read_model
from planner.quantization.walk import apply_plan
from planner.resolve.choose import make_plan, resolve
from planner.resolve.plan import Plan
from planner.resolve.target import Target
from tests.unit.small_models import Array, f32, graph, run, save, sqnr

RNG = np.random.default_rng(0)
FLOORS = {"w4": 15, "w8": 35, "w8a8-dynamic": 28, "w4-fp16": 15, "w8-fp16": 35}
# MatMulInteger runs in integer kernels.
PRECISIONS = [pytest.param(p, marks=[pytest.mark.processor] if p == "w8a8-dynamic" else []) for p in FLOORS]


def planned(model: Model, precision: str) -> Plan:
    target = Target.open("cpu")
    resolution = resolve(target, model, parse_precision(precision))
    assert resolution.legal, [(v.node.name, v.ruling.reason) for v in resolution.violations]
    return make_plan(target, model, resolution)


def applied(proto: onnx.ModelProto, precision: str, folder: Path) -> tuple[Plan, onnx.ModelProto]:
    model = read_model(save(proto, folder))
    plan = planned(model, precision)
    assert not plan.is_quantized, "such a plan needs no calibration"
    made = ir.to_proto(apply_plan(model, plan, {}).model)
    onnx.checker.check_model(made)
    return plan, made


def operators(model: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in model.graph.node]


def near(proto: onnx.ModelProto, made: onnx.ModelProto, feed: dict[str, Array], floor: float) -> None:
    for reference, value in zip(run(proto, feed), run(made, feed), strict=True):
        assert reference.shape == value.shape and reference.dtype == value.dtype
        assert sqnr(reference, value) > floor


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("numbers", [64, 100, 33])
@pytest.mark.parametrize("body", ["y = MatMul(x, w)", "h = MatMul(x, w)\ny = Relu(h)"])
def test_a_matmul_of_any_depth(precision: str, numbers: int, body: str, tmp_path: Path) -> None:
    weight = f32(RNG.normal(size=(numbers, 24)))
    proto = graph(f"(float[2,3,{numbers}] x) => (float[2,3,24] y)", body, {"w": weight})
    plan, made = applied(proto, precision, tmp_path)
    wanted = "MatMulInteger" if "dynamic" in precision else "MatMulNBits"
    assert wanted in operators(made) and plan.nodes[0].replacement is not None
    assert {i.name for i in made.graph.input} == {"x"} and made.graph.output[0].name == "y"
    assert plan.precision == precision
    near(proto, made, {"x": f32(RNG.normal(size=(2, 3, numbers)))}, FLOORS[precision])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", ["", "row", "matrix", "scaled", "input"])
def test_a_gemm_with_its_transposition_factors_and_bias(
    precision: str, transposed: int, bias: str, tmp_path: Path
) -> None:
    shape = (20, 70) if transposed else (70, 20)
    constants = {"w": f32(RNG.normal(size=shape))}
    if bias and bias != "input":
        constants["c"] = f32(RNG.normal(size=(3, 20) if bias == "matrix" else (20,)))
    factors = "alpha = 0.5, beta = 2.0, " if bias == "scaled" else ""
    operand = ", c" if bias else ""
    given_ = ", float[20] c" if bias == "input" else ""
    proto = graph(
        f"(float[3,70] x{given_}) => (float[3,20] y)",
        f"y = Gemm<{factors}transB = {transposed}>(x, w{operand})",
        constants,
    )
    _, made = applied(proto, precision, tmp_path)
    assert "Gemm" not in operators(made)
    feed = {"x": f32(RNG.normal(size=(3, 70)))} | ({"c": f32(RNG.normal(size=20))} if bias == "input" else {})
    near(proto, made, feed, FLOORS[precision])


@pytest.mark.parametrize(
    ("precision", "width"), [("w4", 64), ("w4", 50), ("w8", 33), ("w8a8-dynamic", 64), ("w8-fp16", 64)]
)
def test_a_table_is_gathered_from_its_blocks(precision: str, width: int, tmp_path: Path) -> None:
    constants = {"table": f32(RNG.normal(size=(50, width))), "w": f32(RNG.normal(size=(width, 32)))}
    proto = graph("(int64[2,5] i) => (float[2,5,32] y)", "rows = Gather(table, i)\ny = MatMul(rows, w)", constants)
    _, made = applied(proto, precision, tmp_path)
    assert "GatherBlockQuantized" in operators(made)
    near(proto, made, {"i": RNG.integers(-50, 50, (2, 5))}, FLOORS[precision])


def test_a_row_of_an_odd_number_of_4_bit_numbers_stays_float_and_says_so(tmp_path: Path) -> None:
    constants = {"table": f32(RNG.normal(size=(50, 33))), "w": f32(RNG.normal(size=(33, 32)))}
    proto = graph("(int64[2] i) => (float[2,32] y)", "rows = Gather(table, i)\ny = MatMul(rows, w)", constants)
    plan, made = applied(proto, "w4", tmp_path)
    assert "GatherBlockQuantized" not in operators(made) and "MatMulNBits" in operators(made)
    assert "odd number" in next(n.reason for n in plan.nodes if n.op_type == "Gather")


def test_what_has_no_constant_matrix_stays_float_and_says_so(tmp_path: Path) -> None:
    constants = {
        "w": f32(RNG.normal(size=(64, 64))),
        "stack": f32(RNG.normal(size=(2, 64, 8))),
        "tiny": f32(RNG.normal(size=(8, 8))),
    }
    body = "a = MatMul(x, w)\nb = MatMul(a, stack)\ny = MatMul(b, tiny)"
    proto = graph("(float[2,4,64] x) => (float[2,4,8] y)", body, constants)
    plan, made = applied(proto, "w4", tmp_path)
    assert operators(made).count("MatMulNBits") == 1 and operators(made).count("MatMul") == 2
    reasons = [n.reason for n in plan.nodes]
    assert reasons[1].startswith("left float32: its constant has 3 dimensions")
    assert reasons[2].startswith("left float32: only 8 numbers")
    near(proto, made, {"x": f32(RNG.normal(size=(2, 4, 64)))}, 15)


def test_eight_bits_store_a_convolution_too_one_scale_a_channel(tmp_path: Path) -> None:
    constants = {"k": f32(RNG.normal(size=(8, 4, 3, 3)) * np.logspace(-2, 1, 8)[:, None, None, None])}
    proto = graph("(float[1,4,9,9] x) => (float[1,8,7,7] y)", "y = Conv(x, k)", constants)
    plan, made = applied(proto, "w8", tmp_path)
    assert operators(made) == ["DequantizeLinear", "Conv"] and plan.nodes[0].config.per_channel
    near(proto, made, {"x": f32(RNG.normal(size=(1, 4, 9, 9)))}, 35)


@pytest.mark.parametrize("precision", ["w4", "w8a8-dynamic"])
def test_a_model_all_of_whose_weights_would_stay_float_is_refused(precision: str, tmp_path: Path) -> None:
    proto = graph(
        "(float[1,4,9,9] x) => (float[1,8,7,7] y)", "y = Conv(x, k)", {"k": f32(RNG.normal(size=(8, 4, 3, 3)))}
    )
    model = read_model(save(proto, tmp_path))
    resolution = resolve(Target.open("cpu"), model, parse_precision(precision))
    assert resolution.legal is False and "only the constant matrices" in (resolution.violations[0].ruling.reason or "")


def test_one_value_is_quantized_once_for_all_its_products(tmp_path: Path) -> None:
    constants = {n: f32(RNG.normal(size=(64, 32))) for n in ("q", "k", "v")}
    body = "a = MatMul(x, q)\nb = MatMul(x, k)\nc = MatMul(x, v)\nab = Add(a, b)\ny = Add(ab, c)"
    proto = graph("(float[4,64] x) => (float[4,32] y)", body, constants)
    _, made = applied(proto, "w8a8-dynamic", tmp_path)
    assert operators(made).count("DynamicQuantizeLinear") == 1 and operators(made).count("MatMulInteger") == 3
    near(proto, made, {"x": f32(RNG.normal(size=(4, 64)))}, 28)


def test_a_weight_shared_by_two_nodes_is_stored_once(tmp_path: Path) -> None:
    weight = f32(RNG.normal(size=(64, 64)))
    proto = graph("(float[4,64] x) => (float[4,64] y)", "a = MatMul(x, w)\ny = MatMul(a, w)", {"w": weight})
    _, made = applied(proto, "w8", tmp_path)
    packed = [i for i in made.graph.initializer if list(i.dims) == [64, 2, 32]]
    assert len(packed) == 1 and not any(list(i.dims) == [64, 64] for i in made.graph.initializer)


@pytest.mark.parametrize(("precision", "gain"), [("w4", 0.15), ("w8", -0.1)])
def test_blocks_keep_as_much_as_with_onnxruntimes_own_quantizer(precision: str, gain: float, tmp_path: Path) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    config = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=False, accuracy_level=4, bits=int(precision[1]))
    gains = []
    for seed in range(4):  # of one matrix, the gain is anything between 0 and 0.5 dB
        rng = np.random.default_rng(seed)
        weight, feed = f32(rng.normal(size=(256, 64))), {"x": f32(rng.normal(size=(8, 256)))}
        proto = graph("(float[8,256] x) => (float[8,64] y)", "y = MatMul(x, w)", {"w": weight})
        _, mine = applied(proto, precision, tmp_path)
        quantizer = MatMulNBitsQuantizer(onnx.ModelProto.FromString(proto.SerializeToString()), algo_config=config)
        quantizer.process()
        theirs = quantizer.model.model
        assert operators(theirs) == ["MatMulNBits"]
        expected = run(proto, feed)[0]
        gains.append(sqnr(expected, run(mine, feed)[0]) - sqnr(expected, run(theirs, feed)[0]))
    assert np.mean(gains) > gain


def test_nodes_inside_a_branch_are_replaced_there(tmp_path: Path) -> None:
    body = "y = If(c)<then_branch = g1 () => (float[4,32] t) { t = MatMul(x, w) }, else_branch = g2 () => (float[4,32] e) { e = MatMul(x, v) }>"
    constants = {"w": f32(RNG.normal(size=(64, 32))), "v": f32(RNG.normal(size=(64, 32)))}
    proto = graph("(bool c, float[4,64] x) => (float[4,32] y)", body, constants)
    for precision in ("w4", "w8a8-dynamic"):
        _, made = applied(proto, precision, tmp_path)
        for c in (True, False):
            near(proto, made, {"c": np.array(c), "x": f32(RNG.normal(size=(4, 64)))}, FLOORS[precision])


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_product_comes_out_near(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    precision = data.draw(st.sampled_from(sorted(FLOORS)))
    numbers, columns, rows = (data.draw(st.integers(*bounds)) for bounds in ((32, 80), (16, 24), (2, 4)))
    # float16 has no digits left far below one, and none at all above 65504.
    magnitude = 1.0 if "fp16" in precision else data.draw(st.sampled_from([1e-6, 1.0, 1e4]))
    gemm = data.draw(st.booleans())
    body = "y = Gemm<transB = 1>(x, w)" if gemm else "y = MatMul(x, w)"
    weight = f32(RNG.normal(size=(columns, numbers) if gemm else (numbers, columns)) * magnitude)
    proto = graph(f"(float[{rows},{numbers}] x) => (float[{rows},{columns}] y)", body, {"w": weight})
    _, made = applied(proto, precision, tmp_path_factory.mktemp("m"))
    near(proto, made, {"x": f32(RNG.normal(size=(rows, numbers)))}, FLOORS[precision] - 10)
