"""A probe case: a form at a dtype pair and granularity, with an id to read.

An id reads `Conv/uint8-uint16/per-channel/group=4`: operator, pair (weight-activation, or the activation alone for a
form without a weight, "exact" for one without any float), granularity where it is not per tensor, condition.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from planner.dtypes import DType
from planner.probe.forms import Form


class Granularity(StrEnum):
    """How a quantized weight is scaled."""

    TENSOR = "per-tensor"
    CHANNEL = "per-channel"
    BLOCK = "blocked"


@dataclass(frozen=True)
class Case:
    """One question to an EP.

    Attributes:
        form: the operator in one form.
        activation: type of the activations; None for a form without float operands.
        weight: type of the weight; None for a form without one.
        granularity: how a quantized weight is scaled.
    """

    form: Form
    activation: DType | None
    weight: DType | None
    granularity: Granularity = Granularity.TENSOR

    @property
    def pair(self) -> str:
        if self.activation is None:
            return "exact"
        if self.weight is None or (self.weight is self.activation and self.activation.is_float):
            return str(self.activation)
        return f"{self.weight}-{self.activation}"

    @property
    def id(self) -> str:
        parts = [self.form.name, self.pair]
        if self.granularity is not Granularity.TENSOR:
            parts.append(self.granularity)
        if self.form.condition:
            parts.append(self.form.condition)
        return "/".join(parts)

    @property
    def is_quantized(self) -> bool:
        return any(t is not None and not t.is_float for t in (self.weight, self.activation))


def block_axis(form: Form) -> int | None:
    """The axis that blocks of a weight run along: the one that is summed over."""
    return {"Conv": 1, "ConvTranspose": 0, "MatMul": 0, "Gemm": 0}.get(form.op)
