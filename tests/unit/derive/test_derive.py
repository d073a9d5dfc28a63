"""Derived rules: names that can be read, conditions that say something, nothing said twice."""

from __future__ import annotations

import re

import pytest

from planner.derive.prune import superfluous
from planner.derive.rules import _condition_of, _named, _opsets, _pair_kinds, _pair_rules, _refused_pairs
from planner.probe.evidence import stored
from planner.probe.forms import Form
from planner.profiles.load import load_profiles

PROFILES = load_profiles()
DERIVED = re.compile(r"(no|takes)-")


def test_pairs_with_the_same_weights_stand_together() -> None:
    keys = {("uint8-uint8", ""): True, ("uint8-uint16", ""): True, ("int8-uint16", "per-channel"): False}
    assert _pair_rules(keys) == [{"weight": ["uint8"], "activation": ["uint8", "uint16"]}]
    assert _refused_pairs([("uint8-uint16", ""), ("float16", "")]) == [
        {"weight": ["uint8"], "activation": ["uint16"]},
        {"activation": ["float16"]},
    ]


@pytest.mark.parametrize(
    ("op", "opset", "bounds"),
    [
        ("Softmax", 11, {"max_opset": 12}),
        ("Softmax", 13, {"min_opset": 13}),
        ("Split", 13, {"min_opset": 13, "max_opset": 17}),
    ],
)
def test_a_form_of_an_older_opset_holds_for_the_opsets_of_that_form(
    op: str, opset: int, bounds: dict[str, int]
) -> None:
    assert _opsets(Form(op, (), opset=opset)) == bounds


def test_rules_are_named_by_operators_condition_and_kind_of_pair() -> None:
    assert _named(["Conv", "MatMul"]) == "Conv-MatMul"
    assert _named(["ReduceMax", "ReduceMin", "ReduceSum", "ReduceL1"]) == "Reduce"
    assert _named(["Add", "Sub", "Mul", "Div"]) == "Add-and-3-more"
    assert _pair_kinds([{"activation": ["float32", "float16"]}]) == "float"
    assert _pair_kinds([{"activation": ["uint8", "uint16"], "weight": ["int8"]}]) == "quantized"
    assert _condition_of("Conv/*/group=2") == "group=2" and _condition_of("Conv/*") == ""


def test_hardly_any_name_needs_a_number_to_be_told_from_another() -> None:
    names = [rule.id for profile in PROFILES.by_ep.values() for rule in profile.file.rules if DERIVED.match(rule.id)]
    numbered = [name for name in names if re.search(r"-[2-9]$", name) and name.rpartition("-")[0] in names]
    assert len(names) > 300 and len(numbered) < len(names) / 20


@pytest.mark.slow
def test_no_derived_rule_says_only_what_others_say() -> None:
    profile = PROFILES.find("openvino")
    evidence = stored(profile.ep, "cpu")
    assert evidence is not None
    derived = {rule.id for rule in profile.file.rules if any("/*" in str(s) for s in (rule.source.observed,))}
    assert superfluous(profile, derived, {"cpu": evidence}) == set()
