"""Profiles: errors name file, line, key and what is allowed; hostile files are refused; a user's file adds or overrides."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.document import parse
from planner.dtypes import DType
from planner.errors import RequestError
from planner.profiles.load import json_schema, load_profile, load_profiles
from planner.profiles.shipped import shipped_directory
from planner.resolve.target import Target

MINIMAL: dict[str, Any] = {
    "schema": "planner/profile/2",
    "ep": "AcmeExecutionProvider",
    "title": "Acme",
    "aliases": ["acme"],
    "default_device": "npu",
    "prefer": ["w8a8", "fp16"],
    "limits": {"static_shapes": True, "max_rank": 5},
    "options": {"mode": "fast"},
    "devices": {
        "npu": {"title": "an NPU", "class": "npu", "source": {"documented": "the data sheet"}, "traits": ["half"]},
        "old": {"title": "an old NPU", "class": "npu", "source": {"documented": "the data sheet"}, "prefer": ["w8a8"]},
    },
    "source": {"observed": "acme 1.0"},
    "operators": {
        "Conv,ConvTranspose": {
            "takes": [
                {
                    "id": "conv",
                    "on": "half",
                    "when": {"max_rank": 4, "group": 1, "inputs": {"2": {"constant": True}}},
                    "weight": ["int8"],
                    "activation": "uint8",
                    "fixed": {"uint8": {"scale": 0.5, "zero_point": 0}},
                }
            ],
            "refuses": [{"why": "too wide", "do": "split it", "when": {"group": {"above": 64}}}],
        },
        "*": {"takes": [{"id": "rest", "activation": ["float16"], "source": {"documented": "the data sheet"}}]},
    },
}


def write(folder: Path, content: object, name: str = "acme.yaml") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def changed(where: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """MINIMAL with one value replaced; DELETE removes the key."""
    data: dict[str, Any] = json.loads(json.dumps(MINIMAL))
    inner: Any = data
    for step in where[:-1]:
        inner = inner[step]
    if value is DELETE:
        del inner[where[-1]]
    else:
        inner[where[-1]] = value
    return data


DELETE = object()
CONV = ("operators", "Conv,ConvTranspose", "takes", 0)
REFUSAL = ("operators", "Conv,ConvTranspose", "refuses", 0)
PLACE = "operators.Conv,ConvTranspose.takes[0]"


def refused(path: Path) -> RequestError:
    with pytest.raises(RequestError) as caught:
        load_profile(path)
    assert str(path) in str(caught.value)
    return caught.value


def test_the_minimal_profile_is_read(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, MINIMAL))
    assert profile.ep == "AcmeExecutionProvider" and profile.limits.max_rank == 5
    assert [str(p) for p in profile.prefer["npu"]] == ["w8a8", "fp16"]
    assert [str(p) for p in profile.prefer["old"]] == ["w8a8"]
    assert [r.id for r in profile.rules_for("Conv", "", "npu")] == ["Conv.refuses[0]", "conv", "rest"]
    assert [r.id for r in profile.rules_for("Conv", "", "old")] == ["Conv.refuses[0]", "rest"]
    assert [r.id for r in profile.rules_for("Relu", "", "npu")] == ["rest"]
    assert profile.rules_for("Relu", "com.acme", "npu") == ()
    assert profile.options("npu") == {"mode": "fast"}


@pytest.mark.parametrize(
    ("where", "value", "key", "words"),
    [
        (("schema",), "planner/profile/1", "schema", ""),
        (("ep",), "no spaces allowed", "ep", ""),
        (("title",), 7, "title", "str"),
        (("colour",), "red", "colour", "default_device"),
        (("default_device",), "gpu", "default_device", "npu, old"),
        (("prefer",), [], "prefer", ""),
        (("prefer", 1), "w3a3", "prefer[1]", "w8a16"),
        (("devices", "npu", "class"), "tpu", "devices.npu.class", "npu|gpu|cpu"),
        (("devices", "npu", "speed"), 9, "devices.npu.speed", "title, class, source"),
        (("devices", "old", "prefer", 0), "bf16", "devices.old.prefer[0]", "w8a16"),
        (("devices", "npu", "source"), {}, "devices.npu.source", "observed"),
        (("devices",), {}, "devices", ""),
        (("operators",), {}, "operators", ""),
        (("operators",), {"Conv-2": {}}, "operators", ""),
        (("operators", "Conv"), {}, "operators.Conv", "twice"),
        ((*CONV, "weight", 0), "int7", PLACE + ".weight[0]", "uint16"),
        ((*CONV, "weigth"), ["int8"], PLACE + ".weigth", "weight"),
        ((*CONV, "when", "max_rank"), "four", PLACE + ".when.max_rank", "int"),
        ((*CONV, "when", "rank"), 4, PLACE + ".when.rank", "max_rank"),
        ((*CONV, "when", "grp"), 4, PLACE + ".when.grp", "group"),
        ((*CONV, "when", "group"), {"below": 4}, PLACE + ".when.group", "not"),
        ((*CONV, "when", "group"), [None], PLACE + ".when.group", "int"),
        ((*CONV, "when", "inputs"), {"first": {}}, PLACE + ".when.inputs", ""),
        ((*CONV, "when", "inputs", "2", "shape"), [1], PLACE + ".when.inputs.2.shape", "min_rank"),
        ((*CONV, "on"), ["fast"], PLACE + ".on", "half"),
        (("operators", "*", "takes", 0, "id"), "conv", "operators.*.takes[0].id", "twice"),
        ((*REFUSAL, "do"), DELETE, "operators.Conv,ConvTranspose.refuses[0].do", "missing"),
        ((*CONV, "fixed", "uint8", "scale"), 0, PLACE + ".fixed.uint8.scale", "above 0"),
        ((*CONV, "fixed"), {"uint7": {"scale": 1, "zero_point": 0}}, PLACE + ".fixed", "uint16"),
        (("limits", "max_rank"), "5", "limits.max_rank", "int"),
        (("limits", "min_rank"), 5, "limits.min_rank", "static_shapes"),
        (("options", "mode"), 3, "options.mode", "str"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_an_error_names_file_line_key_and_what_is_allowed(
    where: tuple[str | int, ...], value: object, key: str, words: str, tmp_path: Path
) -> None:
    path = write(tmp_path, changed(where, value))
    error = refused(path)
    match = re.match(rf"{re.escape(str(path))}:(\d+): (\S+): (.+)", str(error))
    assert match, str(error)
    assert match[2] == key, str(error)
    assert words in str(error) + error.hint, f"{error} / {error.hint}"
    # The line is that of the key, or of the item in a list; that of the nearest one above where the key is missing.
    line = path.read_text().splitlines()[int(match[1]) - 1]
    last = where[-2] if value is DELETE else where[-1]
    assert f"{last}:" in line.replace("'", "") or line.strip().startswith("- "), line


def test_a_statement_has_a_source_of_its_own_or_of_its_file(tmp_path: Path) -> None:
    error = refused(write(tmp_path, changed(("source",), DELETE)))
    assert "refuses[0]: has no source" in str(error) and "source" in error.hint


def test_a_source_tells_the_cases_that_were_seen(tmp_path: Path) -> None:
    seen = changed((*REFUSAL, "seen"), ["Conv/*/group=128"])
    (rule, *_) = load_profile(write(tmp_path, seen)).rules_for("Conv", "", "npu")
    assert rule.source.observed == "acme 1.0: Conv/*/group=128"


def test_an_attribute_stands_under_its_own_name(tmp_path: Path) -> None:
    refusal, taken, _ = load_profile(write(tmp_path, MINIMAL)).rules_for("Conv", "", "npu")
    assert taken.when.attributes == {"group": [1]} and refusal.when.attributes_above == {"group": 64}
    negated = changed((*CONV, "when", "group"), {"not": [1, 2]})
    _, taken, _ = load_profile(write(tmp_path, negated)).rules_for("Conv", "", "npu")
    assert taken.when.attributes_not == {"group": [1, 2]}


def test_generated_statements_stand_below_the_written_ones(tmp_path: Path) -> None:
    derived = {
        "schema": "planner/derived/1", "ep": "AcmeExecutionProvider", "source": {"observed": "acme 1.1"},
        "operators": {"Conv": {"refuses": [{"why": "never", "do": "leave it"}]}, "Relu": {"takes": [{}]}},
    }  # fmt: skip
    write(tmp_path, derived, "derived.yaml")
    profile = load_profile(write(tmp_path, changed(("derived",), "derived.yaml")))
    ids = [r.id for r in profile.rules_for("Conv", "", "npu")]
    assert ids == ["Conv.refuses[0]", "conv", "rest", "derived.Conv.refuses[0]"]
    assert [r.id for r in profile.rules_for("Relu", "", "npu")] == ["rest", "derived.Relu.takes[0]"]
    assert profile.sha256 != load_profile(write(tmp_path, MINIMAL)).sha256


def test_a_broken_file_of_generated_statements_is_named(tmp_path: Path) -> None:
    write(tmp_path, "schema: planner/derived/1\noperators: {Conv: {takes: [{wight: int8}]}}\n", "derived.yaml")
    with pytest.raises(RequestError, match=r"derived\.yaml:2: ep|derived\.yaml:2: operators\.Conv\.takes\[0\]\.wight"):
        load_profile(write(tmp_path, changed(("derived",), "derived.yaml")))


def test_a_kernel_table_must_lie_beside_the_profile(tmp_path: Path) -> None:
    def asking(name: str) -> dict[str, Any]:
        return changed(("operators",), {"*": {"takes": [{"kernels": name}]}})

    assert "beside the profile" in str(refused(write(tmp_path, asking("../secret.json"))))
    with pytest.raises(RequestError, match=r"absent\.json: no such file"):
        load_profile(write(tmp_path, asking("absent.json")))
    with pytest.raises(RequestError, match="name too long"):
        load_profile(write(tmp_path, asking("a" * 5000)))


# -- hostile files ------------------------------------------------------------------------------------------------------

_BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
)
_HOSTILE = {
    "alias bomb": (_BOMB, "anchors and aliases"),
    "anchor": ("schema: &s planner/profile/2\n", "anchors and aliases"),
    "merge key": ("a: &a {b: 1}\nc: {<<: *a}\n", "anchors and aliases"),
    "python object": ("schema: !!python/object/apply:os.system ['touch owned']\n", "not valid YAML"),
    "custom tag": ("schema: !secret x\n", "not valid YAML"),
    "binary tag": ("schema: !!binary aGVsbG8=\n", "schema"),
    "duplicate key": ("schema: planner/profile/2\nep: A\nep: B\n", "duplicate key ep"),
    "two documents": ("a: 1\n---\nb: 2\n", "not valid YAML"),
    "tabs": ("schema:\n\t- x\n", "not valid YAML"),
    "unclosed": ("devices: {npu: {title: x\n", "not valid YAML"),
    "empty": ("", "empty"),
    "only a comment": ("# nothing\n", "empty"),
    "a list": ("- a\n- b\n", "(top)"),
    "a number": ("42\n", "(top)"),
    "deep lists": ("a: " + "[" * 500 + "]" * 500, "nested"),
    "very deep lists": ("a: " + "[" * 100_000, "not valid YAML"),
    "deep maps": ("".join(f"{' ' * i}k:\n" for i in range(100)), "nested"),
    "a list as key": ("[a, b]: c\n", ""),
    "a map as key": ("{a: b}: c\n", ""),
    "a null key": ("~: c\n", ""),
    "a date": ("schema: 2020-01-01\n", "schema"),
    "a wrong date": ("schema: 2020-99-99\n", "not valid YAML"),
    "infinity": ("schema: .inf\n", "schema"),
    "a huge integer": ("schema: " + "9" * 10_000 + "\n", ""),
    "a sexagesimal": ("schema: 1:60:60\n", "schema"),
    "a control character": ("schema: \x07\n", "not valid YAML"),
    "a set": ("schema: !!set {a, b}\n", "schema"),
    "an omap": ("schema: !!omap [a: 1]\n", "schema"),
}  # fmt: skip


@pytest.mark.parametrize("name", _HOSTILE)
def test_a_hostile_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    text, words = _HOSTILE[name]
    started = time.process_time()
    error = refused(write(tmp_path, text))
    assert words in str(error)
    assert "\n" not in str(error) and len(str(error)) < 600
    assert time.process_time() - started < 2


def test_a_binary_file_a_huge_file_a_folder_and_a_missing_one(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01" * 20)
    assert "not a text file" in str(refused(path))
    path.write_text("# " + "x" * (5 << 20))
    assert "larger than" in str(refused(path))
    assert "irectory" in str(refused(tmp_path))
    assert "no such file" in str(refused(tmp_path / "none.yaml"))


def _paths(value: object, where: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [where] if where else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += _paths(inner, (*where, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            found += _paths(inner, (*where, i))
    return found


_ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(-10, 10), st.floats(allow_nan=True), st.text(max_size=8),
    st.lists(st.text(max_size=3), max_size=2), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.sampled_from(_paths(MINIMAL)), value=_ANYTHING)
def test_anything_at_any_key_is_read_or_refused(where: tuple[str | int, ...], value: object, tmp_path: Path) -> None:
    path = write(tmp_path, changed(where, value))
    try:
        load_profile(path)
    except RequestError as error:
        assert str(path) in str(error)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(RequestError):
        load_profile(path)


# -- the user's own -----------------------------------------------------------------------------------------------------


def test_a_users_profile_adds_an_ep(tmp_path: Path) -> None:
    profiles = load_profiles([write(tmp_path, MINIMAL)])
    assert profiles.find("acme") is profiles.find("ACMEexecutionprovider")
    assert profiles.find("cpu").ep == "CPUExecutionProvider"


def test_a_users_profile_overrides_ours_and_the_last_one_wins(tmp_path: Path) -> None:
    first = write(tmp_path, changed(("ep",), "CPUExecutionProvider"), "first.yaml")
    second = write(tmp_path, {**changed(("ep",), "CPUExecutionProvider"), "title": "second"}, "second.yaml")
    assert load_profiles([first, second]).find("CPUExecutionProvider").file.title == "second"
    assert load_profiles([second, first]).find("acme").path == str(first)


def test_an_alias_of_the_users_profile_comes_before_ours(tmp_path: Path) -> None:
    path = write(tmp_path, {**MINIMAL, "aliases": ["cpu"]})
    assert load_profiles([path]).find("cpu").ep == "AcmeExecutionProvider"


def test_an_unknown_ep_lists_the_known_ones() -> None:
    with pytest.raises(RequestError, match="unknown EP 'tpu'") as caught:
        load_profiles().find("tpu")
    for name in ("cpu", "qnn", "dml"):
        assert name in caught.value.hint


def test_an_unknown_device_lists_those_of_the_profile() -> None:
    with pytest.raises(RequestError, match="no device 'tpu'") as caught:
        load_profiles().find("qnn").device("tpu")
    assert "snapdragon-x-elite" in caught.value.hint


# -- the shipped ones ---------------------------------------------------------------------------------------------------


def test_qnn_has_the_chips_and_they_differ_in_what_they_accept() -> None:
    devices = load_profiles().find("qnn").devices
    for name in ("npu", "snapdragon-x-elite", "snapdragon-8cx-gen3", "snapdragon-8-gen1"):
        assert devices[name].kind == "npu" and devices[name].options["soc_model"]
    chips = [d for d in devices.values() if d.kind == "npu"]
    assert len({d.options["soc_model"] for d in chips}) >= 3
    assert len({tuple(d.traits) for d in chips}) >= 3


SHIPPED = sorted(shipped_directory().glob("*/profile.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.parent.name)
def test_every_shipped_rule_and_device_says_where_it_comes_from(path: Path) -> None:
    profile = load_profile(path)
    for source in (*(d.source for d in profile.devices.values()), *(r.source for r in profile.rules)):
        assert source is not None and (source.observed or source.documented)


# -- the JSON Schema for editors ----------------------------------------------------------------------------------------

SCHEMA_FILE = shipped_directory() / "profile.schema.json"


def test_the_json_schema_file_is_current() -> None:
    assert json.loads(SCHEMA_FILE.read_text()) == json_schema(), (
        "write it anew: python -m planner.profiles.load > ep_profiles/profile.schema.json"
    )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.parent.name)
def test_the_json_schema_takes_the_shipped_profiles(path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.check_schema(json_schema())
    assert list(validator.iter_errors(parse(path, path.read_text()).data)) == []


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("colour",), "red"),
        (("devices", "npu", "class"), "tpu"),
        ((*CONV, "weight", 0), "int7"),
        ((*CONV, "when", "group"), {"below": 4}),
        ((*REFUSAL, "do"), DELETE),
        (("limits", "max_rank"), "5"),
    ],
    ids=lambda value: "deleted" if value is DELETE else str(value),
)
def test_the_json_schema_refuses_what_the_loader_refuses(where: tuple[str | int, ...], value: object) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    assert not list(validator.iter_errors(MINIMAL))
    assert list(validator.iter_errors(changed(where, value)))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.parent.name)
def test_editors_find_the_json_schema_from_the_profile(path: Path) -> None:
    assert "# yaml-language-server: $schema=../profile.schema.json" in path.read_text().splitlines()[:3]


def test_the_kinds_of_numbers_of_the_schema_are_those_of_the_planner() -> None:
    assert f'"{DType.INT4.value}"' in json.dumps(json_schema())


def test_a_version_of_an_ep_has_its_rules_under_a_name_of_its_own() -> None:
    profiles = load_profiles()
    version, plain = profiles.find("qnn@2.5"), profiles.find("qnn")
    assert (version.ep, version.rules) == ("QNNExecutionProvider@2.5", plain.rules)
    assert version.sha256 != plain.sha256


@pytest.mark.parametrize("name", ["qnn@", "qnn@../../x", "qnn@a b"])
def test_what_is_no_version_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="no version of QNNExecutionProvider"):
        load_profiles().find(name)


# -- what was never observed ----------------------------------------------------------------------------------------------

DECLARED = [
    ("cuda", "gpu"), ("tensorrt-rtx", "gpu"), ("migraphx", "gpu"), ("vitisai", "npu"), ("coreml", "npu"), ("xnnpack", "cpu"),
    ("openvino", "gpu"), ("openvino", "npu"), ("qnn", "gpu"),
]  # fmt: skip


@pytest.mark.parametrize(("ep", "device"), DECLARED)
def test_what_was_never_observed_says_so_and_cites_a_document_for_every_rule(ep: str, device: str) -> None:
    target = Target.open(ep, device)
    assert any("declared by documents" in note for note in target.profile.notes)
    rules = [r for op in ("Conv", "MatMul", "Softmax", "Reshape") for r in target.rules_for(op)]
    assert rules and all(rule.source.documented for rule in rules if rule.refuse is None)


@pytest.mark.parametrize(
    ("ep", "device"), [("qnn", "snapdragon-x-elite"), ("openvino", "cpu"), ("cpu", "cpu"), ("directml", "gpu")]
)
def test_what_was_observed_says_nothing_of_the_kind(ep: str, device: str) -> None:
    assert not any("declared" in note for note in Target.open(ep, device).profile.notes)


def test_a_device_with_rules_of_its_own_has_none_of_the_others() -> None:
    ids = {rule.id for rule in Target.open("qnn", "gpu").rules_for("Conv")}
    assert ids and all(name.startswith("gpu.") for name in ids)
    assert not any(rule.id.startswith("gpu.") for rule in Target.open("qnn").rules_for("Conv"))


def test_a_refusal_of_everything_speaks_of_what_is_not_taken() -> None:
    target = Target.open("xnnpack")
    assert not any(rule.refuse == "XNNPACK has no kernel of it" for rule in target.rules_for("Conv"))
    (only,) = target.rules_for("Einsum")
    assert only.refuse == "XNNPACK has no kernel of it"
