"""An EP that is built into an onnxruntime, or is not: the installed one is asked which it lists."""

from __future__ import annotations

import re

from ..environment import printed
from .launcher import Kind, Launcher

_LIST = "import onnxruntime; print('\\n'.join(onnxruntime.get_available_providers()))"


class Builtin(Launcher):
    """Started by its full name. One that nobody here knows takes no options: some of an EP's options name files."""

    @classmethod
    def of(cls, ep: str) -> Builtin:
        """The launcher of an EP by its full name."""
        return cls(ep, re.sub(r"[^a-z0-9]", "", ep.removesuffix("ExecutionProvider").lower()))

    def kind(self) -> tuple[Kind | None, str]:
        listed = printed(self.python, _LIST)
        if listed is None:
            return None, "the installed onnxruntime cannot be imported"
        if self.ep in listed:
            return "hardware", ""
        return None, f"the installed onnxruntime does not have {self.ep}: it has {', '.join(listed)}"
