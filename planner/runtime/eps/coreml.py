"""Apple's Core ML: built into the onnxruntime for macOS."""

from __future__ import annotations

from .builtin import Builtin

# Of the options of the EP (onnxruntime, coreml_options.cc), those that take a word; left out is the one that names a folder.
_OPTIONS = frozenset(
    {
        "AllowLowPrecisionAccumulationOnGPU",
        "EnableOnSubgraphs",
        "MLComputeUnits",
        "ModelFormat",
        "RequireStaticInputShapes",
        "SpecializationStrategy",
    }
)

LAUNCHER = Builtin("CoreMLExecutionProvider", "coreml", options=_OPTIONS)
