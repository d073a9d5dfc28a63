"""Numeric types that a precision is made of, pairs of them, and the shorthands people use (w8a16)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from planner.errors import RequestError

FLOAT16_LARGEST = 65504.0  # IEEE 754 binary16


class DType(StrEnum):
    """A tensor element type that a plan may assign to a weight or an activation."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    UINT16 = "uint16"
    INT16 = "int16"
    UINT8 = "uint8"
    INT8 = "int8"
    UINT4 = "uint4"
    INT4 = "int4"

    @property
    def is_float(self) -> bool:
        return self in (DType.FLOAT32, DType.FLOAT16)

    @property
    def bits(self) -> int:
        return int("".join(c for c in self.value if c.isdigit()))

    @property
    def is_signed(self) -> bool:
        return self.is_float or self.value.startswith("i")

    @property
    def integer_range(self) -> tuple[int, int]:
        """Smallest and largest code of an integer type, for example (0, 255) for uint8."""
        if self.is_float:
            raise ValueError(f"{self} has no integer range")
        if self.is_signed:
            return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        return 0, (1 << self.bits) - 1


@dataclass(frozen=True)
class Pair:
    """The weight and activation types of one node. ``weight`` is None for a node without a weight;
    both are None for a node that computes on indices, masks or shapes and has no precision to choose.

    Attributes:
        block_size: so many numbers of the weight along the summed dimension share a scale; None: no blocks.
        dynamic: the activation is float32 outside of the node, which quantizes it by its own range in every run.
    """

    weight: DType | None
    activation: DType | None
    block_size: int | None = None
    dynamic: bool = False

    def __str__(self) -> str:
        if self.weight is None:
            return str(self.activation) if self.activation else "as is"
        blocks = "" if self.block_size is None else f" in blocks of {self.block_size}"
        return f"{self.weight}/{self.activation}{blocks}{' dynamic' if self.dynamic else ''}"

    @property
    def stored_activation(self) -> DType | None:
        """The type in which the activations reach the node and leave it."""
        return DType.FLOAT32 if self.dynamic else self.activation


def parse_dtype(text: str) -> DType:
    """The DType named ``text``; aliases fp32, fp16, float, half are accepted.

    Raises:
        RequestError: if the name is unknown; the message lists the known ones.
    """
    aliases = {"fp32": "float32", "fp16": "float16", "float": "float32", "half": "float16"}
    name = text.strip().lower()
    try:
        return DType(aliases.get(name, name))
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
        precision needs no calibration, and a node that cannot take it keeps float weights. None for any other."""
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
