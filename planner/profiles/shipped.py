"""Where the shipped profiles lie: a folder for each EP, with what belongs to its profile beside it."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

PROFILE = "profile.yaml"
KERNELS = "kernels.json"
_EP = re.compile(r"^ep: *(\S+)", re.MULTILINE)


def shipped_directory() -> Path:
    """The folder of all shipped profiles: inside the wheel, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "ep_profiles"
    return inside if inside.is_dir() else package.parent / "ep_profiles"


@functools.cache
def folders() -> Mapping[str, Path]:
    """The folder of each shipped profile by full provider name."""
    found = {}
    for path in sorted(shipped_directory().glob(f"*/{PROFILE}")):
        if named := _EP.search(path.read_text(encoding="utf-8")):
            found[named[1]] = path.parent
    return found


def folder_of(ep: str) -> Path:
    """The folder of an EP's shipped profile, evidence and kernel table; one that does not exist if none is shipped.

    A version (QNNExecutionProvider@2.5) has those of its EP.
    """
    name = ep.partition("@")[0]
    return folders().get(name, shipped_directory() / name)
