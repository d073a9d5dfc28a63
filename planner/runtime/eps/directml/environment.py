"""Where DirectML's environment lies on Linux, what it holds, and what this machine lacks to use it. Standard library only."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...environment import places

PACKAGE = "onnxruntime-directml"
VERSION = "1.24.4"
VARIABLE = "PLANNER_DIRECTML"
# Debian's and Ubuntu's packages, and the program or file that shows each is there.
SYSTEM_PACKAGES = ("wine64", "wine", "mesa-vulkan-drivers", "xvfb")
BUILD_PACKAGES = ("gcc-mingw-w64-x86-64-win32",)
COMPILER = "x86_64-w64-mingw32-gcc"
SOURCE = Path(__file__).with_name("ask.c")
# What builds `bridge.c`, where the system has it: a newer Direct3D than Wine's own.
BRIDGE, BRIDGE_EXPORTS = SOURCE.with_name("bridge.c"), SOURCE.with_name("bridge.spec")
_MANIFEST = "directml.json"
_DRIVERS = (Path("/usr/share/vulkan/icd.d"), Path("/etc/vulkan/icd.d"))


@dataclass(frozen=True)
class Environment:
    """A folder that `setup.create` made.

    Attributes:
        packages: the distributions in it with their versions.
        source: SHA-256 of the program's source that it was built from.
        computes: whether the machine's Direct3D gave the known answers of `proof` when the folder was made.
    """

    folder: Path
    packages: Mapping[str, str]
    source: str
    computes: bool = False

    @property
    def program(self) -> Path:
        return self.folder / "ask.exe"

    @property
    def libraries(self) -> Path:
        return self.folder / "libraries"

    @property
    def prefix(self) -> Path:
        return self.folder / "wine"

    @property
    def bridge(self) -> Path:
        """Where Wine looks for the library of `bridge.c`, too; it need not be there."""
        return self.folder / "bridge"

    def write(self) -> None:
        """Leave the mark by which the folder is found: the last step of making it."""
        content = {"packages": dict(self.packages), "source": self.source, "computes": self.computes}
        (self.folder / _MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def find() -> Environment | None:
    """The environment in the folder that PLANNER_DIRECTML names, or the first of the usual places that has one."""
    named = os.environ.get(VARIABLE)
    for folder in (Path(named),) if named else places("directml"):
        try:
            content = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
            computes = content.get("computes") is True
            return Environment(folder, dict(content["packages"]), str(content["source"]), computes)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def missing(found: Environment) -> str:
    """What keeps the environment from being used, and what to do; empty where nothing does."""
    if found.source != source_digest():
        return "its environment was made by another version of planner: run `planner env create directml` again"
    lacking = missing_programs()
    if lacking:
        return f"not installed: {', '.join(lacking)} (packages of Debian and Ubuntu)"
    return ""


def missing_programs() -> list[str]:
    """System packages that using the environment needs and that are not there."""
    lacking = [package for package, program in (("wine", "wine"), ("xvfb", "Xvfb")) if shutil.which(program) is None]
    return lacking if vulkan_driver() is not None else [*lacking, "mesa-vulkan-drivers"]


def vulkan_driver() -> Path | None:
    """The description of Mesa's software Vulkan driver."""
    return next((found for folder in _DRIVERS for found in sorted(folder.glob("lvp_icd*.json"))), None)


def source_digest() -> str:
    """SHA-256 of the program's source, and of the bridge's."""
    return hashlib.sha256(SOURCE.read_bytes() + BRIDGE.read_bytes()).hexdigest()
