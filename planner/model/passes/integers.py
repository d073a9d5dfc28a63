"""Plain integers on an EP that takes few of their types: images of uint8, indices of int64.

A value that is moved and then cast is the same cast and then moved, so an image that is transposed and then made float is made
float first. An index fits int32 whatever its type, since no tensor has so many elements: it goes through int32 where the EP
neither moves int64 nor casts to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from planner.model.names import Names
from planner.model.passes.edit import new_constant
from planner.model.passes.match import graph_of, int_attribute, own
from planner.model.stored import dtype_name
from planner.operators import operator

_D = ir.DataType
_INT32, _INT64 = _D.INT32, _D.INT64
_INTEGERS = (_D.BOOL, _D.INT8, _D.INT16, _INT32, _INT64, _D.UINT8, _D.UINT16, _D.UINT32, _D.UINT64)
# Operators whose operand at this position looks something up.
_LOOKUPS = {"Gather": 1, "GatherElements": 1, "GatherND": 1, "ScatterElements": 1, "ScatterND": 1}
# An index is computed from others so: what is looked up with the result had to fit.
_ARITHMETIC = ("Add", "Sub", "Mul", "Min", "Max", "Clip", "Where")
# A picture has at least so many dimensions.
_PICTURE = 4
# Uses that are followed from a value to the lookups it ends in.
_FOLLOWED = 100


@dataclass(frozen=True)
class PlainIntegers:
    """What a target takes of integers that are not quantized numbers.

    Attributes:
        moves: whether it takes an operator that moves values (by name) on a type (by name, "uint8").
        casts: whether it takes a Cast of a type, by name, to another, by its number.
        miscasts: whether it takes such a Cast and gets it wrong.
    """

    moves: Callable[[str, str], bool] = lambda _op_type, _dtype: True
    casts: Callable[[str, int], bool] = lambda _source, _to: True
    miscasts: Callable[[str, int], bool] = lambda _source, _to: False


ANY_INTEGERS = PlainIntegers()


def spell_integers(model: ir.Model, taken: PlainIntegers) -> None:
    """Write moves and casts of integers with types that the target takes, in every graph, in place.

    Args:
        model: with types inferred.
        taken: what the target takes.
    """
    names = Names(model)
    for graph in (model.graph, *model.graph.subgraphs()):
        # From the last to the first: of several moves before a Cast each gets its turn.
        for node in reversed(list(graph)):
            source = node.inputs[0] if own(node) and node.inputs else None
            if source is None or source.dtype is None or source.const_value is not None:
                continue
            kind = dtype_name(source.dtype) or ""
            if node.op_type == "Cast":
                if taken.miscasts(kind, int_attribute(node, "to", 0)) and taken.casts(kind, _INT32):
                    node.replace_input_with(0, _cast(node, source, _INT32, names, before=True))
                elif int_attribute(node, "to", 0) == _INT64:
                    _cast_in_two(node, kind, taken, names)
                elif node.outputs[0].dtype in _INTEGERS and (source.dtype == _D.BOOL or source.dtype not in _INTEGERS):
                    _cast_flat(node, source, taken, names)
                continue
            refused = _is_move(node, source) and source.dtype in _INTEGERS and not taken.moves(node.op_type, kind)
            if refused and not _cast_first(node, taken, names):
                _move_in_int32(node, taken, names)


def _is_move(node: ir.Node, source: ir.Value) -> bool:
    moves = operator(node.op_type).moves and node.op_type not in ("Pad", "Concat")
    return moves and len(node.outputs) == 1 and node.outputs[0].dtype == source.dtype


def _cast_first(node: ir.Node, taken: PlainIntegers, names: Names) -> bool:
    """Cast before a move what is cast behind it, by one Cast or several of one type; whether that was done."""
    out, source = node.outputs[0], node.inputs[0]
    casts = [usage.node for usage in out.uses()]
    to = {int_attribute(cast, "to", 0) if cast.op_type == "Cast" and own(cast) else None for cast in casts}
    kind = next(iter(to), None)
    if len(to) != 1 or kind is None or out.is_graph_output():
        return False
    dtype = ir.DataType(kind)
    if not taken.moves(node.op_type, dtype_name(dtype) or ""):
        return False
    if any(cast.outputs[0].is_graph_output() or cast.graph is not node.graph for cast in casts):
        return False  # the output keeps its name
    node.replace_input_with(0, _cast(node, source, dtype, names, before=True))
    # The moved value is what the Cast gave: that is the name by which the plan and its reports know it.
    out.name, out.type = casts[0].outputs[0].name, ir.TensorType(dtype)
    for cast in casts:
        cast.outputs[0].replace_all_uses_with(out)
        cast.outputs[0].name = None
        graph_of(cast).remove(cast, safe=True)
    return True


def _move_in_int32(node: ir.Node, taken: PlainIntegers, names: Names) -> None:
    """Move an index as int32."""
    out = node.outputs[0]
    through = taken.moves(node.op_type, "int32") and taken.casts("int64", _INT32) and taken.casts("int32", _INT64)
    if out.dtype != _INT64 or not through or not _is_index(out):
        return
    node.replace_input_with(0, _cast(node, node.inputs[0], _INT32, names, before=True))
    out.type = ir.TensorType(_INT32)
    _widen_behind(node, names)


def _cast_in_two(node: ir.Node, source: str, taken: PlainIntegers, names: Names) -> None:
    """Make an index of a number by way of int32."""
    through = taken.casts(source, _INT32) and taken.casts("int32", _INT64)
    if taken.casts(source, _INT64) or not through or not _is_index(node.outputs[0]):
        return
    node.attributes["to"] = ir.AttrInt64("to", int(_INT32))
    node.outputs[0].type = ir.TensorType(_INT32)
    _widen_behind(node, names)


def _cast_flat(node: ir.Node, source: ir.Value, taken: PlainIntegers, names: Names) -> None:
    """Cast a picture to integers that the target does not transpose with its places in one dimension.

    For an EP of another layout onnxruntime transposes pictures back behind a convolution, and moves that as far as it can: behind
    the Cast. No Transpose goes beyond a Reshape.
    """
    out = node.outputs[0]
    kind = dtype_name(out.dtype) or ""
    shape = out.shape.numpy() if out.shape is not None and out.shape.is_static() else ()
    if len(shape) < _PICTURE or taken.moves("Transpose", kind) or not taken.moves("Reshape", kind):
        return
    flat = [*shape[:2], math.prod(shape[2:])]
    graph, name = graph_of(node), out.name
    before, behind = (
        new_constant(node, f"{name}_{what}", np.array(dims, np.int64), names)
        for what, dims in (("flat", flat), ("shape", shape))
    )
    reshape = ir.Node("", "Reshape", [source, before], name=names.beside(node, "flat"))
    reshape.outputs[0].name = names.value(f"{source.name}_flat")
    reshape.outputs[0].type, reshape.outputs[0].shape = source.type, ir.Shape(flat)
    graph.insert_before(node, reshape)
    node.replace_input_with(0, reshape.outputs[0])
    back = ir.Node("", "Reshape", [None, behind], name=names.beside(node, "shaped"))
    result = back.outputs[0]
    result.type, result.shape = out.type, out.shape
    out.replace_all_uses_with(result, replace_graph_outputs=True)
    back.replace_input_with(0, out)
    out.shape = ir.Shape(flat)
    graph.insert_after(node, back)
    out.name, result.name = names.value(f"{name}_unshaped"), name


def _widen_behind(node: ir.Node, names: Names) -> None:
    """Let whoever reads a node's result, which is int32 now, read it as int64; that one takes over its name."""
    out = node.outputs[0]
    uses = list(out.uses())
    wide = _cast(node, out, _INT64, names, before=False)
    for usage in uses:
        usage.node.replace_input_with(usage.idx, wide)
    out.name, wide.name = wide.name, out.name


