"""Milliseconds from a schedule."""

from __future__ import annotations

import dataclasses

import pytest

from planner.estimation.compile import Compiled
from planner.estimation.estimate import price
from planner.estimation.latency import WORK, Error, LatencyModel, Rates, latency_model, product_work, work
from planner.estimation.nodes import BOUNDARY, INSERTED, findings, node_costs, onnx_node
from planner.estimation.schedule import Product, Schedule, parse
from tests.unit.estimation.schedule_texts import GRAPH, NAMES, ROWS, Row, stream, text

ERROR = Error(n=10, families=5, median=0.1, within_35=0.9, rank=0.98, low=0.8, high=1.25)
RATES = Rates(
    device="chip",
    options={"soc_model": "1"},
    measured_on="a phone",
    ms={
        "run": 0.5,
        "dram_mb": 2.0,
        "vector_mb": 3.0,
        "reorder_float_mb": 20.0,
        "vector_operators": 0.1,
        "gmac_int": 100.0,
    },
    error={"all": ERROR, "int8": ERROR},
)
NODES = frozenset({"conv", "add", "softmax"})


def schedule(rows: tuple[Row, ...] = ROWS) -> Schedule:
    return parse(stream(text(rows)))


def compiled(**changes: object) -> Compiled:
    made = Compiled(schedule(), (), 1.0, {"onnxruntime": "1.0", "onnxruntime-qnn": "2.7.0"})
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def model(runtime: str = "onnxruntime-qnn 2.7.0") -> LatencyModel:
    return LatencyModel("QNNExecutionProvider", "a source", "2026-01-01", runtime, (RATES,))


def test_work_is_counted_by_what_is_paid_for() -> None:
    asked = work(schedule())
    assert asked["run"] == 1
    assert asked["dram_mb"] == pytest.approx((1024 + 1152 + 4096 + 4096) / 1e6)
    assert asked["vector_mb"] == pytest.approx(4096 / 1e6)
    assert asked["vector_operators"] == 1
    assert asked["gmac_int"] == pytest.approx(8 * 8 * 16 * 36 / 1e9)
    assert asked["gmac_int16"] == asked["gmac_float"] == 0


def test_transposing_integers_is_paid_for_as_other_work_of_the_vector_unit() -> None:
    asked = work(schedule((Row(0x13, "q::Transpose_impl", "FOR_HVX", vtcm_read=5, vtcm_write=5),)))
    assert asked["vector_mb"] == pytest.approx(1e-5) and asked["reorder_float_mb"] == 0


def test_transposing_float_values_has_a_rate_of_its_own() -> None:
    graph = GRAPH.replace("0x0000000000000002", "0x0000000000000013").replace("QUInt8", "Float16", 1)
    rows = (Row(0x13, "q::Transpose_impl", "FOR_HVX", vtcm_read=5, vtcm_write=5),)
    asked = work(parse(stream(text(rows, graph=graph))))
    assert asked["reorder_float_mb"] == pytest.approx(1e-5) and asked["vector_mb"] == 0


def test_a_float_softmax_is_paid_for_beside_its_bytes() -> None:
    rows = (Row(0x13, "q::Softmax.tcm", "FOR_HVX", vtcm_read=5, vtcm_write=5),)
    graph = GRAPH.replace("0x0000000000000002", "0x0000000000000013")
    in_float = work(parse(stream(text(rows, graph=graph.replace("QUInt8", "Float16", 1)))))
    assert in_float["softmaxes_float"] == 1 and in_float["vector_mb"] == pytest.approx(1e-5)
    assert work(parse(stream(text(rows, graph=graph))))["softmaxes_float"] == 0


def test_a_16_bit_product_never_costs_less_than_an_8_bit_one() -> None:
    small, large = product_work(Product("n", "int8", 10**9)), product_work(Product("n", "int16", 10**9))
    assert small == {"gmac_int": 1.0}
    assert large == {"gmac_int": 1.0, "gmac_int16": 1.0}


def test_the_estimate_is_the_sum_of_work_times_rate_and_its_bounds_are_the_fit_s_error() -> None:
    interval = RATES.interval(schedule())
    assert interval is not None
    expected = 0.5 + 2.0 * 10368 / 1e6 + 3.0 * 4096 / 1e6 + 0.1 + 100 * 36864 / 1e9
    assert interval.mid == pytest.approx(expected)
    assert interval.low == pytest.approx(0.8 * expected) and interval.high == pytest.approx(1.25 * expected)


def test_no_milliseconds_for_a_kind_of_model_that_was_not_measured() -> None:
    assert dataclasses.replace(RATES, error={"all": ERROR, "float": ERROR}).interval(schedule()) is None


