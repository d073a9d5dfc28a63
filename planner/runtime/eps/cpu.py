"""onnxruntime's own EP for processors: behind every other, and the stand-in where a target cannot run."""

from __future__ import annotations

from .launcher import CPU, Launcher

LAUNCHER = Launcher(CPU, "cpu", options=frozenset({"use_arena"}))
