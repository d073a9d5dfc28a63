"""What stands for a node whose weight lies in blocks, or whose activation is quantized as it comes. Pure.

A node that only stores its weight as integers becomes com.microsoft MatMulNBits or GatherBlockQuantized where the target
has them, else it reads a DequantizeLinear with a block size. A node at a dynamic pair becomes DynamicQuantizeLinear,
MatMulInteger, Cast and Mul of ONNX, which onnxruntime fuses as it loads the model. Legality asks for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from planner.dtypes import DType, QuantConfig
from planner.model.node import Node, Operand
from planner.operators import Role

# Numbers that share a scale. onnxruntime 1.32's CPU EP, 4 bits, weights of a sentence encoder: blocks of 32 keep 1.6 dB more
# than blocks of 128 and cost 0.75 bits a weight more; MatMulNBits takes powers of two from 16 on.
BLOCK_SIZE = 32


class Replacement(StrEnum):
    """Operators that take a node's place, as a plan names them."""

    MATMUL_NBITS = "com.microsoft.MatMulNBits"
    GATHER_BLOCKS = "com.microsoft.GatherBlockQuantized"
    DYNAMIC_MATMUL = "MatMulInteger"


@dataclass(frozen=True)
class Matrix:
    """The constant matrix that a node multiplies by, or gathers rows from.

    Attributes:
        position: of the operand.
        axis: of it along which blocks run: the dimension summed over, or that of a row's numbers.
        numbers: size along that axis.
        rows: size along the other.
    """

    position: int
    axis: int
    numbers: int
    rows: int


def matrix_of(node: Node) -> Matrix | str:
    """The node's matrix; or, in words, why it has none that can be cut into blocks."""
    if node.domain or node.op_type not in ("MatMul", "Gemm", "Gather"):
        return "only the constant matrices of MatMul, Gemm and Gather are stored so"
    position = 0 if node.op_type == "Gather" else 1
    operand = node.inputs[position] if len(node.inputs) > position else None
    if operand is None or not operand.constant or operand.dtype not in ("float32", "float16"):
        return f"its operand {position} is no constant of float numbers"
    if operand.shape is None or len(operand.shape) != 2:
        return f"its constant has {'an unknown number of' if operand.shape is None else len(operand.shape)} dimensions, not 2"
    rows, columns = operand.shape
    assert rows is not None and columns is not None, "a constant has a known shape"
    if node.op_type == "Gather":
        if node.attributes.get("axis", 0) != 0:
            return "it gathers along another axis than the first"
        return Matrix(0, 1, columns, rows)
    data = node.inputs[0]
    if node.op_type == "MatMul" and (data is None or data.shape is None or len(data.shape) < 2):
        return "its data has an unknown shape, or fewer than 2 dimensions"
    if node.op_type == "Gemm":
        if node.attributes.get("transA", 0):
            return "its data is transposed (transA)"
        if node.attributes.get("transB", 0):
            return Matrix(1, 1, columns, rows)
    return Matrix(1, 0, rows, columns)


def unfit(matrix: Matrix, config: QuantConfig) -> str | None:
    """Why the matrix is not to be quantized so, whoever runs it; None where it is."""
    if config.block_size is None:
        return None
    if matrix.numbers < config.block_size:
        return f"only {matrix.numbers} numbers along the blocks: padding to {config.block_size} would make it larger"
    return None


