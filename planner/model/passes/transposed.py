"""ConvTranspose that states the size of its result, as one with padding."""

from __future__ import annotations

import onnx_ir as ir

from planner.model.passes.match import ints_attribute, text_attribute


def plain_padding(node: ir.Node) -> None:
    """Replace output_shape by the padding that it comes to: OpenVINO puts an odd one at the other end (-1 dB).

    The padding is ONNX's: where it is odd, the greater half lies at the end for SAME_UPPER, at the beginning else.
    """
    x, weight = node.inputs[0], node.inputs[1]
    if "output_shape" not in node.attributes or x is None or weight is None or x.shape is None or weight.shape is None:
        return
    sizes, kernel = list(x.shape)[2:], list(weight.shape)[2:]
    rank, wanted = len(sizes), ints_attribute(node, "output_shape", [])[-len(sizes) :]
    how = text_attribute(node, "auto_pad", "NOTSET")
    strides, dilations = ints_attribute(node, "strides", [1] * rank), ints_attribute(node, "dilations", [1] * rank)
    further = ints_attribute(node, "output_padding", [0] * rank)
    begins, ends = [], []
    for axis, (size, window) in enumerate(zip(sizes, kernel, strict=True)):
        if not isinstance(size, int) or not isinstance(window, int):
            return
        whole = strides[axis] * (size - 1) + further[axis] + (window - 1) * dilations[axis] + 1
        padding = whole - wanted[axis]
        if padding < 0:
            return
        begins.append(padding // 2 if how == "SAME_UPPER" else padding - padding // 2)
        ends.append(padding - begins[-1])
    for name in ("output_shape", "auto_pad"):
        node.attributes.pop(name, None)
    node.attributes["pads"] = ir.AttrInt64s("pads", [*begins, *ends])
