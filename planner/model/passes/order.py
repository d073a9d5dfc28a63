"""Operands, and inputs of a graph, in one order, where the order makes no difference to what is computed."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from planner.model.passes.match import producer_of


def gate_first(mul: ir.Node) -> None:
    """X * HardSigmoid(x) becomes HardSigmoid(x) * x: the other way round, an EP is known to fuse it wrongly."""
    x, gate = mul.inputs[0], mul.inputs[1]
    maker = producer_of(gate, "HardSigmoid")
    if maker is not None and maker.inputs[0] is x and x is not gate:
        mul.replace_input_with(0, gate)
        mul.replace_input_with(1, x)


def unread_inputs_last(model: ir.Model) -> None:
    """Let graph inputs that nothing reads stand behind the others: OpenVINO's EP gives each the numbers of the one at its place among
    those that are read. onnxruntime feeds by name, so that the order says nothing else.

    Args:
        model: changed in place.
    """
    inputs = model.graph.inputs
    ordered = unread_last(inputs)
    if ordered != list(inputs):
        inputs.clear()
        inputs.extend(ordered)


def unread_last(inputs: Iterable[ir.Value]) -> list[ir.Value]:
    """Inputs in their order, those that nothing reads behind the others."""
    return sorted(inputs, key=lambda value: not (value.uses() or value.is_graph_output()))
