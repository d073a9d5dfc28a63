"""What can run here is found in the installed packages, without importing any of them."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from planner.errors import EPError
from planner.runtime import environment as environment_module
from planner.runtime.environment import conflicts, interpreter
from planner.runtime.eps.directml import environment as directml
from planner.runtime.make import virtual_environment
from planner.runtime.registry import launcher


def environment(folder: Path, **distributions: str) -> Path:
    """An environment's folder with empty distributions; returns its interpreter's path."""
    site = folder / "lib" / "python3.11" / "site-packages"
    for name, version in distributions.items():
        info = site / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.touch()
    return python


def test_two_packages_that_carry_onnxruntime_are_a_conflict(tmp_path: Path) -> None:
    python = environment(tmp_path, onnxruntime="1.32.0", onnxruntime_openvino="1.24.1", onnxruntime_qnn="2.7.0")
    assert conflicts(python) == ("onnxruntime 1.32.0", "onnxruntime-openvino 1.24.1")


def test_a_plugin_beside_onnxruntime_is_no_conflict(tmp_path: Path) -> None:
    assert conflicts(environment(tmp_path, onnxruntime="1.32.0", onnxruntime_qnn="2.7.0")) == ()


def test_an_ep_whose_package_is_missing_says_which(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLANNER_PYTHON_QNN", str(environment(tmp_path, onnxruntime="1.32.0")))
    found = launcher("QNNExecutionProvider").availability()
    assert (found.kind, dict(found.packages)) == (None, {"onnxruntime": "1.32.0"})
    assert found.reason == "not installed: onnxruntime-qnn"


@pytest.mark.parametrize(
    ("system", "machine", "kind"),
    [
        ("Linux", "x86_64", "simulator"),
        ("Windows", "AMD64", "simulator"),
        ("Windows", "ARM64", "hardware"),
        ("Darwin", "arm64", None),
        ("Linux", "aarch64", None),
    ],
)
def test_qnn_is_a_simulator_on_x86_and_hardware_on_windows_arm(
    system: str, machine: str, kind: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PLANNER_PYTHON_QNN", str(environment(tmp_path, onnxruntime="1.32.0", onnxruntime_qnn="2.7.0")))
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    found = launcher("QNNExecutionProvider").availability()
    assert found.kind == kind
    assert bool(found.reason) == (kind is None)


def test_directml_runs_on_windows_and_is_asked_on_linux_where_its_environment_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PLANNER_PYTHON_DIRECTML", str(environment(tmp_path, onnxruntime_directml="1.24.4")))
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    assert launcher("DmlExecutionProvider").availability().kind == "hardware"
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("PLANNER_DIRECTML", str(tmp_path / "nowhere"))
    without = launcher("DmlExecutionProvider").availability()
    assert without.kind is None and "planner env create directml" in without.reason
    monkeypatch.setenv("PLANNER_DIRECTML", str(tmp_path / "made"))
    monkeypatch.setattr(directml, "missing_programs", list)
    made = directml.Environment(tmp_path / "made", {"onnxruntime-directml": "1.24.4"}, directml.source_digest())
    made.folder.mkdir()
    made.write()
    found = launcher("DmlExecutionProvider").availability()
    assert (found.kind, found.runs, found.by) == ("placement", False, "onnxruntime-directml 1.24.4")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert launcher("DmlExecutionProvider").availability().kind is None


def test_an_environment_of_another_version_of_the_program_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PLANNER_DIRECTML", str(tmp_path))
    directml.Environment(tmp_path, {"onnxruntime-directml": "1.24.4"}, "another").write()
    found = directml.find()
    assert found is not None and "planner env create directml" in directml.missing(found)


def test_the_interpreter_is_named_by_a_variable_or_lies_beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    beside = environment(tmp_path / ".venv-openvino")
    monkeypatch.delenv("PLANNER_PYTHON_OPENVINO", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert interpreter("openvino") == beside
    monkeypatch.setenv("PLANNER_PYTHON_OPENVINO", "/elsewhere/bin/python")
    assert interpreter("openvino") == Path("/elsewhere/bin/python")


def test_an_ep_that_the_build_lacks_can_not_run() -> None:
    found = launcher("AclExecutionProvider").availability()
    assert found.kind is None
    assert "CPUExecutionProvider" in found.reason


def test_asking_imports_no_runtime() -> None:
    code = (
        "import sys; from planner.runtime.registry import launcher; from planner.runtime.environment import conflicts; conflicts();"
        "[launcher(e + 'ExecutionProvider').availability() for e in ('CPU', 'QNN', 'Dml', 'OpenVINO')];"
        "assert not {'onnxruntime', 'numpy', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_launchers_load_by_path_with_the_standard_library_alone() -> None:
    code = (
        "import sys, types; package = types.ModuleType('planner_runtime'); package.__path__ = [sys.argv[1]];"
        "sys.modules['planner_runtime'] = package; import planner_runtime.registry as r;"
        "print(*(known.alias for known in r.LAUNCHERS));"
        "assert not {m.partition('.')[0] for m in sys.modules} & {'planner', 'numpy', 'onnxruntime'}"
    )
    folder = Path(environment_module.__file__).parent
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    assert {"cpu", "qnn", "openvino", "directml"} <= set(done.stdout.split())


def test_a_version_of_an_ep_has_an_environment_of_its_own_and_never_runs_in_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PLANNER_CACHE", str(tmp_path))
    missing = launcher("QNNExecutionProvider@2.5").availability()
    assert missing.kind is None and "planner env create qnn==2.5" in missing.reason
    python = environment(tmp_path / "environments" / "qnn@2.5", onnxruntime="1.30.0", onnxruntime_qnn="2.5.0")
    found = launcher("QNNExecutionProvider@2.5").availability()
    assert (found.python, found.packages["onnxruntime-qnn"]) == (python, "2.5.0")


def test_the_version_asked_for_is_that_of_the_ep_s_own_package() -> None:
    assert launcher("QNNExecutionProvider@2.5").packages == ("onnxruntime", "onnxruntime-qnn==2.5")
    assert launcher("OpenVINOExecutionProvider@1.23").packages == ("onnxruntime-openvino==1.23", "openvino")
    assert launcher("CPUExecutionProvider@1.23").packages == ("onnxruntime==1.23",)


@pytest.mark.parametrize("uv", ["/usr/bin/uv", None])
def test_an_environment_is_made_by_uv_where_it_is_installed(
    uv: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[str] = []
    monkeypatch.setattr("planner.runtime.make.shutil.which", lambda _: uv)
    monkeypatch.setattr("planner.runtime.make.must", lambda command, _failure: ran.append(" ".join(command)))
    virtual_environment(tmp_path / "qnn@2.5", ["onnxruntime", "onnxruntime-qnn==2.5"], lambda _: None)
    assert [command.startswith("/usr/bin/uv") for command in ran] == [uv is not None] * 2
    assert "onnxruntime onnxruntime-qnn==2.5 numpy" in ran[1]


def test_a_step_that_fails_leaves_no_half_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def must(command: list[str], failure: str) -> None:
        if "install" in command:
            raise EPError(failure)
        (tmp_path / "env").mkdir()
        (tmp_path / "env" / "pyvenv.cfg").touch()

    monkeypatch.setattr("planner.runtime.make.must", must)
    with pytest.raises(EPError, match="cannot be installed"):
        virtual_environment(tmp_path / "env", ["onnxruntime-qnn==99"], lambda _: None)
    assert not (tmp_path / "env").exists()
