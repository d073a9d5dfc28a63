"""Which nodes compute with shapes alone: onnxruntime leaves them to the CPU EP where a GPU's EP would take them too."""

from __future__ import annotations

import onnx_ir as ir

from planner.model.values import constant_array

_BODIES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
# Their results lie in the processor's memory.
_SOURCES = ("Shape", "Size")
# A constant of more numbers is not taken for a part of such arithmetic (onnxruntime, core/framework/fallback_cpu_capability.cc).
_MOST_NUMBERS = 100


def shape_arithmetic(graph: ir.Graph) -> set[ir.Node]:
    """Nodes of the graph whose inputs are all made from Shape or Size, in any number of steps, or small constants.

    Args:
        graph: in topological order. What a body reads from outside of it counts as unknown.
    """
    found: set[ir.Node] = set()
    on_processor: set[ir.Value] = set()
    for node in graph:
        if any(attribute.type in _BODIES for attribute in node.attributes.values()):
            continue  # If, Loop and Scan stay where they are
        given = [value for value in node.inputs if value is not None]
        if any(value in on_processor for value in given) and all(v in on_processor or _is_small(v) for v in given):
            found.add(node)
        if node in found or (node.op_type in _SOURCES and node.domain in ("", "ai.onnx")):
            on_processor.update(node.outputs)
    return found


def _is_small(value: ir.Value) -> bool:
    array = constant_array(value)
    return array is not None and array.size <= _MOST_NUMBERS
