"""Conditions under which a statement of a profile speaks of a node. What they mean for one is decided in planner/resolve/."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, structs

from planner.profiles.dimension import Dimension

AttributeValue = str | int | float | list[int | str]


class OperandCondition(Struct, frozen=True, forbid_unknown_fields=True):
    """What must hold of one input of a node.

    Attributes:
        constant: whether it is known before the model runs.
        dtype: its element type is among these. min_rank, max_rank: bounds of its rank.
        dims: what must hold of its dimensions, by their place (as text).
        holds: a whole number that is among those of a short constant, such as a shape.
        present: whether the operand is given at all; any other condition asks for that as well.
    """

    constant: bool | None = None
    dtype: list[str] | None = None
    min_rank: int | None = None
    max_rank: int | None = None
    dims: dict[Annotated[str, Meta(pattern="^[0-9]$")], Dimension] | None = None
    holds: int | None = None
    present: bool | None = None


class When(Struct, frozen=True, forbid_unknown_fields=True):
    """Conditions on a node. All must hold for a rule to apply. What is not known of a node (a type, a shape) does not contradict
    what is taken, and nothing is refused for it.

    A profile writes an attribute under its own name: `alpha: 1.0`, `mode: [linear, cubic]` (one of them),
    `alpha: {not: 1.0}`, `dilations: {above: 2048}`. An absent attribute counts as its ONNX default.

    Attributes:
        weight: whether the node has a constant weight.
        per_channel: whether that weight is quantized with one scale per channel.
        min_opset, max_opset: bounds of the model's ai.onnx opset.
        min_rank, max_rank: bounds of the node's rank.
        blocked: whether that weight has one scale per block, in the file or as it is planned.
        integer_bias: whether its bias is stored as int32 behind a DequantizeLinear, in the file or as it is planned.
        asymmetric: whether a Q or DQ around it has a zero point other than 0 in the file. Plans avoid it where it is refused.
        off_center: whether that weight has one scale per channel, and a zero point other than the middle of its type, in the file.
            Plans write none.
        signed_factor: whether the second factor of a product has a signed type in the file.
        weight_above: a bound that a code of a weight which the file stores as int16 lies above.
        depthwise: whether each channel is convolved by itself, into one: as many groups as there are channels on both sides.
        resizes_channels: whether it gives one of the first two dimensions another size, as a Resize of a picture with its channels last does.
        shape_arithmetic: whether it computes with nothing but shapes of tensors, which onnxruntime leaves to the CPU EP.
        cut_block: whether the numbers along the blocks are no multiple of the block size.
        min_outputs: the node has at least so many outputs that are used. given_out: whether one is an output of the model.
        captures_constants: whether a body of the node (If, Loop, Scan) reads constants of the graph around it.
        static_outputs: whether the shape of every output is known, by inference or because the model states it.
        empty: whether an operand that flows, or a result, holds no number at all: one of its dimensions is 0.
        attributes: attribute name to the values it may have.
        attributes_not: attribute name to values it must not have; an absent attribute without a default has none.
        attributes_above: attribute name to a bound that it, or one of its numbers, lies above.
        inputs: input position (as text) to what must hold of that operand.
    """

    weight: bool | None = None
    per_channel: bool | None = None
    min_opset: int | None = None
    max_opset: int | None = None
    min_rank: int | None = None
    max_rank: int | None = None
    blocked: bool | None = None
    integer_bias: bool | None = None
    asymmetric: bool | None = None
    off_center: bool | None = None
    signed_factor: bool | None = None
    weight_above: int | None = None
    depthwise: bool | None = None
    resizes_channels: bool | None = None
    shape_arithmetic: bool | None = None
    cut_block: bool | None = None
    min_outputs: int | None = None
    given_out: bool | None = None
    captures_constants: bool | None = None
    static_outputs: bool | None = None
    empty: bool | None = None
    attributes: dict[str, list[AttributeValue]] = {}
    attributes_not: dict[str, list[AttributeValue]] = {}
    attributes_above: dict[str, float] = {}
    inputs: dict[Annotated[str, Meta(pattern="^[0-9]{1,2}$")], OperandCondition] = {}

    def spans(self, opset: int) -> bool:
        """Whether an opset lies within the bounds."""
        return (self.min_opset is None or self.min_opset <= opset) and (
            self.max_opset is None or opset <= self.max_opset
        )

    @property
    def asks_opset_alone(self) -> bool:
        """Whether it asks nothing but bounds of the opset, or nothing at all."""
        return structs.replace(self, min_opset=None, max_opset=None) == When()
