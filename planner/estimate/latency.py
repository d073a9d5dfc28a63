"""Milliseconds from a schedule: a line through published measurements, one for each chip. Pure but for reading the file.

A chip's time is the sum of what its schedule asks for (`work`), each at a rate: bytes over the bus, bytes through the vector
unit, multiply-accumulates by the width of what they multiply. The rates are fitted by benchmarks/latency.py and lie beside
the EP's profile. Where a chip has none, no milliseconds are made up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from planner.codec import read_json
from planner.estimate.schedule import Schedule, Unit, is_boundary
from planner.profiles.shipped import shipped_directory
from planner.runtime.registry import launcher

_SCHEMA = "planner/latency/1"
WORK = ("run", "boundary_mb", "dram_mb", "vector_mb", "gmac_int8", "gmac_int16", "gmac_float")
"""What is paid for: one run; MB of the graph's own inputs and outputs; other MB from and to DRAM; MB of VTCM that the
vector unit reads and writes; 10^9 multiply-accumulates by the activation's type."""


def work(schedule: Schedule) -> dict[str, float]:
    """What a schedule asks of the chip, by the names in `WORK`."""
    boundary = sum(o.dram for o in schedule.operators if is_boundary(o))
    asked = {
        "run": 1.0,
        "boundary_mb": boundary / 1e6,
        "dram_mb": (schedule.dram - boundary) / 1e6,
        "vector_mb": schedule.vtcm_of(Unit.HVX) / 1e6,
        "gmac_int8": 0.0,
        "gmac_int16": 0.0,
        "gmac_float": 0.0,
    }
    for product in schedule.products:
        # An activation of a type that was never measured is taken for the slowest.
        name = f"gmac_{product.activation}"
        asked[name if name in asked else "gmac_float"] += product.macs / 1e9
    return asked


@dataclass(frozen=True)
class Interval:
    """Estimated milliseconds: `mid`, and bounds that hold 80 % of the models which the fit did not see."""

    low: float
    mid: float
    high: float


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
        measured_on: the device of the published measurements.
        ms: milliseconds for each unit of `WORK`.
        error: by the type that the products multiply by ("float", "int8", "int16"), and of all together ("all").
    """

    device: str
    measured_on: str
    ms: Mapping[str, float]
    error: Mapping[str, Error]

    def interval(self, schedule: Schedule) -> Interval:
        """Estimated milliseconds of a schedule, with the error of models of its kind."""
        asked = work(schedule)
        mid = sum(self.ms.get(name, 0.0) * asked[name] for name in WORK)
        error = self.error_of(asked)
        return Interval(mid * error.low, mid, mid * error.high)

    def error_of(self, asked: Mapping[str, float]) -> Error:
        """The error of models that mostly multiply as this work does; of all where none were measured."""
        kind = max(("float", "int8", "int16"), key=lambda k: asked[f"gmac_{k}"])
        return self.error.get(kind, self.error["all"])


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

    def of(self, device: str) -> Rates | None:
        """The rates of a device; None where nothing was measured on it."""
        return next((r for r in self.rates if r.device == device), None)


@cache
def latency_model(ep: str) -> LatencyModel | None:
    """The shipped rates of an EP; None where there are none."""
    path = shipped_directory() / launcher(ep).alias / "latency.json"
    return read_json(LatencyModel, path, _SCHEMA, "a file of rates") if path.is_file() else None
