"""Nodes in another operator's place: matrices in blocks (MatMulNBits, GatherBlockQuantized), data quantized as it comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from planner.dtypes import DType
from planner.errors import RequestError
from planner.model.values import constant_array
from planner.quantization import blocks as b
from planner.quantization import parameters as q
from planner.quantization.graph import (
    IR_TYPES,
    NUMPY_FLOATS,
    Made,
    graph_of,
    initializer,
    initializer_graph,
    number_of,
    place_of,
    summed_axis,
)
from planner.resolve.plan import PlanNode
from planner.resolve.replacements import Replacement

# MatMulNBits may quantize its data to 8 bits a block inside (level 4, what onnxruntime also does by default with a blocked
# DequantizeLinear in front of a MatMul). onnxruntime 1.32, CPU EP, 2048 x 2048, one row, 4 bits: 0.08 ms and 20.3 dB, where
# level 1 (float32 inside) takes 0.31 ms for 20.4 dB; with 8 bits 0.07 ms and 42.6 dB against 10.7 ms and 45.7 dB.
_ACCURACY_LEVEL = 4


@dataclass
class Replacing:
    """Replaces nodes of one graph; a matrix that several of them read is stored once.

    Attributes:
        as_float: (value, dtype, consumer): the value as float32 or float16, converted where it is stored otherwise.
    """

    as_float: Callable[[ir.Value, DType, ir.Node], ir.Value]
    packed: dict[tuple[object, ...], tuple[ir.Value, ...]] = field(default_factory=dict)

    def replace(self, node: ir.Node, line: PlanNode) -> None:
        """Put what the plan names in the node's place; its name and those of its results stay."""
        assert line.weight is not None and line.activation is not None and node.graph is not None
        dtype = DType.FLOAT32 if line.config.dynamic else line.activation
        position = 0 if node.op_type == "Gather" else 1
        value = node.inputs[position]
        array = constant_array(value)
        if value is None or array is None or array.ndim != 2:
            raise RequestError(
                f"the plan turns {node.op_type} {node.name!r} into {line.replacement}, but its operand {position} is no constant matrix",
                "make the plan anew with `planner plan`",
            )
        if line.replacement is Replacement.GATHER_BLOCKS:
            made = self._gather_blocks(node, value, array, line, line.weight, dtype)
        else:
            data = node.inputs[0]
            assert data is not None
            data = self.as_float(data, dtype, node)
            axis = summed_axis(node)
            alpha = number_of(node, "alpha")
            if line.replacement is Replacement.DYNAMIC_MATMUL:
                made = self._dynamic_matmul(
                    node, data, value, array if axis == 0 else array.T, alpha, line, line.weight
                )
            else:
                made = self._matmul_nbits(
                    node, data, value, array if axis == 1 else array.T, alpha, line, line.weight, dtype
                )
            made += self._added_bias(node, made[-1].outputs[0], dtype)
        old, new = node.outputs[0], made[-1].outputs[0]
        old_name, shape = old.name, old.shape
        node.graph.insert_before(node, made)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        node.graph.remove(node, safe=True)
        new.name, new.shape, new.type = old_name, shape, ir.TensorType(IR_TYPES[dtype])

    def _matmul_nbits(
        self, node: ir.Node, data: ir.Value, value: ir.Value, rows: np.ndarray, alpha: float, line: PlanNode, kind: DType,
        dtype: DType,
    ) -> list[ir.Node]:  # fmt: skip
        assert line.config.block_size is not None
        key = (value, "MatMulNBits", kind, line.config.block_size, dtype, alpha, rows.shape)
        if key not in self.packed:
            blocks = b.quantize_blocks(rows * np.float32(alpha), kind, line.config.block_size, NUMPY_FLOATS[dtype])
            self.packed[key] = self._packed_values(value, b.for_matmul_nbits(blocks), kind, dtype)
        attributes = {
            "K": rows.shape[1], "N": rows.shape[0], "bits": kind.bits, "block_size": line.config.block_size,
            "accuracy_level": _ACCURACY_LEVEL,
        }  # fmt: skip
        return [ir.node("MatMulNBits", [data, *self.packed[key]], attributes, domain="com.microsoft", name=node.name)]

    def _gather_blocks(
        self, node: ir.Node, value: ir.Value, array: np.ndarray, line: PlanNode, kind: DType, dtype: DType
    ) -> list[ir.Node]:
        assert line.config.block_size is not None
        key = (value, "GatherBlockQuantized", kind, line.config.block_size, dtype)
        if key not in self.packed:
            blocks = b.quantize_blocks(array, kind, line.config.block_size, NUMPY_FLOATS[dtype])
            self.packed[key] = self._packed_values(value, b.for_gather(blocks), kind, dtype)
        table, scale, zero = self.packed[key]
        attributes = {"bits": kind.bits, "block_size": line.config.block_size, "gather_axis": 0, "quantize_axis": 1}
        inputs = [table, node.inputs[1], scale, zero]
        return [ir.node("GatherBlockQuantized", inputs, attributes, domain="com.microsoft", name=node.name)]

    def _packed_values(
        self, value: ir.Value, arrays: tuple[np.ndarray, np.ndarray, np.ndarray], kind: DType, dtype: DType
    ) -> tuple[ir.Value, ...]:
        graph = initializer_graph(value)
        base = f"{value.name}_{kind}_packed"
        return (
            initializer(graph, f"{base}_quantized", arrays[0], ir.DataType.UINT8),
            initializer(graph, f"{base}_scale", arrays[1], IR_TYPES[dtype]),
            initializer(graph, f"{base}_zero_point", arrays[2], ir.DataType.UINT8),
        )

    def _dynamic_matmul(
        self,
        node: ir.Node,
        data: ir.Value,
        value: ir.Value,
        columns: np.ndarray,
        alpha: float,
        line: PlanNode,
        kind: DType,
    ) -> list[ir.Node]:
        """DynamicQuantizeLinear, once for each value, MatMulInteger, and what makes the sum float32 again."""
        key = (value, "MatMulInteger", kind, line.config.per_channel, alpha, columns.shape)
        if key not in self.packed:

            def weight() -> np.ndarray:
                return columns.astype(np.float32) * np.float32(alpha)

            parameters = q.weight_parameters(
                weight(), kind, 1 if line.config.per_channel else None, widest_spread=np.inf
            )
            content = Made(lambda: q.quantize(weight(), parameters), columns.shape)
            graph, base = initializer_graph(value), f"{value.name}_{kind}_dynamic"
            self.packed[key] = (
                initializer(graph, f"{base}_quantized", content, IR_TYPES[kind]),
                initializer(graph, f"{base}_scale", parameters.scale, ir.DataType.FLOAT),
                initializer(graph, f"{base}_zero_point", parameters.zero_point, IR_TYPES[kind]),
            )
        weights, scale, zero = self.packed[key]
        source = (data, "DynamicQuantizeLinear")
        if source not in self.packed:
            made = ir.node("DynamicQuantizeLinear", [data], num_outputs=3, name=f"{data.name}_DynamicQuantizeLinear")
            for out, what in zip(made.outputs, ("quantized", "scale", "zero_point"), strict=True):
                out.name = f"{data.name}_dynamic_{what}"
            for out, kind_, shape in zip(
                made.outputs, (ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8),
                (data.shape, ir.Shape(()), ir.Shape(())), strict=True,
            ):  # fmt: skip
                out.type, out.shape = ir.TensorType(kind_), shape
            place = place_of(data, node)
            if isinstance(place, ir.Node):
                graph_of(place).insert_after(place, made)
            else:
                place.insert_before(next(iter(place)), made)
            self.packed[source] = tuple(made.outputs)
        codes, step, point = self.packed[source]
        # Zero points of zero are left out: onnxruntime fuses the shorter form as well, and it says the same.
        inputs = [codes, weights, point] if kind.is_signed else [codes, weights, point, zero]
        product = ir.node("MatMulInteger", inputs, name=node.name)
        cast = ir.node("Cast", [product.outputs[0]], {"to": int(ir.DataType.FLOAT)}, name=f"{node.name}_Cast")
        scales = ir.node("Mul", [step, scale], name=f"{node.name}_scales_Mul")
        scaled = ir.node("Mul", [cast.outputs[0], scales.outputs[0]], name=f"{node.name}_Mul")
        for made, dtype, suffix in (
            (product, ir.DataType.INT32, "product"),
            (cast, ir.DataType.FLOAT, "cast"),
            (scales, ir.DataType.FLOAT, "scales"),
            (scaled, ir.DataType.FLOAT, "scaled"),
        ):
            made.outputs[0].name, made.outputs[0].type = f"{node.outputs[0].name}_{suffix}", ir.TensorType(dtype)
        return [product, cast, scales, scaled]

    def _added_bias(self, node: ir.Node, product: ir.Value, dtype: DType) -> list[ir.Node]:
        """The Add of a Gemm's third operand, times beta."""
        bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
        if bias is None:
            return []
        product.type = ir.TensorType(IR_TYPES[dtype])
        product.name = product.name or f"{node.outputs[0].name}_product"
        beta = number_of(node, "beta")
        made: list[ir.Node] = []
        addend = self.as_float(bias, dtype, node)
        if beta != 1.0:
            graph = graph_of(node)
            factor = initializer(graph, f"{node.name}_beta", np.array(beta, NUMPY_FLOATS[dtype]), IR_TYPES[dtype])
            scaled = ir.node("Mul", [addend, factor], name=f"{node.name}_beta_Mul")
            scaled.outputs[0].name, scaled.outputs[0].type = f"{node.name}_scaled_bias", ir.TensorType(IR_TYPES[dtype])
            made, addend = [scaled], scaled.outputs[0]
        return [*made, ir.node("Add", [product, addend], name=f"{node.name}_bias_Add")]
