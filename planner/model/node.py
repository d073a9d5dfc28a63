"""The model as resolving sees it: plain values, no tensors, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.dtypes import QuantConfig
from planner.operators import Role


@dataclass(frozen=True)
class Operand:
    """An input of a node.

    Attributes:
        name: name of the value.
        role: what it is for.
        dtype: ONNX element type, lower case ("float32", "int64"); None if unknown.
        shape: dimensions; None for an unknown one; the whole None if the rank is unknown.
        constant: whether the value is known before the model runs.
        source: name of the value that it stands for, where it comes out of a QuantizeLinear and DequantizeLinear; else None.
        numbers: those of a short constant of whole numbers (a shape, axes); None of any other.
    """

    name: str
    role: Role
    dtype: str | None
    shape: tuple[int | None, ...] | None
    constant: bool
    source: str | None = None
    numbers: tuple[int, ...] | None = None

    @property
    def origin(self) -> str:
        """Name of the value as the node that computes it gives it."""
        return self.source or self.name


@dataclass(frozen=True)
class Node:
    """One node of the normalized graph.

    Attributes:
        name: unique in the model; the user's own name wherever the node has one.
        origins: names of the user's nodes that this one stands for (several after a fusion, itself otherwise).
        scope: names of the enclosing If/Loop/Scan nodes, outermost first.
        stored: what the model already stores: its float type, or what its Q/DQ neighbours say.
        stored_blocked: whether a stored quantized weight has one scale per block of numbers; then `stored`, which leaves the
            blocks' size open, says per channel.
        shape_arithmetic: whether it computes with nothing but shapes of tensors, which does not reach the EP.
        integer_bias: whether its bias is stored as int32 behind a DequantizeLinear.
        asymmetric: whether a Q or DQ around it has a zero point other than 0.
        off_center: whether a weight of one scale per channel has a zero point other than the middle of its type.
        signed_factor: whether its second operand comes from a DequantizeLinear of a signed type.
        largest_code: of a weight that is stored as int16; None where there is none.
        output_shapes: shape of each output, None where unknown.
        output_dtypes: element type of each output, as in Operand.
        expansion: operators that ONNX defines this one by, where that depends on the node itself (losses, Attention).
        captures_constants: whether a body of the node (If, Loop, Scan) reads constants of the graph around it.
        given_out: whether one of its results is an output of the model.
    """

    name: str
    op_type: str
    domain: str
    inputs: tuple[Operand | None, ...]
    outputs: tuple[str, ...]
    output_shapes: tuple[tuple[int | None, ...] | None, ...]
    output_dtypes: tuple[str | None, ...]
    attributes: Mapping[str, object] = field(repr=False)
    origins: tuple[str, ...]
    stored: QuantConfig
    stored_blocked: bool = False
    integer_bias: bool = False
    asymmetric: bool = False
    off_center: bool = False
    signed_factor: bool = False
    largest_code: int | None = None
    shape_arithmetic: bool = False
    scope: tuple[str, ...] = ()
    known: bool = True
    captures_constants: bool = False
    given_out: bool = False
    expansion: tuple[str, ...] | None = None

    @property
    def weight(self) -> Operand | None:
        """The weight operand, if the node has one (the first, where it has several)."""
        return next((o for o in self.inputs if o is not None and o.role is Role.WEIGHT), None)

    @property
    def has_precision(self) -> bool:
        """Whether there is a precision to choose: false for shape, index, mask and control-flow nodes."""
        return self.stored.activation is not None

    @property
    def static_outputs(self) -> bool:
        """Whether the shape of every output that is used is known."""
        return all(
            shape is not None and None not in shape
            for name, shape in zip(self.outputs, self.output_shapes, strict=True)
            if name
        )

    @property
    def is_depthwise(self) -> bool:
        """Whether it convolves each channel by itself, into one: the weight is (channels, 1, ...) in as many groups."""
        weight = self.inputs[1].shape if len(self.inputs) > 1 and self.inputs[1] is not None else None
        groups = self.attributes.get("group", 1)
        return self.op_type in ("Conv", "ConvTranspose") and weight is not None and weight[:2] == (groups, 1)

    @property
    def resizes_channels(self) -> bool:
        """Whether it gives one of the first two dimensions another size, as far as they are known."""
        data = self.inputs[0].shape if self.inputs and self.inputs[0] is not None else None
        result = self.output_shapes[0] if self.output_shapes else None
        pairs = zip(data[:2], result[:2], strict=False) if data is not None and result is not None else ()
        return any(None not in (have, given) and have != given for have, given in pairs)

    @property
    def has_empty(self) -> bool:
        """Whether an activation or an output has a dimension of 0, so that it holds no number."""
        flowing = [o.shape for o in self.inputs if o is not None and o.role is Role.ACTIVATION]
        return any(shape is not None and 0 in shape for shape in (*flowing, *self.output_shapes))

    @property
    def rank(self) -> int:
        """The largest rank among its activations and outputs; 0 if none is known."""
        return max((len(s) for s in self._flowing_shapes if s is not None), default=0)

    @property
    def has_rank(self) -> bool:
        """Whether the rank of an activation or an output is known."""
        return any(s is not None for s in self._flowing_shapes)

    @property
    def _flowing_shapes(self) -> tuple[tuple[int | None, ...] | None, ...]:
        return (*(o.shape for o in self.inputs if o is not None and o.role is Role.ACTIVATION), *self.output_shapes)


def signature(node: Node, config: QuantConfig) -> str:
    """The node at a config in one line: what legality could depend on (operands, attributes), and no names."""
    operands = ", ".join(_operand(o) for o in node.inputs)
    attributes = ", ".join(f"{k}={v}" for k, v in sorted(node.attributes.items()))
    name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return f"{name} {config} ({operands}){f' {{{attributes}}}' if attributes else ''}"


def _operand(operand: Operand | None) -> str:
    if operand is None:
        return "-"
    shape = "?" if operand.shape is None else "x".join("?" if d is None else str(d) for d in operand.shape)
    return f"{'constant ' if operand.constant else ''}{operand.dtype or '?'}[{shape}]"
