"""Where QuantizeLinear and DequantizeLinear stand once onnxruntime has spread them over the nodes that only move values.

Before it asks any EP, it puts a copy of a DequantizeLinear behind such a node, and one of a QuantizeLinear before it (core/optimizer/
qdq_transformer/qdq_propagation.cc; seen with onnxruntime 1.32 at opsets 13 to 25).
"""

from __future__ import annotations

import onnx_ir as ir

from planner.model.values import is_read_once

# Flatten, DepthToSpace, Split, Expand, Gather, Concat, Pad and Relu were seen not to be among them.
_SPREADING = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "MaxPool", "Identity"})


def dequantizer(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that hands the value on, itself or its copy; None where the value is float."""
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type == "DequantizeLinear":
            return producer
        if not _spreads(producer) or (value.is_graph_output() and value.uses()):
            return None
        value = producer.inputs[0]
    return None


def quantized_source(value: ir.Value | None) -> ir.Value | None:
    """The codes that whoever reads the value computes with; None where it reads floats."""
    before = dequantizer(value)
    if before is not None:
        return before.inputs[0]
    behind = None if value is None else _quantizer_behind(value)
    return None if behind is None else behind.outputs[0]


def is_quantized(value: ir.Value) -> bool:
    """Whether a QuantizeLinear reads the value, itself or its copy."""
    if any(use.node.op_type == "QuantizeLinear" for use in value.uses()) or _quantizer_behind(value) is not None:
        return True
    producer = value.producer()
    return producer is not None and _spreads(producer) and dequantizer(value) is not None


def _quantizer_behind(value: ir.Value) -> ir.Node | None:
    """The QuantizeLinear behind the nodes that read the value one after the other and move it; none where it stands at once."""
    moved = False
    while is_read_once(value):
        use = next(iter(value.uses()))
        if use.node.op_type == "QuantizeLinear":
            return use.node if moved else None
        if not _spreads(use.node) or use.idx != 0:
            return None
        value, moved = use.node.outputs[0], True
    return None


def _spreads(node: ir.Node) -> bool:
    return node.op_type in _SPREADING and node.domain in ("", "ai.onnx")
