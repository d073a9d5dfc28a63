"""`planner explain`: the conditions of a rule in words, and only those that it states."""

from __future__ import annotations

import pytest

from planner.cli.explain import where
from planner.derive.explain import explain, rule_json
from planner.profiles.load import load_profiles
from planner.profiles.schema import Rule, Source
from planner.profiles.when import OperandCondition, When
from planner.resolve.target import Target


def rule(when: When) -> Rule:
    return Rule("r", Source(observed="a test"), when=when)


@pytest.mark.parametrize(
    ("when", "words"),
    [
        (When(), ""),
        (When(weight=False, per_channel=True), "no constant weight, per channel"),
        (When(static_outputs=False), "shapes of results not known"),
        (When(min_opset=13), "opset 13 or more"),
        (When(max_opset=12, min_rank=3, max_rank=3), "opset up to 12, rank 3"),
        (When(attributes={"p": [3, 4], "dilations": [[2, 2]]}), "p = 3 or 4, dilations = 2x2"),
        (When(attributes_not={"p": [1, 2]}), "p other than 1 or 2"),
        (When(inputs={"1": OperandCondition(present=True, constant=False)}), "input 1 computed"),
        (When(inputs={"0": OperandCondition(present=True, dtype=["int8", "uint8"])}), "input 0 int8 or uint8"),
        (When(inputs={"2": OperandCondition(present=False)}), "input 2 missing"),
        (When(inputs={"2": OperandCondition(present=True)}), "input 2 given"),
        (When(inputs={"1": OperandCondition(min_rank=2)}), "input 1 rank 2 or more"),
    ],
)
def test_conditions_are_told_in_words(when: When, words: str) -> None:
    assert where(rule(when)) == words


def test_what_a_rule_leaves_open_is_not_told() -> None:
    for profile in load_profiles().by_ep.values():
        for each in profile.rules:
            assert "None" not in where(each), each.id
            assert "None" not in str(rule_json(each)), each.id


def test_a_condition_that_is_false_is_told() -> None:
    assert rule_json(rule(When(weight=False)))["when"] == {"weight": False}


def test_every_condition_of_the_format_has_words() -> None:
    stated = When(
        weight=True, per_channel=True, min_opset=1, max_opset=2, min_rank=1, max_rank=2, blocked=True, min_outputs=2,
        captures_constants=True, static_outputs=True, given_out=True, empty=True, cut_block=True, integer_bias=True, asymmetric=True, off_center=True, depthwise=True, resizes_channels=True, signed_factor=True, weight_above=1, shape_arithmetic=True, attributes={"a": [1]}, attributes_not={"b": [1]},
        attributes_above={"c": 1.0}, inputs={"0": OperandCondition(constant=True)},
    )  # fmt: skip
    assert not [name for name in When.__struct_fields__ if getattr(stated, name) in (None, {})]
    assert len(where(rule(stated)).split(", ")) == 23


@pytest.mark.parametrize("ep", ["qnn", "cpu", "directml", "webgpu"])
def test_what_every_operator_is_refused_for_says_nothing_of_one_that_does_not_exist(ep: str) -> None:
    assert not explain(Target.open(ep), "NoSuchOperator").known
    assert explain(Target.open(ep), "Conv").known


def test_an_operator_is_found_however_it_is_spelled() -> None:
    target = Target.open("qnn")
    assert explain(target, "conv").op == "Conv" and explain(target, "conv").rules == explain(target, "Conv").rules
    assert explain(target, "com.microsoft.gelu").op == explain(target, "com.microsoft.Gelu").op
