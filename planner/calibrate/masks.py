"""Which values of a tensor are masks: numbers that only say "not this one" to a Softmax or a maximum. Pure.

Exporters write -1e4, -1e9 or float16's -65504 where others write minus infinity: added to the scores of attention, or put in
their place. Stored with the scores over one range they would leave them no codes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from planner.calibrate.ranges import MASK_MAGNITUDE
from planner.model.values import constant_array
from planner.operators import Keeps, operator

# They make of a number that is low enough what they make of minus infinity, or leave it out.
_READERS = ("Softmax", "ReduceMax", "MaxPool", "GlobalMaxPool", "TopK", "ArgMax", "Max", "Sigmoid", "Exp")
# The least magnitude of a constant that is taken for a mask. Swin's -100 leaves enough codes to the scores.
_LEAST = 1e3
_DEEPEST = 16


def mask_limits(model: ir.Model) -> dict[str, float]:
    """By name of a value, constants among them, that carries finite masks to a Softmax or its like: values below minus this are masks.

    Half of the mask's own magnitude: what is added to it does not lift it above, and no score comes near.
    """
    limits: dict[str, float] = {}
    for node in model.graph.all_nodes():
        if node.op_type in _READERS and node.domain in ("", "ai.onnx"):
            for value in node.inputs if node.op_type == "Max" else node.inputs[:1]:
                if value is not None and constant_array(value) is None:
                    _magnitude(value, limits, _DEEPEST)
    return limits


def _magnitude(value: ir.Value, limits: dict[str, float], depth: int) -> float | None:
    """The least magnitude of the masks that the value carries; None where it carries none."""
    array = constant_array(value)
    found = _of_constant(array) if array is not None else _of_node(value, limits, depth)
    if found is not None and value.name:
        limits[value.name] = min(found / 2, limits.get(value.name, MASK_MAGNITUDE))
    return found


def _of_constant(array: np.ndarray) -> float | None:
    if array.dtype not in (np.float32, np.float16) or not array.size:
        return None
    masks = array[(array <= -_LEAST) & (array > -MASK_MAGNITUDE)]
    return float(-masks.max()) if masks.size else None


def _of_node(value: ir.Value, limits: dict[str, float], depth: int) -> float | None:
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx") or not depth:
        return None
    operands, times = [v for v in node.inputs if v is not None], 1.0
    if node.op_type in ("Mul", "Div"):
        factor = next((v for v in operands if (array := constant_array(v)) is not None and array.size == 1), None)
        if factor is None:
            return None
        if node.op_type == "Mul" and (found := _of_factor(factor, limits)) is not None:
            return found
        sources = [v for v in operands if v is not factor]
        times = abs(_number(factor))
        times = 1 / times if node.op_type == "Div" and times else times
    elif node.op_type == "Where":
        sources = operands[1:]
    elif node.op_type in ("Add", "Concat"):
        sources = operands
    elif node.op_type in ("Cast", "Clip") or operator(node.op_type).keeps in (Keeps.ALL, Keeps.SOME):
        sources = operands[:1]
    else:
        return None
    carried = (_magnitude(v, limits, depth - 1) for v in sources)
    least = min((m for m in carried if m is not None), default=None)
    if least is None:
        return None
    if node.op_type == "Clip" and len(node.inputs) > 1 and node.inputs[1] is not None:
        bound = constant_array(node.inputs[1])
        least = least if bound is None else min(least, -float(bound.reshape(-1)[0]))
    return least * times if least * times >= _LEAST else None


def _of_factor(factor: ir.Value, limits: dict[str, float]) -> float | None:
    """The magnitude of what makes a mask of 0 and 1: (1 - mask) * -10000, as BERT has it."""
    number = _number(factor)
    if not _LEAST <= abs(number) < MASK_MAGNITUDE:
        return None
    if number < 0 and factor.name:
        limits[factor.name] = abs(number) / 2
    return abs(number)


def _number(factor: ir.Value) -> float:
    """A constant of one number."""
    array = constant_array(factor)
    return 0.0 if array is None else float(array.reshape(-1)[0])


def limit_of(limits: Mapping[str, float], name: str) -> float:
    """Values of the tensor below minus this are masks."""
    return limits.get(name, MASK_MAGNITUDE)
