"""Fusing decomposed operators back into the one the exporter took apart.

EPs know Gelu and LayerNormalization as one operator; decomposed, a quantized Erf falls off the HTP and a sum of
squares overflows float16. Constant folding and batch-normalization fusion come from onnxscript; these patterns are
ours because theirs rewrite to contrib operators or need one fixed operand order and an axis given as a tensor.
Each fused node keeps the name of the output value, by which it is traced to the user's own nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

import onnx_ir as ir

from planner.model.names import Names
from planner.model.passes.bias import fuse_bias
from planner.model.passes.clip import CLIPPING, merge_clips
from planner.model.passes.einsum import product_of_einsum
from planner.model.passes.gelu import CONTRIB_GELU, GELU_MIN_OPSET, fuse_gelu, spell_gelu
from planner.model.passes.gemm import gemm_of_product, give_bias, plain_gemm
from planner.model.passes.index import cut_off, flat_gather, hot_as_cast, plain_gather_nd
from planner.model.passes.layer_norm import fuse_layer_norm
from planner.model.passes.match import own
from planner.model.passes.no_op import remove_no_op
from planner.model.passes.order import gate_first
from planner.model.passes.pool import POOLING, plain_pool
from planner.model.passes.power import spell_cubes
from planner.model.passes.rank import flat_concat, lower_rank
from planner.model.passes.resize import channels_first, gather_nearest
from planner.model.passes.softmax import fuse_softmax, unflatten_softmax
from planner.model.passes.transposed import plain_padding
from planner.model.passes.unfuse import UNFUSED_OPERATORS

_LAYER_NORM_MIN_OPSET = 17
# Before 13, Softmax flattened its input to two dimensions.
_SOFTMAX_ONE_AXIS_OPSET = 13

FUSED_OPERATORS = frozenset(
    {"Gelu", CONTRIB_GELU, "GroupNormalization", "LayerNormalization", "Softmax", *UNFUSED_OPERATORS}
)


def fuse(model: ir.Model, operators: Collection[str] = FUSED_OPERATORS, *, as_stored: bool = False) -> None:
    """Fuse decomposed operators, and the bias of Conv and ConvTranspose, in every graph, in place.

    Args:
        model: changed in place.
        operators: which of FUSED_OPERATORS may be made: those that the target takes; and Gemm, where a product and its bias are to be one.
        as_stored: only what becomes of the file by itself, for an EP that takes Gelu: a Gelu around Erf, whatever the opset.
    """
    opset, names = model.opset_imports.get("", 1), Names(model)
    fusions = _fusions(names, opset, operators, as_stored=as_stored)
    for graph in (model.graph, *model.graph.subgraphs()):
        for op_types, apply in fusions:
            for node in list(graph):
                if node.op_type in op_types and own(node):
                    apply(node)
    if not as_stored and CONTRIB_GELU in operators and "Gelu" not in operators:
        spell_gelu(model)
    if not as_stored:
        spell_cubes(model, names)


def _fusions(
    names: Names, opset: int, operators: Collection[str], *, as_stored: bool
) -> list[tuple[tuple[str, ...], Callable[[ir.Node], None]]]:
    """In their order: the operators that a fusion starts from, and what it does to one."""
    fusions: list[tuple[tuple[str, ...], Callable[[ir.Node], None]]] = [
        (("Softmax",), unflatten_softmax),
        (("Flatten", "Reshape"), remove_no_op),
        (("Add",), partial(fuse_bias, names=names)),
        (("Transpose",), partial(lower_rank, names=names, as_stored=as_stored)),
    ]
    if as_stored:
        if "Gelu" in operators:
            fusions.append((("Erf",), partial(fuse_gelu, stored_at=opset)))
        return fusions
    fusions += [
        (("Einsum",), partial(product_of_einsum, names=names)),
        (("Gemm",), partial(plain_gemm, names=names)),
        (("Gemm",), partial(give_bias, names=names)),
        (CLIPPING, partial(merge_clips, names=names)),
        (("GatherND",), partial(plain_gather_nd, names=names)),
        (("Gather",), partial(flat_gather, names=names)),
        (("OneHot",), partial(hot_as_cast, names=names)),
        (("Mul",), gate_first),
        (("Pad",), partial(cut_off, names=names)),
        (POOLING, plain_pool),
        (("ConvTranspose",), plain_padding),
        (("Concat",), partial(flat_concat, names=names)),
        (("Resize",), partial(gather_nearest, names=names)),
        (("Resize",), partial(channels_first, names=names)),
    ]
    if ("Gelu" in operators or CONTRIB_GELU in operators) and opset >= GELU_MIN_OPSET:
        fusions.append((("Erf", "Tanh"), fuse_gelu))
    if "LayerNormalization" in operators and opset >= _LAYER_NORM_MIN_OPSET:
        fusions.append((("Sqrt",), partial(fuse_layer_norm, names=names)))
    if "Softmax" in operators and opset >= _SOFTMAX_ONE_AXIS_OPSET:
        fusions.append((("Div",), fuse_softmax))
    if "Gemm" in operators:
        fusions.append((("MatMul",), partial(gemm_of_product, names=names)))
    return fusions
