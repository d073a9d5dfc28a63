"""Gathering and padding that amount to less: a Gather or GatherND of every element, a Pad that cuts off, a OneHot that is cast."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from planner.model.names import Names
from planner.model.passes.edit import new_constant, put_before, put_in_place
from planner.model.passes.match import graph_of, int_attribute, own
from planner.model.values import constant_array

_TO_THE_END = np.iinfo(np.int64).max


def flat_gather(node: ir.Node, names: Names) -> None:
    """A Gather from a vector by indices of more dimensions is one by a vector of indices, and a Reshape; or that alone, where it
    takes every element in order.

    Exporters write a view by strides so (torch.as_strided).
    """
    data, indices = node.inputs[0], constant_array(node.inputs[1])
    if data is None or data.shape is None or not data.shape.is_static() or len(data.shape) != 1:
        return
    if indices is None or indices.ndim < 2 or 0 in indices.shape:
        return
    name, count = node.outputs[0].name, int(data.shape.numpy()[0])
    shape = new_constant(node, f"{name}_shape", np.array(indices.shape, np.int64), names)
    places = np.where(indices < 0, indices + count, indices).reshape(-1)
    if np.array_equal(places, np.arange(count)):
        put_in_place(node, ir.Node("", "Reshape", [data, shape]))
        return
    flat = new_constant(node, f"{name}_places", places.astype(np.int64), names)
    gather = ir.Node("", "Gather", [data, flat], name=names.beside(node, "flat"))
    out = put_before(node, gather, f"{name}_flat", [len(places)], names)
    put_in_place(node, ir.Node("", "Reshape", [out, shape]))


def plain_gather_nd(node: ir.Node, names: Names) -> None:
    """A GatherND that takes every element in order is a Reshape; that repeats them along new axes, an Expand of one.

    Exporters write attention masks so, with indices of every batch and position, over booleans, which few EPs gather.
    """
    data, indices = node.inputs[0], constant_array(node.inputs[1])
    if data is None or data.shape is None or not data.shape.is_static() or indices is None or indices.ndim < 1:
        return
    dims = [d for d in data.shape if isinstance(d, int)]
    depth = indices.shape[-1]
    if int_attribute(node, "batch_dims", 0) or not 0 < depth <= len(dims) or 0 in (*dims, *indices.shape):
        return
    front, rest = dims[:depth], dims[depth:]
    places = np.ravel_multi_index(tuple(np.moveaxis(indices % np.array(front), -1, 0)), front)
    kept = np.asarray(places)
    for axis in range(places.ndim):
        first = np.take(kept, [0], axis=axis)
        if (kept == first).all():
            kept = first
    if not np.array_equal(kept.reshape(-1), np.arange(int(np.prod(front)))):
        return
    name = node.outputs[0].name
    shape = new_constant(node, f"{name}_shape", np.array([*kept.shape, *rest], np.int64), names)
    reshape = ir.Node("", "Reshape", [data, shape])
    if kept.shape == places.shape:
        put_in_place(node, reshape)
        return
    reshape.name = names.beside(node, "once")
    once = put_before(node, reshape, f"{name}_once", [*kept.shape, *rest], names)
    whole = new_constant(node, f"{name}_whole", np.array([*places.shape, *rest], np.int64), names)
    put_in_place(node, ir.Node("", "Expand", [once, whole]))


def cut_off(pad: ir.Node, names: Names) -> None:
    """A Pad by negative numbers is a Slice, and a Pad by what is left of them."""
    x, pads = pad.inputs[0], constant_array(pad.inputs[1]) if len(pad.inputs) > 1 else None
    mode = pad.attributes.get("mode")
    if x is None or x.shape is None or pads is None or not (pads < 0).any():
        return
    stays = np.maximum(pads, 0)
    if stays.any() and mode is not None and mode.as_string() != "constant":
        return
    given = pad.inputs[3] if len(pad.inputs) > 3 else None
    axes = np.arange(len(x.shape)) if given is None else constant_array(given)
    if axes is None:
        return
    half = len(pads) // 2
    begins = np.maximum(-pads[:half], 0)
    ends = np.where(pads[half:] < 0, pads[half:], _TO_THE_END)
    name = pad.outputs[0].name
    bounds = [
        new_constant(pad, f"{name}_{what}", array.astype(np.int64), names)
        for what, array in (("starts", begins), ("ends", ends), ("axes", axes))
    ]
    cut = ir.Node("", "Slice", [x, *bounds])
    if not stays.any():
        put_in_place(pad, cut)
        return
    out = cut.outputs[0]
    out.name, out.type = names.value(f"{name}_cut"), x.type
    cut.name = names.beside(pad, "cut")
    graph_of(pad).insert_before(pad, cut)
    pad.replace_input_with(0, out)
    pad.replace_input_with(1, new_constant(pad, f"{name}_pads", stays.astype(np.int64), names))


def hot_as_cast(node: ir.Node, names: Names) -> None:
    """A OneHot whose result is cast is one of values of that type: PyTorch writes int64, which few EPs take."""
    values, out = constant_array(node.inputs[2]), node.outputs[0]
    casts = [usage.node for usage in out.uses()]
    kinds = {int_attribute(cast, "to", 0) if cast.op_type == "Cast" and own(cast) else 0 for cast in casts}
    if values is None or len(kinds) != 1 or out.is_graph_output():
        return
    dtype = ir.DataType(kinds.pop())
    if dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16) or any(cast.graph is not node.graph for cast in casts):
        return
    node.replace_input_with(2, new_constant(node, f"{out.name}_values", values.astype(dtype.numpy()), names))
    out.type = ir.TensorType(dtype)
    for cast in casts:
        if not cast.outputs[0].is_graph_output():
            cast.outputs[0].replace_all_uses_with(out)
            graph_of(cast).remove(cast, safe=True)
