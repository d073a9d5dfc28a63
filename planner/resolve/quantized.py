"""Models that are quantized already, told apart by what they are made of. Pure."""

from __future__ import annotations

from planner.model.node import Node
from planner.model.read import Model

# By operator: what the form is called.
_BLOCKS, _DYNAMIC = "weights in blocks", "dynamic quantization"
_FORMS = {
    "EPContext": "compiled for one execution provider",
    **dict.fromkeys(("MatMulNBits", "MatMulBnb4", "GatherBlockQuantized", "QMoE", "MatMulFpQ4"), _BLOCKS),
    **dict.fromkeys(
        ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulIntegerToFloat"), _DYNAMIC
    ),
    **dict.fromkeys(("MatMulInteger", "ConvInteger"), "integer operators"),
    **dict.fromkeys(("QGemm", "QAttention", "QEmbedLayerNormalization", "QOrderedMatMul"), "QLinear operators"),
}


def quantized_form(model: Model) -> tuple[str, tuple[Node, ...]] | None:
    """The form of quantization that a model has, with the nodes that show it; None for a model that is not quantized."""
    quantized = _before_quantize(model)
    found: dict[str, list[Node]] = {}
    for node in model.nodes:
        form = _FORMS.get(node.op_type)
        if form is None and node.op_type.startswith("QLinear"):
            form = "QLinear operators"
        if form is None and (_has_integers(node) or not quantized.isdisjoint(node.outputs)):
            form = "Q/DQ"
        if form is not None:
            found.setdefault(form, []).append(node)
    if not found:
        return None
    # MatMulInteger behind DynamicQuantizeLinear is part of the dynamic form.
    form = next(form for form in (_DYNAMIC, *found) if form in found)
    return form, tuple(found[form])


def _has_integers(node: Node) -> bool:
    stored = (node.stored.activation, node.stored.weight)
    return any(dtype is not None and not dtype.is_float for dtype in stored)


def _before_quantize(model: Model) -> frozenset[str]:
    """Names of the values that the file quantizes. What gives one may itself compute in float, as a Relu does behind its Conv."""
    nodes = () if model.ir is None else model.ir.graph.all_nodes()
    return frozenset(n.inputs[0].name or "" for n in nodes if n.op_type == "QuantizeLinear" and n.inputs[0] is not None)
