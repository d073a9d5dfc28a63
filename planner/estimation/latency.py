"""Milliseconds from a schedule: a line through published measurements, one for each chip. Pure but for reading the file.

A chip's time is the sum of what its schedule asks for (`work`), each at a rate: bytes over the bus, bytes through the vector
unit, multiply-accumulates by the type of what they multiply. The rates are fitted by benchmarks/latency.py and lie beside
the EP's profile. Where a chip has none, no milliseconds are made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from planner.codec import read_json
from planner.estimation.schedule import Product, Schedule, Scheduled, Unit, is_reorder, is_softmax
from planner.profiles.shipped import shipped_directory
from planner.runtime.registry import launcher

_SCHEMA = "planner/latency/1"
WORK = (
    "run",
    "dram_mb",
    "reorder_float_mb",
    "vector_mb",
    "vector_operators",
    "softmaxes_float",
    "gmac_float",
    "gmac_int",
    "gmac_int16",
)
"""What is paid for: one run; MB from and to DRAM; MB of VTCM that the vector unit moves to transpose and reshape float values,
and to do anything else; its operators; those of them that are a part of a float Softmax; 10^9 multiply-accumulates with float
activations, with integer ones, and what 16-bit ones cost beyond 8-bit ones."""


def work(schedule: Schedule) -> dict[str, float]:
    """What a schedule asks of the chip, by the names in `WORK`."""
    asked = dict.fromkeys(WORK, 0.0)
    asked["run"] = 1.0
    for part in (*map(operator_work, schedule.operators), *map(product_work, schedule.products)):
        for name, amount in part.items():
            asked[name] += amount
    return asked


def operator_work(operator: Scheduled) -> dict[str, float]:
    """What one scheduled operator asks for."""
    asked = {"dram_mb": operator.dram / 1e6}
    if operator.unit is Unit.HVX:
        slow = is_reorder(operator) and operator.type == "float"
        asked["reorder_float_mb" if slow else "vector_mb"] = operator.vtcm / 1e6
        asked["vector_operators"] = 1.0
        if is_softmax(operator) and operator.type == "float":
            asked["softmaxes_float"] = 1.0
    return asked


def product_work(product: Product) -> dict[str, float]:
    """What the multiply-accumulates of a convolution or matrix product ask for."""
    gmac = product.macs / 1e9
    match product.activation:
        case "int8":
            return {"gmac_int": gmac}
        case "int16":
            return {"gmac_int": gmac, "gmac_int16": gmac}
        case _:
            return {"gmac_float": gmac}


@dataclass(frozen=True)
class Interval:
    """Estimated milliseconds: `mid`, and bounds that hold 80 % of the models which the fit did not see."""

    low: float
    mid: float
    high: float

    def __str__(self) -> str:
        return f"{self.mid:.2f} ms ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Error:
    """How far predictions were off models whose whole architecture family was left out of the fit.

    Attributes:
        n: models. families: of architectures. median: relative error. within_35: share of models within 35 %.
        rank: Spearman's correlation of predicted and measured. low, high: measured over predicted, 10th and 90th percentile.
    """

    n: int
    families: int
    median: float
    within_35: float
    rank: float
    low: float
    high: float


@dataclass(frozen=True)
class Rates:
    """The rates of one chip.

    Attributes:
        device: name from the profile.
        options: provider options that name the chip: any device with these has these rates.
        measured_on: the device of the published measurements.
        ms: milliseconds for each unit of `WORK`.
        error: by what products multiply by ("float", "int8", "int16"), where models of that kind were measured; and "all".
    """

    device: str
    options: Mapping[str, str]
    measured_on: str
    ms: Mapping[str, float]
    error: Mapping[str, Error]

    def price(self, asked: Mapping[str, float]) -> float:
        """Milliseconds of some work."""
        return sum(self.ms.get(name, 0.0) * amount for name, amount in asked.items())

    def error_of(self, schedule: Schedule) -> Error | None:
        """The error of models that mostly multiply as this one does; None where too few of them were measured.

        A model without products, such as one of elementwise operators alone, has the error of all.
        """
        macs: dict[str, int] = {}
        for product in schedule.products:
            macs[product.activation] = macs.get(product.activation, 0) + product.macs
        return self.error.get(max(macs, key=macs.__getitem__) if macs else "all")

    def interval(self, schedule: Schedule) -> Interval | None:
        """Estimated milliseconds of a schedule; None where too few models of its kind were measured."""
        error = self.error_of(schedule)
        if error is None:
            return None
        mid = self.price(work(schedule))
        return Interval(mid * error.low, mid, mid * error.high)


@dataclass(frozen=True)
class LatencyModel:
    """Fitted rates, and where they come from.

    Attributes:
        source: of the measurements. date: of the fit. runtime: package and version whose compiler wrote the schedules: only
            its schedules are read by these rates.
    """

    ep: str
    source: str
    date: str
    runtime: str
    rates: tuple[Rates, ...] = field(default=())
    schema: str = _SCHEMA

    def of(self, options: Mapping[str, str]) -> Rates | None:
        """The rates of the chip that provider options name; None where nothing was measured on it."""
        return next((r for r in self.rates if r.options.items() <= options.items()), None)


@cache
def latency_model(ep: str) -> LatencyModel | None:
    """The shipped rates of an EP; None where there are none."""
    path = shipped_directory() / launcher(ep).alias / "latency.json"
    return read_json(LatencyModel, path, _SCHEMA, "a file of rates") if path.is_file() else None
