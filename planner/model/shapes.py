"""Shapes: bound as asked, and followed through the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from planner.errors import RequestError
from planner.model.bounds import is_data_small
from planner.model.contrib_shapes import say_contrib_shapes
from planner.model.inference import infer_once


def bind_shapes(model: ir.Model, shapes: Mapping[str, Sequence[int | str | None]]) -> None:
    """Fix the shapes of graph inputs; shapes of inner values are forgotten, to be inferred anew.

    Args:
        model: changed in place.
        shapes: by name of a graph input, its dimensions: a name or None for one that stays open.

    Raises:
        RequestError: a shape names no input or contradicts the model.
    """
    inputs = {value.name: value for value in model.graph.inputs}
    for name, dims in shapes.items():
        value = inputs.get(name)
        if value is None:
            raise RequestError(f"--shape names {name!r}, which is no input of the model", f"inputs: {describe(model)}")
        if (problem := _contradiction(value, dims)) is not None:
            raise RequestError(problem, f"inputs: {describe(model)}")
        value.shape = ir.Shape(dims)
    for value in model.graph.inputs:
        # -1 is how some exporters write "unknown"; 0 is a number, which onnxruntime holds every feed to.
        if value.shape is not None and any(isinstance(d, int) and d < 0 for d in value.shape):
            value.shape = ir.Shape([d if not isinstance(d, int) or d >= 0 else None for d in value.shape])
    if shapes:
        for node in model.graph.all_nodes():
            for out in node.outputs:
                out.shape = None


def _contradiction(value: ir.Value, dims: Sequence[int | str | None]) -> str | None:
    """How the dimensions asked for contradict the model's own; None where they do not."""
    if value.shape is None:
        return None
    if len(value.shape) != len(dims):
        return f"--shape gives {value.name!r} {len(dims)} dimensions, the model has {len(value.shape)}"
    if any(isinstance(have, int) and have >= 0 and have != want for have, want in zip(value.shape, dims, strict=True)):
        return f"--shape {value.name}={','.join(map(str, dims))} contradicts the model's own {value.shape}"
    return None


def describe(model: ir.Model) -> str:
    """The graph inputs with their shapes, for a message."""
    return ", ".join(f"{v.name} {v.shape if v.shape is not None else '(unknown shape)'}" for v in model.graph.inputs)


def infer_shapes(model: ir.Model) -> None:
    """Follow shapes and types through the graph, as far as they can be known."""
    while not are_known(model):
        # A model that shape inference cannot read is still judged, with what is known of its shapes.
        infer_once(model, data_prop=is_data_small(model))
        if not say_contrib_shapes(model):
            return


def are_known(model: ir.Model) -> bool:
    """Whether the type and every dimension of all values are known: inferring could say nothing more."""
    inner = (value for graph in model.graph.subgraphs() for value in graph.inputs)
    results = (value for node in model.graph.all_nodes() for value in node.outputs if value.name)
    return all(v.dtype is not None and v.shape is not None and v.shape.is_static() for v in (*inner, *results))


def say_onesided(model: ir.Model) -> None:
    """Write the default of STFT down: onnx's shape inference (1.23) takes an absent ``onesided`` for 0, it is 1."""
    for node in model.graph.all_nodes():
        if node.op_type == "STFT" and node.domain in ("", "ai.onnx") and "onesided" not in node.attributes:
            node.attributes["onesided"] = ir.AttrInt64("onesided", 1)
