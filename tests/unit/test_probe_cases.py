"""Probe cases: deterministic models, readable ids, and the breadth that real models need."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
import pytest

from planner.errors import RequestError
from planner.probe.cases import NODE, Granularity, all_cases, build, case_by_id, inputs_of
from planner.probe.predict import node_of

CASES = all_cases()
SAMPLE = list(CASES)[::101]


def test_at_least_120_operators_are_probed() -> None:
    assert len({c.form.name for c in CASES.values()}) >= 120


def test_a_base_form_has_the_whole_matrix_of_pairs() -> None:
    pairs = {c.pair for c in CASES.values() if c.form.op == "Conv" and not c.form.condition}
    for activation in ("uint8", "int8", "uint16", "int16"):
        for weight in ("uint8", "int8", "uint16", "int16", "uint4", "int4"):
            assert f"{weight}-{activation}" in pairs
    assert {"float32", "float16"} <= pairs


def test_all_granularities_are_probed() -> None:
    assert {c.granularity for c in CASES.values() if c.form.op == "MatMul"} == set(Granularity)


def test_operators_whose_axes_became_an_input_are_probed_in_both_forms() -> None:
    opsets = defaultdict(set)
    for case in CASES.values():
        if not case.form.domain and onnx.defs.has(case.form.op):
            opsets[case.form.name].add(onnx.defs.get_schema(case.form.op, case.form.opset).since_version)
    # From 13 on the axes are an input; 21 only added element types.
    assert min(opsets["Squeeze"]) == 11 and max(opsets["Squeeze"]) >= 13
    assert {11, 13, 18} <= opsets["ReduceMean"]


@pytest.mark.parametrize("case", SAMPLE)
def test_a_case_is_rebuilt_bit_for_bit_from_its_id(case: str) -> None:
    first = build(case_by_id(case)).SerializeToString(deterministic=True)
    second = build(case_by_id(case)).SerializeToString(deterministic=True)
    assert first == second
    one, two = inputs_of(case_by_id(case)), inputs_of(case_by_id(case))
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("case", [c for c in SAMPLE if not c.startswith(("com.", "Simplified", "GroupNormalization"))])
def test_a_case_is_a_valid_model(case: str) -> None:
    # A case leaves the shape of its output to inference: that is what is asked of the EP as well.
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(build(case_by_id(case)), strict_mode=True))


@pytest.mark.parametrize(
    ("case", "weight", "activation", "per_channel"),
    [
        ("Conv/float32", "float32", "float32", False),
        ("Conv/float16", "float16", "float16", False),
        ("Conv/int8-uint16/per-channel", "int8", "uint16", True),
        ("Gemm/uint4-uint8", "uint4", "uint8", False),
        ("MatMul/int8-float32/per-channel", "int8", "float32", True),
        ("MatMul/uint16/dynamic", None, "uint16", False),
        ("Relu/int8", None, "int8", False),
        ("Equal/uint8", None, None, False),
    ],
)
def test_planner_reads_from_the_model_the_pair_that_the_id_says(
    case: str, weight: str | None, activation: str | None, per_channel: bool
) -> None:
    node, _ = node_of(case)
    assert node.name == NODE
    assert (node.stored.weight, node.stored.activation) == (weight, activation)
    assert node.stored_per_channel is per_channel


def test_a_blocked_weight_is_told_from_one_per_channel() -> None:
    assert node_of("MatMul/int4-uint16/blocked/large")[0].stored_blocked
    assert not node_of("MatMul/int4-uint16/per-channel/large")[0].stored_blocked


def test_an_unknown_id_is_refused_in_words() -> None:
    with pytest.raises(RequestError, match="no probe case"):
        case_by_id("Conv/nothing")
