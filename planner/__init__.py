"""planner: which numeric precision is legal on an execution provider, which is best, and is it proven?

The public functions are those of `__all__`; each is imported when it is first used, so that `import planner` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planner.api import check, plan, quantize, report, target, verify
    from planner.profiles.load import load_profile

__version__ = "0.1.0"

_HOMES = {
    "check": "planner.api",
    "load_profile": "planner.profiles.load",
    "plan": "planner.api",
    "quantize": "planner.api",
    "report": "planner.api",
    "target": "planner.api",
    "verify": "planner.api",
}

__all__ = ["check", "load_profile", "plan", "quantize", "report", "target", "verify"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'planner' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
