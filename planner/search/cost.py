"""What a plan costs on a device, by the profile's declared rates: operations and bytes moved. Pure.

The unit is one multiply-accumulate of 8-bit numbers. It is a model that ranks plans, no prediction of milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from planner.dtypes import DType, QuantConfig
from planner.model.node import Node, Operand
from planner.operators import Role
from planner.profiles.schema import Cost
from planner.resolve.plan import PlanNode

# Assumed for a dimension that is not known: a batch of one.
_UNKNOWN_DIMENSION = 1


@dataclass(frozen=True)
class Work:
    """What a node does once a run.

    Attributes:
        macs: multiply-accumulates with a weight or between two activations; 0 for all but products and convolutions.
        operations: elements computed, for nodes without multiply-accumulates.
        weights: elements of constant float operands. activations: elements of float inputs and outputs that flow.
    """

    macs: int
    operations: int
    weights: int
    activations: int


def work(node: Node) -> Work:
    """Count a node's work from its shapes.

    Formulas: Conv: outputs x weight elements of one output channel; ConvTranspose: inputs x weight elements of one input
    channel; MatMul and Gemm: outputs x the dimension summed over; LSTM, GRU, RNN: steps x batch x weight elements.
    """
    results = [_count(s) for s, d in zip(node.output_shapes, node.output_dtypes, strict=True) if d != "int64"]
    output = sum(results)
    flowing = sum(_size(o) for o in node.inputs if o is not None and o.role is Role.ACTIVATION and not o.constant)
    constant = sum(
        _size(o)
        for o in node.inputs
        if o is not None and o.role is not Role.EXACT and (o.constant or o.role is Role.WEIGHT)
    )
    macs = _macs(node, output)
    return Work(macs, 0 if macs else output, constant, flowing + output)


def node_cost(done: Work, config: QuantConfig, rates: Cost) -> float:
    """Cost of a node at a config; a node that has no precision to choose costs as much in every plan: 0."""
    activation, stored = config.activation, config.stored_activation
    if activation is None or stored is None:
        return 0.0
    weight, activation, stored = (rates.held_as.get(t, t) for t in (config.weight or activation, activation, stored))
    operations = done.macs * _multiply(weight, activation, rates) + done.operations * activation.bits / 8
    moved = done.weights * weight.bits / 8 + done.activations * stored.bits / 8
    return operations + moved * rates.byte


def share_in_8_bit(configs: Iterable[tuple[Work, QuantConfig]]) -> float | None:
    """Share of the multiply-accumulates with a constant weight whose weight has 8 bits or fewer; None where none has."""
    total = low = 0
    for done, config in configs:
        if config.weight is not None:
            total += done.macs
            if config.weight.bits <= 8:
                low += done.macs
    return low / total if total else None


def plan_cost(done: Iterable[Work], nodes: Iterable[PlanNode], rates: Cost) -> float:
    """Cost of a plan whose nodes stand in the same order as their work."""
    return sum(node_cost(w, n.config, rates) for w, n in zip(done, nodes, strict=True))


def _multiply(weight: DType, activation: DType, rates: Cost) -> float:
    if activation.is_float:
        # Operands are as wide as the type: a 16-bit float product counts 4, a 32-bit one 16.
        return rates.multiply.get(activation.value, (activation.bits / 8) ** 2)
    # 4-bit weights are unpacked to 8 bits before they are multiplied, on every device known here.
    default = max(8, weight.bits) / 8 * activation.bits / 8
    return rates.multiply.get(f"{weight.bits}x{activation.bits}", default)


def _macs(node: Node, output: int) -> int:
    inputs = node.inputs
    first = inputs[0] if inputs else None
    second = inputs[1] if len(inputs) > 1 else None
    if first is None or second is None or first.shape is None or second.shape is None:
        return 0
    if node.op_type == "Conv":
        return output * _count(second.shape[1:])
    if node.op_type == "ConvTranspose":
        return _size(first) * _count(second.shape[1:])
    if node.op_type in ("MatMul", "Gemm") and first.shape:
        transposed = node.op_type == "Gemm" and bool(node.attributes.get("transA", 0))
        return output * _dim(first.shape[0 if transposed else -1])
    if node.op_type in ("LSTM", "GRU", "RNN") and len(first.shape) == 3:
        recurrent = inputs[2] if len(inputs) > 2 else None
        return _dim(first.shape[0]) * _dim(first.shape[1]) * (_size(second) + (_size(recurrent) if recurrent else 0))
    return 0


def _size(operand: Operand) -> int:
    return _count(operand.shape) if operand.shape is not None else 0


def _count(shape: Iterable[int | None] | None) -> int:
    return 0 if shape is None else math.prod(_dim(d) for d in shape)


def _dim(dimension: int | None) -> int:
    return _UNKNOWN_DIMENSION if dimension is None else dimension
