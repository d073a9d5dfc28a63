"""An EP that is built into an onnxruntime, or is not: the installed one is asked which it lists."""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path

from .launcher import Kind, Launcher


class Builtin(Launcher):
    """Started by its full name. One that nobody here knows takes no options: some of an EP's options name files."""

    @classmethod
    def of(cls, ep: str) -> Builtin:
        """The launcher of an EP by its full name."""
        return cls(ep, re.sub(r"[^a-z0-9]", "", ep.removesuffix("ExecutionProvider").lower()))

    def kind(self) -> tuple[Kind | None, str]:
        listed = _listed(self.python)
        if listed is None:
            return None, "the installed onnxruntime cannot be imported"
        if self.ep in listed:
            return "hardware", ""
        return None, f"the installed onnxruntime does not have {self.ep}: it has {', '.join(listed)}"


@functools.cache
def _listed(python: Path) -> tuple[str, ...] | None:
    """The EPs of an environment's onnxruntime; None where it cannot be imported."""
    code = "import onnxruntime; print('\\n'.join(onnxruntime.get_available_providers()))"
    try:
        # Importing onnxruntime may itself fail or chatter: not in the caller's process.
        done = subprocess.run(
            [str(python), "-c", code],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return tuple(done.stdout.split())
