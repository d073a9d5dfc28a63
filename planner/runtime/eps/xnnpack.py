"""XNNPACK: built into the onnxruntime for Android and iOS, or into one's own build."""

from __future__ import annotations

from .builtin import Builtin

LAUNCHER = Builtin("XnnpackExecutionProvider", "xnnpack", options=frozenset({"intra_op_num_threads"}))
