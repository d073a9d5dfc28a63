"""WebGPU: the EP of onnxruntime-web, in a native package of its own. On Linux it computes by Vulkan.

`vulkan` finds what drives the device, which may be software: then the EP's own kernels run, and the processor computes them.
`witness` adds the nodes that make onnxruntime's log name every other.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...environment import variable
from .. import witness
from ..launcher import Availability, Launcher, Logged, NoDevice
from ..log import WHERE, read_named
from . import vulkan

_NO_GPU = (
    "no GPU that WebGPU can use, and no software GPU: install Debian's or Ubuntu's chromium for its SwiftShader, or "
    "mesa-vulkan-drivers of Mesa 25 or later, with libvulkan1"
)


# What the EP says, in building a session or in running it, where the GPU has no shader-f16.
_NO_FLOAT16 = "requires f16 but the device does not support it"


class _Unbuilt:
    """A session of which no more came about than the placement."""

    def __init__(self, ep: str, error: Exception) -> None:
        self._ep, self._error = ep, error

    def get_outputs(self) -> list[Any]:
        return []

    def get_providers(self) -> list[str]:
        return [self._ep]

    def run(self, *_: Any) -> Any:
        raise self._error


class WebGpu(Launcher):
    """Started by its name, once the device's driver is named."""

    def where(self) -> str:
        return f" (in an environment of its own: `planner env create {self.alias}`, or name its interpreter in {variable(self.alias)})"

    def availability(self, options: Mapping[str, str] | None = None) -> Availability:
        found = super().availability(options)
        if found.kind is None or platform.system() != "Linux":
            return found
        gpu = vulkan.find(found.python)
        if gpu is None:
            return replace(found, kind=None, reason=_NO_GPU)
        return replace(
            found,
            kind="software" if gpu.software else "hardware",
            packages={**found.packages, gpu.name: gpu.version},
            float16=gpu.float16,
        )

    # -- in the worker ----------------------------------------------------------------------------------------------

    def start(self, ort: Any) -> None:
        super().start(ort)
        if platform.system() != "Linux":
            return
        gpu = vulkan.find(Path(sys.executable))
        if gpu is None:
            raise NoDevice(_NO_GPU)
        if gpu.manifest:
            os.environ["VK_ICD_FILENAMES"] = gpu.manifest
        # The EP asks for libvulkan.so.1 by name: one that is loaded already is taken, wherever it lies.
        ctypes.CDLL(gpu.loader, ctypes.RTLD_GLOBAL)

    def drivers(self) -> Mapping[str, str]:
        gpu = vulkan.find(Path(sys.executable)) if platform.system() == "Linux" else None
        return {} if gpu is None else {gpu.name: gpu.version}

    def session(self, ort: Any, model: Any, session_options: Any, options: Mapping[str, str]) -> Any:
        try:
            session = super().session(ort, model, session_options, options)
        except Exception as error:
            if _NO_FLOAT16 not in str(error):
                raise
            # The placement is decided, and holds for a GPU that has float16: only a shader was not built for this one.
            return _Unbuilt(self.ep, error)
        if self.ep not in session.get_providers():
            # onnxruntime's Python falls back to the CPU EP by itself where the device cannot be had.
            raise NoDevice(f"{self.ep} found no device, and onnxruntime left everything to the CPU EP")
        return session

    def assignment(self, session: Any, model: Path, logged: Logged) -> list[tuple[str, str, str]]:
        """Read off the log, with witnesses beside the model: onnxruntime 1.27 records what the CPU EP got, but not what an EP
        with a layout of its own got at the first asking.
        """
        records = logged(model.read_bytes() + witness.nodes())
        named = read_named([message for _severity, where, message in records if WHERE in where])
        found = {(p.ep, p.op_type, p.name): None for p in named if not witness.is_added(p)}
        # Bodies of If, Loop and Scan that one EP has whole are not named there; what the CPU EP got of them is recorded.
        found |= dict.fromkeys(super().assignment(session, model, logged))
        return list(found)


LAUNCHER = WebGpu("WebGpuExecutionProvider", "webgpu", ("onnxruntime-webgpu",), node_by_node=True)
