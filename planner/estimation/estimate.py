"""One estimate: a compiled schedule with its price, and the evidence in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from planner import codec
from planner.estimation.latency import Interval, LatencyModel, Rates
from planner.estimation.nodes import Finding, NodeCost, findings, node_costs
from planner.estimation.timeline import Summary, summary

if TYPE_CHECKING:
    from planner.estimation.compile import Compiled

AS_IT_IS = "as it is"


@dataclass(frozen=True)
class Estimate:
    """What a model costs on a chip at a precision, by the schedule of the chip's compiler. Estimated, never measured.

    Attributes:
        device: name from the profile.
        precision: what was asked for, or `AS_IT_IS`.
        ms: None where the chip was never measured, or there is no schedule.
        dram_bytes: moved from and to DRAM in a run; None where there is no schedule.
        vtcm_bytes: moved from and to VTCM.
        spilled_bytes: of the former, tensors that did not fit VTCM.
        operators: scheduled. untraced: of those, the ones that no node of the model is named after.
        bytes: size of the model file.
        elsewhere: operators that the EP left to another one: not in the estimate.
        evidence: where the numbers come from, and how far they may be off; or why there are none.
        nodes: cost by node, the largest first. findings: what would make it faster.
        schedule: in short; None where there is none.
    """

    device: str
    precision: str
    ms: Interval | None
    dram_bytes: int | None
    vtcm_bytes: int | None
    spilled_bytes: int | None
    operators: int | None
    untraced: int | None
    bytes: int | None
    elsewhere: tuple[str, ...]
    evidence: str
    nodes: tuple[NodeCost, ...] = ()
    findings: tuple[Finding, ...] = ()
    schedule: Summary | None = field(default=None, metadata=codec.HIDDEN)

    def sentence(self) -> str:
        """The milliseconds in one line, as people are told them everywhere; "not estimated", and why, where there are none."""
        if self.ms is None:
            return f"not estimated: {self.evidence}"
        return f"estimated {self.ms}, not measured"

    def to_json(self, *, by_node: bool = True) -> dict[str, Any]:
        """A row of `planner estimate --json`."""
        document = codec.to_json(self)
        if not by_node:
            document.pop("nodes")
        return document

    @classmethod
    def without(cls, device: str, precision: str, reason: str) -> Estimate:
        """A row that says why there is no estimate."""
        return cls(device, precision, None, None, None, None, None, None, None, (), reason)


def price(
    device: str,
    options: Mapping[str, str],
    precision: str,
    compiled: Compiled,
    nodes: frozenset[str],
    size: int,
    model: LatencyModel | None,
) -> Estimate:
    """Price a compiled schedule.

    Args:
        device: name from the profile.
        options: its provider options; they name the chip.
        precision: for the row.
        compiled: what the compiler made.
        nodes: names of the model's nodes.
        size: of the model file in bytes.
        model: fitted rates; None where an EP has none.
    """
    rates, evidence = _rates(compiled, options, model)
    schedule = compiled.schedule
    return Estimate(
        device,
        precision,
        None if rates is None else rates.interval(schedule),
        schedule.dram,
        schedule.vtcm,
        schedule.spilled,
        len(schedule.operators),
        schedule.untraced,
        size,
        compiled.elsewhere,
        evidence,
        node_costs(schedule, nodes, rates),
        findings(schedule, nodes, rates),
        summary(schedule, nodes, rates),
    )


def _rates(compiled: Compiled, options: Mapping[str, str], model: LatencyModel | None) -> tuple[Rates | None, str]:
    """The rates that may be used for a schedule, and the evidence in words."""
    runtime = ", ".join(f"{name} {version}" for name, version in compiled.runtime.items() if name != "onnxruntime")
    schedule = f"schedule of {runtime}"
    rates = None if model is None else model.of(options)
    if model is None or rates is None:
        return None, f"{schedule}; no milliseconds: this chip was never measured"
    if model.runtime != runtime:
        return None, f"{schedule}; no milliseconds: the rates are for schedules of {model.runtime}"
    error = rates.error_of(compiled.schedule)
    if error is None:
        return None, f"{schedule}; no milliseconds: too few models of this precision were measured on this chip"
    note = " (what runs elsewhere is not in it)" if compiled.elsewhere else ""
    return rates, (
        f"estimated from the {schedule}{note}; rates from published measurements on {rates.measured_on}: median error "
        f"{error.median:.0%}, {error.within_35:.0%} within 35 %, on {error.n} models of this kind whose architecture "
        "the fit had not seen"
    )
