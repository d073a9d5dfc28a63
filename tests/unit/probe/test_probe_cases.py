"""Probe cases: deterministic models, readable ids, and the breadth that real models need."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from planner.derive.predict import node_of
from planner.errors import RequestError
from planner.probe.build import NODE, build, inputs_of
from planner.probe.case import Granularity
from planner.probe.cases import INTEGERS, all_cases, case_by_id

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


# What is not asked at an opset that changed an operator, and why.
NOT_ASKED = {
    ("OptionalHasElement", 15): "takes an optional value there, which a case has no input for; a tensor from 18 on",
    ("OptionalGetElement", 15): "takes an optional value there, which a case has no input for; a tensor from 18 on",
}


def history(op: str) -> dict[int, onnx.defs.OpSchema]:
    """Every version of an operator that a model of opset 11 or later may use, by the opset that it came with."""
    every = [s for s in onnx.defs.get_all_schemas_with_history() if (s.name, s.domain) == (op, "")]
    first = max((s.since_version for s in every if s.since_version <= 11), default=0)
    return {s.since_version: s for s in every if s.since_version >= first and not s.deprecated}


def asked_versions() -> dict[str, set[int]]:
    found = defaultdict(set)
    for form in {id(c.form): c.form for c in CASES.values()}.values():
        if not form.domain and onnx.defs.has(form.op):
            found[form.op].add(onnx.defs.get_schema(form.op, form.opset).since_version)
    return found


def signature(schema: onnx.defs.OpSchema) -> tuple[object, ...]:
    """What of an operator's form a model sees: its operands and its attributes with their defaults."""
    return (
        tuple((i.name, str(i.option)) for i in schema.inputs),
        tuple((o.name, str(o.option)) for o in schema.outputs),
        tuple(sorted((n, str(a.type), a.required, str(a.default_value)) for n, a in schema.attributes.items())),
    )


def test_every_version_of_every_probed_operator_from_opset_11_on_is_asked() -> None:
    asked = asked_versions()
    missing = {(op, v) for op in asked for v in history(op) if v not in asked[op]} - {("Upsample", 9)}
    assert missing == set(NOT_ASKED)


def test_every_form_that_differs_in_operands_attributes_or_defaults_is_asked() -> None:
    asked = asked_versions()
    for op in asked:
        forms = defaultdict(set)
        for version, schema in history(op).items():
            forms[signature(schema)].add(version)
        for versions in forms.values():
            assert versions & asked[op] or {(op, v) for v in versions} <= set(NOT_ASKED), (op, versions)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
def test_operators_that_flatten_below_opset_13_are_asked_there_at_every_axis(op: str) -> None:
    assert {f"{op}/float32/opset=11,axis={axis}" for axis in range(4)} <= set(CASES)
    assert "axis" not in CASES[f"{op}/float32/opset=11"].form.attributes  # the default, which is 1 there and -1 since


@pytest.mark.parametrize("op", ["Squeeze", "Unsqueeze", "Split", "ReduceMean", "ReduceSum"])
def test_operands_that_were_attributes_are_asked_as_attributes(op: str) -> None:
    name = "split" if op == "Split" else "axes"
    assert name in CASES[f"{op}/float32/opset=11"].form.attributes
    assert name not in CASES[f"{op}/float32"].form.attributes


def test_every_integer_type_that_onnx_allows_the_data_of_an_operator_is_asked() -> None:
    for form in {c.form.name: c.form for c in CASES.values() if not c.form.condition and not c.form.domain}.values():
        if not onnx.defs.has(form.op) or form.body or any(s is None or s.kind != "activation" for s in form.slots):
            continue
        schema = onnx.defs.get_schema(form.op, form.opset)
        variable = {i.type_str for i in schema.inputs}
        if len(variable) == 1:  # all operands have one type
            types = next(c.allowed_type_strs for c in schema.type_constraints if c.type_param_str in variable)
            for dtype in INTEGERS:
                if f"tensor({dtype})" in types:
                    assert f"{form.op}/exact/{dtype}" in CASES


def test_a_case_may_state_the_shapes_of_its_results() -> None:
    for case, known in (("Reshape/uint8/shape=dynamic,stated", True), ("Reshape/uint8/shape=dynamic", False)):
        assert node_of(case)[0].static_outputs is known


@pytest.mark.parametrize("case", [c for c in CASES if "/float32/shape=dynamic" in c])
def test_a_shape_that_is_fed_is_one_that_the_data_takes(case: str) -> None:
    """Else every EP that runs the case fails, and a rule is made of that."""
    asked = case_by_id(case)
    (result,) = ReferenceEvaluator(build(asked)).run(None, inputs_of(asked))
    assert isinstance(result, np.ndarray)


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
    assert node.stored.per_channel is per_channel


def test_a_blocked_weight_is_told_from_one_per_channel() -> None:
    assert node_of("MatMul/int4-uint16/blocked/large")[0].stored_blocked
    assert not node_of("MatMul/int4-uint16/per-channel/large")[0].stored_blocked


def test_an_unknown_id_is_refused_in_words() -> None:
    with pytest.raises(RequestError, match="no probe case"):
        case_by_id("Conv/nothing")