def replacements(node: Node, config: QuantConfig, matrix: Matrix) -> tuple[Node, ...]:
    """The nodes that take this node's place, for legality: operators, types, shapes and attributes as they will be.

    The first one that names a kernel of its own comes first. Empty where the node keeps its operator.
    """
    if config.dynamic:
        return _dynamic(node, config, matrix)
    if (
        config.block_size is None
        or config.activation is None
        or not config.activation.is_float
        or config.weight is None
    ):
        return ()
    kind, bits = config.activation.value, config.weight.bits
    blocks = -(-matrix.numbers // config.block_size)
    if node.op_type == "Gather":
        if bits == 4 and matrix.numbers % 2:
            return ()  # a row must end with a whole byte
        packed = _constant("table", "uint8", (matrix.rows, matrix.numbers * bits // 8))
        gathered = (packed, node.inputs[1], _constant("scale", kind, (matrix.rows, blocks)))
        layout = {"bits": bits, "block_size": config.block_size, "gather_axis": 0, "quantize_axis": 1}
        return (_made(node, "GatherBlockQuantized", gathered, config.activation, layout, "com.microsoft"),)
    operands = (
        _flowing(node.inputs[0], kind),
        _constant("weight", "uint8", (matrix.rows, blocks, config.block_size * bits // 8)),
        _constant("scale", kind, (matrix.rows, blocks)),
        _constant("zero_point", "uint8", (matrix.rows, -(-blocks * bits // 8))),
    )
    attributes = {"K": matrix.numbers, "N": matrix.rows, "bits": bits, "block_size": config.block_size}
    first = _made(node, "MatMulNBits", operands, config.activation, attributes, "com.microsoft")
    return (first, *_bias(node, config.activation))


def name_of(made: Sequence[Node]) -> Replacement | None:
    """What a plan calls the replacement; None where there is none."""
    if not made:
        return None
    ops = [f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in made]
    return Replacement.DYNAMIC_MATMUL if Replacement.DYNAMIC_MATMUL in ops else Replacement(ops[0])


def _dynamic(node: Node, config: QuantConfig, matrix: Matrix) -> tuple[Node, ...]:
    data = _flowing(node.inputs[0], "float32")
    codes = Operand("codes", Role.EXACT, "uint8", None if data is None else data.shape, False)
    product = Operand("product", Role.EXACT, "int32", node.output_shapes[0], False)
    scaled = Operand("scaled", Role.ACTIVATION, "float32", node.output_shapes[0], False)
    scale = Operand("scale", Role.ACTIVATION, "float32", (), False)
    zero = Operand("zero_point", Role.EXACT, "uint8", (), False)
    weight = _constant("weight", str(config.weight), (matrix.numbers, matrix.rows))
    return (
        _made(node, "DynamicQuantizeLinear", (data,), None, {}, dtype="uint8"),
        _made(node, "MatMulInteger", (codes, weight, zero), None, {}, dtype="int32"),
        _made(node, "Cast", (product,), None, {"to": 1}, dtype="float32"),
        _made(node, "Mul", (scaled, scale), DType.FLOAT32, {}),
        *_bias(node, DType.FLOAT32),
    )


def _bias(node: Node, activation: DType) -> tuple[Node, ...]:
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    if bias is None:
        return ()
    product = Operand("product", Role.ACTIVATION, activation.value, node.output_shapes[0], False)
    return (_made(node, "Add", (product, _flowing(bias, activation.value)), activation, {}),)


def _made(
    node: Node,
    op_type: str,
    inputs: tuple[Operand | None, ...],
    activation: DType | None,
    attributes: Mapping[str, object],
    domain: str = "",
    dtype: str | None = None,
) -> Node:
    return Node(
        name=node.name,
        op_type=op_type,
        domain=domain,
        inputs=inputs,
        outputs=node.outputs[:1],
        output_shapes=node.output_shapes[:1],
        output_dtypes=(dtype or (activation.value if activation is not None else None),),
        attributes=attributes,
        origins=node.origins,
        stored=QuantConfig(None, activation),
        scope=node.scope,
    )


def _constant(name: str, dtype: str, shape: tuple[int, ...]) -> Operand:
    return Operand(name, Role.EXACT, dtype, shape, True)


def _flowing(operand: Operand | None, dtype: str) -> Operand | None:
    if operand is None:
        return None
    return Operand(operand.name, Role.ACTIVATION, dtype, operand.shape, operand.constant)
