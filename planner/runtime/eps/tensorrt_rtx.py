"""NVIDIA's TensorRT for RTX: its wheel is an onnxruntime of its own, so it lives in an environment of its own."""

from __future__ import annotations

from .cuda import Cuda

# Of the options of the EP (onnxruntime, "NVIDIA TensorRT RTX Execution Provider"), those that take a number.
_OPTIONS = frozenset({"device_id", "enable_cuda_graph", "nv_max_shared_mem_size", "nv_max_workspace_size"})

LAUNCHER = Cuda("NvTensorRTRTXExecutionProvider", "tensorrt-rtx", ("onnxruntime-trt-rtx",), _OPTIONS)
