"""Bringing a graph into the form in which execution providers see it, in place, step by step.

Every step keeps the names of the values it keeps, so that what comes out can be traced to the user's own nodes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from planner.model.inference import quiet
from planner.model.names import name_main_results, name_nodes, name_values
from planner.model.passes.batch_norm import fuse_batch_normalization
from planner.model.passes.channels import Misconvolves, fill_channels
from planner.model.passes.dimensions import MostRank, any_rank, fewer_dimensions
from planner.model.passes.float32 import compute_in_float32
from planner.model.passes.fold import fold, lift_constants
from planner.model.passes.functions import write_out_functions
from planner.model.passes.fuse import fuse
from planner.model.passes.group_norm import spell_group_norm
from planner.model.passes.integers import ANY_INTEGERS, PlainIntegers, spell_integers
from planner.model.passes.lower_opset import lower_opset
from planner.model.passes.no_op import drop_empty_axes, drop_zeros_allowed, eliminate_identities
from planner.model.passes.opset import raise_opset
from planner.model.passes.order import unread_inputs_last
from planner.model.passes.unfuse import unfuse
from planner.model.shapes import bind_shapes, infer_shapes, say_onesided

# From this IR version on an initializer that is a graph input too is a default.
_OVERRIDABLE = 4


def normalize(
    model: ir.Model,
    shapes: Mapping[str, Sequence[int | str | None]],
    target_opset: int,
    fused: Collection[str],
    *,
    integers: PlainIntegers = ANY_INTEGERS,
    most_rank: MostRank = any_rank,
    misconvolves: Misconvolves | None = None,
    as_stored: bool = False,
) -> list[str]:
    """Bind shapes, inline functions, raise the opset, fold constants, fuse; returns notes on what could not be done.

    Args:
        model: changed in place.
        shapes: the fixed shape of each graph input that is to be bound.
        target_opset: the ai.onnx opset to bring the model to.
        fused: operators that decomposed ones may be fused into, and one that is written with others where it is not among them.
        integers: types of plain integers in which values may be moved, and cast.
        most_rank: how many dimensions an operator may have.
        misconvolves: which convolutions get further channels, since the target computes them wrongly; None: none.
        as_stored: whether the graph is to be judged as onnxruntime will see it: at its own opset, with those operators left
            in it that onnxruntime does not fold either.

    Raises:
        RequestError: if a shape names no input or contradicts the model.
    """
    notes: list[str] = []
    _name_domain(model)
    bind_shapes(model, shapes)
    with quiet():
        write_out_functions(model)
        if not as_stored or model.ir_version < _OVERRIDABLE:  # onnxruntime believes that a user may feed them
            common.RemoveInitializersFromInputsPass()(model)
        lift_constants(model)
        say_onesided(model)
        infer_shapes(model)
        if not as_stored and "GroupNormalization" not in fused:
            spell_group_norm(model)
        if not as_stored and (note := _set_opset(model, target_opset)) is not None:
            notes.append(note)
        # Folding makes further shapes known, and known shapes allow further folding (Shape -> Slice -> Reshape).
        for _ in range(2):
            if not as_stored:
                unfuse(model, fused)
            if not fold(model, as_stored):
                break
            infer_shapes(model)
        if not as_stored and (note := compute_in_float32(model)) is not None:
            notes.append(note)
        if not as_stored:
            spell_integers(model, integers)
            drop_empty_axes(model)
        fuse_batch_normalization(model)
        fuse(model, fused, as_stored=as_stored)
        eliminate_identities(model, as_stored)
        if not as_stored:
            fewer_dimensions(model, most_rank)
            drop_zeros_allowed(model)
            if misconvolves is not None:
                fill_channels(model, misconvolves)
        common.RemoveUnusedNodesPass()(model)
        if not as_stored:
            unread_inputs_last(model)
            name_main_results(model)
        lift_constants(model)
        opset = model.opset_imports.get("", target_opset)
        common.RemoveUnusedOpsetsPass()(model)
        model.opset_imports[""] = opset  # of the nodes that a plan adds, where all others are of other domains
        # Two inputs of the folded graph may hold equal tensors; left as they are, since names are what users know.
        infer_shapes(model)
    name_values(model)
    name_nodes(model)
    return notes


def _name_domain(model: ir.Model) -> None:
    """Write ONNX's own domain as "", which "ai.onnx" stands for as well."""
    for node in model.graph.all_nodes():
        if node.domain == "ai.onnx":
            node.domain = ""
    opset = model.opset_imports.pop("ai.onnx", None)
    if opset is not None:
        model.opset_imports.setdefault("", opset)


def _set_opset(model: ir.Model, target: int) -> str | None:
    """Bring the model to the opset; what could not be done, in words."""
    have = model.opset_imports.get("", target)
    if have == target:
        return None
    return raise_opset(model, target) if have < target else lower_opset(model, target)
