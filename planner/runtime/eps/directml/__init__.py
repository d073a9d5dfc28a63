"""Microsoft's EP for any DirectX 12 GPU. On Windows it runs; on Linux its own libraries, under Wine, say which nodes they take.

On Linux numbers come from it only where the machine's Direct3D gives the known answers of `proof`: a stock one computes too little of
what DirectML needs. There `setup` makes the environment, `environment` finds it, `asker` holds the process that is asked,
and `server` answers a worker's requests.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..launcher import Availability, Kind, Launcher
from . import environment

_OPTIONS = frozenset(
    {"device_id", "device_filter", "performance_preference", "disable_metacommands", "enable_graph_capture"}
)


class DirectMl(Launcher):
    """Built into an onnxruntime of its own."""

    @property
    def python(self) -> Path:
        return super().python if platform.system() == "Windows" else Path(sys.executable)

    def availability(self, options: Mapping[str, str] | None = None) -> Availability:
        if platform.system() == "Windows":
            return super().availability(options)
        if self.version:
            return Availability(None, {}, f"on Linux there is one version of it, {environment.VERSION}", self.python)
        kind: Kind | None = None
        found = environment.find()
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            reason = "DirectML runs on Windows, and answers for its placement on Linux on x86-64"
        elif found is None:
            reason = "DirectML runs on Windows; to ask it for its placement here: `planner env create directml`"
        elif not (reason := environment.missing(found)):
            kind = "software" if found.computes else "placement"
        return Availability(kind, {} if found is None else found.packages, reason, self.python)

    def make_environment(self, folder: Path, say: Callable[[str], None]) -> Mapping[str, str]:
        if platform.system() == "Windows":
            return super().make_environment(folder, say)
        from planner.errors import EPError

        if self.version:
            raise EPError(f"on Linux there is one version of DirectML, {environment.VERSION}", "name no version")
        from planner.runtime.eps.directml.setup import create

        return create(folder, say=say).packages

    def server(self) -> Any:
        if platform.system() == "Windows":
            return None
        from .server import Server

        found = environment.find()
        if found is None:
            raise OSError("DirectML's environment is gone")
        return Server(found)


LAUNCHER = DirectMl("DmlExecutionProvider", "directml", ("onnxruntime-directml",), _OPTIONS, node_by_node=True)
