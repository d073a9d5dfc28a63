"""Reshape, Transpose, Reshape through more dimensions than an NPU takes, as the same through fewer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from planner.model.names import Names
from planner.model.passes.edit import new_constant, put_before, put_in_place
from planner.model.passes.match import int_attribute, only_user, producer_of

# Every EP known here takes as many.
_ENOUGH = 5


def lower_rank(transpose: ir.Node, names: Names, *, as_stored: bool = False) -> None:
    """Merge dimensions that stay together, and drop those of one, where more than five lie between two Reshapes.

    Window attention is written so (Swin): [1, 2, 4, 2, 4, 16] -> [1, 2, 2, 4, 4, 16].

    Args:
        transpose: changed in place, with the Reshape before it and the one behind it.
        names: of the model.
        as_stored: only what onnxruntime's QNN EP does itself: six dimensions, one of them 1 and kept in its place
            (core/providers/qnn/builder/qnn_node_group/reshape_transpose_rank5.cc).
    """
    before, after = producer_of(transpose.inputs[0], "Reshape"), only_user(transpose.outputs[0])
    wide = transpose.inputs[0]
    if before is None or after is None or wide is None or after.op_type != "Reshape":
        return
    if only_user(wide) is not transpose or after.inputs[0] is not transpose.outputs[0]:
        return
    shapes = [static_dims(v) for v in (wide, after.outputs[0])]
    given = transpose.attributes.get("perm")
    dims, result = shapes
    if dims is None or result is None or len(dims) <= _ENOUGH:
        return
    perm = list(given.as_ints()) if given is not None else list(range(len(dims)))[::-1]
    groups = _kept_unit(dims, perm) if as_stored else side_by_side(dims, perm)
    if groups is None:
        return
    order = sorted(range(len(groups)), key=lambda i: groups[i][0])  # as the dimensions lie before
    merged = [int(np.prod([dims[d] for d in groups[i]], dtype=np.int64)) for i in order]
    new_perm = [order.index(i) for i in range(len(groups))]
    for node, shape in ((before, merged), (after, result)):
        content = np.array(shape, np.int64)
        node.replace_input_with(1, new_constant(node, f"{node.outputs[0].name}_shape", content, names))
        node.attributes.pop("allowzero", None)
    wide.shape = ir.Shape(merged)
    transpose.attributes["perm"] = ir.AttrInt64s("perm", new_perm)
    transpose.outputs[0].shape = ir.Shape([merged[p] for p in new_perm])


# Behind these QNN (2.7) leaves the scale of an operand as it is, where at 8 bits it joins five dimensions (-25 to -3 dB).
_UNSCALED = ("Sigmoid", "Exp", "LeakyRelu")


def flat_concat(node: ir.Node, names: Names) -> None:
    """A Concat of five dimensions as one of three, with those before and behind its axis merged: YOLO joins boxes and scores so."""
    out, axis = node.outputs[0], int_attribute(node, "axis", 0)
    shapes = [None if v is None else static_dims(v) for v in (*node.inputs, out)]
    known = [shape for shape in shapes if shape is not None and len(shape) == _ENOUGH]
    if len(known) != len(shapes) or not any(producer_of(v, *_UNSCALED) for v in node.inputs):
        return
    axis %= _ENOUGH

    def merged(dims: Sequence[int]) -> list[int]:
        return [int(np.prod(dims[:axis])), dims[axis], int(np.prod(dims[axis + 1 :]))]

    name, flat = out.name, []
    for i, (value, dims) in enumerate(zip(node.inputs, known, strict=False)):
        assert value is not None
        shape = new_constant(node, f"{name}_flat_shape_{i}", np.array(merged(dims), np.int64), names)
        reshape = ir.Node("", "Reshape", [value, shape], name=names.beside(node, f"flat_{i}"))
        made = put_before(node, reshape, f"{name}_flat_{i}", merged(dims), names)
        flat.append(made)
    joined = ir.Node("", "Concat", flat, {"axis": ir.AttrInt64("axis", 1)}, name=names.beside(node, "flat"))
    made = put_before(node, joined, f"{name}_flat", merged(known[-1]), names)
    put_in_place(
        node, ir.Node("", "Reshape", [made, new_constant(node, f"{name}_shape", np.array(known[-1], np.int64), names)])
    )


def static_dims(value: ir.Value | None) -> list[int] | None:
    """Dimensions that are all known and not 0, which Reshape would read as "as before"."""
    if value is None or value.shape is None:
        return None
    dims = [d for d in value.shape if isinstance(d, int) and d > 0]
    return dims if len(dims) == len(value.shape) else None


def side_by_side(dims: Sequence[int], perm: Sequence[int]) -> list[list[int]]:
    """Runs of dimensions that stay side by side, in the order behind a Transpose; dimensions of one are left out."""
    groups: list[list[int]] = []
    for dim in (p for p in perm if dims[p] != 1):
        previous = groups[-1][-1] if groups else None
        between = () if previous is None else range(previous + 1, dim)
        if previous is not None and previous < dim and all(dims[d] == 1 for d in between):
            groups[-1].append(dim)
        else:
            groups.append([dim])
    return groups or [[0]]


def _kept_unit(dims: Sequence[int], perm: Sequence[int]) -> list[list[int]] | None:
    unit = next((i for i, d in enumerate(dims) if d == 1 and perm[i] == i), None)
    return None if unit is None or len(dims) != _ENOUGH + 1 else [[p] for p in perm if p != unit]
