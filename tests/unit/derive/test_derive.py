"""Derived statements: conditions that say something, words for people, nothing said twice, one judgement for every case."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from planner.derive import words
from planner.derive.conditions import condition_of, forms, opsets
from planner.derive.pairs import refused_pairs, taken_pairs
from planner.derive.predict import predict
from planner.derive.prune import superfluous
from planner.derive.rules import _refused_alike
from planner.derive.write import to_yaml
from planner.document import parse
from planner.probe.cases import all_cases
from planner.probe.evidence import stored
from planner.probe.forms import Form
from planner.profiles.conditions import condition, written
from planner.profiles.load import load_profiles
from planner.profiles.rules import DERIVED
from planner.profiles.schema import Operator, Refuses, Takes
from planner.profiles.when import OperandCondition, When

PROFILES = load_profiles()
REFUSALS = [
    rule
    for profile in PROFILES.by_ep.values()
    for rule in profile.rules
    if rule.id.startswith(DERIVED) and rule.refuse is not None
]


def test_pairs_with_the_same_weights_stand_together() -> None:
    assert taken_pairs({("uint8-uint8", ""), ("uint8-uint16", "")}) == [
        {"weight": ["uint8-per-tensor"], "activation": ["uint8", "uint16"]}
    ]
    refused = {("uint8-uint16", ""), ("float16", "")}
    assert refused_pairs(refused, set()) == [
        {"activation": ["float16"]},
        {"weight": ["uint8"], "activation": ["uint16"]},
    ]


def test_a_refusal_of_every_type_that_was_asked_holds_for_types_alike() -> None:
    base = {(pair, ""): True for pair in ("uint8", "int8", "uint16", "int16", "float16")}
    asked = {("uint8", ""): False, ("uint16", ""): True, ("float16", ""): False}
    refused = [key for key, taken in asked.items() if not taken]
    assert _refused_alike(base, asked, refused) == {("int8", "")}


def test_a_weight_is_spelled_by_how_it_may_be_scaled() -> None:
    both = {("int8-uint8", ""), ("int8-uint8", "per-channel")}
    assert taken_pairs(both) == [{"weight": ["int8"], "activation": ["uint8"]}]
    assert taken_pairs({("int8-uint8", "per-channel")}) == [{"weight": ["int8-per-channel"], "activation": ["uint8"]}]
    assert taken_pairs({("int8-uint8", "blocked")}) == [{"weight": ["int8-per-channel"], "activation": ["uint8"]}]
    # A refusal is narrow only where the weight was taken when it was scaled otherwise.
    refused = {("int8-uint8", "")}
    assert refused_pairs(refused, set()) == [{"weight": ["int8"], "activation": ["uint8"]}]
    narrow = refused_pairs(refused, {("int8-uint8", "per-channel")})
    assert narrow == [{"weight": ["int8-per-tensor"], "activation": ["uint8"]}]


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
    assert opsets(Form(op, (), opset=opset)) == bounds


@pytest.mark.parametrize(
    ("op", "name", "when"),
    [
        ("Relu", "rank=5", When(min_rank=5)),
        ("Relu", "rank=2", When(min_rank=2, max_rank=2)),
        ("Softmax", "axis=1", When(attributes={"axis": [1]})),
        ("Gemm", "alpha=0.5", When(attributes_not={"alpha": [1.0]})),
        ("Conv", "bias=dynamic", When(inputs={"2": OperandCondition(constant=False, present=True)})),
        ("MaxPool", "indices-output", When(min_outputs=2)),
        ("Add", "symmetric", None),
        ("Gemm", "bias=matrix", None),
    ],
)
def test_a_condition_is_what_sets_a_form_apart_from_the_base_form(op: str, name: str, when: When | None) -> None:
    assert condition_of(forms()[op, name]) == when


# -- for people ---------------------------------------------------------------------------------------------------------


def test_every_derived_refusal_has_a_reason_and_a_next_step() -> None:
    assert len(REFUSALS) > 300
    for rule in REFUSALS:
        assert rule.refuse and rule.suggestion, rule.id
        assert not {"None", "=", "()"} & set(f"{rule.refuse} {rule.suggestion}".split()), rule.id


@pytest.mark.parametrize(
    ("op", "name", "why", "do"),
    [
        ("Gemm", "alpha=0.5", "alpha must be 1", "fold alpha into the weight"),
        ("Relu", "rank=5", "its rank must be below 5", "merge dimensions by a Reshape before it"),
        ("Pad", "mode=wrap", "mode must not be wrap", "choose another mode"),
        ("Pad", "pads=dynamic,stated", "pads must be constant", "store pads as an initializer"),
        ("MaxPool", "opset=11", "the opset must be above 11", "raise the model's opset above 11"),
    ],
)
def test_reasons_and_next_steps_are_words_for_people(op: str, name: str, why: str, do: str) -> None:
    form = forms()[op, name]
    when = condition_of(form)
    assert when is not None
    assert (form.why or words.why(form, when), form.do or words.do(form, when, only_pairs=False)) == (why, do)


# -- the file -----------------------------------------------------------------------------------------------------------


def test_a_condition_is_written_as_it_is_read() -> None:
    for profile in PROFILES.by_ep.values():
        for rule in profile.rules:
            assert condition(written(rule.when)) == rule.when or rule.when.inputs, rule.id


def test_operators_of_which_the_same_is_said_stand_together() -> None:
    def said(op: str) -> Operator:
        refusal = Refuses(when=When(min_rank=5), why="too many: it has 5", do="merge them", seen=[f"{op}/*/rank=5"])
        return Operator(takes=[Takes(on=["v69"], activation=["uint8"])], refuses=[refusal])  # type: ignore[list-item]

    text = to_yaml({"Sin": said("Sin"), "Cos": said("Cos"), "Relu": Operator(takes=[Takes()])}, "X", "x 1.0", "it")
    assert text.startswith("# Generated from evidence/ by `it`.")
    found = parse(Path("derived.yaml"), text).data["operators"]
    assert list(found) == ["Cos, Sin", "Relu"] and found["Relu"] == {"takes": [{}]}
    assert found["Cos, Sin"]["takes"] == [{"on": "v69", "activation": "uint8"}]
    assert found["Cos, Sin"]["refuses"][0]["seen"] == ["*/*/rank=5"]


@pytest.mark.slow
def test_no_derived_rule_says_only_what_others_say() -> None:
    profile = PROFILES.find("openvino")
    evidence = stored(profile.ep, "cpu")
    assert evidence is not None
    assert superfluous(profile, {"cpu": evidence}) == set()


# -- what was said before -----------------------------------------------------------------------------------------------

# By kind of device: how many cases are judged legal, and a digest of their names.
GOLDEN = json.loads(Path(__file__).with_name("judged.json").read_text())


def digest(cases: Iterable[str]) -> list[object]:
    names = sorted(cases)
    return [len(names), hashlib.sha256("\n".join(names).encode()).hexdigest()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", GOLDEN)
def test_every_case_is_judged_as_by_the_rules_before_they_stood_by_operator(kind: str) -> None:
    ep, _, device = kind.partition("/")
    profile = PROFILES.find(ep)
    assert digest(case for case in all_cases() if predict(case, profile, device).legal) == GOLDEN[kind]
