"""`kernels: installed`: the kernel registry of the onnxruntime that is installed, asked once for each build and then remembered.

The snapshot that ships with planner serves where it was made of that very build, and, with a note, where none is installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from pathlib import Path

from planner.errors import EPError, RequestError
from planner.files import write_text
from planner.profiles.kernels import this_platform as _platform


def installed_kernels(ep: str, snapshot: str | None) -> tuple[str, str]:
    """(kernel table as JSON text, note): the registry of the installed build for the EP.

    Args:
        ep: full provider name.
        snapshot: text of the shipped table; None if there is none for this EP.

    Raises:
        RequestError: nothing is installed and there is no snapshot.
    """
    from planner.runtime.registry import launcher

    available = launcher(ep).availability()
    build = next((f"{name} {version}" for name, version in available.packages.items()), None)
    if build is not None and snapshot is not None and _made_of(snapshot, build):
        return snapshot, ""
    if not available.runs or build is None:
        return _fallback(ep, snapshot, available.reason)
    remembered = cache_folder() / "kernels" / f"{ep}-{re.sub(r'[^A-Za-z0-9.]+', '-', build)}-{_platform()}.json"
    with contextlib.suppress(OSError, ValueError):
        text = remembered.read_text(encoding="utf-8")
        json.loads(text)
        return text, ""
    from planner.profiles import kernels

    try:
        text = kernels.dump(kernels.installed(ep))
    except EPError as error:
        return _fallback(ep, snapshot, str(error))
    # A folder that cannot be written costs the next start some time, nothing else.
    with contextlib.suppress(OSError, RequestError):
        remembered.parent.mkdir(parents=True, exist_ok=True)
        write_text(remembered, text)
    return text, ""


def cache_folder() -> Path:
    """planner's folder in the user's cache: where each platform keeps such things, or PLANNER_CACHE."""
    if named := os.environ.get("PLANNER_CACHE"):
        return Path(named)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "planner"


def _made_of(snapshot: str, build: str) -> bool:
    """Whether the snapshot was made of this build. Builds of one version differ by platform: ARM has other float16 kernels."""
    with contextlib.suppress(ValueError, AttributeError):
        table = json.loads(snapshot)
        return bool(table.get("package") == build and table.get("platform", "linux-x86_64") == _platform())
    return False


def _fallback(ep: str, snapshot: str | None, reason: str) -> tuple[str, str]:
    if snapshot is None:
        raise RequestError(
            f"{ep}: its profile asks for the kernels of the installed build, and there is none: {reason}"
        )
    with contextlib.suppress(ValueError, AttributeError):
        package = json.loads(snapshot).get("package", "an unnamed build")
        return snapshot, f"judged by the kernels of {package}, since the installed build cannot be asked: {reason}"
    return snapshot, ""
