"""The launcher of an EP by its name. A new EP is a file in eps/ and a line here.

The worker loads this folder by path in whatever interpreter an EP needs. So this file and what it imports use the standard
library and relative imports alone. `onnxruntime` comes in as an argument, and only in the worker: asking what is available
stays quick.
"""

from __future__ import annotations

from .eps import cpu, directml, openvino, qnn, webgpu
from .eps.builtin import Builtin
from .eps.launcher import CPU, Launcher

LAUNCHERS: tuple[Launcher, ...] = (
    cpu.LAUNCHER,
    qnn.LAUNCHER,
    openvino.LAUNCHER,
    directml.LAUNCHER,
    webgpu.LAUNCHER,
)


def launcher(ep: str) -> Launcher:
    """The launcher of an EP by its full name; for a name unknown here, one that asks the installed onnxruntime."""
    return next((known for known in LAUNCHERS if known.ep == ep), None) or Builtin.of(ep)


__all__ = ["CPU", "LAUNCHERS", "launcher"]
