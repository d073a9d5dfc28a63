"""planner: which numeric precision is legal on an execution provider, which is best, and is it proven?

The public functions are those of `__all__`. Each is imported when it is first used, so that `import planner` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planner.api import check, estimate, plan, quantize, report, target, verify
    from planner.limits import limited
    from planner.profiles.load import load_profile
    from planner.sweeps.sweep import diff, sweep

__version__ = "0.1.0"

__all__ = [
    "check",
    "diff",
    "estimate",
    "limited",
    "load_profile",
    "plan",
    "quantize",
    "report",
    "sweep",
    "target",
    "verify",
]

_HOMES = {
    "limited": "planner.limits",
    "load_profile": "planner.profiles.load",
    "diff": "planner.sweeps.sweep",
    "sweep": "planner.sweeps.sweep",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'planner' has no attribute {name!r}")
    found = importlib.import_module("planner.public").checked(_HOMES.get(name, "planner.api"), name)
    globals()[name] = found  # the same one each time, under the name that pickle looks for
    return found


def __dir__() -> list[str]:
    return [*globals(), *__all__]
