"""AMD's Vitis AI for the NPU of Ryzen AI: its installer brings an environment with an onnxruntime of its own."""

from __future__ import annotations

from .builtin import Builtin

# All its options name files (config_file, xclbin, cache_dir), so that none may be set.
LAUNCHER = Builtin("VitisAIExecutionProvider", "vitisai", ("onnxruntime-vitisai",))
