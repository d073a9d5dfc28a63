"""What CI systems read from this repository: the action, the pre-commit hook, and the examples in docs/ci.md."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from planner.cli import precommit
from planner.cli.main import parser

ROOT = Path(__file__).parents[3]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())


def example(note: str) -> Any:
    """The YAML block of docs/ci.md that follows a comment."""
    text = (ROOT / "docs" / "ci.md").read_text()
    match = re.search(rf"<!-- {note} -->\n```yaml\n(.*?)```", text, re.DOTALL)
    assert match
    return yaml.safe_load(match[1])


def scripts() -> dict[str, str]:
    return {step["name"]: step["run"] for step in ACTION["runs"]["steps"] if "run" in step}


def test_the_action_is_composite_and_every_script_names_its_shell() -> None:
    assert ACTION["runs"]["using"] == "composite"
    for step in ACTION["runs"]["steps"]:
        assert ("run" in step) != ("uses" in step)
        assert "run" not in step or step["shell"] == "bash"
        assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w./-]+@v\d+", step["uses"])


def test_inputs_reach_scripts_as_variables_only() -> None:
    """`${{ inputs.x }}` inside a script would make a command of a hostile file name."""
    assert not any("${{" in script for script in scripts().values())


def test_every_input_is_described_and_used() -> None:
    text = (ROOT / "action.yml").read_text()
    for name, spec in ACTION["inputs"].items():
        assert spec["description"]
        assert f"inputs.{name}" in text, name


def test_the_scripts_are_bash() -> None:
    for name, script in scripts().items():
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
        assert checked.returncode == 0, f"{name}: {checked.stderr}"


def run_action(folder: Path, **inputs: str) -> tuple[int, list[str], str]:
    """Run the action's own script with a planner that writes down its arguments and ends with 3."""
    planner = folder / "planner"
    planner.write_text(
        '#!/bin/bash\nprintf "%s\\n" "$@" > arguments\nmkdir -p report\necho "# Report" > report/report.md\nexit 3\n'
    )
    planner.chmod(0o755)
    names = ("MODELS", "MANIFEST", "EP", "DEVICE", "PRECISION", "SHAPE", "INPUTS", "GATE", "BASELINE", "RUN", "OUTPUT")
    environment = dict.fromkeys(names, "") | {
        "PATH": "/usr/bin:/bin",
        "PLANNER": str(planner),
        "RUN": "true",
        "OUTPUT": "report",
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        "GITHUB_OUTPUT": str(folder / "output"),
        **inputs,
    }
    ran = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", scripts()["Report"]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    return ran.returncode, (folder / "arguments").read_text().splitlines(), (folder / "summary").read_text()


def test_the_action_hands_over_arguments_summary_and_exit_status(tmp_path: Path) -> None:
    status, arguments, summary = run_action(
        tmp_path,
        EP="qnn,cpu",
        MODELS="a.onnx\n$(touch owned) b.onnx\n",
        SHAPE="x=1,3\ny=2",
        GATE="no-fallback",
        RUN="false",
    )
    assert status == 3
    assert summary == "# Report\n"
    assert not (tmp_path / "owned").exists()
    assert (tmp_path / "output").read_text() == "report=report/report.json\n"
    parsed = parser().parse_args(arguments)
    assert [str(path) for path in parsed.models] == ["a.onnx", "$(touch owned) b.onnx"]
    assert (parsed.ep, parsed.no_run, parsed.gate, parsed.overwrite) == (["qnn", "cpu"], True, ["no-fallback"], True)
    assert parsed.shape == [("x", (1, 3)), ("y", (2,))]


def test_the_action_takes_a_manifest_instead_of_models(tmp_path: Path) -> None:
    _, arguments, _ = run_action(tmp_path, EP="all", MANIFEST="models.yaml", BASELINE="old.json", DEVICE="all")
    parsed = parser().parse_args(arguments)
    assert (parsed.models, str(parsed.manifest), str(parsed.baseline)) == ([], "models.yaml", "old.json")
    assert not parsed.no_run


def test_the_workflow_in_the_docs_uses_inputs_that_the_action_has() -> None:
    (job,) = example("workflow")["jobs"].values()
    (step,) = (step for step in job["steps"] if "planner" in step["uses"])
    assert set(step["with"]) <= set(ACTION["inputs"])
    required = {name for name, spec in ACTION["inputs"].items() if spec.get("required")}
    assert required <= set(step["with"])


def test_the_gitlab_job_in_the_docs_is_a_job_with_a_command_that_parses() -> None:
    (job,) = example("gitlab").values()
    assert {"image", "script", "artifacts"} <= set(job)
    (command,) = (line for line in job["script"] if line.startswith("planner "))
    parsed = parser().parse_args(command.split()[1:])
    assert job["artifacts"]["reports"]["junit"] == f"{parsed.output}/report.junit.xml"


def test_the_hook_is_what_pre_commit_wants() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert {"id", "name", "entry", "language", "files"} <= set(hook)
    assert hook["language"] == "python"
    assert re.search(hook["files"], "models/a.onnx") and not re.search(hook["files"], "a.onnx.data")
    module = hook["entry"].removeprefix("python -m ")
    assert importlib.import_module(module) is precommit
    (repo,) = example("pre-commit")["repos"]
    assert [h["id"] for h in repo["hooks"]] == [hook["id"]]


def test_the_hook_checks_every_file_and_tells_a_no_from_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    answers = {"good.onnx": 0, "unknown.onnx": 4, "bad.onnx": 1, "broken.onnx": 2}

    def planner(argv: list[str]) -> int:
        seen.append(argv)
        return answers[argv[-1]]

    monkeypatch.setattr(precommit, "planner", planner)
    assert precommit.main(["--ep", "qnn", *answers]) == 1
    assert seen == [["check", "--ep", "qnn", "--", name] for name in answers]
    assert precommit.main(["--ep", "qnn", "good.onnx", "unknown.onnx"]) == 4
    assert precommit.main(["--ep", "qnn", "good.onnx"]) == 0
