"""Parts of an output: which tensors it joins, and that the weakest of them counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from planner.verification.fidelity import Comparison, Fidelity, PartFidelity, low_end
from planner.verification.floor import Floor
from planner.verification.parts import Parts, find_parts


def _model(nodes: list, output: list[int], **constants: list[int]) -> ir.Model:  # type: ignore[type-arg]
    boxes = helper.make_node("Mul", ["x", "x"], ["boxes"])
    scores = helper.make_node("Sigmoid", ["x"], ["scores"])
    graph = helper.make_graph(
        [boxes, scores, *nodes],
        "head",
        [helper.make_tensor_value_info("x", 1, [1, 2, 3])],
        [helper.make_tensor_value_info("y", 1, output)],
        [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in constants.items()],
        value_info=[helper.make_tensor_value_info(name, 1, [1, 2, 3]) for name in ("boxes", "scores")],
    )
    made: ir.Model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    return made


_CONCAT = helper.make_node("Concat", ["boxes", "scores"], ["joined"], axis=1)


def test_each_element_is_traced_to_the_tensor_that_it_comes_from() -> None:
    found = find_parts(_model([_CONCAT, helper.make_node("Transpose", ["joined"], ["y"], perm=[0, 2, 1])], [1, 3, 4]))
    assert found["y"].names == ("boxes", "scores")
    assert found["y"].labels.tolist() == [[[0, 0, 1, 1]] * 3]


def test_joints_within_joints_are_followed_through_what_moves_values() -> None:
    nodes = [
        helper.make_node("Concat", ["boxes", "scores"], ["inner"], axis=1),
        helper.make_node("Reshape", ["inner", "flat"], ["rows"]),
        helper.make_node("Concat", ["rows", "x2"], ["y"], axis=0),
        helper.make_node("Reshape", ["x", "two"], ["x2"]),
    ]
    found = find_parts(_model([*nodes[:2], nodes[3], nodes[2]], [18], flat=[12], two=[6]))
    assert found["y"].names == ("boxes", "scores", "x")
    assert found["y"].labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Identity", ["boxes"], ["y"])],
        [helper.make_node("Concat", ["boxes", "boxes"], ["y"], axis=1)],
        [_CONCAT, helper.make_node("Relu", ["joined"], ["y"])],
    ],
)
def test_an_output_of_one_source_or_behind_arithmetic_has_no_parts(nodes: list) -> None:  # type: ignore[type-arg]
    assert find_parts(_model(nodes, [1, 4, 3])) == {}


def _compared(reference: np.ndarray, candidate: np.ndarray) -> Fidelity:  # type: ignore[type-arg]
    parts = Parts(("boxes", "scores"), np.array([0, 0, 1, 1]))
    comparison = Comparison({"y": parts})
    comparison.add({"y": reference}, {"y": candidate})
    return comparison.results()[0]


def test_the_weakest_part_counts_for_the_floor_and_is_named() -> None:
    reference = np.array([600.0, 300.0, 0.5, 0.1], np.float32)
    fidelity = _compared(reference, reference + np.array([0, 0.1, 0.1, 0.1], np.float32))
    assert fidelity.sqnr_db > 50
    assert fidelity.least_db == pytest.approx(10 * np.log10(0.26 / 0.02), abs=1e-4)
    assert list(Floor("sqnr", 20).shortfalls([fidelity])) == [
        "part 'scores' of output 'y' has 11.1 dB SQNR, below the floor of 20 dB"
    ]


def test_a_part_that_is_zero_throughout_is_lost() -> None:
    fidelity = _compared(np.array([600.0, 300.0, 0.5, 0.1]), np.array([600.0, 300.0, 0.0, 0.0]))
    assert fidelity.parts == (PartFidelity("boxes", 200.0), PartFidelity("scores", -200.0, dead=True))
    assert _compared(np.ones(4), np.zeros(4)).sqnr_db == -200


def test_a_part_that_is_zero_in_the_reference_too_is_kept() -> None:
    assert _compared(np.array([1.0, 1, 0, 0]), np.array([1.0, 1, 0, 0])).least_db == 200


def test_an_output_of_another_shape_than_expected_is_judged_as_one() -> None:
    assert _compared(np.ones((2, 4)), np.ones((2, 4))).parts == ()


def test_the_interval_lies_below_the_figure_and_needs_four_samples() -> None:
    energies = [(1.0, 0.01), (1.0, 0.02), (1.0, 0.01), (1.0, 0.2)]
    assert low_end(energies[:3]) is None
    low = low_end(energies)
    whole = 10 * np.log10(4 / 0.24)
    assert low is not None
    assert 10 * np.log10(1 / 0.2) <= low < whole
    assert low == low_end(energies)


def test_samples_that_are_alike_expect_no_worse_one() -> None:
    alike = [(1.0, 0.01 * (1 + 0.05 * i)) for i in range(12)]
    low = low_end(alike)
    assert low is not None and low > 10 * np.log10(12 / sum(error for _, error in alike)) - 0.5


def test_samples_that_differ_much_expect_worse_ones() -> None:
    """Classifiers of which each sample is sure, to very different degrees: the next may be one that is not."""
    spread = [(1.0, 10 ** (-db / 10)) for db in (60, 64, 70, 75, 80, 85, 90, 95, 99, 100, 110, 120)]
    low = low_end(spread)
    assert low is not None
    assert 60 - 9 <= low < 60, "below the worst that was seen, but not by more than 9 dB"
    few = low_end(spread[:7])
    assert few is not None and few >= 60, "of 7 samples no width is told"


def test_samples_that_are_exact_say_nothing_of_how_wrong_others_are() -> None:
    exact = [(1.0, 0.0)] * 10 + [(1.0, 0.003)] * 6
    low = low_end(exact)
    assert low is not None and low > 10 * np.log10(16 / 6 / 0.003) - 3


@given(st.lists(st.tuples(st.floats(0, 1e30), st.floats(0, 1e30)), min_size=4, max_size=20))
def test_the_interval_is_a_number_that_no_order_of_the_samples_changes(energies: list[tuple[float, float]]) -> None:
    low = low_end(energies)
    assert low is not None and -200 <= low <= 200
    assert low == low_end(energies[::-1])


def test_each_sample_counts_and_the_worst_is_told() -> None:
    comparison = Comparison()
    for error in (0.1, 1.0):
        comparison.add({"y": np.ones(4)}, {"y": np.ones(4) + error})
    fidelity = comparison.results()[0]
    assert fidelity.samples == 2 and fidelity.worst_sample_db == pytest.approx(0.0)


@pytest.mark.slow
def test_a_search_keeps_every_part_alive(tmp_path: Path) -> None:
    """One scale for pixels and scores loses the scores at 8 bits: another precision is kept."""
    import onnx

    import planner

    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(8, 4)).astype(np.float32), "v": rng.normal(size=(8, 4)).astype(np.float32) / 3}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="box"),
        helper.make_node("Mul", ["m", "k"], ["boxes"], name="pixels"),
        helper.make_node("MatMul", ["x", "v"], ["c"], name="class"),
        helper.make_node("Sigmoid", ["c"], ["scores"], name="sigmoid"),
        helper.make_node("Concat", ["boxes", "scores"], ["y"], axis=1, name="join"),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, [1, 8])], [helper.make_tensor_value_info("y", 1, [1, 8])],
        [numpy_helper.from_array(v, k) for k, v in {**weights, "k": np.float32(300)}.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=rng.normal(size=(16, 8)).astype(np.float32))
    inputs = str(tmp_path / "x.npz")
    low = planner.target(tmp_path / "m.onnx", "cpu", tmp_path / "a.onnx", precision="w8a8", inputs=inputs)
    assert not low.passed
    assert low.kept is not None
    assert any("part 'scores'" in reason for reason in low.kept.verification.reasons)
    best = planner.target(tmp_path / "m.onnx", "cpu", tmp_path / "b.onnx", inputs=inputs)
    assert best.passed
    assert best.kept is not None
    assert best.kept.worst_db >= 20
