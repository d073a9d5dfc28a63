"""Resolving: every node gets its pair, or a violation with the rule, the reason and a suggestion. Pure."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from planner.codec import to_json
from planner.dtypes import PER_CHANNEL, DType, QuantConfig, parse_precision, precision_by_name
from planner.model.read import Model, read_model
from planner.resolve.choose import judge_stored, make_plan, resolve, resolve_auto, with_fallback
from planner.resolve.target import Target
from planner.resolve.verdicts import Violation
from tests.unit import small_profiles
from tests.unit.small_models import f32, graph, save

WEIGHT = f32(np.random.default_rng(0).normal(size=(4, 8)))


def target(folder: Path, *statements: Any, prefer: tuple[str, ...] = ("w8a8", "fp16")) -> Target:
    return Target.on(small_profiles.profile(folder, *statements, prefer=prefer), "npu")


@pytest.fixture
def model(tmp_path: Path) -> Model:
    body = "h = MatMul(x, w)\nr = Relu(h)\ny = Softmax(r)\ni = ArgMax(r)"
    return read_model(save(graph("(float[2,4] x) => (float[2,8] y, int64[1,8] i)", body, {"w": WEIGHT}), tmp_path))


WEIGHTS8 = {"op": "*", "weight": ["int8", "uint8-per-tensor"], "activation": "uint8"}
PLAIN8 = {"op": "*", "activation": "uint8"}
ANY8 = (WEIGHTS8, PLAIN8)
EXACT = {"op": "ArgMax"}


def pairs(resolution: Any) -> dict[str, str]:
    return {v.node.op_type: str(v.config) for v in resolution.verdicts}


def test_every_node_gets_its_pair_and_index_arithmetic_is_left_alone(model: Model, tmp_path: Path) -> None:
    resolution = resolve(target(tmp_path, EXACT, *ANY8), model, parse_precision("w8a8"))
    found = pairs(resolution)
    assert found["MatMul"] == "int8/uint8 per channel" and found["Relu"] == found["Softmax"] == "uint8"
    assert found["ArgMax"] == "as is"


def test_per_tensor_where_the_profile_has_no_channels_and_then_unsigned_first(model: Model, tmp_path: Path) -> None:
    weights = {**WEIGHTS8, "weight": ["int8-per-tensor", "uint8-per-tensor"]}
    assert pairs(resolve(target(tmp_path, weights, PLAIN8), model, parse_precision("w8a8")))["MatMul"] == "uint8/uint8"


def test_a_precision_by_name_is_taken_by_the_letter(model: Model, tmp_path: Path) -> None:
    found = resolve(target(tmp_path, *ANY8), model, precision_by_name(DType.UINT8, DType.UINT8))
    assert pairs(found)["MatMul"] == "uint8/uint8"
    found = resolve(target(tmp_path, *ANY8), model, precision_by_name(DType.INT8, DType.INT8))
    assert found.legal is False and {str(v.config) for v in found.violations} >= {"int8/int8 per channel", "int8"}


def test_a_mix_gives_nodes_with_weights_one_precision_and_the_others_another(model: Model, tmp_path: Path) -> None:
    floats = {"op": "*", "activation": ["float16"]}
    resolution = resolve(target(tmp_path, *ANY8, floats), model, parse_precision("w8a8+fp16"))
    assert pairs(resolution)["MatMul"] == "int8/uint8 per channel" and pairs(resolution)["Softmax"] == "float16"
    plan = make_plan(target(tmp_path, *ANY8, floats), model, resolution)
    assert plan.precision == "mixed"


def test_a_violation_has_rule_reason_and_suggestion(model: Model, tmp_path: Path) -> None:
    refusal = {"op": "Softmax", "why": "it has no Softmax", "do": "use Sigmoid"}
    resolution = resolve(target(tmp_path, refusal, *ANY8), model, parse_precision("w8a8"))
    (violation,) = resolution.violations
    assert resolution.legal is False
    assert to_json(Violation.of(violation)) == {
        "node": violation.node.name, "op_type": "Softmax", "weight": None, "activation": "uint8",
        "rule": "r0", "reason": "it has no Softmax", "suggestion": "use Sigmoid",
    }  # fmt: skip


def test_what_no_rule_speaks_of_is_unknown_unless_something_is_illegal(model: Model, tmp_path: Path) -> None:
    some = [{**statement, "op": "MatMul, Relu, ArgMax"} for statement in ANY8]
    assert resolve(target(tmp_path, *some), model, parse_precision("w8a8")).legal is None
    assert resolve(target(tmp_path, *some), model, parse_precision("fp16")).legal is False


# -- auto ---------------------------------------------------------------------------------------------------------------


def test_auto_follows_the_profiles_order_and_skips_what_is_illegal(model: Model, tmp_path: Path) -> None:
    floats = {"op": "*", "activation": ["float16"]}
    both = target(tmp_path, *ANY8, floats, prefer=("w8a16", "fp16", "w8a8"))
    assert [r.precision for r in resolve_auto(both, model)] == ["fp16", "w8a8"]


def test_auto_lets_single_nodes_fall_back_where_no_precision_serves_all(model: Model, tmp_path: Path) -> None:
    rules = (
        {"op": "Softmax", "activation": ["float16"]},
        *({**statement, "op": "MatMul, Relu, ArgMax"} for statement in ANY8),
    )
    (resolution,) = resolve_auto(target(tmp_path, *rules), model)
    assert resolution.legal and pairs(resolution)["Softmax"] == "float16" and pairs(resolution)["Relu"] == "uint8"


def test_auto_leaves_single_nodes_float32_as_a_last_resort(model: Model, tmp_path: Path) -> None:
    rules = (
        {"op": "Softmax", "activation": ["float32"]},
        *({**statement, "op": "MatMul, Relu, ArgMax"} for statement in ANY8),
    )
    (resolution,) = resolve_auto(target(tmp_path, *rules), model)
    assert resolution.legal and pairs(resolution)["Softmax"] == "float32" and pairs(resolution)["Relu"] == "uint8"
    (alone,) = resolve_auto(target(tmp_path, {"op": "*", "activation": ["float32"]}), model)
    assert alone.legal and alone.precision == "fp32"


def test_auto_ends_with_the_first_failure_where_nothing_serves(model: Model, tmp_path: Path) -> None:
    (resolution,) = resolve_auto(target(tmp_path, {"op": "*", "why": "no"}), model)
    assert resolution.legal is False and resolution.precision == "w8a8"


def test_a_requested_precision_never_becomes_another(model: Model, tmp_path: Path) -> None:
    """Only auto may choose: a node that cannot take what was asked for is a violation."""
    floats = {"op": "*", "activation": ["float16"]}
    assert resolve(target(tmp_path, floats), model, parse_precision("w8a8")).legal is False


# -- the model as it is -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("exact_sums")
def test_a_float_model_as_it_is(model: Model) -> None:
    resolution = judge_stored(Target.open("cpu"), model)
    assert resolution.legal and resolution.precision == "as stored" and pairs(resolution)["MatMul"] == "float32/float32"


def test_a_quantized_model_as_it_is(tmp_path: Path) -> None:
    body = (
        "q = QuantizeLinear(x, s, z)\nd = DequantizeLinear(q, s, z)\nv = DequantizeLinear(w, s)\n"
        "h = MatMul(d, v)\np = QuantizeLinear(h, s, z)\ny = DequantizeLinear(p, s, z)"
    )
    constants = {"s": f32(0.1), "z": np.uint16(7), "w": np.ones((4, 8), np.int8)}
    proto = graph("(float[2,4] x) => (float[2,8] y)", body, constants, opset=21)
    quantized = read_model(save(proto, tmp_path))
    assert judge_stored(Target.open("qnn", "snapdragon-x-elite"), quantized).legal
    resolution = judge_stored(Target.open("directml", "gpu"), quantized)
    assert resolution.legal is False and "no uint16 kernel" in str(resolution.violations[0].ruling.reason)


# -- what is asked for --------------------------------------------------------------------------------------------------


def test_a_plan_says_why_for_every_node_and_names_model_and_profile(model: Model, tmp_path: Path) -> None:
    rules = target(tmp_path, *ANY8)
    plan = make_plan(rules, model, resolve(rules, model, parse_precision("w8a8")))
    assert [n.name for n in plan.nodes] == [n.name for n in model.nodes]
    assert all(n.reason and n.origins for n in plan.nodes)
    assert plan.model.sha256 == model.sha256 and plan.profile.sha256 == rules.profile.sha256 and plan.is_quantized
    assert QuantConfig(DType.INT8, DType.UINT8, PER_CHANNEL) in {n.config for n in plan.nodes}


def test_resolving_a_thousand_nodes_takes_little(tmp_path: Path) -> None:
    body = "\n".join(f"h{i + 1} = MatMul(h{i}, w)" if i % 2 else f"h{i + 1} = Relu(h{i})" for i in range(1000))
    proto = graph("(float[4,4] h0) => (float[4,4] h1000)", body, {"w": f32(np.eye(4))})
    long = read_model(save(proto, tmp_path))
    qnn = Target.open("qnn", "snapdragon-x-elite")
    started = time.process_time()
    assert resolve(qnn, long, parse_precision("w8a16")).legal
    assert time.process_time() - started < 1.0


def test_what_the_runtime_computes_while_it_loads_is_no_question_to_the_ep(tmp_path: Path) -> None:
    body = "z = ConstantOfShape(s)\nr = RandomNormalLike(z)\na = Add(x, z)\ny = Add(a, r)"
    made = graph("(float[512,1024] x) => (float[512,1024] y)", body, {"s": np.array([512, 1024])})
    add = {"op": "Add", "activation": ["float32"]}
    refuse = {"op": "ConstantOfShape, RandomNormalLike", "why": "no such operator"}
    verdicts = judge_stored(target(tmp_path, refuse, add), read_model(save(made, tmp_path))).verdicts
    legal = {v.node.op_type: (v.ruling.legal, v.ruling.rule) for v in verdicts}
    assert legal["ConstantOfShape"] == (True, "constant-folding")
    assert legal["RandomNormalLike"] == (False, "r0")


def test_the_body_of_a_loop_that_is_refused_goes_with_it_at_every_precision(tmp_path: Path) -> None:
    body = "g (int64 i, bool c, float[2,4] x) => (bool d, float[2,8] y) { d = Identity(c)\n y = MatMul(x, w) }"
    made = graph("(float[2,4] a, int64 n, bool t) => (float[2,4] b)", "h = Relu(a)\nb = Identity(h)", {"w": WEIGHT})
    inner = onnx.parser.parse_graph(body)
    made.graph.node.append(onnx.helper.make_node("Loop", ["n", "t", "h"], ["last"], name="loop", body=inner))
    made.graph.output.append(onnx.helper.make_tensor_value_info("last", onnx.TensorProto.FLOAT, [2, 8]))
    loop = read_model(save(made, tmp_path))
    refuse = {"op": "Loop", "why": "no such operator"}
    follows = Target.on(
        small_profiles.profile(tmp_path, refuse, EXACT, *ANY8, prefer=["w8a8"], limits={"bodies_follow": True}), "npu"
    )
    asked = resolve(follows, loop, parse_precision("w8a8"))
    inside = {v.node.op_type: v.ruling.rule for v in asked.violations if v.node.scope}
    assert inside == {"MatMul": "bodies-follow", "Identity": "bodies-follow"}
    assert {v.node.op_type for v in judge_stored(follows, loop).violations} >= {"Loop", "MatMul", "Identity"}
    left = with_fallback(asked)
    assert pairs(left)["MatMul"] == "float32/float32" and pairs(left)["Relu"] == "uint8"


def test_a_weight_between_floats_has_one_scale_where_several_would_stay_elsewhere(model: Model, tmp_path: Path) -> None:
    rules: list[Any] = [
        EXACT,
        {"op": "*", "weight": ["int8", "uint8"], "activation": "float32"},
        {"op": "*", "activation": "float32"},
    ]
    anywhere = Target.on(small_profiles.profile(tmp_path, *rules, prefer=["fp32"]), "npu")
    assert pairs(resolve(anywhere, model, parse_precision("w8")))["MatMul"] == "int8/float32 per channel"
    devices = {"npu": {"title": "x", "class": "npu", "traits": ["old"], "source": {"observed": "a test"}}}
    limits = {"one_scale_to_float": ["old"]}
    one = Target.on(small_profiles.profile(tmp_path, *rules, prefer=["fp32"], limits=limits, devices=devices), "npu")
    assert pairs(resolve(one, model, parse_precision("w8")))["MatMul"] in ("int8/float32", "uint8/float32")


@pytest.mark.parametrize(
    ("scales", "bias", "words"), [(4, "f", "of several scales"), (1, "d", "of int32"), (1, "f", "")]
)
def test_what_a_node_in_float_reads_is_dequantized_by_itself(
    scales: int, bias: str, words: str, tmp_path: Path
) -> None:
    # TensorRT's tools quantize operands alone: no Q stands behind this Conv.
    constants = {
        "s": f32(0.1), "z": np.uint8(7), "w": np.ones((4, 3, 1, 1), np.int8), "b": np.ones(4, np.int32), "f": f32(np.ones(4)),
        "ws": f32(np.full(4, 0.5)) if scales > 1 else f32(0.5),
    }  # fmt: skip
    body = (
        "q = QuantizeLinear(x, s, z)\nc = DequantizeLinear(q, s, z)\nv = DequantizeLinear<axis = 0>(w, ws)\n"
        f"d = DequantizeLinear(b, s)\nh = Conv(c, v, {bias})\ny = Relu(h)"
    )
    proto = graph("(float[1,3,4,4] x) => (float[1,4,4,4] y)", body, constants, opset=21)
    target = Target.open("qnn")
    found = judge_stored(target, target.read(save(proto, tmp_path), stored=True))
    assert [words in str(v.ruling.reason) for v in found.violations] == ([True] if words else [])
