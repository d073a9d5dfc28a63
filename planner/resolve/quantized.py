"""Models that are quantized already, told apart by what they are made of. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from planner.model.node import Node

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


def quantized_form(
    nodes: Sequence[Node], quantized: frozenset[str] = frozenset()
) -> tuple[str, tuple[Node, ...]] | None:
    """The form of quantization that a model has, with the nodes that show it; None for a model that is not quantized.

    Args:
        nodes: of the model.
        quantized: names of values that Q/DQ stand beside: what reads or gives one may compute in float by itself, as a Conv does whose
            Relu alone is followed by a QuantizeLinear.
    """
    found: dict[str, list[Node]] = {}
    for node in nodes:
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
