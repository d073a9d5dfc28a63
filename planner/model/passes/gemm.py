"""Gemm in the one form that integer kernels have: alpha and beta are 1, the bias is one number a column; with a bias where EPs
ask for one; and in place of MatMul and Add.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from planner.model.names import Names
from planner.model.passes.edit import follow, new_constant, put_before, put_in_place, remove_if_dead
from planner.model.passes.match import float_attribute, graph_of, int_attribute, only_user, other_operand, own
from planner.model.passes.rank import static_dims
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


def gemm_of_product(matmul: ir.Node, names: Names) -> None:
    """MatMul(x, w) + b -> Gemm(x, w, b), between Reshapes where x has more than two dimensions.

    With Q and DQ between them a bias is an addition of its own, of the whole result, which is rounded once more. Nothing is done
    where w or b is no constant, b is not one number a column, or a shape is not known.
    """
    x, weight, product = matmul.inputs[0], matmul.inputs[1], matmul.outputs[0]
    add, given = only_user(product), static_dims(x)
    matrix = constant_array(weight)
    if add is None or add.op_type != "Add" or not own(add) or given is None or len(given) < 2:
        return
    bias = constant_array(other_operand(add, product))
    if matrix is None or bias is None or matrix.ndim != 2 or matrix.dtype != bias.dtype or matrix.dtype.kind != "f":
        return
    rows, columns = int(np.prod(given[:-1])), matrix.shape[1]
    if bias.size not in (1, columns) or bias.shape[-1:] not in ((), (1,), (columns,)) or bias.ndim > len(given):
        return
    vector = np.broadcast_to(bias.reshape(-1), (columns,))
    read = x if len(given) == 2 else _as_rows(matmul, [rows, given[-1]], names)
    gemm = ir.Node("", "Gemm", [read, weight, new_constant(add, f"{add.outputs[0].name}_bias", vector, names)])
    put_in_place(add, gemm)
    remove_if_dead(matmul)
    gemm.name = matmul.name
    if len(given) > 2:
        shape = new_constant(gemm, f"{gemm.outputs[0].name}_shape", np.array([*given[:-1], columns], np.int64), names)
        follow(gemm, "Reshape", shape, "rows", names)
        gemm.outputs[0].shape = ir.Shape([rows, columns])


def _as_rows(matmul: ir.Node, dims: list[int], names: Names) -> ir.Value:
    """What a product reads, as a matrix; what was reshaped for another product is not reshaped twice."""
    x = matmul.inputs[0]
    assert x is not None
    for use in x.uses():
        shape = constant_array(use.node.inputs[1]) if use.node.op_type == "Reshape" and use.idx == 0 else None
        if shape is not None and shape.tolist() == dims and use.node.graph is matmul.graph:
            return use.node.outputs[0]
    shape_of = new_constant(matmul, f"{x.name}_rows_shape", np.array(dims, np.int64), names)
    reshape = ir.Node("", "Reshape", [x, shape_of], name=names.beside(matmul, "rows"))
    return put_before(matmul, reshape, f"{x.name}_rows", dims, names)


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
