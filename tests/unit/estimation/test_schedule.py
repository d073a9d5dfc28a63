"""Reading the compiler's schedule."""

from __future__ import annotations

import pytest

from planner.estimation import schedule as module
from planner.estimation.schedule import Product, Unit, UnknownForm, is_spill, joined, parse
from tests.unit.estimation.schedule_texts import NAMES, ROWS, Row, stream, text


def test_traffic_is_the_sum_over_the_scheduled_operators() -> None:
    schedule = parse(stream(text()))
    assert (schedule.dram_read, schedule.dram_write) == (1024 + 1152, 4096 + 4096)
    assert schedule.vtcm == 1024 + 1152 + 1664 + 2048 + 2048 + 2048 + 4096 + 2048
    assert sum(o.vtcm for o in schedule.operators if o.unit is Unit.HMX) == 1664 + 2048
    assert schedule.vtcm_peak == 0x1800


def test_each_operator_has_the_unit_its_flags_name() -> None:
    schedule = parse(stream(text()))
    assert [o.unit for o in schedule.operators] == [Unit.DMA, Unit.DMA, Unit.HMX, Unit.HVX, Unit.DMA, Unit.DMA]
    assert [schedule.count(u) for u in Unit] == [1, 1, 4, 0]
    assert schedule.queues == {"main": 2, "vec": 1}


def test_an_operator_is_traced_to_the_node_in_the_lower_half_of_its_id() -> None:
    schedule = parse(stream(text()))
    assert [o.node for o in schedule.operators] == ["", "add", "add", "softmax", "softmax", ""]
    assert schedule.untraced == 2


def test_a_node_without_an_operator_of_its_own_was_fused() -> None:
    assert parse(stream(text())).fused == ("conv_token_1",)


def test_multiply_accumulates_are_counted_from_the_graph_before_it_was_tiled() -> None:
    assert parse(stream(text())).products == (Product("conv_token_1", "int8", 8 * 8 * 16 * 3 * 3 * 4),)


def test_a_kernel_is_named_after_its_function() -> None:
    assert parse(stream(text())).operators[0].kernel == "Swish_fp16_impl"


def test_bytes_that_leave_vtcm_in_the_middle_of_the_graph_are_spilled() -> None:
    schedule = parse(stream(text()))
    assert [is_spill(o) for o in schedule.operators] == [False, False, False, False, True, False]
    assert schedule.spilled == 4096


def test_several_graphs_add_up_and_the_larger_peak_counts() -> None:
    one, other = parse(stream(text())), parse(stream(text(ROWS[:2])))
    both = joined([one, other])
    assert both.graphs == 2
    assert both.dram == one.dram + other.dram
    assert both.vtcm_peak == one.vtcm_peak
    assert both.queues["main"] == 4


def test_a_text_without_a_needed_section_is_of_an_unknown_form() -> None:
    with pytest.raises(UnknownForm, match="bandwidth_information"):
        parse(stream(text().replace("bandwidth_information", "bandwidth")))


def test_a_row_of_another_form_is_refused_not_passed_over() -> None:
    with pytest.raises(UnknownForm, match="row of unknown form"):
        parse(stream(text().replace('"vtcm_read"', '"tcm_read"')))


def test_a_text_that_was_cut_short_is_refused() -> None:
    with pytest.raises(UnknownForm, match="cut short"):
        parse(stream(text(ending=False)))


@pytest.mark.parametrize("junk", [b"", b"\x00\xff" * 100, b"{}", b"[" * 5000])
def test_what_is_no_schedule_is_refused(junk: bytes) -> None:
    import io

    with pytest.raises(UnknownForm):
        parse(io.BytesIO(junk))


def test_a_line_beyond_the_limit_ends_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_LINE", 1000)
    with pytest.raises(UnknownForm, match="larger than any known"):
        parse(stream("x" * 2000))


def test_a_text_beyond_the_limit_ends_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_TEXT", 1000)
    with pytest.raises(UnknownForm, match="larger than any known"):
        parse(stream(text()))


def test_more_operators_than_the_limit_end_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_OPERATORS", 3)
    with pytest.raises(UnknownForm, match="more operators"):
        parse(stream(text()))


def test_names_with_quotes_and_slashes_are_kept_whole() -> None:
    schedule = parse(
        stream(text([Row(0x13, "q::Add", "FOR_HVX", vtcm_read=1)], names={**NAMES, 0x13: "/a/b's (c), d"}))
    )
    assert schedule.operators[0].node == "/a/b's (c), d"
