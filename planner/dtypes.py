"""Numeric types that a precision is made of, what one node stores of them, and the shorthands people use (w8a16)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from planner.codec import FLAT
from planner.errors import RequestError

# Float16 (IEEE 754 binary16): its largest number, the smallest with all digits, and what rounds to its smallest at all.
FLOAT16_LARGEST = 65504.0
FLOAT16_SMALLEST_NORMAL = 2.0**-14
FLOAT16_SMALLEST = 2.0**-25


class DType(StrEnum):
    """A tensor element type of a weight or an activation. A plan assigns those in ``WRITTEN``; the others are judged alone."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT8E4M3FN = "float8e4m3fn"
    UINT16 = "uint16"
    INT16 = "int16"
    UINT8 = "uint8"
    INT8 = "int8"
    UINT4 = "uint4"
    INT4 = "int4"

    @classmethod
    def _missing_(cls, value: object) -> DType | None:
        name = {
            "fp32": "float32", "fp16": "float16", "float": "float32", "half": "float16", "bf16": "bfloat16",
            "fp8": "float8e4m3fn",
        }.get(str(value))  # fmt: skip
        return None if name is None else cls(name)

    @property
    def is_float(self) -> bool:
        """Whether tensors flow in it as they are; float8 stands behind a scale, as integers do."""
        return self in (DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16)

    @property
    def bits(self) -> int:
        return 8 if self is DType.FLOAT8E4M3FN else int("".join(c for c in self.value if c.isdigit()))

    @property
    def is_signed(self) -> bool:
        return not self.value.startswith("u")

    @property
    def integer_range(self) -> tuple[int, int]:
        """Smallest and largest code of an integer type, for example (0, 255) for uint8."""
        if self.is_float or self is DType.FLOAT8E4M3FN:
            raise ValueError(f"{self} has no integer range")
        if self.is_signed:
            return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        return 0, (1 << self.bits) - 1


# What quantizing writes.
WRITTEN = frozenset(DType) - {DType.BFLOAT16, DType.FLOAT8E4M3FN}


@dataclass(frozen=True)
class Granularity:
    """How many numbers of a weight share a scale: all of them, those of an output channel, or a block of them.

    Attributes:
        per_channel: one scale for each output channel.
        block_size: so many numbers along the summed dimension share a scale; None: no blocks.
    """

    per_channel: bool = False
    block_size: int | None = None

    def __post_init__(self) -> None:
        size = self.block_size
        if size is not None and (size < 16 or size & (size - 1)):
            raise ValueError(f"block_size: expected a power of two from 16 on, or null, not {size}")
        if self.per_channel and size is not None:
            raise ValueError("per_channel and block_size exclude one another")

    def __str__(self) -> str:
        if self.block_size is not None:
            return f"in blocks of {self.block_size}"
        return "per channel" if self.per_channel else ""


PER_TENSOR, PER_CHANNEL = Granularity(), Granularity(per_channel=True)


@dataclass(frozen=True)
class QuantConfig:
    """What one node stores and computes: the types of its weight and activations, and how the weight is scaled.

    Attributes:
        weight: None for a node without a weight.
        activation: None, as the weight, for a node that computes on indices, masks or shapes: no precision to choose.
        granularity: of the weight's scales.
        dynamic: the activation is float32 outside of the node, which quantizes it by its own range in every run.
    """

    weight: DType | None
    activation: DType | None
    granularity: Granularity = field(default=PER_TENSOR, metadata=FLAT)
    dynamic: bool = False

    def __str__(self) -> str:
        if self.weight is None:
            return str(self.activation) if self.activation else "as is"
        scaled = "" if self.weight.is_float else str(self.granularity)
        return " ".join(filter(None, (f"{self.weight}/{self.activation}", scaled, "dynamic" if self.dynamic else "")))

    @property
    def per_channel(self) -> bool:
        """Whether the weight has one scale for each output channel."""
        return self.granularity.per_channel

    @property
    def block_size(self) -> int | None:
        """How many numbers of the weight share a scale; None: no blocks."""
        return self.granularity.block_size

    @property
    def stored_activation(self) -> DType | None:
        """The type in which the activations reach the node and leave it."""
        return DType.FLOAT32 if self.dynamic else self.activation


NO_PRECISION = QuantConfig(None, None)


def in_float(kind: DType, *, has_weight: bool) -> QuantConfig:
    """A node wholly in one float type."""
    return QuantConfig(kind if has_weight else None, kind)


