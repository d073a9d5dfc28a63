"""Which nodes compute with shapes alone: onnxruntime leaves them to the CPU EP where a GPU's EP would take them too."""

from __future__ import annotations

import onnx_ir as ir

from planner.model.values import constant_array

_BODIES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
# Their results lie in the processor's memory.
_SOURCES = ("Shape", "Size")
# A constant of more numbers is not taken for a part of such arithmetic (onnxruntime, core/framework/fallback_cpu_capability.cc).
_MOST_NUMBERS = 100
# Operands that the kernels of a GPU read in the processor's memory: such a node computes on the GPU with them.
_READ_THERE = {
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
}
# Where it reads one of these, onnxruntime leaves the node where it is.
_STAYING = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def shape_arithmetic(graph: ir.Graph) -> set[ir.Node]:
    """Nodes of the graph that read what is made from Shape or Size, in any number of steps, and beside it nothing but inputs of the
    graph and small constants (GetCpuPreferredNodes in that file).

    Args:
        graph: in topological order. What a body reads from outside of it counts as unknown.
    """
    found: set[ir.Node] = set()
    on_processor: set[ir.Value] = set()
    for node in graph:
        if any(attribute.type in _BODIES for attribute in node.attributes.values()):
            continue  # If, Loop and Scan stay where they are
        if any(value in on_processor for value in node.inputs) and _is_moved(node, on_processor):
            found.add(node)
        if node in found or (node.op_type in _SOURCES and node.domain in ("", "ai.onnx")):
            on_processor.update(node.outputs)
    return found


def _is_moved(node: ir.Node, on_processor: set[ir.Value]) -> bool:
    """Whether everything that the node reads lies in the processor's memory, and a GPU's kernel would not read it there."""
    read_there = (1,) if node.op_type.startswith("Reduce") else _READ_THERE.get(node.op_type, ())
    return all(
        value.dtype not in _STAYING
        and ((value in on_processor and at not in read_there) or _is_small(value) or _is_fed(value, node))
        for at, value in enumerate(node.inputs)
        if value is not None
    )


def _is_fed(value: ir.Value, reader: ir.Node) -> bool:
    return value.is_graph_input() and value.graph is reader.graph


def _is_small(value: ir.Value) -> bool:
    array = constant_array(value)
    return array is not None and array.size <= _MOST_NUMBERS
