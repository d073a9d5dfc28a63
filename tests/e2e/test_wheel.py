"""The wheel as users get it: it carries the profiles, and works far from this checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.limits import HANGS

_CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with the backend of this environment, so without the network."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*command, "--no-build-isolation", "--wheel-dir", str(folder), str(_CHECKOUT)], check=True)
    (built,) = folder.glob("planner-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel alone, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    subprocess.run([*command, "--target", str(folder), str(wheel)], check=True)
    return folder


def run(installed: Path, elsewhere: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with the installed wheel before everything else, in a folder that isn't the checkout."""
    environment = dict(os.environ, PYTHONPATH=str(installed))
    return subprocess.run(
        [sys.executable, *arguments], cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=HANGS
    )


def test_it_carries_package_profiles_and_licence_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {name.removeprefix("planner/") for name in names if name.startswith("planner/ep_profiles/")}
    assert {f"ep_profiles/{ep}/profile.yaml" for ep in ("cpu", "directml", "qnn")} <= shipped
    files = (path for path in (_CHECKOUT / "ep_profiles").rglob("*") if path.is_file())
    assert shipped == {path.relative_to(_CHECKOUT).as_posix() for path in files}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"planner"}


def test_the_installed_package_is_the_one_that_runs(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "-c", "import planner; print(planner.__file__)")
    assert Path(done.stdout.strip()).is_relative_to(installed), done.stderr


def test_it_lists_its_profiles_from_anywhere(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "-m", "planner", "eps", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "planner/eps/1"
    assert {"QNNExecutionProvider", "DmlExecutionProvider", "CPUExecutionProvider"} <= {
        e["ep"] for e in document["eps"]
    }


def test_help_comes_at_once_and_without_heavy_imports(installed: Path, tmp_path: Path) -> None:
    code = """
import sys
from planner.cli.main import main
main(["--help"])
print("heavy:", sorted({"numpy", "onnx", "onnxruntime"} & set(sys.modules)))
"""
    done = run(installed, tmp_path, "-c", code)
    assert done.stdout.rstrip().endswith("heavy: []"), done.stdout[-200:] + done.stderr


def test_the_source_distribution_builds_and_carries_what_a_build_needs(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)], cwd=_CHECKOUT, check=True
    )
    (sdist,) = tmp_path.glob("planner-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "pyproject.toml",
        "LICENSE",
        "planner/__init__.py",
        "ep_profiles/qnn/profile.yaml",
        "examples/fetch.py",
    } <= names
