"""An EP that we know nothing of but that the installed onnxruntime may list."""

from __future__ import annotations

import re
import subprocess

from .launcher import Kind, Launcher


class Builtin(Launcher):
    """Started by its full name. It takes no options: nobody here knows which of them name files."""

    @classmethod
    def of(cls, ep: str) -> Builtin:
        """The launcher of an EP by its full name."""
        return cls(ep, re.sub(r"[^a-z0-9]", "", ep.removesuffix("ExecutionProvider").lower()))

    def kind(self) -> tuple[Kind | None, str]:
        code = "import onnxruntime; print('\\n'.join(onnxruntime.get_available_providers()))"
        try:
            # Importing onnxruntime may itself fail or chatter: not in the caller's process.
            listed = subprocess.run(
                [str(self.python), "-c", code],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
                stdin=subprocess.DEVNULL,
            ).stdout.split()
        except (OSError, subprocess.SubprocessError):
            return None, "the installed onnxruntime cannot be imported"
        if self.ep in listed:
            return "hardware", ""
        return None, f"the installed onnxruntime does not have {self.ep}: it has {', '.join(listed)}"
