"""The launcher of an EP by its name. A new EP is a file in eps/ and a line here.

The worker loads this folder by path in whatever interpreter an EP needs. So this file and what it imports use the standard
library and relative imports alone. `onnxruntime` comes in as an argument, and only in the worker: asking what is available
stays quick.
"""

from __future__ import annotations

from dataclasses import replace

from .eps import coreml, cpu, cuda, directml, migraphx, openvino, qnn, tensorrt_rtx, vitisai, webgpu, xnnpack
from .eps.builtin import Builtin
from .eps.launcher import CPU, Launcher

LAUNCHERS: tuple[Launcher, ...] = (
    cpu.LAUNCHER,
    qnn.LAUNCHER,
    openvino.LAUNCHER,
    directml.LAUNCHER,
    cuda.LAUNCHER,
    tensorrt_rtx.LAUNCHER,
    migraphx.LAUNCHER,
    vitisai.LAUNCHER,
    coreml.LAUNCHER,
    xnnpack.LAUNCHER,
    webgpu.LAUNCHER,
)


def launcher(ep: str) -> Launcher:
    """The launcher of an EP by its full name; for a name unknown here, one that asks the installed onnxruntime.

    A version behind the name (QNNExecutionProvider@2.5) is one in an environment of its own, which `planner env create` makes.
    """
    name, _, version = ep.partition("@")
    known = next((known for known in LAUNCHERS if known.ep == name), None) or Builtin.of(name)
    return replace(known, version=version) if version else known


__all__ = ["CPU", "LAUNCHERS", "launcher"]
