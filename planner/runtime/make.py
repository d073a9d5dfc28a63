"""Making environments: commands that must succeed, and virtual environments of an EP's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from planner.errors import EPError
from planner.runtime.environment import distributions, python_in

_TIMEOUT = 1800.0


def virtual_environment(folder: Path, packages: Sequence[str], say: Callable[[str], None]) -> Mapping[str, str]:
    """Make a virtual environment with some packages, in place of one that is there; their versions.

    Args:
        folder: where.
        packages: distributions to install, each with ==VERSION where one is asked for, by uv where that is installed, else by
            pip, from whatever registry it is set up for.
        say: told each step before it is taken.

    Raises:
        EPError: the folder holds something else, or a step failed.
    """
    if folder.exists() and not (folder / "pyvenv.cfg").is_file() and any(folder.iterdir()):
        raise EPError(f"{folder} holds other things than an environment", "name another folder")
    shutil.rmtree(folder, ignore_errors=True)
    say(f"making an environment in {folder}")
    uv = shutil.which("uv")
    python = python_in(folder)
    if uv:
        make = [uv, "venv", "--quiet", "--python", sys.executable, str(folder)]
        install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    else:
        make = [sys.executable, "-m", "venv", str(folder)]
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        must(make, "no environment can be made")
        say(f"installing {', '.join(packages)}")
        must([*install, *packages, "numpy"], f"{', '.join(packages)} cannot be installed")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # half an environment would be found, and run
        raise
    found = distributions(python)
    names = [package.partition("==")[0] for package in packages]
    return {name: found[name] for name in names if name in found}


def must(command: Sequence[str], failure: str, env: Mapping[str, str] | None = None) -> None:
    """Run a command to its end.

    Args:
        command: program and arguments.
        failure: what a failure means, in words.
        env: its process environment; None for ours.

    Raises:
        EPError: it cannot be started, fails, or takes more than half an hour.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            stdin=subprocess.DEVNULL,
            env=env,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EPError(f"{failure}: {error}", "mend that, and run the command again") from None
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        last = " / ".join(said[-3:]) or f"exit status {done.returncode}"
        raise EPError(f"{failure}: {last}", "mend that, and run the command again")
