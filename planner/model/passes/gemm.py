"""Gemm in the one form that integer kernels have: alpha and beta are 1, the bias is one number a column; and with a bias where EPs
ask for one.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from planner.model.names import Names
from planner.model.passes.edit import follow, new_constant
from planner.model.passes.match import float_attribute, graph_of, int_attribute
from planner.model.values import constant_array

# What onnxruntime fuses into a Gemm for DirectML (observed with 1.24.4).
_ACTIVATIONS = (
    "Elu", "HardSigmoid", "LeakyRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh", "ThresholdedRelu",
)  # fmt: skip


def plain_gemm(gemm: ir.Node, names: Names) -> None:
    """Fold alpha into the weight and beta into the bias; add what is no bias of shape (N,) by an Add behind the Gemm.

    A quantized bias has one scale a column, so that any other shape would be stored along the wrong axis.
    """
    alpha, beta = float_attribute(gemm, "alpha", 1.0), float_attribute(gemm, "beta", 1.0)
    bias = gemm.inputs[2] if len(gemm.inputs) > 2 and beta != 0 else None
    columns = _columns(gemm)
    if columns is None or (alpha == 1 and beta == 1 and (bias is None or bias.shape == ir.Shape([columns]))):
        return
    if bias is not None:
        bias, is_vector = _plain_bias(gemm, bias, beta, columns, names)
    else:
        is_vector = True
    if alpha != 1 and _scale_weight(gemm, alpha, names):
        alpha = 1.0
    for name in ("alpha", "beta"):
        gemm.attributes.pop(name, None)
    stays = bias if is_vector and alpha == 1 else None
    gemm.resize_inputs(2 if stays is None else 3)
    if stays is not None:
        gemm.replace_input_with(2, stays)
    last = gemm
    if alpha != 1:
        last = follow(last, "Mul", _number(gemm, alpha, "alpha", names), "scaled", names)
    if bias is not stays and bias is not None:
        follow(last, "Add", bias, "with_bias", names)


def give_bias(gemm: ir.Node, names: Names) -> None:
    """Give a Gemm without a bias one of zeros where an activation reads it: DirectML's fusion of the two cannot do without."""
    out, columns = gemm.outputs[0], _columns(gemm)
    has = len(gemm.inputs) > 2 and gemm.inputs[2] is not None
    if has or columns is None or not any(use.node.op_type in _ACTIVATIONS for use in out.uses()):
        return
    zeros = np.zeros(columns, (out.dtype or ir.DataType.FLOAT).numpy())
    gemm.resize_inputs(3)
    gemm.replace_input_with(2, new_constant(gemm, f"{out.name}_bias", zeros, names))


def _columns(gemm: ir.Node) -> int | None:
    weight = gemm.inputs[1]
    if weight is None or weight.shape is None or len(weight.shape) != 2:
        return None
    columns = weight.shape[0 if int_attribute(gemm, "transB", 0) else 1]
    return columns if isinstance(columns, int) else None


def _plain_bias(gemm: ir.Node, bias: ir.Value, beta: float, columns: int, names: Names) -> tuple[ir.Value, bool]:
    """The bias times beta, of shape (N,) where it is one number a column; and whether it is."""
    array = constant_array(bias)
    if array is None:
        if beta != 1:
            scaled = ir.node("Mul", [bias, _number(gemm, beta, "beta", names)], name=names.beside(gemm, "beta"))
            graph_of(gemm).insert_before(gemm, scaled)
            out = scaled.outputs[0]
            out.name, out.type, out.shape = names.value(f"{gemm.outputs[0].name}_bias"), bias.type, bias.shape
            bias = out
        return bias, bias.shape == ir.Shape([columns])
    is_vector = array.size in (1, columns) and array.shape[-1:] in ((), (1,), (columns,))
    scaled_array = _times(array, beta)
    if is_vector:
        scaled_array = np.broadcast_to(scaled_array.reshape(-1), (columns,))
    return new_constant(gemm, f"{gemm.outputs[0].name}_bias", scaled_array, names), is_vector


def _scale_weight(gemm: ir.Node, alpha: float, names: Names) -> bool:
    """Whether one of the matrices is a constant, which then takes alpha in."""
    for position in (1, 0):
        array = constant_array(gemm.inputs[position])
        if array is not None:
            scaled = new_constant(gemm, f"{gemm.outputs[0].name}_weight", _times(array, alpha), names)
            gemm.replace_input_with(position, scaled)
            return True
    return False


def _number(gemm: ir.Node, number: float, what: str, names: Names) -> ir.Value:
    dtype = gemm.outputs[0].dtype or ir.DataType.FLOAT
    return new_constant(gemm, f"{gemm.outputs[0].name}_{what}", np.array(number, dtype.numpy()), names)


def _times(array: np.ndarray, factor: float) -> np.ndarray:
    """The product in the array's own type, rounded once."""
    if factor == 1:
        return array
    return (array.astype(np.float64) * factor).astype(array.dtype)