def _cast(node: ir.Node, value: ir.Value | None, dtype: ir.DataType, names: Names, *, before: bool) -> ir.Value:
    """A Cast of a value beside a node; its result."""
    assert value is not None
    kind = dtype_name(dtype)
    cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(dtype))], name=names.beside(node, f"to_{kind}"))
    result = cast.outputs[0]
    result.name, result.type, result.shape = names.value(f"{value.name}_{kind}"), ir.TensorType(dtype), value.shape
    if before:
        graph_of(node).insert_before(node, cast)
    else:
        graph_of(node).insert_after(node, cast)
    return result


def _is_index(value: ir.Value) -> bool:
    """Whether all that becomes of a value is that something is looked up with it."""
    pending, seen = [value], set[ir.Value]()
    while pending:
        one = pending.pop()
        if one in seen:
            continue
        seen.add(one)
        uses = list(one.uses())
        if one.is_graph_output() or not uses or len(seen) > _FOLLOWED:
            return False
        for usage in uses:
            if not own(usage.node):
                return False
            if _LOOKUPS.get(usage.node.op_type) == usage.idx:
                continue
            if not _follows(usage.node, usage.idx):
                return False
            pending += usage.node.outputs
    return True


def _follows(node: ir.Node, position: int) -> bool:
    """Whether what a node makes of an index is an index."""
    if node.op_type == "Cast":
        return int_attribute(node, "to", 0) in (_INT32, _INT64)
    return node.op_type in (*_ARITHMETIC, "Concat") or (operator(node.op_type).moves and position == 0)
