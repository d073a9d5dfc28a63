"""Intel's EP: its wheel is an onnxruntime of its own, so it lives in an environment of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..environment import printed, variable
from .launcher import Launcher

# Of the options of the EP (onnxruntime, "OpenVINO Execution Provider"), those that take a number or a word. Left out:
# cache_dir and load_config, which name files, and context, which is a pointer.
_OPTIONS = frozenset(
    {
        "device_type",
        "disable_dynamic_shapes",
        "enable_opencl_throttling",
        "enable_qdq_optimizer",
        "model_priority",
        "num_of_threads",
        "num_streams",
        "precision",
    }
)
_LIST = "import openvino; print('\\n'.join(openvino.Core().available_devices))"


class OpenVino(Launcher):
    """Started by its name once OpenVINO's own libraries are loaded."""

    def where(self) -> str:
        return f" (in an environment of its own: .venv-{self.alias}, or name its interpreter in {variable(self.alias)})"

    def lacks(self, options: Mapping[str, str]) -> str:
        wanted = options.get("device_type", "CPU")
        if wanted == "CPU":
            return ""
        there = printed(self.python, _LIST) or ()
        if any(name.partition(".")[0] == wanted for name in there):
            return ""
        return f"OpenVINO finds no {wanted} on this machine, only {', '.join(there) or 'nothing'}"

    def start(self, ort: Any) -> None:
        import openvino  # type: ignore[import-not-found, unused-ignore] # noqa: F401 - loads the libraries the EP links to

        super().start(ort)


LAUNCHER = OpenVino("OpenVINOExecutionProvider", "openvino", ("onnxruntime-openvino", "openvino"), _OPTIONS)
