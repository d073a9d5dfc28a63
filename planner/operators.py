"""What is true of an operator whoever runs it: a row each, differences are columns.

The rows follow the ONNX operator specification (input positions) and say nothing about any execution provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import onnx

from planner.contrib import type_parameter


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


class Keeps(StrEnum):
    """What a result holds of the values of the first input.

    ALL: each of them once, in another place or under another shape. SOME: a choice of them, some more than once.
    RANGE: numbers between them.
    """

    ALL = "all"
    SOME = "some"
    RANGE = "range"


@dataclass(frozen=True)
class Operator:
    """One row.

    Attributes:
        roles: input positions that are not plain activations. A WEIGHT position only counts as one when the operand is
            constant; otherwise it is an activation (MatMul of two activations).
        exact: it computes on indices, shapes, masks or conditions: it has no precision to choose.
        keeps: what its result holds of its first input, so that both share one scale; None: other numbers.
        selects: which values it keeps hangs on the values: a maximum.
        bounded: its result lies in a fixed range whatever its input: it needs no headroom.
        follows: it only moves or cuts off what the node before it computes: at another precision than that node it would
            only add conversions.
        float_bias: its bias stays float: recurrent operators add one a gate to two products of different scales, which no
            one int32 scale fits.
        joins: inputs whose values its result holds side by side; constants among them share its scale.
        channel_axis: axis of the output channels of the weight at position 1, along which scales per channel run.
    """

    roles: Mapping[int, Role] = field(default_factory=dict)
    exact: bool = False
    keeps: Keeps | None = None
    selects: bool = False
    bounded: bool = False
    follows: bool = False
    float_bias: bool = False
    channel_axis: int | None = None
    joins: tuple[int, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether it moves values and no more: where each of them goes is known ahead."""
        return self.keeps in (Keeps.ALL, Keeps.SOME) and not self.selects

    @property
    def has_integer_bias(self) -> bool:
        """Whether its third operand is a bias that is stored as int32."""
        return self.roles.get(2) is Role.BIAS and not self.float_bias


_W, _B, _E = Role.WEIGHT, Role.BIAS, Role.EXACT
_NORMALIZATION = {1: _W, 2: _B}
_RECURRENT = Operator({1: _W, 2: _W, 3: _B, 4: _E}, float_bias=True)
_EXACT = Operator(exact=True)
_PLAIN = Operator()

