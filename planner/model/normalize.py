"""Bringing a graph into the form in which execution providers see it, in place, step by step.

Every step keeps the names of the values it keeps, so that what comes out can be traced to the user's own nodes.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from planner.errors import RequestError
from planner.model.fuse import constant_array, fuse

# A tensor larger than this is not made by folding: a ConstantOfShape or Expand would swell the file.
_FOLD_OUTPUT_LIMIT = 1 << 24
_FOLD_INPUT_LIMIT = 1 << 26


def normalize(
    model: ir.Model,
    shapes: Mapping[str, Sequence[int]],
    target_opset: int,
    fused: Collection[str],
    *,
    as_stored: bool = False,
) -> list[str]:
    """Bind shapes, inline functions, raise the opset, fold constants, fuse; returns notes on what could not be done.

    Args:
        model: changed in place.
        shapes: the fixed shape of each graph input that is to be bound.
        target_opset: the ai.onnx opset to raise the model to where it is below it.
        fused: operators that decomposed ones may be fused into.
        as_stored: whether the graph is to be judged as onnxruntime will see it: at its own opset, with those operators left
            in it that onnxruntime does not fold either.

    Raises:
        RequestError: if a shape names no input or contradicts the model.
    """
    notes: list[str] = []
    bind_shapes(model, shapes)
    with quiet():
        common.InlinePass()(model)
        common.RemoveInitializersFromInputsPass()(model)
        _lift_constants(model)
        _say_onesided(model)
        _infer_shapes(model)
        if not as_stored and (note := _raise_opset(model, target_opset)) is not None:
            notes.append(note)
        # Folding makes further shapes known, and known shapes allow further folding (Shape -> Slice -> Reshape).
        for _ in range(2):
            _fold(model, as_stored)
            _infer_shapes(model)
        _fuse_batch_normalization(model)
        fuse(model, fused, as_stored=as_stored)
        _eliminate_identities(model, as_stored)
        common.RemoveUnusedNodesPass()(model)
        _lift_constants(model)
        common.RemoveUnusedOpsetsPass()(model)
        # Two inputs of the folded graph may hold equal tensors; left as they are, since names are what users know.
        _infer_shapes(model)
    name_nodes(model)
    return notes


def bind_shapes(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> None:
    """Fix the shapes of graph inputs; shapes of inner values are forgotten, to be inferred anew."""
    inputs = {value.name: value for value in model.graph.inputs}
    for name, dims in shapes.items():
        value = inputs.get(name)
        if value is None:
            raise RequestError(f"--shape names {name!r}, which is no input of the model", f"inputs: {describe(model)}")
        if value.shape is not None:
            if len(value.shape) != len(dims):
                raise RequestError(
                    f"--shape gives {name!r} {len(dims)} dimensions, the model has {len(value.shape)}",
                    f"inputs: {describe(model)}",
                )
            for have, want in zip(value.shape, dims, strict=True):
                if isinstance(have, int) and have > 0 and have != want:
                    raise RequestError(
                        f"--shape {name}={','.join(map(str, dims))} contradicts the model's own {value.shape}",
                        f"inputs: {describe(model)}",
                    )
        value.shape = ir.Shape(dims)
    for value in model.graph.inputs:
        # -1 and 0 are how some exporters write "unknown"
        if value.shape is not None and any(isinstance(d, int) and d <= 0 for d in value.shape):
            value.shape = ir.Shape([d if not isinstance(d, int) or d > 0 else None for d in value.shape])
    if shapes:
        for graph in (model.graph, *model.graph.subgraphs()):
            for node in graph:
                for out in node.outputs:
                    out.shape = None


def describe(model: ir.Model) -> str:
    """The graph inputs with their shapes, for a message."""
    return ", ".join(f"{v.name} {v.shape if v.shape is not None else '(unknown shape)'}" for v in model.graph.inputs)


def name_nodes(model: ir.Model) -> None:
    """Give each node a unique name: its own, else operator and first output; a repeated one gets a number."""
    seen: set[str] = set()
    for node in model.graph.all_nodes():
        outputs = [o.name for o in node.outputs if o.name]
        base = node.name or f"{node.op_type}:{outputs[0] if outputs else 'unnamed'}"
        name, count = base, 1
        while name in seen:
            count += 1
            name = f"{base}#{count}"
        seen.add(name)
        node.name = name


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence, since the libraries' own log lines are about their passes, not about the user's model."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _lift_constants(model: ir.Model) -> None:
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


def _say_onesided(model: ir.Model) -> None:
    """Write the default of STFT down: onnx's shape inference (1.23) takes an absent ``onesided`` for 0, it is 1."""
    for node in model.graph.all_nodes():
        if node.op_type == "STFT" and node.domain in ("", "ai.onnx") and "onesided" not in node.attributes:
            node.attributes["onesided"] = ir.AttrInt64("onesided", 1)


