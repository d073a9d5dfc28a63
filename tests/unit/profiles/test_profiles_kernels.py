"""Kernel tables: which kernel serves an operator at an opset, and the registry of the installed build."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from planner.errors import EPError, RequestError
from planner.profiles import kernels
from planner.profiles.kernels import KernelTable, operator_version, read_kernel_table, stored
from planner.profiles.load import load_profile, load_profiles
from planner.profiles.shipped import folder_of
from planner.runtime import kernel_registry
from planner.runtime.eps.launcher import Availability

PLATFORM = kernel_registry.this_platform()


def table(**operators: list[tuple[str, dict[str, list[str]]]]) -> KernelTable:
    kernels = {op: [{"opset": o, "types": t} for o, t in entries] for op, entries in operators.items()}
    return read_kernel_table(Path("t.json"), json.dumps({"source": "a test", "kernels": {"ai.onnx": kernels}}))


# Softmax changed at opsets 1, 11 and 13; Relu at 1, 6, 13 and 14.
@pytest.mark.parametrize(
    ("written", "opset", "serves"),
    [
        ("13+", 13, True),
        ("13+", 21, True),
        ("13+", 12, False),  # the model has Softmax-11
        ("11-12", 12, True),
        ("11-12", 13, False),
        ("11+", 12, True),
        ("11+", 13, False),  # an open kernel serves the version it starts with: Softmax-13 means another thing
        ("1-10", 9, True),
        ("13", 15, True),
        ("13", 11, False),
    ],
)
def test_a_kernel_serves_the_operators_own_version(written: str, opset: int, serves: bool) -> None:
    assert (table(Softmax=[(written, {"T": ["float"]})]).types("Softmax", "", opset) is not None) is serves


def test_types_of_all_serving_kernels_come_together() -> None:
    found = table(Relu=[("14+", {"T": ["float"]}), ("14+", {"T": ["int8"]}), ("6-12", {"T": ["double"]})])
    assert found.types("Relu", "", 20) == {"T": frozenset({"float32", "int8"})}
    assert found.types("Relu", "", 12) == {"T": frozenset({"float64"})}
    assert found.types("Gelu", "", 20) is None


def test_the_version_of_an_operator_is_where_onnx_last_changed_it() -> None:
    assert [operator_version("Softmax", "", o) for o in (7, 12, 13, 21)] == [1, 11, 13, 13]
    assert operator_version("Gelu", "", 19) is None and operator_version("Gelu", "com.microsoft", 19) is None


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"source": "x"}', '{"source": "x", "kernels": []}', '{"source": "x", "kernels": {"": {"A": [{}]}}}',
     '{"source": "x", "kernels": {"": {"A": [{"opset": "new", "types": {}}]}}}', "[" * 10_000,
     '{"source": "x", "kernels": {"": {"A": [{"opset": "1", "types": {"T": 5}}]}}}'],
)  # fmt: skip
def test_a_broken_kernel_table_is_refused(content: str) -> None:
    with pytest.raises(RequestError, match=r"t\.json: not a kernel table"):
        read_kernel_table(Path("t.json"), content)


def test_directml_has_no_sixteen_bit_integers_and_float16_nearly_everywhere() -> None:
    found = load_profiles().find("directml").tables["kernels.json"]
    for operator in ("QuantizeLinear", "DequantizeLinear"):
        types = frozenset[str]().union(*(found.types(operator, "", 21) or {}).values())
        assert {"uint8", "int8"} <= types and not {"uint16", "int16"} & types
    for operator in ("Conv", "MatMul", "Gemm", "Relu", "Add", "Softmax", "LayerNormalization"):
        assert "float16" in frozenset[str]().union(*(found.types(operator, "", 21) or {}).values()), operator


# -- the installed build ------------------------------------------------------------------------------------------------

SNAPSHOT = json.dumps({"source": "snapshot", "package": "onnxruntime 1.0.0", "platform": PLATFORM, "kernels": {}})


class _Launcher:
    def __init__(self, packages: Mapping[str, str], reason: str = "") -> None:
        self.available = Availability("hardware" if packages else None, packages, reason, Path("python"))

    def availability(self) -> Availability:
        return self.available


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Which EPs' installed builds were asked; they answer with a table of their own."""
    calls: list[str] = []

    def answer(ep: str) -> dict[str, object]:
        calls.append(ep)
        return {"source": "asked", "package": "onnxruntime 2.0.0", "kernels": {}}

    monkeypatch.setattr("planner.profiles.kernels.installed", answer)
    monkeypatch.setenv("PLANNER_CACHE", str(tmp_path / "cache"))
    return calls


