"""Poolings that round up, Resizes that EPs compute otherwise: written as what every EP computes alike, with equal results."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.model.normalize import normalize
from tests.unit.small_models import f32, graph, run


def normalized(made: onnx.ModelProto) -> ir.Model:
    found: ir.Model = ir.from_proto(made)
    normalize(found, {}, 21, frozenset())
    onnx.checker.check_model(ir.to_proto(found))
    return found


def same(made: onnx.ModelProto, dims: list[int]) -> ir.Model:
    """The normalized model, which gives what the model gives."""
    feed = {"x": np.random.default_rng(0).normal(size=dims).astype(np.float32)}
    found = normalized(made)
    (before,), (after,) = run(made, feed), run(found, feed)
    assert before.shape == after.shape
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    return found


def shaped(text: str, dims: list[int], constants: Mapping[str, object] | None = None) -> onnx.ModelProto:
    """A model of one node, with the shape of its result as onnxruntime computes it; skipped where it computes nothing."""
    signature = f"(float[{','.join(map(str, dims))}] x) => (float[] y)"
    made = graph(signature, text, constants, opset=18, check=False)
    made.graph.output[0].type.tensor_type.ClearField("shape")
    try:
        (out,) = run(made, {"x": np.zeros(dims, np.float32)})
    except Exception:
        pytest.skip("onnxruntime has no kernel for it")
    made.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, out.shape))
    return made


SIZES = st.integers(3, 9)


@settings(max_examples=60, deadline=None)
@given(
    op=st.sampled_from(["MaxPool", "AveragePool"]),
    kernel=st.lists(st.integers(1, 3), min_size=2, max_size=2),
    strides=st.lists(st.integers(1, 3), min_size=2, max_size=2),
    pads=st.lists(st.integers(0, 1), min_size=4, max_size=4),
    counted=st.booleans(),
    sizes=st.lists(SIZES, min_size=2, max_size=2),
)
def test_a_pooling_that_rounds_up_keeps_its_numbers(
    op: str, kernel: list[int], strides: list[int], pads: list[int], counted: bool, sizes: list[int]
) -> None:
    if any(p >= k for p, k in zip(pads, kernel * 2, strict=True)):
        pads = [0] * 4
    count = f", count_include_pad = {int(counted)}" if op == "AveragePool" else ""
    text = f"y = {op}<kernel_shape = {kernel}, strides = {strides}, pads = {pads}, ceil_mode = 1{count}>(x)"
    dims = [1, 2, *sizes]
    same(shaped(text, dims), dims)


@pytest.mark.parametrize("counted", [0, 1])
def test_a_window_that_hangs_over_becomes_padding(counted: int) -> None:
    # Counting a padding that is not there says nothing, but WebGPU would divide by the whole window.
    dims = [1, 2, 7, 8]
    pool = f"y = AveragePool<kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1, count_include_pad = {counted}>(x)"
    (node,) = same(shaped(pool, dims), dims).graph
    assert "ceil_mode" not in node.attributes and list(node.attributes["pads"].as_ints()) == [0, 0, 1, 0]
    assert not counted or "count_include_pad" not in node.attributes


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.lists(st.integers(1, 4), min_size=2, max_size=2),
    strides=st.lists(st.integers(1, 3), min_size=2, max_size=2),
    less=st.lists(st.integers(0, 2), min_size=2, max_size=2),
    how=st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER"]),
)
def test_a_transposed_convolution_to_a_size_keeps_its_numbers(
    kernel: list[int], strides: list[int], less: list[int], how: str
) -> None:
    dims = [1, 2, 4, 5]
    whole = [s * (n - 1) + k for s, n, k in zip(strides, dims[2:], kernel, strict=True)]
    size = [w - min(x, k - 1) for w, x, k in zip(whole, less, kernel, strict=True)]
    text = f'y = ConvTranspose<strides = {strides}, output_shape = {size}, auto_pad = "{how}">(x, w)'
    weight = {"w": f32(np.random.default_rng(1).normal(size=[2, 3, *kernel]))}
    (node,) = same(shaped(text, dims, weight), dims).graph
    assert not {"output_shape", "auto_pad"} & set(node.attributes)


WHERE = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
HOW = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("scales", [(1, 1, 2, 3), (1, 1, 0.5, 1.5)])
def test_the_nearest_places_by_unusual_rules_are_gathers(where: str, how: str, scales: tuple[float, ...]) -> None:
    dims = [1, 2, 5, 6]
    rule = f'mode = "nearest", coordinate_transformation_mode = "{where}", nearest_mode = "{how}"'
    found = same(shaped(f"y = Resize<{rule}>(x, , s)", dims, {"s": f32(scales)}), dims)
    usual = (where, how) in (
        ("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("pytorch_half_pixel", "round_prefer_floor")
    )  # fmt: skip
    assert {n.op_type for n in found.graph} == ({"Resize"} if usual else {"Gather"})


RESIZED: list[tuple[list[int], tuple[float, ...]]] = [
    ([1, 5, 6, 3], (1, 2, 2, 1)),
    ([5, 6, 3], (2, 1.5, 1)),
    ([5, 6], (2, 3)),
    ([4, 5, 6], (1, 2, 1)),
    ([1, 3, 5, 6], (1, 1, 2, 2)),
]
MODES = [(d, s, m) for d, s in RESIZED for m in ("nearest", "linear", "cubic") if m != "cubic" or len(d) != 3]


@pytest.mark.parametrize(("dims", "scales", "mode"), MODES, ids=str)
def test_a_resize_is_one_of_a_picture_with_its_channels_first(
    dims: list[int], scales: tuple[float, ...], mode: str
) -> None:
    found = same(shaped(f'y = Resize<mode = "{mode}">(x, , s)', dims, {"s": f32(scales)}), dims)
    (resize,) = (n for n in found.graph if n.op_type == "Resize")
    shape = [int(d) for d in resize.inputs[0].shape.numpy()]  # type: ignore[union-attr]
    out = [int(d) for d in resize.outputs[0].shape.numpy()]  # type: ignore[union-attr]
    assert len(shape) >= 3 and shape[:2] == out[:2]


def test_a_cube_is_two_products() -> None:
    dims = [2, 4]
    found = same(shaped("y = Pow(x, e)", dims, {"e": f32(3)}), dims)
    assert [n.op_type for n in found.graph] == ["Mul", "Mul"]
    found = normalized(shaped("y = Pow(x, e)", dims, {"e": f32(2)}))
    assert [n.op_type for n in found.graph] == ["Pow"]