def _infer_shapes(model: ir.Model) -> None:
    # A model that shape inference cannot read is still judged, with what is known of its shapes.
    with contextlib.suppress(Exception):
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


def _raise_opset(model: ir.Model, target: int) -> str | None:
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


# What onnxscript computes or removes and onnxruntime leaves to whoever takes it where the graph gives out the result
# (core/graph/graph_utils.cc, CanRemoveNode; a Size that only shapes come from is followed by its shape inference).
_LEFT = ("Dropout", "Size", "OptionalHasElement")
_HIDDEN = "left"


def _fold(model: ir.Model, as_stored: bool) -> None:
    from onnxscript import optimizer

    def should_fold(node: ir.Node) -> bool | None:
        # A stored quantized weight is a decision of whoever made the model: never folded back to float.
        if node.op_type in ("DequantizeLinear", "QuantizeLinear"):
            return False
        # onnxscript leaves this operator alone for fear of its output's size, and with it whole chains that compute a
        # shape (the padding of a Pad, as PyTorch writes it).
        if node.op_type == "ConstantOfShape" and node.domain in ("", "ai.onnx"):
            dims = constant_array(node.inputs[0])
            return True if dims is not None and dims.size and 0 < math.prod(int(d) for d in dims) <= 64 else None
        return None

    left = [n for n in model.graph.all_nodes() if n.domain in ("", "ai.onnx") and _is_left(n)] if as_stored else []
    for node in left:
        node.domain = _HIDDEN  # the folder passes over operators of a domain that the model does not import
    try:
        with contextlib.suppress(Exception):
            optimizer.fold_constants(
                model,
                onnx_shape_inference=True,
                input_size_limit=_FOLD_INPUT_LIMIT,
                output_size_limit=_FOLD_OUTPUT_LIMIT,
                should_fold=should_fold,
            )
    finally:
        for node in left:
            node.domain = ""
    common.RemoveUnusedNodesPass()(model)
    _lift_constants(model)


def _is_left(node: ir.Node) -> bool:
    if not any(out.is_graph_output() for out in node.outputs):
        return False
    return node.op_type in _LEFT or (node.op_type == "Identity" and _is_shared(node.inputs[0]))


def _is_shared(value: ir.Value | None) -> bool:
    return value is not None and len(value.uses()) > 1


def _fuse_batch_normalization(model: ir.Model) -> None:
    if all(node.op_type != "BatchNormalization" for node in model.graph.all_nodes()):
        return
    from onnxscript.rewriter import rewrite
    from onnxscript.rewriter.rules.common import (
        fuse_batchnorm_into_conv_rule,
        fuse_batchnorm_into_conv_transpose_rule,
        fuse_batchnorm_into_gemm_rule,
    )

    rules = [fuse_batchnorm_into_conv_rule, fuse_batchnorm_into_conv_transpose_rule, fuse_batchnorm_into_gemm_rule]
    with contextlib.suppress(Exception):
        rewrite(model, pattern_rewrite_rules=rules)
    common.RemoveUnusedNodesPass()(model)
    _lift_constants(model)


def _eliminate_identities(model: ir.Model, as_stored: bool) -> None:
    """Drop Identity nodes, but those by which a graph or a body of an If or Loop gives out a value that it was given:
    an input, an initializer, a value of the graph around it, or one that is given out already. Onnxruntime keeps one that
    gives out a value that other nodes read too (core/optimizer/identity_elimination.cc)."""
    for node in list(model.graph.all_nodes()):
        if node.op_type != "Identity" or node.domain not in ("", "ai.onnx") or len(node.inputs) != 1:
            continue
        value, out = node.inputs[0], node.outputs[0]
        if value is None or node.graph is None:
            continue
        if out.is_graph_output():
            producer = value.producer()
            if producer is None or producer.graph is not node.graph or value.is_graph_output():
                continue
            if as_stored and _is_shared(value):
                continue
            value.name, out.name = out.name, None
        if value.shape is None:
            value.shape = out.shape
        if value.type is None:
            value.type = out.type
        out.replace_all_uses_with(value, replace_graph_outputs=True)
        node.graph.remove(node, safe=True)


def known_operator(op_type: str, domain: str) -> bool:
    """Whether ONNX itself, or ONNX Runtime's contrib domains, define the operator."""
    if domain in ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training"):
        return bool(onnx.defs.has(op_type, "" if domain == "ai.onnx" else domain))
    return domain in ("com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")
