"""Microsoft's EP for any DirectX 12 GPU: Windows only."""

from __future__ import annotations

import platform

from .launcher import Availability, Launcher

_OPTIONS = frozenset(
    {"device_id", "device_filter", "performance_preference", "disable_metacommands", "enable_graph_capture"}
)


class DirectMl(Launcher):
    """Built into an onnxruntime of its own."""

    def availability(self) -> Availability:
        if platform.system() != "Windows":
            return Availability(None, {}, "DirectML runs on Windows only", self.python)
        return super().availability()


LAUNCHER = DirectMl("DmlExecutionProvider", "directml", ("onnxruntime-directml",), _OPTIONS)
