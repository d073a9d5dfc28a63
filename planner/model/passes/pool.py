"""Pooling that rounds its size up, as pooling that does not; a mean without dilations of 1."""

from __future__ import annotations

import math

import onnx_ir as ir

from planner.model.passes.match import int_attribute, ints_attribute, text_attribute

POOLING = ("AveragePool", "MaxPool", "LpPool")


def plain_pool(node: ir.Node) -> None:
    """A pooling that rounds its size up (ceil_mode) is one that rounds it down, with as much padding more at the end.

    Padding is left out of a maximum, and of a mean that does not count it; a mean that does stays as it is where a window
    hangs over, unless it has no padding to count. The size is onnxruntime's (core/providers/cpu/nn/pool_attributes.h): the last
    window begins inside.
    """
    if node.op_type == "AveragePool" and set(ints_attribute(node, "dilations", [])) == {1}:
        del node.attributes["dilations"]  # which it has from opset 19 on: onnxruntime's quantized kernel knows none
    x = node.inputs[0]
    if not int_attribute(node, "ceil_mode", 0) or x is None or x.shape is None or "kernel_shape" not in node.attributes:
        return
    kernel = list(node.attributes["kernel_shape"].as_ints())
    sizes, rank = list(x.shape)[2:], len(kernel)
    if text_attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "") or len(sizes) != rank:
        return
    strides, dilations = ints_attribute(node, "strides", [1] * rank), ints_attribute(node, "dilations", [1] * rank)
    pads = ints_attribute(node, "pads", [0] * 2 * rank)
    further, result = [], node.outputs[0].shape
    for axis, size in enumerate(sizes):
        if not isinstance(size, int):
            return
        window = dilations[axis] * (kernel[axis] - 1) + 1
        room = size + pads[axis] + pads[axis + rank]
        count = math.ceil((room - window) / strides[axis]) + 1
        if (count - 1) * strides[axis] >= size + pads[axis]:
            count -= 1
        if result is None or result[axis + 2] != count:
            return  # onnx's inference keeps a window that begins behind the picture; its size is in later constants already
        further.append(max(0, (count - 1) * strides[axis] + window - room))
    counted = node.op_type == "LpPool" or (int_attribute(node, "count_include_pad", 0) and any(pads))
    ends = [pads[rank + axis] + more for axis, more in enumerate(further)]
    if any(further) and (
        (node.op_type != "MaxPool" and counted) or any(e >= k for e, k in zip(ends, kernel, strict=True))
    ):
        return
    del node.attributes["ceil_mode"]
    if not any(pads):
        node.attributes.pop("count_include_pad", None)
    if any(further):
        node.attributes["pads"] = ir.AttrInt64s("pads", [*pads[:rank], *ends])
