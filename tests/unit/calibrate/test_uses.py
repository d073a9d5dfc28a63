"""What a model does with its inputs decides what is made up for them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import helper, numpy_helper

from planner.calibrate.synthetic import Made, make_samples
from planner.calibrate.uses import Use, find_uses
from planner.model.normalize import normalize
from tests.unit.small_models import graph


def _uses(nodes: list, ints: dict, **constants: object) -> dict[str, Use]:  # type: ignore[type-arg]
    inputs = [helper.make_tensor_value_info(name, 7, dims) for name, dims in ints.items()]
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )  # fmt: skip
    return find_uses(ir.from_proto(helper.make_model(graph)))


def _sample(name: str, use: Use, shape: tuple[int, ...]) -> np.ndarray:  # type: ignore[type-arg]
    return make_samples([Made(name, np.dtype(np.int64), shape, use)], 1, 0)[0][name]


def test_an_index_stays_below_the_smallest_table_that_it_looks_up() -> None:
    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["a"]),
        helper.make_node("Unsqueeze", ["ids", "axis"], ["b"]),
        helper.make_node("Gather", ["types", "b"], ["y"]),
    ]
    use = _uses(nodes, {"ids": [1, 8]}, words=np.zeros((100, 4)), types=np.zeros((2, 4)), axis=np.array([0]))["ids"]
    assert use.limit == 2
    assert set(_sample("ids", use, (1, 64)).ravel()) == {0, 1}


def test_a_mask_is_known_by_its_use_or_its_name_and_hides_no_row_whole() -> None:
    nodes = [helper.make_node("Cast", ["seen"], ["f"], to=1), helper.make_node("Sub", ["one", "f"], ["y"])]
    uses = _uses(nodes, {"seen": [1, 8], "attention_mask": [1, 8]}, one=np.float32(1))
    for name in ("seen", "attention_mask"):
        values = _sample(name, uses[name], (4, 16))
        assert set(values.ravel()) == {0, 1} and (values[:, 0] == 1).all()


def test_positions_ascend_within_their_table() -> None:
    nodes = [helper.make_node("Gather", ["table", "position_ids"], ["y"])]
    use = _uses(nodes, {"position_ids": [1, 6]}, table=np.zeros((4, 2)))["position_ids"]
    assert _sample("position_ids", use, (1, 6)).tolist() == [[0, 1, 2, 3, 0, 1]]


def test_an_axis_is_one_that_there_is() -> None:
    use = _uses([helper.make_node("ReduceSum", ["x", "axes"], ["y"])], {"axes": [1]}, x=np.zeros((2, 3)))["axes"]
    assert _sample("axes", use, (1,)).tolist() == [0]


def test_a_number_of_unknown_use_is_a_small_one() -> None:
    use = _uses([helper.make_node("Neg", ["n"], ["y"])], {"n": [8]})["n"]
    assert not use.known
    assert 0 <= _sample("n", use, (8,)).min() <= _sample("n", use, (8,)).max() < 10


def test_the_share_that_is_dropped_is_one() -> None:
    use = _uses([helper.make_node("Dropout", ["x", "ratio"], ["y"])], {"ratio": []}, x=np.zeros((2, 3)))["ratio"]
    assert use.value is not None and 0 <= float(use.value) < 1


def test_a_number_that_nothing_reads_any_more_is_a_share() -> None:
    made = graph("(float[2,3] x, float ratio) => (float[2,3] y)", "y = Dropout(x, ratio)")
    found = ir.from_proto(made)
    normalize(found, {}, 21, [])
    value = find_uses(found)["ratio"].value
    assert value is not None and value.shape == () and 0 <= float(value) < 1


def test_thresholds_of_non_maximum_suppression_lie_where_they_may() -> None:
    made = helper.make_node("NonMaxSuppression", ["boxes", "scores", "count", "overlap", "least"], ["y"])
    boxes, scores = np.zeros((1, 6, 4)), np.zeros((1, 1, 6))
    uses = _uses([made], {"count": [1], "overlap": [1], "least": [1]}, boxes=boxes, scores=scores)
    values = {name: float(uses[name].value.ravel()[0]) for name in ("count", "overlap", "least")}  # type: ignore[union-attr]
    assert values["count"] >= 1 and 0 <= values["overlap"] <= 1 and 0 <= values["least"] <= 1
