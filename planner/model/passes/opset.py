"""The opset, raised."""

from __future__ import annotations

import onnx_ir as ir


def raise_opset(model: ir.Model, target: int) -> str | None:
    """Raise the ai.onnx opset to ``target`` where it is below it; what could not be done, in words."""
    have = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
    if have >= target:
        return None
    from onnxscript import version_converter

    try:
        version_converter.convert_version(model, target, fallback=True)
    except Exception as error:
        return f"opset {have} could not be raised to {target}: {str(error).splitlines()[0]}"
    if model.opset_imports.get("", 0) < target:
        return f"opset {have} could not be raised to {target}"
    # QuantizeLinear of 16-bit types needs IR version 10 beside opset 21 (ONNX Versioning.md).
    model.ir_version = max(model.ir_version or 0, 10 if target >= 21 else 8)
    return None