def test_no_milliseconds_for_a_chip_that_was_not_measured() -> None:
    made = price("other", {"soc_model": "2"}, "w8a8", compiled(), NODES, 100, model())
    assert made.ms is None
    assert made.dram_bytes == 10368
    assert "never measured" in made.evidence


def test_no_milliseconds_from_the_schedule_of_another_compiler() -> None:
    made = price("chip", {"soc_model": "1"}, "w8a8", compiled(), NODES, 100, model("onnxruntime-qnn 2.4.0"))
    assert made.ms is None
    assert "onnxruntime-qnn 2.4.0" in made.evidence


def test_a_row_says_that_it_is_estimated_and_how_far_it_may_be_off() -> None:
    made = price("chip", {"soc_model": "1", "more": "x"}, "w8a8", compiled(), NODES, 100, model())
    assert made.ms is not None
    assert made.evidence.startswith("estimated from the schedule of onnxruntime-qnn 2.7.0")
    assert "median error 10%" in made.evidence


def test_nodes_left_to_another_ep_are_told_as_missing_from_the_estimate() -> None:
    made = price("chip", {"soc_model": "1"}, "w8a8", compiled(elsewhere=("NonZero",)), NODES, 100, model())
    assert made.elsewhere == ("NonZero",)
    assert "elsewhere is not in it" in made.evidence


def test_the_costs_of_nodes_add_up_to_the_estimate_less_its_fixed_part() -> None:
    costs = node_costs(schedule(), NODES, RATES)
    interval = RATES.interval(schedule())
    assert interval is not None
    assert sum(c.ms or 0 for c in costs) == pytest.approx(interval.mid - 0.5)
    assert sum(c.operators for c in costs) == len(ROWS)
    assert {c.node for c in costs} == {"conv", "add", "softmax", BOUNDARY}


@pytest.mark.parametrize(
    ("name", "node"),
    [("add", "add"), ("conv_token_1", "conv"), ("Transpose_token_9", INSERTED), ("", BOUNDARY), ("other", INSERTED)],
)
def test_a_scheduled_operator_is_traced_to_its_onnx_node(name: str, node: str) -> None:
    assert onnx_node(name, NODES, {}) == node


def test_an_inserted_operator_is_traced_to_what_it_reads_from_before_what_reads_it() -> None:
    beside = {"Transpose_token_9": ("add", "softmax"), "Transpose": ("Transpose_token_9",), "lost": ("other",)}
    assert onnx_node("Transpose_token_9", NODES, beside) == "add"
    assert onnx_node("Transpose", NODES, beside) == "add"
    assert onnx_node("lost", NODES, {**beside, "other": ("lost",)}) == INSERTED


def test_who_reads_from_whom_is_known_by_name() -> None:
    graph = GRAPH.replace("(0x2,0)", "(0x14,0)").replace("0x0000000000000002", "0x0000000000000014")
    found = parse(stream(text(graph=graph, names={**NAMES, 0x14: "quantize"})))
    assert found.beside == {"conv_token_1": ("quantize",), "quantize": ("conv_token_1",)}


def test_what_would_make_it_faster_names_the_node() -> None:
    rows = (
        Row(0x13, "@Spill", "FOR_DMA", dram_write=4096, vtcm_read=4096),
        Row(0x12, "q::ForceFormat_Flat", "FOR_HVX", vtcm_read=10, vtcm_write=10),
        Row(0x13, "q::Cast_fp16_to_fp32", "FOR_HVX", vtcm_read=10, vtcm_write=20),
        Row(0x11, "q::DepthwiseConv", "FOR_HVX", vtcm_read=10, vtcm_write=10),
    )
    found = {(f.kind, f.node): f.bytes for f in findings(schedule(rows), NODES, RATES)}
    assert found == {
        ("spilled", "softmax"): 8192,
        ("layout", "add"): 20,
        ("convert", "softmax"): 30,
        ("off the matrix unit", "conv"): 20,
    }


def test_a_product_on_the_matrix_unit_is_no_finding() -> None:
    rows = (
        Row(0x12, "q::ConvLayer_SpaceToDepth_stride2.tcm", "FOR_HVX", vtcm_read=1),
        Row(0x12, "q::ConvLayer.fp16.s1.tcm", "RESOURCE_HMX", vtcm_read=1),
    )
    assert not findings(schedule(rows), NODES, RATES)


def test_the_shipped_rates_price_all_work_and_name_their_error() -> None:
    shipped = latency_model("QNNExecutionProvider")
    assert shipped is not None
    for rates in shipped.rates:
        assert set(rates.ms) == set(WORK)
        assert all(rate >= 0 for rate in rates.ms.values())
        assert rates.error["all"].n >= 20
        assert rates.error["all"].low < 1 < rates.error["all"].high


def test_an_ep_without_rates_has_none() -> None:
    assert latency_model("OpenVINOExecutionProvider") is None