def parse_dtype(text: str) -> DType:
    """The DType named ``text``; aliases fp32, fp16, float, half are accepted.

    Raises:
        RequestError: if the name is unknown; the message lists the known ones.
    """
    try:
        return DType(text.strip().lower())
    except ValueError:
        raise RequestError(f"unknown dtype {text!r}", f"known dtypes: {', '.join(d.value for d in DType)}") from None


@dataclass(frozen=True)
class Precision:
    """A precision as asked for: candidate weight and activation types, in order of preference of signedness.

    A shorthand such as ``w8a16`` leaves signedness open: the profile's rules settle it, node by node.
    ``rest`` is the activation type of nodes that have no weight, where it differs (mixed precision).
    ``dynamic``: activations are quantized while the model runs, each by its own range; between nodes they are float32.
    """

    name: str
    weights: tuple[DType, ...]
    activations: tuple[DType, ...]
    rest: Precision | None = None
    dynamic: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def flows(self) -> DType | None:
        """The float type of everything that flows between nodes, where only weights are stored as integers: such a
        precision needs no calibration, and a node that cannot take it keeps float weights. None for any other.
        """
        if self.dynamic:
            return DType.FLOAT32
        weights_only = all(a.is_float for a in self.activations) and not any(w.is_float for w in self.weights)
        return self.activations[0] if weights_only else None


_D = DType
_BITS = {
    "4": (_D.INT4, _D.UINT4),
    "8": (_D.INT8, _D.UINT8),
    "16": (_D.INT16, _D.UINT16),
}
_ACTIVATION_BITS = {"8": (_D.UINT8, _D.INT8), "16": (_D.UINT16, _D.INT16)}
_SHORTHANDS = {
    "fp32": Precision("fp32", (_D.FLOAT32,), (_D.FLOAT32,)),
    "fp16": Precision("fp16", (_D.FLOAT16,), (_D.FLOAT16,)),
    **{
        f"w{w}a{a}": Precision(f"w{w}a{a}", _BITS[w], _ACTIVATION_BITS[a])
        for w, a in (("8", "8"), ("8", "16"), ("16", "16"), ("4", "16"), ("4", "8"))
    },
    **{f"w{w}": Precision(f"w{w}", _BITS[w], (_D.FLOAT32,)) for w in ("4", "8")},
    **{f"w{w}-fp16": Precision(f"w{w}-fp16", _BITS[w], (_D.FLOAT16,)) for w in ("4", "8")},
    "w8a8-dynamic": Precision("w8a8-dynamic", _BITS["8"], (_D.UINT8,), dynamic=True),
}
_ALIASES = {
    "int8": "w8a8", "int16": "w16a16", "float32": "fp32", "float16": "fp16", "dynamic": "w8a8-dynamic",
}  # fmt: skip
SHORTHANDS = (*_SHORTHANDS, *_ALIASES)


def parse_precision(text: str) -> Precision:
    """The precision that a shorthand names; ``w8a16+fp16`` is mixed: nodes with weights w8a16, the others float16.

    Raises:
        RequestError: if the shorthand is unknown; the message lists the known ones.
    """
    name = text.strip().lower()
    first, _, second = name.partition("+")
    if second and "+" not in second:
        base, rest = parse_precision(first), parse_precision(second)
        if base.flows is not None or rest.flows is not None:
            raise RequestError(
                f"{text!r} is no mix: between its nodes everything is float already",
                "for float16 activations: w4-fp16 or w8-fp16",
            )
        return Precision(f"{base.name}+{rest.name}", base.weights, base.activations, rest)
    name = _ALIASES.get(name, name)
    if name not in _SHORTHANDS:
        raise RequestError(
            f"unknown precision {text!r}",
            f"known: auto, {', '.join(SHORTHANDS)}, a mix such as w8a16+fp16, "
            "or --weight-type and --activation-type by name",
        )
    return _SHORTHANDS[name]


def precision_by_name(weight: DType, activation: DType) -> Precision:
    """The precision with exactly these two types; named by the shorthand that covers it where there is one."""
    name = next(
        (p.name for p in _SHORTHANDS.values() if weight in p.weights and activation in p.activations and not p.dynamic),
        f"{weight}/{activation}",
    )
    return Precision(name, (weight,), (activation,))


def as_precision(asked: str | Precision | None) -> Precision | None:
    """What a caller asked for by name or as a value; None for auto.

    Raises:
        RequestError: if the name is unknown.
    """
    if asked is None or isinstance(asked, Precision):
        return asked
    return None if asked.strip().lower() == "auto" else parse_precision(asked)