OPERATORS: Mapping[str, Operator] = {
    "Conv": Operator({1: _W, 2: _B}, channel_axis=0),
    "ConvTranspose": Operator({1: _W, 2: _B}, channel_axis=1),
    "Gemm": Operator({0: _W, 1: _W, 2: _B}),
    "MatMul": Operator({0: _W, 1: _W}, channel_axis=-1),
    "LayerNormalization": Operator(_NORMALIZATION),
    "RMSNormalization": Operator({1: _W}),
    "SimplifiedLayerNormalization": Operator({1: _W}),
    "InstanceNormalization": Operator(_NORMALIZATION, channel_axis=0),
    # Its bias is stored as its data are: QNN (2.7) takes no int32 there.
    "GroupNormalization": Operator({1: _W}),
    "BatchNormalization": Operator({1: _W, 2: _B, 3: _E, 4: _E}, channel_axis=0),
    "PRelu": Operator({1: _W}),
    "LSTM": _RECURRENT,
    "GRU": _RECURRENT,
    "RNN": _RECURRENT,
    "Where": Operator({0: _E}),
    "RoiAlign": Operator({1: _E, 2: _E}),
    "Upsample": Operator({1: _E}),
    "ScatterND": Operator({1: _E}, joins=(0, 2)),
    "ScatterElements": Operator({1: _E}, joins=(0, 2)),
    "Relu": Operator(follows=True),
    "Clip": Operator({1: _E, 2: _E}, bounded=True, follows=True),
    **dict.fromkeys(("Softmax", "Sigmoid", "Tanh", "HardSigmoid", "Sin", "Cos", "Erf"), Operator(bounded=True)),
    **dict.fromkeys(
        ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "DepthToSpace", "SpaceToDepth"),
        Operator(keeps=Keeps.ALL, follows=True),
    ),
    **dict.fromkeys(("Slice", "Split", "Expand"), Operator(keeps=Keeps.SOME, follows=True)),
    "Dropout": Operator({1: _E, 2: _E}, keeps=Keeps.SOME, follows=True),
    **dict.fromkeys(("Gather", "GatherElements", "GatherND"), Operator({1: _E}, keeps=Keeps.SOME)),
    "Tile": Operator(keeps=Keeps.SOME),
    **dict.fromkeys(
        ("MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin"), Operator(keeps=Keeps.SOME, selects=True)
    ),
    "Pad": Operator({1: _E, 2: _E, 3: _E}, keeps=Keeps.SOME, joins=(0,)),
    "Resize": Operator({1: _E, 2: _E, 3: _E}, keeps=Keeps.RANGE),
    "OneHot": Operator({0: _E, 1: _E, 2: _E}, exact=True),
    **dict.fromkeys(
        (
            "Shape", "Size", "ArgMax", "ArgMin", "NonZero", "NonMaxSuppression", "Range", "ConstantOfShape", "Constant",
            "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not", "Xor", "IsNaN", "IsInf",
            "Cast", "CastLike", "EyeLike", "Unique", "TopK", "QuantizeLinear", "DequantizeLinear",
            "DynamicQuantizeLinear", "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike",
            "Bernoulli", "Multinomial", "If", "Loop", "Scan", "SequenceConstruct", "SequenceAt", "SequenceEmpty",
            "SequenceInsert", "SequenceErase", "SequenceLength", "SplitToSequence", "ConcatFromSequence", "Optional",
            "OptionalGetElement", "OptionalHasElement", "StringNormalizer", "TfIdfVectorizer",
        ),
        _EXACT,
    ),
}  # fmt: skip


def operator(op_type: str) -> Operator:
    """The operator's row; a plain one where the table has none."""
    return OPERATORS.get(op_type, _PLAIN)


def role_of(op_type: str, position: int, *, is_constant: bool, is_float: bool) -> Role:
    """Role of input ``position`` of ``op_type``.

    Args:
        op_type: the operator.
        position: of the input, from 0.
        is_constant: whether the operand is known before the model runs.
        is_float: whether it is float32 or float16.
    """
    row = operator(op_type)
    role = row.roles.get(position, Role.ACTIVATION)
    if role is Role.EXACT or not is_float or row.exact:
        return Role.EXACT
    if role is Role.WEIGHT and not is_constant:
        return Role.ACTIVATION
    return role


def summed_axis(op_type: str, attributes: Mapping[str, object]) -> int:
    """Axis of the matrix that a MatMul or Gemm multiplies by that is summed over."""
    return 1 if op_type == "Gemm" and attributes.get("transB", 0) else 0


def channel_axis(op_type: str, position: int, rank: int, attributes: Mapping[str, object]) -> int | None:
    """Axis of the weight at ``position`` along which per-channel scales run; None where there is no such axis.

    ONNX: Conv weights are (M, C/group, ...), ConvTranspose (C, M/group, ...), MatMul (..., K, N), Gemm (K, N) or
    transposed by transB.

    Args:
        op_type: the operator.
        position: of the weight among the inputs.
        rank: dimensions of the weight.
        attributes: the node's, by name.
    """
    if position != 1:
        return None
    if op_type == "Gemm":
        return 0 if attributes.get("transB", 0) else 1
    if op_type == "ConvTranspose" and attributes.get("group", 1) != 1:
        return None  # axis 1 counts channels within a group: one scale a channel cannot be written along it
    if op_type == "MatMul" and rank < 2:
        return None
    axis = operator(op_type).channel_axis
    return None if axis is None or rank == 0 else axis % rank


def known_operator(op_type: str, domain: str) -> bool:
    """Whether ONNX itself, or ONNX Runtime in ONNX's or its own contrib domains, defines the operator."""
    if domain in ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training"):
        own = "" if domain == "ai.onnx" else domain
        return bool(onnx.defs.has(op_type, own)) or (not own and type_parameter(op_type, "", 0) is not None)
    return domain in ("com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")
