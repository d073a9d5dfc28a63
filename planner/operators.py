"""What each operand of an operator is for: weight, bias, activation, or an exact value that never changes type.

The tables follow the ONNX operator specification (input positions) and say nothing about any execution provider.
"""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """Role of an operand.

    WEIGHT: static parameter quantized offline. BIAS: added to the accumulator, int32 when quantized.
    ACTIVATION: float data that flows, calibrated when quantized. EXACT: index, shape, mask, scale or other
    parameter that keeps its type.
    """

    WEIGHT = "weight"
    BIAS = "bias"
    ACTIVATION = "activation"
    EXACT = "exact"


_W, _B, _E = Role.WEIGHT, Role.BIAS, Role.EXACT

# Positions that are not plain activations. A WEIGHT position only counts as one when the operand is constant;
# otherwise it is an activation (MatMul of two activations).
_POSITIONS: dict[str, dict[int, Role]] = {
    "Conv": {1: _W, 2: _B},
    "ConvTranspose": {1: _W, 2: _B},
    "Gemm": {0: _W, 1: _W, 2: _B},
    "MatMul": {0: _W, 1: _W},
    "LayerNormalization": {1: _W, 2: _B},
    "RMSNormalization": {1: _W},
    "SimplifiedLayerNormalization": {1: _W},
    "InstanceNormalization": {1: _W, 2: _B},
    "GroupNormalization": {1: _W, 2: _B},
    "BatchNormalization": {1: _W, 2: _B, 3: _E, 4: _E},
    "PRelu": {1: _W},
    "LSTM": {1: _W, 2: _W, 3: _B, 4: _E},
    "GRU": {1: _W, 2: _W, 3: _B, 4: _E},
    "RNN": {1: _W, 2: _W, 3: _B, 4: _E},
    "Gather": {1: _E},
    "GatherElements": {1: _E},
    "GatherND": {1: _E},
    "ScatterND": {1: _E},
    "ScatterElements": {1: _E},
    "Resize": {1: _E, 2: _E, 3: _E},
    "Upsample": {1: _E},
    "Clip": {1: _E, 2: _E},
    "Pad": {1: _E, 2: _E, 3: _E},
    "Pow": {},
    "Dropout": {1: _E, 2: _E},
    "OneHot": {0: _E, 1: _E, 2: _E},
    "Where": {0: _E},
    "RoiAlign": {1: _E, 2: _E},
    "GridSample": {},
}

# Operators that compute on indices, shapes, masks or conditions: they have no precision to choose.
EXACT_OPERATORS = frozenset(
    {
        "Shape", "Size", "ArgMax", "ArgMin", "NonZero", "NonMaxSuppression", "Range", "ConstantOfShape", "Constant",
        "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not", "Xor", "IsNaN", "IsInf",
        "Cast", "CastLike", "OneHot", "EyeLike", "Unique", "TopK", "QuantizeLinear", "DequantizeLinear",
        "DynamicQuantizeLinear", "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike",
        "Bernoulli", "Multinomial", "If", "Loop", "Scan", "SequenceConstruct", "SequenceAt", "SequenceEmpty",
        "SequenceInsert", "SequenceErase", "SequenceLength", "SplitToSequence", "ConcatFromSequence", "Optional",
        "OptionalGetElement", "OptionalHasElement", "StringNormalizer", "TfIdfVectorizer",
    }
)  # fmt: skip

# Operators whose output holds only values (or selections) of their data input: input and output share one scale.
DATA_MOVEMENT = frozenset(
    {
        "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Gather", "GatherElements",
        "GatherND", "Expand", "Tile", "Identity", "DepthToSpace", "SpaceToDepth", "MaxPool", "GlobalMaxPool",
        "ReduceMax", "ReduceMin", "Dropout", "Resize", "Pad",
    }
)  # fmt: skip

# Axis of the output channels of a weight operand, by operator and position; the axis a per-channel scale runs along.
_CHANNEL_AXES: dict[tuple[str, int], int] = {
    ("Conv", 1): 0,
    ("ConvTranspose", 1): 1,
    ("MatMul", 1): -1,
    ("InstanceNormalization", 1): 0,
    ("BatchNormalization", 1): 0,
}


def role_of(op_type: str, position: int, *, is_constant: bool, is_float: bool) -> Role:
    """Role of input ``position`` of ``op_type``."""
    role = _POSITIONS.get(op_type, {}).get(position, Role.ACTIVATION)
    if role is Role.EXACT or not is_float or op_type in EXACT_OPERATORS:
        return Role.EXACT
    if role is Role.WEIGHT and not is_constant:
        return Role.ACTIVATION
    return role


def channel_axis(op_type: str, position: int, rank: int, attributes: dict[str, object]) -> int | None:
    """Axis of the weight at ``position`` along which per-channel scales run; None where there is no such axis.

    ONNX: Conv weights are (M, C/group, ...), ConvTranspose (C, M/group, ...), MatMul (..., K, N), Gemm (K, N) or
    transposed by transB.
    """
    if op_type == "Gemm" and position == 1:
        return 0 if attributes.get("transB", 0) else 1
    if op_type == "ConvTranspose" and attributes.get("group", 1) != 1:
        return None  # axis 1 counts channels within a group: one scale a channel cannot be written along it
    if op_type == "MatMul" and rank < 2:
        return None
    axis = _CHANNEL_AXES.get((op_type, position))
    return None if axis is None else axis % rank
