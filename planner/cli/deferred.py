"""Modules that the command loads only when something of them is used.

onnx-ir imports sympy for arithmetic on symbolic dimensions, which the planner never does: a third of a second and 33 MiB at every
start. Only the command defers them, whose process is
its own; a program that imports planner keeps its import system as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

_MODULES = ("sympy", "onnx_ir._symbolic_shapes")


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in _MODULES else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def defer_imports() -> None:
    """From here on the modules are loaded at the first use of one of their attributes (importlib.util.LazyLoader)."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
