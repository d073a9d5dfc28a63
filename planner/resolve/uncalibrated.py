"""Nodes that no calibration sample reached: in a branch that was never taken, in a loop that never ran."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from planner.calibrate.ranges import Range
from planner.model.read import Model
from planner.model.values import constant_array, tensor_dtype


def uncalibrated(model: Model, ranges: Mapping[str, Range]) -> dict[str, str]:
    """Nodes of which calibration did not see all that they read and compute.

    Args:
        model: as it was calibrated.
        ranges: what calibration saw of each float tensor, by name.

    Returns:
        By name of the node, the place where it lies ("then_branch of If 'verify'").
    """
    assert model.ir is not None
    found: dict[str, str] = {}
    for node, place in _places(model.ir.graph, "the main graph"):
        computed = [out for out in node.outputs if out.name and (out.uses() or out.is_graph_output())]
        read = [v for v in node.inputs if v is not None and _flows(v)]
        if not all(_was_seen(v, ranges) for v in (*read, *computed) if tensor_dtype(v) == ir.DataType.FLOAT):
            found[node.name or ""] = place
    return found


def _flows(value: ir.Value) -> bool:
    """Whether the value is one that calibration looks at."""
    producer = value.producer()
    return constant_array(value) is None and (producer is None or producer.op_type != "DequantizeLinear")


def _places(graph: ir.Graph, place: str) -> Iterator[tuple[ir.Node, str]]:
    for node in graph:
        yield node, place
        for name, attribute in node.attributes.items():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _places(attribute.as_graph(), f"{name} of {node.op_type} {node.name!r}")


def _was_seen(value: ir.Value, ranges: Mapping[str, Range]) -> bool:
    """Whether the value has a range: its own, or that of the one Relu or Clip that reads it."""
    return value.name in ranges or any(
        use.node.op_type in ("Relu", "Clip") and use.idx == 0 and use.node.outputs[0].name in ranges
        for use in value.uses()
    )
