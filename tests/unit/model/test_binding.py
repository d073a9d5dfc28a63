"""Open dimensions: what binds them, in which order, and what is said of it."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from onnx import helper

from planner.model.binding import BoundShape, bind_open, tell


def _model(**inputs: list[int | str | None]) -> ir.Model:
    values = [helper.make_tensor_value_info(name, 1, dims) for name, dims in inputs.items()]
    first = next(iter(inputs))
    node = helper.make_node("Relu", [first], ["y"])
    graph = helper.make_graph([node], "g", values, [helper.make_tensor_value_info("y", 1, None)])
    made: ir.Model = ir.from_proto(helper.make_model(graph))
    return made


def _nothing(_: object) -> dict[str, tuple[int | None, ...]]:
    return {}


@pytest.mark.parametrize(
    "name", ["batch", "batch_size", "N", "b", "num_samples", None, "unk__12", "s77", "dynamic_axes_1"]
)
def test_a_dimension_that_counts_samples_becomes_1(name: str | None) -> None:
    found = bind_open(_model(x=[name, 3, 8]), {}, _nothing)
    assert found == {"x": BoundShape((1, 3, 8), "default")}
    assert "is 1" in tell(found)[0]


@pytest.mark.parametrize("dims", [["seq"], [None], [1, "height"], [1, None], ["seq", 4]])
def test_any_other_dimension_stays_open(dims: list[int | str | None]) -> None:
    assert bind_open(_model(x=dims), {}, _nothing) == {}


def test_the_batch_is_bound_though_another_dimension_stays_open() -> None:
    assert bind_open(_model(x=["batch", "seq"]), {}, _nothing) == {"x": BoundShape((1, None), "default")}


def test_samples_say_what_is_open_before_any_default() -> None:
    found = bind_open(_model(x=["batch", "seq"]), {}, lambda _: {"x": (2, 128)})
    assert found == {"x": BoundShape((2, 128), "inputs")}


def test_where_samples_differ_the_dimension_stays_open() -> None:
    found = bind_open(_model(x=["batch", "seq"]), {}, lambda _: {"x": (2, None)})
    assert found == {"x": BoundShape((2, None), "inputs")}


def test_a_name_stands_for_one_number_in_all_inputs() -> None:
    found = bind_open(_model(ids=["batch", "seq"], mask=["batch", "seq"]), {"ids": (1, 64)}, _nothing)
    assert found == {"ids": BoundShape((1, 64), "option"), "mask": BoundShape((1, 64), "option")}


def test_what_is_asked_for_stands_above_the_samples() -> None:
    found = bind_open(_model(x=["batch", "seq"]), {"x": (1, 32)}, lambda _: {})
    assert found == {"x": BoundShape((1, 32), "option")}
    assert tell(found) == []


def test_where_open_dimensions_may_stay_nothing_is_bound_but_what_is_asked_for() -> None:
    assert bind_open(_model(x=["batch", 3]), {}, None) == {}
