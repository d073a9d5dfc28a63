"""Products whose data is quantized in every run by its own range: DynamicQuantizeLinear, MatMulInteger, Cast, Mul."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from planner.dtypes import QuantConfig
from planner.model.values import numbers
from planner.operators import summed_axis
from planner.quantization import parameters as q
from planner.quantization.graph import (
    IR_TYPES,
    Made,
    Rewriting,
    attributes_of,
    graph_of,
    number_of,
    place_of,
    put,
)


def dynamic_matmul(
    rewriting: Rewriting, node: ir.Node, data: ir.Value, value: ir.Value, config: QuantConfig
) -> list[ir.Node]:
    """What computes the product in integers and makes the sum float32 again.

    Args:
        rewriting: the model.
        node: the MatMul or Gemm in whose place it stands.
        data: float32; it is quantized once for all products that read it.
        value: the constant matrix.
        config: dynamic.

    Returns:
        The nodes in order, not yet in a graph; the last one's result is the product.
    """
    kind = config.weight
    assert kind is not None
    weights, scale, zero = _weights(rewriting, node, value, config)
    codes, step, point = _quantized(rewriting, data, node)
    # Zero points of zero are left out: onnxruntime fuses the shorter form as well, and it says the same.
    inputs = [codes, weights, point] if kind.is_signed else [codes, weights, point, zero]
    product = ir.node("MatMulInteger", inputs, name=node.name)
    base, names = node.outputs[0].name, rewriting.names
    product.outputs[0].name = names.value(f"{base}_product")
    product.outputs[0].type = ir.TensorType(ir.DataType.INT32)
    as_float32 = rewriting.node(
        "Cast", [product.outputs[0]], (f"{base}_cast", ir.DataType.FLOAT, None), name=f"{node.name}_Cast",
        attributes={"to": int(ir.DataType.FLOAT)},
    )  # fmt: skip
    scales = rewriting.node(
        "Mul", [step, scale], (f"{base}_scales", ir.DataType.FLOAT, None), name=f"{node.name}_scales_Mul"
    )
    factors = [as_float32.outputs[0], scales.outputs[0]]
    scaled = rewriting.node("Mul", factors, (f"{base}_scaled", ir.DataType.FLOAT, None), name=f"{node.name}_Mul")
    return [product, as_float32, scales, scaled]


def _weights(rewriting: Rewriting, node: ir.Node, value: ir.Value, config: QuantConfig) -> tuple[ir.Value, ...]:
    """Codes, scale and zero point of the matrix, times a Gemm's alpha."""
    kind, alpha, axis = config.weight, number_of(node, "alpha"), summed_axis(node.op_type, attributes_of(node))
    assert kind is not None
    key = (value, "MatMulInteger", kind, config.per_channel, alpha, axis)
    if key not in rewriting.packed:

        def columns() -> np.ndarray:
            array = numbers(value).astype(np.float32) * np.float32(alpha)
            return array if axis == 0 else array.T

        first = columns()
        parameters = q.weight_parameters(first, kind, 1 if config.per_channel else None, widest_spread=np.inf)
        content = Made(lambda: q.quantize(columns(), parameters), first.shape)
        graph, base = graph_of(value), f"{value.name}_{kind}_dynamic"
        rewriting.packed[key] = (
            rewriting.initializer(graph, f"{base}_quantized", content, IR_TYPES[kind]),
            rewriting.initializer(graph, f"{base}_scale", parameters.scale, ir.DataType.FLOAT),
            rewriting.initializer(graph, f"{base}_zero_point", parameters.zero_point, IR_TYPES[kind]),
        )
    return rewriting.packed[key]


def _quantized(rewriting: Rewriting, data: ir.Value, consumer: ir.Node) -> tuple[ir.Value, ...]:
    """Codes, scale and zero point of the data, found out while the model runs."""
    key = (data, "DynamicQuantizeLinear")
    if key not in rewriting.packed:
        name = rewriting.names.node(f"{data.name}_DynamicQuantizeLinear")
        made = ir.node("DynamicQuantizeLinear", [data], num_outputs=3, name=name)
        for out, what, kind, shape in zip(
            made.outputs,
            ("quantized", "scale", "zero_point"),
            (ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8),
            (data.shape, ir.Shape(()), ir.Shape(())),
            strict=True,
        ):
            out.name = rewriting.names.value(f"{data.name}_dynamic_{what}")
            out.type, out.shape = ir.TensorType(kind), shape
        put(made, place_of(data, consumer))
        rewriting.packed[key] = tuple(made.outputs)
    return rewriting.packed[key]
