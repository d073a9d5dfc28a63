"""The vocabulary of the probe: an operator in one concrete form, with operands that a dtype pair can be applied to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

Shape = tuple[int, ...]


class Kind(StrEnum):
    """What an operand of a form is.

    ACTIVATION flows at run time and is quantized as an activation; CONSTANT is one that is known ahead. WEIGHT is
    constant and quantized as a weight, BIAS is constant and int32 when quantized. PLAIN is a constant float that is
    never quantized (the bounds of a Clip). EXACT keeps its type: constant where it has data, else a graph input.
    """

    ACTIVATION = "activation"
    CONSTANT = "constant"
    WEIGHT = "weight"
    BIAS = "bias"
    PLAIN = "plain"
    EXACT = "exact"


@dataclass(frozen=True)
class Slot:
    """An operand.

    Attributes:
        low, high: range of its random values. data: its content, where it is not random.
        axis: the axis of per-channel scales of a weight. dtype: element type of an EXACT one.
        constant: whether an EXACT one is an initializer. sequence: whether it is a sequence of such tensors.
    """

    kind: Kind
    shape: Shape
    low: float = -1.0
    high: float = 1.5
    data: tuple[Any, ...] | None = None
    axis: int | None = None
    dtype: str = "float32"
    constant: bool = True
    sequence: bool = False


def act(*shape: int, low: float = -1.0, high: float = 1.5) -> Slot:
    """An activation."""
    return Slot(Kind.ACTIVATION, shape, low, high)


def const(*shape: int, low: float = -1.0, high: float = 1.5, data: tuple[float, ...] | None = None) -> Slot:
    """An activation that is known ahead."""
    return Slot(Kind.CONSTANT, shape, low, high, data)


def weight(*shape: int, axis: int | None, low: float = -0.5, high: float = 0.6) -> Slot:
    """A weight, with the axis of its scales per channel."""
    return Slot(Kind.WEIGHT, shape, low, high, axis=axis)


def bias(*shape: int) -> Slot:
    """A bias."""
    return Slot(Kind.BIAS, shape, -0.2, 0.2)


def plain(*values: float, shape: Shape = ()) -> Slot:
    """A constant that is never quantized."""
    return Slot(Kind.PLAIN, shape, data=values)


def ints(*values: int, dtype: str = "int64", shape: Shape | None = None) -> Slot:
    """A constant of integers: a vector of the values, or of the given shape (() for a scalar)."""
    return Slot(Kind.EXACT, (len(values),) if shape is None else shape, data=values, dtype=dtype)


def floats(*values: float, shape: Shape | None = None) -> Slot:
    """A constant that stays float32 in every precision (the scales of a Resize)."""
    return Slot(Kind.EXACT, (len(values),) if shape is None else shape, data=values, dtype="float32")


def given(*shape: int, dtype: str, low: int = 0, high: int = 2) -> Slot:
    """A graph input of an exact type: integers in [low, high), booleans, or float32 that is never quantized."""
    return Slot(Kind.EXACT, shape, low, high, dtype=dtype, constant=False)


def live(*values: int, shape: Shape | None = None) -> Slot:
    """A graph input of integers that must have these values: the EP does not know them ahead."""
    return Slot(Kind.EXACT, (len(values),) if shape is None else shape, data=values, dtype="int64", constant=False)


def sequence(*shape: int) -> Slot:
    """A graph input that is a sequence of float tensors."""
    return Slot(Kind.EXACT, shape, dtype="float32", constant=False, sequence=True)


@dataclass(frozen=True)
class Form:
    """An operator in one form: operands, attributes, opset.

    Attributes:
        condition: what sets it apart from the operator's base form; "" for the base form itself.
        output: range that output quantization covers. same_scale: outputs share the parameters of the first operand.
        outputs: how many outputs the node has.
        dynamic: axes of every graph input that are symbolic in the model.
        states: shapes of the outputs, where the model states them; else they are left to inference.
        body: subgraph attributes by name, each made by a function (control flow).
        when: what sets it apart from the base form, as the condition of a rule; None: the difference of the two forms.
        expressible: whether a condition can tell it from the base form.
        float_only: whether its quantized cases differ from the base form in another way, and say nothing of it.
        why, do: the reason where an EP does not take it, and the next step, for people; "" for those that follow from `when`.
    """

    op: str
    slots: tuple[Slot | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    condition: str = ""
    domain: str = ""
    opset: int = 21
    outputs: int = 1
    output: tuple[float, float] = (-2.0, 2.5)
    same_scale: bool = False
    dynamic: tuple[int, ...] = ()
    symmetric: bool = False
    states: tuple[Shape, ...] = ()
    body: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    when: Mapping[str, Any] | None = None
    expressible: bool = True
    float_only: bool = False
    why: str = ""
    do: str = ""

    @property
    def name(self) -> str:
        """The operator with its domain, as case ids begin."""
        return f"{self.domain}.{self.op}" if self.domain else self.op

    @property
    def has_float(self) -> bool:
        """Whether a float operand exists that a precision can be chosen for."""
        return any(s is not None and s.kind is not Kind.EXACT for s in self.slots)

    @property
    def weight(self) -> Slot | None:
        return next((s for s in self.slots if s is not None and s.kind is Kind.WEIGHT), None)

    def but(
        self, condition: str, *slots: Slot | None, attributes: Mapping[str, Any] | None = None, **changes: Any
    ) -> Form:
        """This form with other operands or attributes, under the name of a condition."""
        return replace(
            self,
            condition=condition,
            slots=slots or self.slots,
            attributes={**self.attributes, **(attributes or {})},
            **{"when": None, "why": "", "do": "", "expressible": True, "float_only": False, **changes},
        )

    def as_rule(
        self,
        when: Mapping[str, Any] | None = None,
        *,
        why: str = "",
        do: str = "",
        expressible: bool = True,
        float_only: bool = False,
    ) -> Form:
        """This form with what a rule says of it."""
        return replace(self, when=when, why=why, do=do, expressible=expressible, float_only=float_only)

    def attrs(self, **attributes: Any) -> Form:
        """This form with some attributes changed, named after them."""
        name = ",".join(f"{k}={text(v)}" for k, v in attributes.items())
        return self.but(name, attributes=attributes)


def text(value: Any) -> str:
    """An attribute value as case ids write it."""
    if isinstance(value, list | tuple):
        return "x".join(str(v) for v in value)
    return str(value)


Forms = Iterator[Form]
