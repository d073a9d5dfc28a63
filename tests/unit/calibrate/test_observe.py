"""Observing a model: ranges of every float tensor, in bodies too, with masks apart and NaN refused by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import NodeProto, TensorProto, checker, helper, numpy_helper

from planner.calibrate.extend import SAMPLED_VALUES, Observed, extend
from planner.calibrate.histogram import Histogram, cut_entropy, cut_mse, cut_percentile
from planner.calibrate.observe import FOLDS, Method, Run, collect
from planner.calibrate.ranges import Range
from planner.errors import RequestError

F = TensorProto.FLOAT


Info = tuple[str, int, Sequence[int | str]]


def model(
    nodes: list[NodeProto],
    inputs: Sequence[Info],
    outputs: Sequence[Info],
    constants: dict[str, np.ndarray] | None = None,
) -> ir.Model:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [helper.make_tensor_value_info(n, t, s) for n, t, s in outputs],
        [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    found: ir.Model = ir.from_proto(proto)
    from onnx_ir.passes import common

    common.ShapeInferencePass()(found)
    return found


def start(extended: ir.Model) -> Run:
    proto = ir.to_proto(extended)
    checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return lambda sample: dict(zip(names, session.run(None, dict(sample)), strict=True))


def run(observed: Observed) -> Run:
    return start(observed.model)


def ranges(m: ir.Model, samples: Sequence[dict[str, np.ndarray]], method: Method = Method.MINMAX) -> dict[str, Range]:
    return collect(m, start, samples, method).ranges()


RELU = helper.make_node("Relu", ["x"], ["y"], name="relu")


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_ranges_span_all_samples_inputs_included() -> None:
    found = ranges(model([RELU], [("x", F, [3])], [("y", F, [3])]), [{"x": f32(-1, 0, 2)}, {"x": f32(-3, 0, 1)}])
    assert found == {"x": Range(-3, 2), "y": Range(0, 2)}


def test_of_clipping_operators_in_a_row_the_first_ones_data_is_observed() -> None:
    nodes = [
        helper.make_node("Neg", ["x"], ["n"]),
        helper.make_node("Relu", ["n"], ["q"]),
        helper.make_node("Clip", ["q", "", "most"], ["y"]),
    ]
    m = model(nodes, [("x", F, [3]), ("most", F, [])], [("y", F, [3])])
    found = ranges(m, [{"x": f32(-4, 0, 2), "most": np.array(3, np.float32)}])
    assert found["n"] == Range(-2, 4)  # q, which the Clip alone reads, is stored over the range of y
    assert found["y"] == Range(0, 3)


def test_samples_of_varying_shape() -> None:
    found = ranges(
        model([RELU], [("x", F, ["n"])], [("y", F, ["n"])]), [{"x": f32(-1)}, {"x": f32(4, 5)}], Method.PERCENTILE
    )
    assert (found["y"].low, found["y"].high) == (0, 5)


def test_a_tensor_that_only_changes_shape_shares_the_observation() -> None:
    m = model(
        [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Reshape", ["h", "s"], ["y"])],
        [("x", F, [4])],
        [("y", F, [2, 2])],
        {"s": np.array([2, 2])},
    )
    observed = extend(m)
    assert "y" not in observed.outputs
    assert ranges(m, [{"x": f32(-1, 2, 3, 4)}])["y"] == Range(0, 4)


def test_what_only_a_relu_reads_is_left_to_the_relu() -> None:
    m = model(
        [helper.make_node("Neg", ["x"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        [("x", F, [2])],
        [("y", F, [2])],
    )
    assert ranges(m, [{"x": f32(-1, 4)}]) == {"x": Range(-1, 4), "y": Range(0, 1)}


def if_model(size: int = 2) -> ir.Model:
    def branch(op: str) -> object:
        return helper.make_graph(
            [helper.make_node(op, ["x"], [f"{op}_out"], name=op)],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}_out", F, [size])],
        )

    return model(
        [helper.make_node("If", ["c"], ["y"], then_branch=branch("Exp"), else_branch=branch("Neg"))],
        [("c", TensorProto.BOOL, []), ("x", F, [size])],
        [("y", F, [size])],
    )


def test_only_the_branch_that_ran_has_a_range() -> None:
    m = if_model()
    found = ranges(m, [{"c": np.array(False), "x": f32(1, 2)}])
    assert found["Neg_out"] == Range(-2, -1) and "Exp_out" not in found
    found = ranges(m, [{"c": np.array(c), "x": f32(0, 0)} for c in (True, False)])
    assert found["Exp_out"] == Range(1, 1) and found["Neg_out"] == Range(0, 0)


def loop_model() -> ir.Model:
    """y doubles in each of n iterations."""
    body = helper.make_graph(
        [helper.make_node("Mul", ["v", "two"], ["w"], name="double"), helper.make_node("Identity", ["c"], ["d"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", F, [1]),
        ],
        [helper.make_tensor_value_info("d", TensorProto.BOOL, []), helper.make_tensor_value_info("w", F, [1])],
    )
    return model(
        [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)],
        [("n", TensorProto.INT64, []), ("x", F, [1])],
        [("y", F, [1])],
        {"two": f32(2)},
    )


def test_the_range_in_a_loop_spans_its_iterations() -> None:
    found = ranges(loop_model(), [{"n": np.array(3), "x": f32(1)}])
    assert (found["v"], found["w"], found["y"]) == (Range(1, 4), Range(2, 8), Range(8, 8))


def test_a_loop_without_iterations_leaves_its_body_without_range() -> None:
    found = ranges(loop_model(), [{"n": np.array(0), "x": f32(1)}])
    assert "w" not in found and found["y"] == Range(1, 1)


def test_what_a_branch_computes_is_cut_like_any_tensor() -> None:
    """One value of 256 lies far out: a percentile of 0.01 % keeps it, least squared error does not."""
    values = np.append(np.linspace(-1, 1, 20_000), 1000).astype(np.float32)
    m = if_model(values.size)
    found = ranges(m, [{"c": np.array(False), "x": values}, {"c": np.array(True), "x": values * 0}], Method.MSE)
    assert (found["Neg_out"].low, found["Neg_out"].high) == (-1000, 1)
    assert found["Neg_out"].cut is not None and found["Exp_out"].cut is not None
    assert found["Exp_out"].cut[1] == pytest.approx(1, abs=0.1)


def test_values_of_a_loop_come_from_every_iteration() -> None:
    m = loop_model()
    observed = extend(m, sample=True)
    taken = run(observed)({"n": np.array(3), "x": f32(1)})[observed.sampled["w"]]
    assert sorted(set(taken.ravel())) == [2, 4, 8]
    assert run(observed)({"n": np.array(0), "x": f32(1)})[observed.sampled["w"]].size == 0


def nested_model() -> ir.Model:
    """An outer loop whose i-th iteration runs an inner loop i times, which doubles v only where it is below 3; the inner
    tensors have a length that nobody knows ahead."""
    branch = [
        helper.make_graph(
            [helper.make_node(op, ["u"] if op == "Identity" else ["u", "u"], [f"{op}_out"], name=op)],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}_out", F, ["k"])],
        )
        for op in ("Add", "Identity")
    ]

    def body(name: str, nodes: list[NodeProto], before: str, after: str) -> object:
        nodes.append(helper.make_node("Identity", [f"{name}_c"], [f"{name}_d"], name=f"{name}_go_on"))
        return helper.make_graph(
            nodes,
            name,
            [
                helper.make_tensor_value_info(f"{name}_i", TensorProto.INT64, []),
                helper.make_tensor_value_info(f"{name}_c", TensorProto.BOOL, []),
                helper.make_tensor_value_info(before, F, ["k"]),
            ],
            [
                helper.make_tensor_value_info(f"{name}_d", TensorProto.BOOL, []),
                helper.make_tensor_value_info(after, F, ["k"]),
            ],
        )

    inner = body(
        "inner",
        [
            helper.make_node("ReduceMax", ["u"], ["most"], keepdims=0, name="most"),
            helper.make_node("Less", ["most", "three"], ["small"], name="less"),
            helper.make_node("If", ["small"], ["w"], then_branch=branch[0], else_branch=branch[1], name="if"),
        ],
        "u",
        "w",
    )
    outer = body("outer", [helper.make_node("Loop", ["outer_i", "", "v"], ["t"], body=inner, name="in")], "v", "t")
    return model(
        [helper.make_node("Loop", ["n", "", "x"], ["y"], body=outer, name="out")],
        [("n", TensorProto.INT64, []), ("x", F, ["k"])],
        [("y", F, ["k"])],
        {"three": np.array(3, np.float32)},
    )


def test_bodies_within_bodies() -> None:
    m = nested_model()
    samples = [{"n": np.array(4), "x": f32(1, 0.5)}, {"n": np.array(1), "x": f32(7)}, {"n": np.array(2), "x": f32()}]
    found = ranges(m, samples[:2], Method.MSE)
    assert (found["Add_out"].low, found["Add_out"].high) == (1, 4)
    assert (found["Identity_out"].low, found["Identity_out"].high) == (2, 4)
    assert (found["t"].low, found["t"].high) == (0.5, 7)
    observed = extend(m, sample=True)
    taken = run(observed)(samples[0])[observed.sampled["Add_out"]]
    assert set(taken[~np.isnan(taken)]) == {1, 2, 4}


def test_bodies_that_compute_empty_tensors_tell_nothing() -> None:
    observed = extend(loop_model(), sample=True)
    assert not observed.sampled.keys() ^ observed.outputs.keys()
    m = nested_model()
    observed = extend(m, sample=True)
    run_it = run(observed)
    with_values = run_it({"n": np.array(3), "x": f32(1)})
    empty = run_it({"n": np.array(0), "x": f32()})
    assert with_values[observed.sampled["Add_out"]].size and not empty[observed.sampled["Add_out"]].size


def test_what_a_scan_computes() -> None:
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "e"], ["t"], name="sum"), helper.make_node("Neg", ["t"], ["o"], name="neg")],
        "body",
        [helper.make_tensor_value_info("s", F, [2]), helper.make_tensor_value_info("e", F, [2])],
        [helper.make_tensor_value_info("t", F, [2]), helper.make_tensor_value_info("o", F, [2])],
    )
    scan = helper.make_node(
        "Scan", ["x0", "x"], ["last", "all"], body=body, num_scan_inputs=1, name="scan", scan_output_directions=[1]
    )
    m = model([scan], [("x0", F, [2]), ("x", F, [3, 2])], [("last", F, [2]), ("all", F, [3, 2])])
    sample = {"x0": f32(0, 0), "x": np.arange(6, dtype=np.float32).reshape(3, 2)}
    found = ranges(m, [sample], Method.PERCENTILE)
    assert (found["t"].low, found["t"].high) == (0, 9) and (found["o"].low, found["o"].high) == (-9, 0)
    assert (found["e"].low, found["e"].high) == (0, 5)


@pytest.mark.parametrize("mask", [-3.4e38, -np.inf])
def test_masks_are_left_out_of_ranges_and_marked(mask: float) -> None:
    m = model([helper.make_node("Add", ["x", "m"], ["y"])], [("x", F, [3]), ("m", F, [3])], [("y", F, [3])])
    samples = [{"x": f32(-1, 2, 5), "m": f32(0, 0, mask)}]
    found = ranges(m, samples)
    assert found["y"] == Range(-1, 2, masked_low=True) and found["m"] == Range(0, 0, masked_low=True)
    assert found["x"] == Range(-1, 5)


def test_a_mask_that_a_later_sample_brings_costs_one_run_more() -> None:
    m = model([helper.make_node("Add", ["x", "m"], ["y"])], [("x", F, [2]), ("m", F, [2])], [("y", F, [2])])
    runs = []

    def counted(extended: ir.Model) -> Run:
        real = start(extended)

        def run_one(sample: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
            runs.append(1)
            return real(sample)

        return run_one

    samples = [{"x": f32(-1, 4), "m": f32(0, mask)} for mask in (0, 3, -np.inf, np.inf, -np.inf)]
    found = collect(m, counted, samples, Method.AVERAGE).ranges()
    assert len(runs) == len(samples) + 1
    assert (found["y"].low, found["y"].high, found["y"].masked_low, found["y"].masked_high) == (-1, 7, True, True)
    assert found["y"].cut == pytest.approx((-1, 11 / 5)), "of what lies beside the masks, sample by sample"


def test_masks_inside_a_body_are_left_out_as_well() -> None:
    found = ranges(if_model(3), [{"c": np.array(c), "x": f32(1, 2, 3.4e38)} for c in (False, True)])
    assert (found["Neg_out"].low, found["Neg_out"].high, found["Neg_out"].masked_low) == (-2, 0, True)
    nested = ranges(nested_model(), [{"n": np.array(3), "x": f32(1, -3e38)}, {"n": np.array(1), "x": f32(2)}])
    assert (nested["t"].low, nested["t"].high, nested["t"].masked_low) == (0, 4, True)


def test_nan_is_refused_with_the_first_node_that_computes_it() -> None:
    m = model(
        [helper.make_node("Sqrt", ["x"], ["h"], name="root"), helper.make_node("Exp", ["h"], ["y"], name="after")],
        [("x", F, [2])],
        [("y", F, [2])],
    )
    with pytest.raises(RequestError, match=r"node 'root' computes NaN.*sample 1"):
        ranges(m, [{"x": f32(1, 1)}, {"x": f32(1, -1)}])


def test_average_is_the_mean_of_the_samples_extremes_for_8_bits_only() -> None:
    found = ranges(
        model([RELU], [("x", F, [2])], [("y", F, [2])]), [{"x": f32(-1, 2)}, {"x": f32(-3, 8)}], Method.AVERAGE
    )
    assert found["x"] == Range(-3, 8, cut=(-2, 5))


@pytest.mark.parametrize("method", list(Method))
def test_ranges_without_a_fold_are_those_of_its_samples_left_out(method: Method) -> None:
    m = model([RELU], [("x", F, [64])], [("y", F, [64])])
    rng = np.random.default_rng(0)
    samples = [{"x": (rng.normal(0, 1 + i, 64)).astype(np.float32)} for i in range(10)]
    found = collect(m, start, samples, method)
    assert found.ranges() == ranges(m, samples, method)
    kept = [seen.histogram is not None for fold in found.folds for seen in fold.values()]
    assert kept and set(kept) == {method.needs_histogram}, "16 KiB a tensor and fold: only where they are asked for"
    for fold in range(FOLDS):
        others = [sample for i, sample in enumerate(samples) if i % FOLDS != fold]
        for name, alone in ranges(m, others, method).items():
            got = found.ranges(without=fold)[name]
            assert (got.low, got.high) == (alone.low, alone.high)
            assert got.cut == alone.cut or got.cut == pytest.approx(alone.cut)


def test_values_taken_along_are_few_and_meet_every_channel() -> None:
    m = model([RELU], [("x", F, [1, 64, 64, 64])], [("y", F, [1, 64, 64, 64])])
    observed = extend(m, sample=True)
    x = np.broadcast_to(np.arange(64, dtype=np.float32)[:, None, None], (1, 64, 64, 64))
    taken = run(observed)({"x": np.ascontiguousarray(x)})[observed.sampled["y"]]
    assert SAMPLED_VALUES / 2 < taken.size <= SAMPLED_VALUES
    counts = np.bincount(taken.astype(int), minlength=64)
    assert counts.min() > 0.8 * counts.mean()


def test_the_original_is_left_as_it_was() -> None:
    m = if_model()
    before = ir.to_proto(m).SerializeToString(deterministic=True)
    extend(m, sample=True)
    assert ir.to_proto(m).SerializeToString(deterministic=True) == before


class TestHistogram:
    def test_does_not_depend_on_the_order_of_the_data(self) -> None:
        rng = np.random.default_rng(0)
        parts = [rng.normal(0, s, 1000).astype(np.float32) for s in (0.01, 1, 100)]
        one, other = Histogram(), Histogram()
        for part in parts:
            one.add(part)
        for part in reversed(parts):
            other.add(part)
        assert one.limit == other.limit and (one.counts == other.counts).all()
        assert one.counts.sum() + one.zeros == 3000

    def test_two_joined_are_one_of_all_the_data(self) -> None:
        rng = np.random.default_rng(0)
        parts = [np.append(rng.normal(0, s, 1000), 0).astype(np.float32) for s in (1, 100, 0.01)]
        for order in permutations(parts):
            whole, joined = Histogram(), Histogram()
            for part in order:
                whole.add(part)
                alone = Histogram()
                alone.add(part)
                joined.join(alone)
            joined.join(Histogram())
            assert (joined.limit, joined.zeros) == (whole.limit, whole.zeros) and (joined.counts == whole.counts).all()

    def test_normal_data_with_an_outlier_is_cut_near_the_data(self) -> None:
        rng = np.random.default_rng(1)
        data = np.append(rng.normal(0, 1, 200_000), 100.0).astype(np.float32)
        histogram = Histogram()
        histogram.add(data)
        for cut in (cut_percentile, cut_entropy):
            low, high = cut(histogram, float(data.min()), float(data.max()))
            assert high < 20, cut.__name__
            assert low >= data.min()

    def test_the_mse_cut_beats_the_whole_range_where_it_cuts(self) -> None:
        rng = np.random.default_rng(2)
        data = rng.standard_t(3, 100_000).astype(np.float32)
        histogram = Histogram()
        histogram.add(data)
        low, high = float(data.min()), float(data.max())
        cut = cut_mse(histogram, low, high)

        def error(low: float, high: float) -> float:
            step = (high - low) / 255
            return float((((np.rint(np.clip(data, low, high) / step) * step) - data) ** 2).mean())

        assert error(*cut) < 0.8 * error(low, high)

    def test_only_zeros(self) -> None:
        histogram = Histogram()
        histogram.add(np.zeros(5, np.float32))
        assert histogram.zeros == 5 and histogram.counts.sum() == 0
