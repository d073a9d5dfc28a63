"""Where an EP's packages lie: its interpreter, what is installed there, and what excludes one another.

Read by the worker too, in whatever environment an EP needs: the standard library alone.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

# Every distribution that carries the module `onnxruntime` itself (a plugin such as onnxruntime-qnn 2 does not).
_CARRIERS = re.compile(
    r"onnxruntime(-(gpu|directml|openvino|webgpu|training|training-cpu|azure|silicon|cann|migraphx|rocm|vitisai|foundry))?"
    r"|ort-nightly(-.*)?|onnxruntime-windowsml"
)


def variable(alias: str) -> str:
    """The environment variable that names the interpreter of an EP's own environment."""
    return f"PLANNER_PYTHON_{re.sub('[^A-Z0-9]', '_', alias.upper())}"


def interpreter(alias: str) -> Path:
    """The interpreter an EP runs in: from the environment variable, in an environment of its own, or this one.

    A version of an EP (qnn@2.5) never runs in this one: where it has no environment, the place is named where it would lie.
    """
    named = os.environ.get(variable(alias))
    if named:
        return Path(named)
    otherwise = python_in(made_folder(alias)) if "@" in alias else Path(sys.executable)
    return next((found for folder in places(alias) if (found := python_in(folder)).is_file()), otherwise)


def python_in(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / (Path("Scripts", "python.exe") if os.name == "nt" else Path("bin", "python"))


def places(alias: str) -> tuple[Path, ...]:
    """The folders where an EP's own environment may lie, the first that is one counts: beside the running environment and beside
    our own source (never the working folder, which may be anybody's), then where `planner env create` makes it.
    """
    beside = (Path(sys.prefix).parent, Path(__file__).resolve().parents[2])
    return (*(folder / f".venv-{alias}" for folder in beside), made_folder(alias))


def made_folder(alias: str) -> Path:
    """Where `planner env create` makes an EP's environment."""
    return cache_folder() / "environments" / alias


def cache_folder() -> Path:
    """Planner's folder in the user's cache: where each platform keeps such things, or PLANNER_CACHE."""
    if named := os.environ.get("PLANNER_CACHE"):
        return Path(named)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "planner"


def conflicts(python: Path | None = None) -> tuple[str, ...]:
    """Installed distributions that each carry the module `onnxruntime`, where they are two or more; else empty.

    They overwrite one another's files: with two installed, neither is whole.
    """
    carriers = [
        f"{name} {version}" for name, version in sorted(distributions(python).items()) if _CARRIERS.fullmatch(name)
    ]
    return tuple(carriers) if len(carriers) > 1 else ()


def distributions(python: Path | None = None) -> dict[str, str]:
    """Installed distributions, canonical name -> version, of this or another interpreter's environment.

    They are read from the names of the folders that installers leave (NAME-VERSION.dist-info): every start of a worker asks,
    and parsing the metadata of a hundred packages takes most of a second.
    """
    if python is None or python == Path(sys.executable):
        folders = [Path(entry or ".") for entry in sys.path]
    else:
        # Starting another interpreter only to ask would take longer than all the rest. The path is not resolved, since a
        # virtual environment's python is a link to the one it was made from.
        prefix = python.parent.parent
        folders = [*prefix.glob("lib/python3*/site-packages"), prefix / "Lib" / "site-packages"]
    result: dict[str, str] = {}
    for folder in folders:
        for found in sorted(folder.glob("*-*.dist-info")) if folder.is_dir() else ():
            name, _, version = found.name.removesuffix(".dist-info").partition("-")
            result.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
    return result


@functools.cache
def printed(python: Path, code: str) -> tuple[str, ...] | None:
    """The words that some code prints in an interpreter; None where it fails.

    For what a runtime knows of itself: importing one may fail or chatter, which is not to happen in the caller's process.
    """
    try:
        done = subprocess.run(
            [str(python), "-c", code], capture_output=True, text=True, timeout=60, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return tuple(done.stdout.split())
