"""Where a schedule's time goes: its cost by ONNX node, and what would make it faster. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from planner.estimation.latency import Rates, operator_work, product_work
from planner.estimation.schedule import Schedule, Scheduled, Unit, is_spill

# onnxruntime numbers the nodes that it writes anew.
_TOKEN = re.compile(r"_token_\d+$")
BOUNDARY = "(inputs and outputs)"
INSERTED = "(no node)"


@dataclass(frozen=True)
class NodeCost:
    """What a node of the ONNX model costs on the chip.

    Attributes:
        node: its name, or `BOUNDARY` for moving the graph's inputs and outputs, or `INSERTED` for what no node is near.
        ms: its share of the estimated time; None where the chip was never measured.
        dram_bytes: from and to DRAM.
        vtcm_bytes: from and to VTCM.
        operators: scheduled.
    """

    node: str
    ms: float | None
    dram_bytes: int
    vtcm_bytes: int
    operators: int


@dataclass(frozen=True)
class Finding:
    """Something that costs time and may be avoided.

    Attributes:
        kind: "spilled", "layout", "convert" or "off the matrix unit".
        node: where.
        bytes: that are moved for it.
        ms: estimated; None where the chip was never measured.
        advice: what to do.
    """

    kind: str
    node: str
    bytes: int
    ms: float | None
    advice: str


def onnx_node(name: str, nodes: frozenset[str], beside: Mapping[str, tuple[str, ...]]) -> str:
    """The ONNX node that a QNN operator is named after; of one that has none, the nearest that it reads from or is read by.

    onnxruntime inserts such operators, Transposes mostly, and planner's own Q, DQ and Casts are none of the user's nodes.

    Args:
        name: of the QNN operator; "" for the graph's inputs and outputs.
        nodes: names of the model's nodes.
        beside: as `Schedule.beside`.
    """
    if not name:
        return BOUNDARY
    seen, reached = {name}, [name]
    while reached:
        for one in reached:
            for plain in (one, _TOKEN.sub("", one)):
                if plain in nodes:
                    return plain
        around = [other for one in reached for other in beside.get(one, ())]
        reached = [other for other in dict.fromkeys(around) if other not in seen]
        seen.update(reached)
    return INSERTED


def tracer(schedule: Schedule, nodes: frozenset[str]) -> Callable[[str], str]:
    """`onnx_node` for the operators of a schedule, each name traced once."""

    @cache
    def trace(name: str) -> str:
        return onnx_node(name, nodes, schedule.beside)

    return trace


def node_costs(schedule: Schedule, nodes: frozenset[str], rates: Rates | None) -> tuple[NodeCost, ...]:
    """The cost of each node, the largest first.

    Every scheduled operator counts for one node, so the milliseconds add up to the estimate less its fixed part. Of fused
    nodes the last one bears the cost of all, but for the multiply-accumulates, which stay with their own.

    Args:
        schedule: of the model.
        nodes: names of the model's nodes.
        rates: of the chip; None where it was never measured.
    """
    dram: dict[str, int] = {}
    vtcm: dict[str, int] = {}
    count: dict[str, int] = {}
    ms: dict[str, float] = {}
    trace = tracer(schedule, nodes)
    for operator in schedule.operators:
        name = trace(operator.node)
        dram[name] = dram.get(name, 0) + operator.dram
        vtcm[name] = vtcm.get(name, 0) + operator.vtcm
        count[name] = count.get(name, 0) + 1
        ms[name] = ms.get(name, 0.0) + _ms(operator, rates)
    for product in schedule.products:
        name = trace(product.node)
        if rates is not None:
            ms[name] = ms.get(name, 0.0) + rates.price(product_work(product))
    found = [
        NodeCost(name, None if rates is None else ms[name], dram.get(name, 0), vtcm.get(name, 0), count.get(name, 0))
        for name in ms
    ]
    return tuple(sorted(found, key=lambda c: (-(c.ms or 0.0), -c.dram_bytes, -c.vtcm_bytes, c.node)))


def findings(schedule: Schedule, nodes: frozenset[str], rates: Rates | None) -> tuple[Finding, ...]:
    """What would make it faster, the largest first. Arguments as for `node_costs`."""
    bytes_: dict[tuple[str, str], int] = {}
    ms: dict[tuple[str, str], float] = {}
    trace = tracer(schedule, nodes)
    for operator in schedule.operators:
        if kind := _kind(operator):
            key = (kind, trace(operator.node))
            bytes_[key] = bytes_.get(key, 0) + operator.dram + operator.vtcm
            ms[key] = ms.get(key, 0.0) + _ms(operator, rates)
    found = [Finding(k, n, b, None if rates is None else ms[k, n], _ADVICE[k]) for (k, n), b in bytes_.items()]
    found += _off_matrix_unit(schedule, trace, rates)
    return tuple(sorted(found, key=lambda f: (-(f.ms or 0.0), -f.bytes, f.kind, f.node)))


_ADVICE: Mapping[str, str] = {
    "spilled": "its tensor does not fit VTCM: fewer channels or pixels, or 8-bit activations, would keep it there",
    "layout": "the chip reorders the tensor here: a Transpose, Reshape or Concat less around this node would save it",
    "convert": "the precision changes here: the same one on both sides would save it",
    "off the matrix unit": "the vector unit multiplies here: full channels (multiples of 32) would use the matrix unit",
}
# A convolution's own operator; rearranging its input for a stride is none.
_PRODUCT = re.compile(r"q::(?!ConvLayer_SpaceToDepth).*(Conv|Depthwise|MatMul|FullyConnected)")
_LAYOUT = re.compile(r"q::(ForceFormat|Transpose|Reshape|flat_to|crouton_to)")
_CONVERT = re.compile(r"q::(Cast|Quantize|Dequantize|Requantize|Convert)", re.I)


def is_product(operator: Scheduled) -> bool:
    """Whether it multiplies and accumulates."""
    return bool(_PRODUCT.match(operator.kind))


def _kind(operator: Scheduled) -> str:
    if is_spill(operator):
        return "spilled"
    if operator.unit is not Unit.HVX:
        return ""
    if _LAYOUT.match(operator.kind):
        return "layout"
    return "convert" if _CONVERT.match(operator.kind) else ""


def _ms(operator: Scheduled, rates: Rates | None) -> float:
    return 0.0 if rates is None else rates.price(operator_work(operator))


def _off_matrix_unit(schedule: Schedule, trace: Callable[[str], str], rates: Rates | None) -> Iterable[Finding]:
    """Convolutions and products that the vector unit computes."""
    kind, moved, ms = "off the matrix unit", dict[str, int](), dict[str, float]()
    for operator in schedule.operators:
        if operator.unit is Unit.HVX and is_product(operator):
            name = trace(operator.node)
            moved[name] = moved.get(name, 0) + operator.vtcm
            ms[name] = ms.get(name, 0.0) + _ms(operator, rates)
    for name, count in moved.items():
        yield Finding(kind, name, count, None if rates is None else ms[name], _ADVICE[kind])
