"""Profiles are held to their evidence: every case that an EP was asked is judged as the EP answered it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner.derive.predict import agrees, exemptions, explanation, predict
from planner.errors import RequestError
from planner.probe.cases import all_cases
from planner.probe.evidence import Evidence, differences, directory, dump, load, parse_id, stored
from planner.probe.run import Outcome, Result
from planner.profiles.load import load_profiles
from planner.profiles.schema import Profile

PROFILES = load_profiles()
PROBED = [
    (profile.ep, device)
    for profile in PROFILES.by_ep.values()
    for device in profile.devices
    if (directory(profile.ep) / f"{device}.json").is_file()
]


def misjudged(profile: Profile, device: str, evidence: Evidence, step: int = 1) -> list[str]:
    """Cases whose ruling differs from the outcome without an explanation."""
    found = []
    for case, outcome in list(evidence.outcomes.items())[::step]:
        ruling = predict(case, profile, device)
        if agrees(ruling, outcome) is False and explanation(case, profile, ruling, outcome) is None:
            found.append(f"{case}: the EP says {outcome.result}, rule {ruling.rule} says {ruling.legal}")
    return found


@pytest.mark.parametrize(("ep", "device"), PROBED)
def test_rules_predict_a_sample_of_the_evidence(ep: str, device: str) -> None:
    profile = PROFILES.find(ep)
    evidence = stored(ep, device)
    assert evidence is not None
    assert misjudged(profile, device, evidence, step=29) == []


@pytest.mark.slow
def test_rules_predict_every_case_on_every_device() -> None:
    judged: set[tuple[object, ...]] = set()
    wrong: dict[str, list[str]] = {}
    for ep, device in PROBED:
        profile, evidence = PROFILES.find(ep), stored(ep, device)
        assert evidence is not None
        # Chips that answered alike and have the same traits are judged alike: once is enough.
        results = tuple((case, outcome.result) for case, outcome in sorted(evidence.outcomes.items()))
        key = (ep, tuple(profile.device(device).traits), hash(results))
        if key not in judged:
            judged.add(key)
            if found := misjudged(profile, device, evidence):
                wrong[device] = found
    assert wrong == {}


def test_what_directml_takes_and_does_not_build_is_refused_unless_no_plan_makes_it() -> None:
    """built.json: the cases of the placement, built and run on a machine that computes (docs/directml.md)."""
    profile = PROFILES.find("directml")
    placed, built = stored(profile.ep, "gpu"), load(directory(profile.ep).parent / "built.json")
    assert placed is not None and set(built.outcomes) == set(placed.outcomes)
    failed = [
        case
        for case, outcome in built.outcomes.items()
        if outcome.result in (Result.FAILS, Result.CRASHED) and placed.outcomes[case].result is Result.TAKEN
    ]
    legal = [case for case in failed if predict(case, profile, "gpu").legal]
    assert len(failed) == 336 and len(legal) == 87
    # None of these is a float product, a convolution in float, or moves float numbers.
    assert not [case for case in legal if case.split("/")[0] in ("Conv", "MatMul", "Gemm") and "/float" in case]


def test_every_npu_of_the_qnn_profile_was_probed() -> None:
    profile = PROFILES.find("qnn")
    options = {tuple(sorted(profile.options(d).items())) for ep, d in PROBED if ep == profile.ep}
    for device in (name for name, d in profile.devices.items() if d.kind == "npu"):
        assert tuple(sorted(profile.options(device).items())) in options, device


def test_evidence_was_taken_with_the_options_that_the_profile_starts_the_ep_with() -> None:
    for ep, device in PROBED:
        evidence = stored(ep, device)
        assert evidence is not None
        assert evidence.options == PROFILES.find(ep).options(device), device


def test_every_refusal_and_allowance_names_its_source() -> None:
    for profile in PROFILES.by_ep.values():
        for rule in profile.rules:
            assert rule.source.observed or rule.source.documented, rule.id


@pytest.mark.parametrize(("ep", "device"), PROBED)
def test_every_case_of_the_evidence_can_be_rebuilt(ep: str, device: str) -> None:
    evidence = stored(ep, device)
    assert evidence is not None
    assert set(evidence.outcomes) == set(all_cases())


def test_exemptions_speak_of_existing_cases_and_say_why() -> None:
    import fnmatch

    entries = [entry for profile in PROFILES.by_ep.values() for entry in exemptions(profile.ep)]
    assert entries
    for entry in entries:
        assert len(entry.reason) > 30
        for pattern in entry.patterns:
            assert any(fnmatch.fnmatchcase(case, pattern) for case in all_cases()), pattern


# -- the file format ------------------------------------------------------------------------------------------------

TAKEN = Outcome(Result.TAKEN, None, 48.0)
LEFT = Outcome(Result.CPU, "no such operator", None)


def evidence(**outcomes: Outcome) -> Evidence:
    cases = {name.replace("__", "/"): outcome for name, outcome in outcomes.items()}
    return Evidence("SomeEP", "chip", {"soc": "1"}, {"onnxruntime": "1.0"}, "2026-01-01", 1, cases)


def test_a_file_holds_what_was_written(tmp_path: Path) -> None:
    before = evidence(Conv__float32=TAKEN, Erf__uint8=LEFT)
    path = tmp_path / "chip.json"
    path.write_text(dump(before))
    assert load(path) == before


def test_a_file_builds_on_another_and_holds_only_what_differs(tmp_path: Path) -> None:
    base = evidence(Conv__float32=TAKEN, Erf__uint8=LEFT, Relu__float32=TAKEN)
    other = Evidence("SomeEP", "second", {}, {}, "2026-01-01", 1, {"Conv/float32": LEFT, "Erf/uint8": LEFT})
    (tmp_path / "chip.json").write_text(dump(base))
    path = tmp_path / "second.json"
    path.write_text(dump(other, base))
    assert "Erf" not in json.loads(path.read_text())["cases"]
    assert load(path) == other


def test_a_base_outside_the_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "chip.json"
    path.write_text(dump(evidence(Conv__float32=TAKEN)).replace('"options"', '"base": "../other",\n"options"'))
    with pytest.raises(RequestError, match=r"base: '\.\./other' is no device name"):
        load(path)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema": "planner/evidence/1"}', '{"schema": "other"}', "\0"])
def test_what_is_no_evidence_file_is_refused_in_words(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(RequestError):
        load(path)


def test_only_results_count_as_differences() -> None:
    before = evidence(Conv__float32=TAKEN, Erf__uint8=LEFT, Relu__float32=TAKEN)
    after = evidence(
        Conv__float32=Outcome(Result.TAKEN, None, 12.0),
        Erf__uint8=Outcome(Result.CPU, "in other words", None),
        Relu__float32=LEFT,
    )
    assert [d.case for d in differences(before, after)] == ["Relu/float32"]


def test_ids_are_read_back() -> None:
    assert parse_id("Conv/uint8-uint16/per-channel/group=4") == ("Conv", "uint8-uint16", "per-channel", "group=4")
    assert parse_id("Relu/float32") == ("Relu", "float32", "", "")
    assert parse_id("Einsum/float32/equation=ij,jk->ik") == ("Einsum", "float32", "", "equation=ij,jk->ik")
