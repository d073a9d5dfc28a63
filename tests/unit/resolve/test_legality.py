"""Legality: a node, a pair and a profile give a ruling with rule, reason and suggestion."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.dtypes import PER_CHANNEL, PER_TENSOR, DType, QuantConfig, parse_precision
from planner.model.node import Node, Operand, signature
from planner.operators import Role
from planner.profiles.schema import FixedParameters, Learned, Profile
from planner.resolve.choose import check_model
from planner.resolve.legality import Ruling, judge
from planner.resolve.target import Target
from tests.unit import small_profiles
from tests.unit.small_models import graph, on_any_processor, save
from tests.unit.small_profiles import SOURCE

F32, F16, U8, I8, U16 = DType.FLOAT32, DType.FLOAT16, DType.UINT8, DType.INT8, DType.UINT16


def operand(name: str, role: Role, shape: tuple[int | None, ...] | None, dtype: str = "float32") -> Operand:
    return Operand(name, role, dtype, shape, role in (Role.WEIGHT, Role.BIAS))


def node(op_type: str = "MatMul", *inputs: Operand, domain: str = "", known: bool = True, **attributes: object) -> Node:
    operands = inputs or (operand("x", Role.ACTIVATION, (2, 4)), operand("w", Role.WEIGHT, (4, 8)))
    return Node(
        "n", op_type, domain, operands, ("y",), ((2, 8),), ("float32",), attributes, ("n",), QuantConfig(F32, F32), known=known
    )  # fmt: skip


@pytest.fixture
def profile(tmp_path: Path) -> Any:
    def build(*statements: dict[str, Any], kernels: dict[str, Any] | None = None, **other: Any) -> Profile:
        devices = {
            "npu": {"title": "x", "class": "npu", "source": SOURCE, "traits": ["half"]},
            "old": {"title": "x", "class": "npu", "source": SOURCE, "traits": ["whole"]},
        }
        (tmp_path / "k.json").write_text(json.dumps({"source": "a table", "kernels": {"ai.onnx": kernels or {}}}))
        return small_profiles.profile(tmp_path, *statements, devices=devices, **other)

    return build


def rule(
    profile: Profile, pair: QuantConfig, *, per_channel: bool = False, of: Node | None = None, device: str = "npu"
) -> Ruling:
    granularity = PER_CHANNEL if per_channel else PER_TENSOR
    return judge(on_any_processor(profile, device), of or node(), replace(pair, granularity=granularity), 21)


W8A8 = {"weight": ["int8", "uint8-per-tensor"], "activation": "uint8"}


def test_the_first_rule_that_allows_the_pair_makes_it_legal(profile: Any) -> None:
    found = profile({"weight": ["int8"], "activation": ["uint16"]}, W8A8)
    assert rule(found, QuantConfig(I8, U8)) == Ruling(True, "r1")
    assert rule(found, QuantConfig(I8, U16)) == Ruling(True, "r0")


def test_a_pair_that_no_rule_allows_is_illegal_and_the_reason_lists_what_is(profile: Any) -> None:
    ruling = rule(profile({**W8A8, "do": "take w8a8"}), QuantConfig(F16, F16))
    assert ruling.legal is False and ruling.rule == "r0" and ruling.suggestion == "take w8a8"
    assert "MatMul does not take float16/float16" in str(ruling.reason)
    assert "int8|uint8-per-tensor/uint8" in str(ruling.reason)


def test_scales_per_channel_are_allowed_by_weight_type(profile: Any) -> None:
    found = profile(W8A8)
    assert rule(found, QuantConfig(I8, U8), per_channel=True).legal
    ruling = rule(found, QuantConfig(U8, U8), per_channel=True)
    assert ruling.legal is False and "per channel" in str(ruling.reason)


def test_a_rule_without_a_weight_speaks_of_float_nodes_and_of_those_that_have_none(profile: Any) -> None:
    found = profile({"activation": ["float16", "uint8"]})
    assert rule(found, QuantConfig(F16, F16)).legal and rule(found, QuantConfig(None, U8)).legal
    assert rule(found, QuantConfig(I8, U8)).legal is False and rule(found, QuantConfig(F32, F16)).legal is False


def test_a_refusal_ends_the_search_for_what_it_refuses(profile: Any) -> None:
    refusal = {"why": "it is slow", "activation": ["uint8"], "do": "take uint16"}
    found = profile(refusal, W8A8, {"activation": "uint16", "weight": "int8"})
    assert rule(found, QuantConfig(I8, U8)) == Ruling(False, "r0", "it is slow", "take uint16")
    assert rule(found, QuantConfig(I8, U16)).legal
    everything = profile({"why": "never"}, W8A8)
    assert rule(everything, QuantConfig(I8, U8)).reason == "never"


def test_where_no_rule_speaks_the_answer_is_unknown(profile: Any) -> None:
    ruling = rule(profile(W8A8), QuantConfig(None, U8), of=node("Gelu"))
    assert ruling.legal is None and "no rule of the profile speaks of Gelu" in str(ruling.reason)


def test_a_rule_may_ask_whether_the_shapes_of_results_are_known(profile: Any) -> None:
    found = profile({"when": {"static_outputs": False}, "why": "no shape"}, W8A8)
    assert rule(found, QuantConfig(I8, U8)).legal
    for unknown in (None, (2, None)):
        assert rule(found, QuantConfig(I8, U8), of=replace(node(), output_shapes=(unknown,))).reason == "no shape"


@pytest.mark.parametrize(
    "when",
    [{"inputs": {"0": {"dtype": ["float64"]}}}, {"min_rank": 3}, {"max_rank": 1}, {"inputs": {"0": {"min_rank": 3}}}],
)
def test_what_is_not_known_of_a_node_refuses_nothing(when: dict[str, Any], profile: Any) -> None:
    found = profile({"when": when, "why": "so it is"}, W8A8)
    blank = Operand("x", Role.ACTIVATION, None, None, False)
    unknown = replace(node("MatMul", blank, operand("w", Role.WEIGHT, (4, 8))), output_shapes=(None,))
    assert rule(found, QuantConfig(I8, U8), of=unknown).legal


def test_a_rule_may_ask_whether_a_tensor_is_empty(profile: Any) -> None:
    found = profile({"when": {"empty": True}, "why": "holds nothing"}, W8A8)
    assert rule(found, QuantConfig(I8, U8)).legal
    assert rule(found, QuantConfig(I8, U8), of=replace(node(), output_shapes=((0, 8),))).reason == "holds nothing"
    none = node("MatMul", operand("x", Role.ACTIVATION, (0, 4)), operand("w", Role.WEIGHT, (4, 8)))
    assert rule(found, QuantConfig(I8, U8), of=none).reason == "holds nothing"


def test_traits_choose_the_rules_of_a_device(profile: Any) -> None:
    found = profile({"activation": ["float16"], "on": "half"}, {**W8A8, "on": "whole"})
    assert rule(found, QuantConfig(F16, F16)).legal and rule(found, QuantConfig(I8, U8)).legal is False
    assert (
        rule(found, QuantConfig(F16, F16), device="old").legal is False
        and rule(found, QuantConfig(I8, U8), device="old").legal
    )


def test_static_shapes_and_rank_are_limits_of_every_node(profile: Any) -> None:
    found = profile(W8A8, limits={"static_shapes": True, "max_rank": 3})
    dynamic = node("MatMul", operand("x", Role.ACTIVATION, (None, 4)), operand("w", Role.WEIGHT, (4, 8)))
    ruling = rule(found, QuantConfig(I8, U8), of=dynamic)
    assert (ruling.legal, ruling.rule) == (False, "static-shapes")
    assert "'x' has a dynamic shape [?, 4]" in str(ruling.reason) and "input shapes" in str(ruling.suggestion)
    none = profile({"why": "no such operator"}, limits={"static_shapes": True})
    assert rule(none, QuantConfig(I8, U8), of=dynamic).reason == "no such operator"  # another shape would not help
    found = profile(W8A8, limits={"static_shapes": True, "max_rank": 3})
    deep = node("MatMul", operand("x", Role.ACTIVATION, (1, 1, 2, 4)), operand("w", Role.WEIGHT, (4, 8)))
    ruling = rule(found, QuantConfig(I8, U8), of=deep)
    assert (ruling.legal, ruling.rule) == (False, "max-rank") and "rank 4 is above the 3" in str(ruling.reason)


def shape_operand(*numbers: int) -> Operand:
    return Operand("s", Role.EXACT, "int64", (len(numbers),), True, numbers=numbers)


_WHENS: list[tuple[dict[str, Any], Node, str]] = [
    ({"weight": True}, node("MatMul", operand("x", Role.ACTIVATION, (2, 4)), operand("z", Role.ACTIVATION, (4, 8))), "not constant"),
    ({"weight": False}, node(), "has a constant weight"),
    ({"min_rank": 3}, node(), "rank 2 is below 3"),
    ({"max_rank": 1}, node(), "rank 2 is above 1"),
    ({"min_opset": 22}, node(), "opset 21 is below 22"),
    ({"max_opset": 20}, node(), "opset 21 is above 20"),
    ({"axis": 0}, node("Softmax", axis=1), "axis=1 is not among 0"),
    ({"to": 10}, node("Cast", operand("x", Role.ACTIVATION, (2, 4)), to=1), "attribute to=float is not among float16"),
    ({"axis": {"not": 1}}, node("Softmax", axis=1), "axis=1"),
    ({"inputs": {"1": {"constant": False}}}, node(), "input 1 is constant"),
    ({"inputs": {"2": {"present": True}}}, node(), "input 2 is missing"),
    ({"inputs": {"1": {"present": False}}}, node(), "input 1 is given"),
    ({"inputs": {"0": {"dtype": ["int32"]}}}, node(), "float32, not int32"),
    ({"inputs": {"0": {"min_rank": 3}}}, node(), "rank 2, below 3"),
    ({"inputs": {"0": {"max_rank": 1}}}, node(), "rank 2, above 1"),
    ({"inputs": {"1": {"holds": -1}}}, node("Reshape", operand("x", Role.ACTIVATION, (2, 4)), shape_operand(8, 1)), "input 1 does not hold -1"),
    ({"min_outputs": 2}, node(), "fewer than 2 outputs"),
    ({"given_out": True}, node(), "none of its results is an output of the model"),
]  # fmt: skip


@pytest.mark.parametrize(("when", "of", "words"), _WHENS, ids=lambda v: json.dumps(v) if isinstance(v, dict) else None)
def test_a_condition_that_is_not_met_is_the_reason(when: dict[str, Any], of: Node, words: str, profile: Any) -> None:
    ruling = rule(profile({**W8A8, "op": of.op_type, "when": when}), QuantConfig(I8, U8), of=of)
    assert ruling.legal is False and words in str(ruling.reason)


def test_an_absent_attribute_counts_as_its_default_of_onnx(profile: Any) -> None:
    found = profile({"op": "Gemm", "when": {"transB": 0}, **W8A8})
    assert rule(found, QuantConfig(I8, U8), of=node("Gemm")).legal
    assert rule(found, QuantConfig(I8, U8), of=node("Gemm", transB=1)).legal is False


def test_fixed_parameters_come_with_the_ruling(profile: Any) -> None:
    fixed = {"uint16": {"scale": 1 / 65536, "zero_point": 0}}
    found = profile({"op": "Sigmoid", "activation": ["uint8", "uint16"], "fixed": fixed})
    sigmoid = node("Sigmoid", operand("x", Role.ACTIVATION, (2,)))
    assert rule(found, QuantConfig(None, U16), of=sigmoid).fixed == FixedParameters(1 / 65536, 0)
    assert rule(found, QuantConfig(None, U8), of=sigmoid).fixed is None


# -- kernel tables ------------------------------------------------------------------------------------------------------

_KERNELS = {
    "MatMul": [{"opset": "13+", "types": {"T": ["float", "float16"]}}],
    "Erf": [{"opset": "13+", "types": {"T": ["float"]}}],
    "QuantizeLinear": [{"opset": "21+", "types": {"T2": ["int8", "uint8"]}}],
    "DequantizeLinear": [{"opset": "21+", "types": {"T1": ["int8", "uint8", "int32"]}}],
}


@pytest.mark.parametrize(
    ("op_type", "pair", "legal", "words"),
    [
        ("MatMul", QuantConfig(F16, F16), True, ""),
        ("MatMul", QuantConfig(I8, U8), True, ""),
        ("MatMul", QuantConfig(U8, U16), False, "QuantizeLinear has no uint16 kernel, only int8, uint8"),
        ("MatMul", QuantConfig(DType.INT4, U8), False, "DequantizeLinear has no int4 kernel"),
        ("Erf", QuantConfig(None, F16), False, "Erf has no float16 kernel"),
        ("Erf", QuantConfig(None, F32), True, ""),
        ("Relu", QuantConfig(None, F32), False, "Relu has no kernel"),
    ],
)
def test_a_kernel_table_decides_by_type(op_type: str, pair: QuantConfig, legal: bool, words: str, profile: Any) -> None:
    found = profile({"op": "*", "kernels": "k.json"}, kernels=_KERNELS)
    of = node(op_type) if pair.weight else node(op_type, operand("x", Role.ACTIVATION, (2,)))
    ruling = rule(found, pair, of=of)
    assert ruling.legal is legal and words in str(ruling.reason)
    assert legal or "a table" in str(ruling.reason), "the reason says where the table comes from"


def test_a_missing_float16_kernel_is_cast_around_where_the_runtime_does_so(profile: Any) -> None:
    found = profile({"op": "*", "kernels": "k.json", "cast_float16": True}, kernels=_KERNELS)
    assert rule(found, QuantConfig(None, F16), of=node("Erf", operand("x", Role.ACTIVATION, (2,)))).legal


def test_an_operator_that_nobody_defines_is_refused_with_what_to_do(profile: Any) -> None:
    found = profile({"op": "*", "kernels": "k.json"}, kernels=_KERNELS)
    ruling = rule(found, QuantConfig(None, F32), of=node("Frobnicate", domain="acme", known=False))
    assert ruling.legal is False and "acme:Frobnicate is defined neither" in str(ruling.reason) and ruling.suggestion


def test_what_a_device_takes_decides_what_is_fused(profile: Any) -> None:
    found = profile({"op": "Gelu", "on": "half"}, {"op": "Erf", "why": "no"}, {"op": "MatMul", "kernels": "k.json"}, kernels=_KERNELS)  # fmt: skip
    assert Target.on(found, "npu").takes("Gelu", 21) and not Target.on(found, "old").takes("Gelu", 21)
    assert not Target.on(found, "npu").takes("Erf", 21) and Target.on(found, "npu").takes("MatMul", 21)


@pytest.mark.parametrize(
    ("statements", "taken_at", "not_at"),
    [
        ([{"when": {"max_opset": 18}, "activation": "uint8"}], [13, 18], [19]),
        ([{"when": {"min_opset": 20}, "activation": "uint8"}], [20], [19]),
        ([{"when": {"min_opset": 22}, "why": "no kernel"}, {"activation": "uint8"}], [21], [22, 23]),
        ([{"when": {"min_opset": 22}, "why": "no kernel", "activation": "uint16"}, {"activation": "uint8"}], [22], []),
        ([{"when": {"min_opset": 22, "min_rank": 5}, "why": "no kernel"}, {"activation": "uint8"}], [22], []),
        ([{"when": {"max_opset": 12}, "activation": "int8"}, {"activation": "uint8"}], [12, 13], []),
        ([{"why": "never"}, {"op": "*", "activation": "uint8"}], [], [13, 21]),
    ],
)
def test_an_operator_is_taken_at_the_opsets_that_the_rules_speak_of(
    statements: list[dict[str, Any]], taken_at: list[int], not_at: list[int], profile: Any
) -> None:
    target = Target.on(profile(*statements), "npu")
    assert [opset for opset in (*taken_at, *not_at) if target.takes("MatMul", opset)] == taken_at


@settings(deadline=None)
@given(
    weight=st.sampled_from([None, *DType]),
    activation=st.sampled_from(list(DType)),
    per_channel=st.booleans(),
    ep=st.sampled_from(["cpu", "directml", "qnn"]),
    op_type=st.sampled_from(["MatMul", "Conv", "Relu", "Gelu", "Frobnicate", "LSTM"]),
)
def test_every_ruling_of_the_shipped_profiles_is_whole(
    weight: DType | None, activation: DType, per_channel: bool, ep: str, op_type: str
) -> None:
    from planner.profiles.load import load_profiles

    found = load_profiles().find(ep)
    inputs = (operand("x", Role.ACTIVATION, (1, 4, 8)),) + (
        (operand("w", Role.WEIGHT, (4, 4, 1)),) if weight is not None else ()
    )
    for device in found.devices:
        config = QuantConfig(weight, activation, PER_CHANNEL if per_channel else PER_TENSOR)
        ruling = judge(on_any_processor(found, device), node(op_type, *inputs), config, 21)
        assert (ruling.reason is None) is bool(ruling.legal)
        assert ruling.legal is None or ruling.rule


def test_an_operator_without_a_kernel_is_served_by_the_kernels_of_its_definition(profile: Any) -> None:
    kernels = {
        "ReduceSum": [{"opset": "13+", "types": {"T": ["float"]}}],
        "Log": [{"opset": "13+", "types": {"T": ["float"]}}],
    }
    found = profile({"op": "*", "kernels": "k.json"}, kernels=kernels)
    x = operand("x", Role.ACTIVATION, (2, 4))
    assert judge(Target.on(found, "npu"), node("ReduceLogSum", x), QuantConfig(None, F32), 21).legal is True
    del kernels["Log"]
    found = profile({"op": "*", "kernels": "k.json"}, kernels=kernels)
    ruling = judge(Target.on(found, "npu"), node("ReduceLogSum", x), QuantConfig(None, F32), 21)
    assert ruling.legal is False and "nor has Log, which defines it" in str(ruling.reason)


def test_a_definition_that_depends_on_the_node_is_the_nodes_own(profile: Any) -> None:
    loss = node("NegativeLogLikelihoodLoss", operand("x", Role.ACTIVATION, (2, 4)))
    found = profile({"op": "*", "kernels": "k.json"}, kernels={"Neg": [{"opset": "13+", "types": {"T": ["float"]}}]})
    assert (
        judge(Target.on(found, "npu"), replace(loss, expansion=("Neg", "Constant")), QuantConfig(None, F32), 21).legal
        is True
    )
    assert (
        judge(Target.on(found, "npu"), replace(loss, expansion=("Neg", "Where")), QuantConfig(None, F32), 21).legal
        is False
    )


def test_the_type_that_a_node_gives_needs_a_kernel_too(profile: Any) -> None:
    kernels = {"Cast": [{"opset": "19-30", "types": {"T1": ["float"], "T2": ["int8"]}}]}
    found = profile({"op": "*", "kernels": "k.json"}, kernels=kernels)
    cast = node("Cast", operand("x", Role.EXACT, (2, 4)))
    assert (
        judge(Target.on(found, "npu"), replace(cast, output_dtypes=("int8",)), QuantConfig(None, None), 21).legal
        is True
    )
    ruling = judge(Target.on(found, "npu"), replace(cast, output_dtypes=("int4",)), QuantConfig(None, None), 21)
    assert ruling.legal is False and "gives int4" in str(ruling.reason)


def test_what_the_ep_was_seen_to_do_stands_above_the_rules(profile: Any) -> None:
    found = profile({"weight": ["int8"], "activation": ["uint8"]})
    pair = QuantConfig(I8, U8)
    key = ("npu", signature(node(), pair))
    seen = replace(found, learned={key: Learned(False, "no room", "a file")})
    ruling = rule(seen, pair)
    assert (ruling.legal, ruling.rule) == (False, "learned") and "no room" in str(ruling.reason)
    assert rule(seen, pair, device="old").legal is True
    agreeing = replace(found, learned={key: Learned(True, None, "a file")})
    assert rule(agreeing, pair).rule == "r0"


def test_an_if_whose_branches_read_outer_weights_can_be_told_apart(profile: Any) -> None:
    found = profile({"op": "If", "when": {"captures_constants": True}, "why": "no"}, {"op": "If"})
    branch = node("If", operand("c", Role.EXACT, (), "bool"))
    assert judge(Target.on(found, "npu"), branch, QuantConfig(None, None), 21).legal is True
    assert (
        judge(Target.on(found, "npu"), replace(branch, captures_constants=True), QuantConfig(None, None), 21).legal
        is False
    )


def test_a_bound_on_an_attribute(profile: Any) -> None:
    found = profile(
        {"op": "Conv", "when": {"dilations": {"above": 2048}}, "why": "too wide"},
        {"op": "Conv", "activation": ["float32"]},
    )
    wide, narrow = node("Conv", dilations=(1, 4096)), node("Conv", dilations=(2048,))
    assert rule(found, QuantConfig(F32, F32), of=wide).legal is False
    assert rule(found, QuantConfig(F32, F32), of=narrow).legal is True
    assert rule(found, QuantConfig(F32, F32), of=node("Conv")).legal is True


def test_a_float_operand_is_judged_in_the_type_that_it_will_be_written_in(profile: Any) -> None:
    exponent = {"inputs": {"1": {"dtype": ["float32"]}}}
    found = profile(
        {"when": exponent, "activation": "float16", "why": "the exponent must have the type of the base"},
        {"activation": ["float16", "float32"]},
    )
    power = node("MatMul", operand("x", Role.ACTIVATION, (2, 4)), operand("e", Role.ACTIVATION, ()))
    assert rule(found, QuantConfig(None, F16), of=power).legal
    index = node("MatMul", operand("x", Role.ACTIVATION, (2, 4)), operand("e", Role.EXACT, ()))
    assert not rule(found, QuantConfig(None, F16), of=index).legal
    stored = replace(power, stored=QuantConfig(None, F16))
    assert not rule(found, QuantConfig(None, F16), of=stored).legal  # as it is, it stays as it is


def test_a_type_that_onnx_does_not_define_the_operator_for_is_no_kernels_matter(tmp_path: Path) -> None:
    """Celu is defined for float32 alone: no runtime loads one of float16, casts or not."""
    path = save(graph("(float[2,4] x) => (float[2,4] y)", "y = Celu(x)"), tmp_path)
    target = Target.open("cpu")
    model = target.read(path)
    found = check_model(target, model, parse_precision("fp16"))
    assert found.legal is False
    assert "not defined for float16 (ONNX" in (found.violations[0].ruling.reason or "")
    assert check_model(target, model, parse_precision("fp32")).legal


@pytest.mark.parametrize("ep", ["cpu", "qnn", "directml"])
def test_a_model_that_stays_below_the_opset_of_quantizelinear_is_not_quantized(ep: str) -> None:
    """Scan of opset 8 cannot be raised, and no file at opset 8 can hold a QuantizeLinear."""
    target = Target.open(ep)
    quantized = QuantConfig(None, U8)
    ruling = judge(target, node("Relu", operand("x", Role.ACTIVATION, (2, 4))), quantized, 8)
    assert ruling.legal is False and ruling.rule == "opset" and ruling.suggestion
    assert judge(target, node("Relu", operand("x", Role.ACTIVATION, (2, 4))), quantized, 13).rule != "opset"


@pytest.mark.parametrize(("body", "legal"), [("y = GatherElements(d, i)", True), ("y = Cast<to = 7>(n)", False)])
def test_int64_within_a_graph_is_taken_where_one_that_it_gives_out_is_not(
    body: str, legal: bool, tmp_path: Path
) -> None:
    kind = "float" if legal else "int64"
    proto = graph(f"(float[4] x, float[9] d) => ({kind}[4] y)", f"n = Abs(x)\ni = Cast<to = 7>(n)\n{body}")
    target = Target.open("qnn")
    assert check_model(target, target.read(save(proto, tmp_path), stored=True), None, stored=True).legal is legal
