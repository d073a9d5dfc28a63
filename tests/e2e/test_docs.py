"""The documentation is true: every command and every Python block in docs/ runs, every link leads somewhere.

A page is run from top to bottom in a folder of its own that holds digits.onnx and digits.npz, as getting-started.md
makes them. `# exit status N` behind a command says how it ends; a comment `<!-- not run: reason -->` before a block
keeps it from being run, and NOT_RUN lists these blocks.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.limits import HANGS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
NOT_RUN = {
    ("adding-evidence.md", "needs the hardware"),
    ("scale.md", "needs a cluster"),
    ("webgpu.md", "needs WebGPU's environment"),
    ("writing-a-profile.md", "rewrites a shipped file; takes minutes"),
    ("getting-started.md", "the tests already run in an environment that has planner"),
    ("adding-an-ep.md", "makes an environment and downloads packages"),
}
# Pages whose examples run on the NPU's simulator.
SIMULATED = {
    "getting-started.md",
    "choosing-a-precision.md",
    "ci.md",
    "latency.md",
    "python-api.md",
    "writing-a-profile.md",
}

_BLOCK = re.compile(
    r"^```(?P<language>[a-z]*)\n(?P<text>.*?)^```$(?:\n+<!-- file: (?P<file>\S+) -->)?", re.MULTILINE | re.DOTALL
)
_COMMENT = re.compile(r"<!-- (?P<text>[^>]*) -->\s*\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block; ``note`` is the comment right before it, ``file`` the name under which it is to be kept."""

    language: str
    text: str
    note: str
    file: str | None

    @property
    def commands(self) -> list[tuple[str, int]]:
        """Commands and the exit status that each announces."""
        lines = self.text.replace("\\\n", " ").splitlines()
        found = []
        for line in lines:
            if line.startswith("$ "):
                command, _, status = line[2:].partition("  # exit status ")
                found.append((command.strip(), int(status or 0)))
        return found


def blocks(page: str) -> Iterator[Block]:
    text = (DOCS / page).read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        before = _COMMENT.search(text[: match.start()])
        yield Block(match["language"], match["text"], before["text"] if before else "", match["file"])


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `planner` and `python`, as an activated environment has them."""
    folder = tmp_path_factory.mktemp("bin")
    for name, start in (("planner", [sys.executable, "-m", "planner"]), ("python", [sys.executable])):
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join(start)} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def samples() -> dict[str, np.ndarray]:
    from examples.digits import data

    return {"image": data().test[:32, None]}


def runs(page: str) -> bool:
    return any(b.language in ("console", "python") for b in blocks(page))


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=[pytest.mark.qnn] if p in SIMULATED else []) for p in PAGES if runs(p)]
)
def test_every_command_of_a_page_ends_as_it_says(
    page: str, tmp_path: Path, bin_folder: Path, digits: Path, samples: dict[str, np.ndarray]
) -> None:
    (tmp_path / "digits.onnx").write_bytes(digits.read_bytes())
    np.savez(tmp_path / "digits.npz", allow_pickle=False, **samples)
    environment = os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    for block in blocks(page):
        if block.file:
            (tmp_path / block.file).write_text(block.text)
        if block.note.startswith("not run: "):
            continue
        commands = [(f"python - <<'END'\n{block.text}END", 0)] if block.language == "python" else block.commands
        for command, status in commands if block.language in ("python", "console") else ():
            ran = subprocess.run(
                ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=HANGS
            )
            assert ran.returncode == status, f"{page}: {command}\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}"
            assert "Traceback" not in ran.stderr, f"{page}: {command}\n{ran.stderr[-2000:]}"


@pytest.mark.parametrize("page", PAGES)
def test_console_blocks_hold_commands_and_nothing_else(page: str) -> None:
    for block in blocks(page):
        if block.language == "console":
            assert len(block.commands) == len(block.text.replace("\\\n", " ").splitlines()), block.text
        assert block.language in ("console", "python", "yaml", "text", ""), block.language


def test_what_is_not_run_is_listed_with_its_reason() -> None:
    found = {
        (page, block.note.removeprefix("not run: "))
        for page in PAGES
        for block in blocks(page)
        if block.note.startswith("not run: ")
    }
    assert found == NOT_RUN


@pytest.mark.parametrize("page", PAGES)
def test_yaml_blocks_are_yaml(page: str) -> None:
    for block in blocks(page):
        if block.language == "yaml":
            assert yaml.safe_load(block.text)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    text = re.sub(r"```.*?```", "", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        path = (DOCS / file).resolve() if file else DOCS / page
        assert path.exists(), f"{page}: {target}"
        if heading:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, (
                f"{page}: {target}"
            )


def test_the_index_names_every_page() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    missing = [page for page in PAGES if page not in ("README.md", "qnn-releases.md") and f"({page})" not in index]
    assert not missing
