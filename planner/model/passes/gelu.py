"""The steps of Gelu, around Erf or Tanh, as one Gelu."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import onnx_ir as ir

from planner.model.passes.edit import put_in_place
from planner.model.passes.match import (
    both_orders,
    close,
    is_number,
    only_user,
    other_operand,
    own,
    producer_of,
    same_shape,
    scalar_of,
)
from planner.model.spread import dequantizer, is_quantized

CONTRIB_GELU = "com.microsoft.Gelu"
_GELU_CUBIC = 0.044715
GELU_MIN_OPSET = 20


def fuse_gelu(core: ir.Node, *, stored_at: int | None = None) -> None:
    """Fuse 0.5 x (1 + erf(x / sqrt 2)) and 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).

    In any order and grouping of the factors (Hendrycks and Gimpel, Gaussian Error Linear Units).

    Args:
        core: the Erf or Tanh.
        stored_at: the opset of a file that is judged as it is: only where onnxruntime or an EP that takes Gelu does so by itself.
    """
    plus_one = only_user(core.outputs[0])
    if plus_one is None or plus_one.op_type != "Add" or not is_number(other_operand(plus_one, core.outputs[0]), 1.0):
        return
    is_argument = _is_erf_argument if core.op_type == "Erf" else _is_tanh_argument
    for x in _sources(core.inputs[0]):
        if not is_argument(core.inputs[0], x):
            continue
        last = _half_times(plus_one.outputs[0], x)
        if last is not None and stored_at is not None and not _is_fused_by_itself(core, x, last, stored_at):
            return
        # A constant of more dimensions than x would give the result more than Gelu has.
        if last is not None and same_shape(last.outputs[0].shape, x.shape):
            approximate = "none" if core.op_type == "Erf" else "tanh"
            put_in_place(last, ir.Node("", "Gelu", [x], [ir.AttrString("approximate", approximate)]))
            return


def _is_fused_by_itself(core: ir.Node, x: ir.Value, last: ir.Node, opset: int) -> bool:
    """Whether the steps of a file become one Gelu without planner.

    From opset 20 on onnxruntime (1.32) fuses them before it spreads DequantizeLinear; but one that is read twice it has written twice
    by then. QNN's EP (2.7, qnn_node_group/gelu_fusion.cc) wants Q and DQ at both ends or at none. Neither takes a constant times x.
    """
    scaled = producer_of(core.inputs[0], "Div", "Mul")
    if scaled is None or scaled.inputs[0] is not x:
        return False
    ends_quantized = is_quantized(last.outputs[0])
    if producer_of(x, "DequantizeLinear") is not None:
        return ends_quantized
    return opset >= GELU_MIN_OPSET or (dequantizer(x) is None and not ends_quantized)


def spell_gelu(model: ir.Model) -> None:
    """Write ONNX's Gelu as onnxruntime's own operators, in place: Gelu around erf, FastGelu around tanh.

    An EP may have kernels of these alone.
    """
    for node in model.graph.all_nodes():
        if node.op_type == "Gelu" and own(node):
            approximate = node.attributes.pop("approximate", None)
            around_tanh = approximate is not None and approximate.as_string() == "tanh"
            node.domain, node.op_type = "com.microsoft", "FastGelu" if around_tanh else "Gelu"
            model.opset_imports.setdefault("com.microsoft", 1)


def _sources(value: ir.Value | None) -> list[ir.Value]:
    """The values that arithmetic of a few steps makes this one from, the nearest first."""
    found: list[ir.Value] = []
    level = [value]
    for _ in range(6):
        below = [v for up in level if (node := producer_of(up, "Mul", "Div", "Pow", "Add")) for v in node.inputs]
        level = list(dict.fromkeys(v for v in below if v is not None and v.const_value is None and v not in found))
        found += [v for v in level if v is not None]
    return found


def _product(value: ir.Value | None, *symbols: ir.Value, depth: int = 5) -> tuple[float, Counter[ir.Value]] | None:
    """(coefficient, powers of the symbols) where ``value`` is a product of constants and symbols; else None."""
    if value is None:
        return None
    if any(value is s for s in symbols):
        return 1.0, Counter([value])
    if (scalar := scalar_of(value)) is not None:
        return scalar, Counter()
    node = producer_of(value, "Mul", "Div", "Pow")
    first = _product(node.inputs[0], *symbols, depth=depth - 1) if node is not None and depth else None
    if node is None or first is None:
        return None
    coefficient, powers = first
    if node.op_type == "Mul":
        second = _product(node.inputs[1], *symbols, depth=depth - 1)
        return None if second is None else (coefficient * second[0], powers + second[1])
    number = scalar_of(node.inputs[1])
    if number is None or number == 0:
        return None
    if node.op_type == "Div":
        return coefficient / number, powers
    if number not in (2.0, 3.0):
        return None
    return coefficient**number, Counter({symbol: int(number) * power for symbol, power in powers.items()})


def _is_product(value: ir.Value | None, coefficient: float, powers: Mapping[ir.Value, int], *symbols: ir.Value) -> bool:
    found = _product(value, *symbols)
    return found is not None and found[1] == powers and close(found[0], coefficient, symbols[0])


def _is_erf_argument(value: ir.Value | None, x: ir.Value) -> bool:
    return _is_product(value, 1 / math.sqrt(2), {x: 1}, x)


def _is_tanh_argument(value: ir.Value | None, x: ir.Value) -> bool:
    """Whether ``value`` is sqrt(2/pi) (x + 0.044715 x^3), or sqrt(2/pi) x (1 + 0.044715 x^2) as JAX and FastGELU have it."""
    for sum_ in (value, *_sources(value)):
        add = producer_of(sum_, "Add")
        if add is None or sum_ is None:
            continue
        for first, second in both_orders(add):
            if first is x:
                fits, powers = _is_product(second, _GELU_CUBIC, {x: 3}, x), {sum_: 1}
            elif is_number(first, 1.0):
                fits, powers = _is_product(second, _GELU_CUBIC, {x: 2}, x), {sum_: 1, x: 1}
            else:
                continue
            if fits and _is_product(value, math.sqrt(2 / math.pi), powers, x, sum_):
                return True
    return False


def _half_times(value: ir.Value, x: ir.Value) -> ir.Node | None:
    """The last node of the one or two that bring ``value`` to 0.5 * x * value, in any order and grouping."""
    coefficient, powers = 1.0, Counter[ir.Value]()
    for _ in range(2):
        node = only_user(value)
        if node is None or not own(node) or node.op_type not in ("Mul", "Div"):
            return None
        if node.op_type == "Div" and node.inputs[0] is not value:
            return None
        other = _product(other_operand(node, value), x)
        if other is None or (node.op_type == "Div" and (other[1] or other[0] == 0)):
            return None
        coefficient *= 1 / other[0] if node.op_type == "Div" else other[0]
        powers += other[1]
        if powers == {x: 1} and close(coefficient, 0.5, x):
            return node
        value = node.outputs[0]
    return None
