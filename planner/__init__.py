"""planner: which numeric precision is legal on an execution provider, which is best, and is it proven?

The public functions are those of `__all__`; each is imported when it is first used, so that `import planner` costs nothing.
Three of them share their name with the package that does the work: `planner.verify(...)` and `planner.verify.floor` both
work.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planner.api import check, plan, quantize, report, target, verify
    from planner.profiles.load import load_profile

__version__ = "0.1.0"

_HOMES = {
    "check": "planner.api",
    "load_profile": "planner.profiles.load",
    "plan": "planner.api",
    "target": "planner.api",
}
_PACKAGES = ("quantize", "report", "verify")

__all__ = ["check", "load_profile", "plan", "quantize", "report", "target", "verify"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"planner.{name}")
    raise AttributeError(f"module 'planner' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]


class _CallablePackage(ModuleType):
    """A package that is also the public function of its name, since an attribute of `planner` can be only one object."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return getattr(importlib.import_module("planner.api"), self.__name__.rpartition(".")[2])(*arguments, **options)


def make_callable(package: str) -> None:
    """Let a package of planner be called as the function of `planner.api` that has its name."""
    sys.modules[package].__class__ = _CallablePackage
