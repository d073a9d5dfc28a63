"""AMD's MIGraphX: its wheel is an onnxruntime of its own, so it lives in an environment of its own."""

from __future__ import annotations

from .builtin import Builtin

# Of the options of the EP (onnxruntime, "MIGraphX Execution Provider"), those that take a number. Left out are those that
# name files or addresses, and those that change the precision behind the plan's back.
_OPTIONS = frozenset({"device_id", "migraphx_exhaustive_tune", "migraphx_mem_limit"})

LAUNCHER = Builtin("MIGraphXExecutionProvider", "migraphx", ("onnxruntime-migraphx|onnxruntime-rocm",), _OPTIONS)
