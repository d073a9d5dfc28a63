"""The report value: JSON and back without loss, errors that name the place, display names that do not clash."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner import codec
from planner.errors import RequestError
from planner.estimation.estimate import Estimate
from planner.reporting import Model, Range, Report, Row, read_report, unique_names, write_report
from planner.reporting.json import render
from planner.resolve.plan import TargetIdentity
from planner.verification.fidelity import Fidelity, PartFidelity
from planner.verification.placement import Placement
from planner.verification.verify import Seconds, Verification

MODEL = Model("m.onnx", "0" * 64, 17, 3, name="m")
TARGET = TargetIdentity("QNNExecutionProvider", "npu")

# Every field of every dataclass, from its type hint alone: a new field is tested without touching this file.
finite = st.floats(allow_nan=False, allow_infinity=False)
st.register_type_strategy(float, finite)


def shown(kind: type) -> st.SearchStrategy[Any]:
    """Values of a class that has fields which its JSON does not show: those stay at their defaults."""
    hints = get_type_hints(kind)
    return st.builds(kind, **{f.name: st.from_type(hints[f.name]) for f in fields(kind) if "hidden" not in f.metadata})


for hiding in (PartFidelity, Fidelity, Estimate, Verification):
    st.register_type_strategy(hiding, shown(hiding))
rows = st.from_type(Row)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(rows, max_size=2, unique_by=lambda row: row.key))
def test_json_gives_back_the_same_report(some: list[Row]) -> None:
    report = Report("0.1.0", "2026-01-02", tuple(some))
    assert Report.from_json(json.loads(render(report))) == report


def test_every_field_of_a_row_reaches_the_json() -> None:
    row = Report("0", "d", (Row(MODEL, TARGET, "auto", "passed"),)).to_json()["rows"][0]
    assert row.keys() == get_type_hints(Row).keys()


def test_the_document_names_its_schema_first() -> None:
    assert render(Report("0", "d")).startswith('{\n "schema": "planner/report/1"')


def test_an_undefined_number_is_null() -> None:
    seconds = Seconds(math.nan, math.inf)
    verification = Verification("QNNExecutionProvider", "simulator", {}, Placement(0, None), (), seconds=seconds)
    row = Row(MODEL, TARGET, "auto", "passed", verification=verification, ranges=(Range("t", -math.inf, 1.0),))
    encoded = json.loads(render(Report("0", "d", (row,))))["rows"][0]
    assert encoded["verification"]["seconds"] == {"load": None, "run": None}
    assert encoded["ranges"][0] == {"tensor": "t", "low": None, "high": 1.0, "histogram": None}


def test_keys_of_a_later_version_are_passed_over() -> None:
    value = Report("0", "d", (Row(MODEL, TARGET, "auto", "passed"),)).to_json()
    value["rows"][0]["colour"] = "green"
    assert Report.from_json(value).rows[0].status == "passed"


@pytest.mark.parametrize(
    ("path", "bad", "message"),
    [
        (("status",), "fine", r"rows\[0\]\.status: expected one of passed, .*not 'fine'"),
        (("model", "opset"), True, r"rows\[0\]\.model\.opset: expected an integer"),
        (("model",), None, r"rows\[0\]\.model: expected an object"),
        (("size_bytes",), 1.5, r"rows\[0\]\.size_bytes: expected an integer or null"),
        (("floor_db",), "20", r"rows\[0\]\.floor_db: expected a finite number or null"),
        (("nodes",), {}, r"rows\[0\]\.nodes: expected a list"),
        (("suggestions",), [1], r"rows\[0\]\.suggestions\[0\]: expected a string"),
        (("target", "options"), {"a": 1}, r"rows\[0\]\.target\.options\.a: expected a string"),
    ],
)
def test_a_malformed_report_is_refused_by_the_place_of_its_fault(
    path: tuple[str, ...], bad: object, message: str
) -> None:
    value = copy.deepcopy(Report("0", "d", (Row(MODEL, TARGET, "auto", "passed"),)).to_json())
    place = value["rows"][0]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = bad
    with pytest.raises(RequestError, match=message):
        Report.from_json(value)


def test_a_verification_is_read_from_the_contract_whatever_else_it_says() -> None:
    value: dict[str, object] = {
        "ran_on": "CPUExecutionProvider",
        "kind": "emulation",
        "runtime": {"onnxruntime": "1.32.0"},
        "placement": {"total": 3, "on_target": None, "fallback": [], "by": None},
        "fidelity": [{"output": "y", "sqnr_db": 31, "cosine": 1, "max_abs_error": 0.5, "top1_agreement": None}],
        "seconds": {"load": 0.1, "run": None},
        "peak_rss_mb": None,
        "passed": True,
    }
    verification = codec.from_json(Verification, value)
    assert verification.fidelity == (Fidelity("y", 31.0, 1.0, 0.5, None),)
    row = Row(MODEL, TARGET, "auto", "passed", verification=verification)
    assert row.fallback is None  # emulation places nothing


def test_a_missing_field_is_named() -> None:
    value = Report("0", "d", (Row(MODEL, TARGET, "auto", "passed"),)).to_json()
    del value["rows"][0]["model"]["sha256"]
    with pytest.raises(RequestError, match=r"rows\[0\]\.model\.sha256: is missing"):
        Report.from_json(value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "planner/plan/1"}', "\xff", "[" * 100_000, "NaN"])
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(RequestError):
        read_report(path)


def test_two_answers_to_one_question_are_refused() -> None:
    row = Row(MODEL, TARGET, "auto", "passed")
    with pytest.raises(RequestError, match=r"rows\[1\] repeats m / QNNExecutionProvider / npu / auto"):
        Report("0", "d", (row, row))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    report = Report("0", "d", (Row(Model("a\udcff.onnx", "", 1, 0, name="\udcff😀"), TARGET, "auto", "passed"),))
    (path,) = write_report(report, tmp_path / "new" / "folder", ["json"])
    assert read_report(path) == report


def test_names_are_as_short_as_they_can_be_and_differ() -> None:
    assert unique_names(["x/a.onnx", "y/b.onnx"]) == ["a", "b"]
    assert unique_names(["x/m.onnx", "y/m.onnx", "z/k.onnx"]) == ["x/m", "y/m", "k"]
    assert unique_names(["m.onnx", "m.onnx", "m.ort"]) == ["m", "m (2)", "m (3)"]
    assert unique_names([]) == []


@given(st.lists(st.text(alphabet="ab/.(2) ", min_size=1, max_size=8), max_size=6))
def test_names_always_differ(paths: list[str]) -> None:
    names = unique_names(paths)
    assert len(set(names)) == len(paths)
