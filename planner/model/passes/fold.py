"""What is known before the model runs, computed before it is written."""

from __future__ import annotations

import contextlib
import math

import onnx_ir as ir
from onnx_ir.passes import common

from planner.model.bounds import is_result_small
from planner.model.passes.match import is_shared, own
from planner.model.shapes import are_known
from planner.model.values import constant_array

# A tensor larger than this is not made by folding: a ConstantOfShape or Expand would swell the file.
_FOLD_OUTPUT_LIMIT = 1 << 24
_FOLD_INPUT_LIMIT = 1 << 26
# What onnxscript computes or removes and onnxruntime leaves to whoever takes it where the graph gives out the result
# (core/graph/graph_utils.cc, CanRemoveNode; a Size that only shapes come from is followed by its shape inference).
_LEFT = ("Dropout", "Size", "OptionalHasElement")
_HIDDEN = "left"


def fold(model: ir.Model, as_stored: bool) -> bool:
    """Compute what depends on constants alone, in place; whether that may have made more known than was.

    Args:
        model: changed in place, its shapes inferred before.
        as_stored: leave what onnxruntime leaves.
    """
    from onnxscript import optimizer

    def should_fold(node: ir.Node) -> bool | None:
        # A stored quantized weight is a decision of whoever made the model: never folded back to float.
        if node.op_type in ("DequantizeLinear", "QuantizeLinear"):
            return False
        # Asked before it is computed, not after.
        if not is_result_small(node, _FOLD_OUTPUT_LIMIT):
            return False
        # onnxscript leaves this operator alone for fear of its output's size, and with it whole chains that compute a
        # shape (the padding of a Pad, as PyTorch writes it).
        if node.op_type == "ConstantOfShape" and own(node):
            dims = constant_array(node.inputs[0])
            return True if dims is not None and dims.size and 0 < math.prod(int(d) for d in dims) <= 64 else None
        return None

    left = [n for n in model.graph.all_nodes() if own(n) and _is_left(n)] if as_stored else []
    for node in left:
        node.domain = _HIDDEN  # the folder passes over operators of a domain that the model does not import
    known = are_known(model)
    changed = True
    try:
        with contextlib.suppress(Exception):
            changed = optimizer.fold_constants(
                model,
                onnx_shape_inference=not known,  # one node at a time: slow
                input_size_limit=_FOLD_INPUT_LIMIT,
                output_size_limit=_FOLD_OUTPUT_LIMIT,
                should_fold=should_fold,
            ).modified
    finally:
        for node in left:
            node.domain = ""
    common.RemoveUnusedNodesPass()(model)
    lift_constants(model)
    return changed or not known


def _is_left(node: ir.Node) -> bool:
    if not any(out.is_graph_output() for out in node.outputs):
        return False
    return node.op_type in _LEFT or (node.op_type == "Identity" and is_shared(node.inputs[0]))


def lift_constants(model: ir.Model) -> None:
    """Make every Constant node an initializer; texts, however they came about, are texts (onnxscript folds them to objects)."""
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype == ir.DataType.STRING and not isinstance(tensor, ir.StringTensor):
                texts = [text.encode() if isinstance(text, str) else text for text in tensor.numpy().ravel()]
                value.const_value = ir.StringTensor(texts, shape=ir.Shape(tensor.shape.numpy()), name=value.name)