def _install(monkeypatch: pytest.MonkeyPatch, packages: Mapping[str, str], reason: str = "") -> None:
    monkeypatch.setattr("planner.profiles.kernels.launcher", lambda ep: _Launcher(packages, reason))


def test_the_snapshot_serves_where_it_was_made_of_the_installed_build(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(monkeypatch, {"onnxruntime": "1.0.0"})
    assert kernels.installed_kernels("CPUExecutionProvider", SNAPSHOT) == (SNAPSHOT, "")
    assert asked == []


def test_another_build_is_asked_once_and_remembered(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _install(monkeypatch, {"onnxruntime": "2.0.0"})
    for _ in range(2):
        text, note = kernels.installed_kernels("CPUExecutionProvider", SNAPSHOT)
        assert json.loads(text)["source"] == "asked" and note == ""
    assert asked == ["CPUExecutionProvider"]
    _install(monkeypatch, {"onnxruntime": "2.0.1"})
    kernels.installed_kernels("CPUExecutionProvider", SNAPSHOT)
    assert len(asked) == 2 and len(list((tmp_path / "cache" / "kernels").iterdir())) == 2


def test_a_snapshot_of_another_platform_does_not_serve(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, {"onnxruntime": "1.0.0"})
    monkeypatch.setattr(kernel_registry, "this_platform", lambda: "win32-aarch64")
    kernels.installed_kernels("CPUExecutionProvider", SNAPSHOT)
    assert asked


def test_a_damaged_cache_is_asked_anew_and_an_unwritable_one_costs_nothing_else(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _install(monkeypatch, {"onnxruntime": "2.0.0"})
    kernels.installed_kernels("CPUExecutionProvider", SNAPSHOT)
    (file,) = (tmp_path / "cache" / "kernels").iterdir()
    file.write_text("{half")
    assert json.loads(kernels.installed_kernels("CPUExecutionProvider", SNAPSHOT)[0])["source"] == "asked"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PLANNER_CACHE", str(tmp_path / "file"))
    assert json.loads(kernels.installed_kernels("CPUExecutionProvider", SNAPSHOT)[0])["source"] == "asked"
    assert len(asked) == 3


def test_where_nothing_is_installed_the_snapshot_serves_with_a_note(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(monkeypatch, {}, "not installed: onnxruntime")
    text, note = kernels.installed_kernels("CPUExecutionProvider", SNAPSHOT)
    assert text == SNAPSHOT and "onnxruntime 1.0.0" in note and "not installed" in note and asked == []


def test_where_the_installed_build_cannot_be_asked_the_snapshot_serves_with_a_note(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(monkeypatch, {"onnxruntime": "2.0.0"})

    def broken(ep: str) -> None:
        raise EPError("its registry cannot be read")

    monkeypatch.setattr("planner.profiles.kernels.installed", broken)
    text, note = kernels.installed_kernels("CPUExecutionProvider", SNAPSHOT)
    assert text == SNAPSHOT and "its registry cannot be read" in note


def test_without_build_and_snapshot_the_profile_is_refused(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, {}, "not installed: onnxruntime")
    with pytest.raises(RequestError, match="there is none: not installed: onnxruntime"):
        kernels.installed_kernels("AcmeExecutionProvider", None)


def test_the_note_reaches_the_profile(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, {}, "not installed: onnxruntime")
    assert "not installed" in load_profile(folder_of("CPUExecutionProvider") / "profile.yaml").notes[0]


def test_the_shipped_snapshot_is_what_the_installed_build_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Asked for real, in a worker; another version of onnxruntime than the snapshot's may say something else."""
    text = stored("CPUExecutionProvider").read_text()
    monkeypatch.setenv("PLANNER_CACHE", str(tmp_path))
    other = json.dumps({**json.loads(text), "package": "onnxruntime 0.0.1"})
    answer, note = kernels.installed_kernels("CPUExecutionProvider", other)
    assert note == "" and json.loads(answer)["package"] != "onnxruntime 0.0.1"
    if json.loads(answer)["package"] == json.loads(text)["package"]:
        assert json.loads(answer)["kernels"] == json.loads(text)["kernels"]
