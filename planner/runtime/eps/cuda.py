"""NVIDIA's CUDA: its wheel is an onnxruntime of its own, so it lives in an environment of its own."""

from __future__ import annotations

import platform
from pathlib import Path

from .builtin import Builtin
from .launcher import Kind

# Of the options of the EP (onnxruntime, "CUDA Execution Provider"), those that take a number or a word.
_OPTIONS = frozenset(
    {
        "arena_extend_strategy",
        "cudnn_conv_algo_search",
        "cudnn_conv_use_max_workspace",
        "device_id",
        "enable_cuda_graph",
        "gpu_mem_limit",
        "prefer_nhwc",
        "use_tf32",
    }
)


class Cuda(Builtin):
    """The wheel lists the EP on a machine without a GPU too, where onnxruntime quietly runs everything on the CPU EP."""

    def kind(self) -> tuple[Kind | None, str]:
        if platform.system() == "Linux" and not Path("/dev/nvidiactl").exists():
            return None, "there is no NVIDIA GPU, or no driver for it"
        return super().kind()


LAUNCHER = Cuda("CUDAExecutionProvider", "cuda", ("onnxruntime-gpu",), _OPTIONS)
