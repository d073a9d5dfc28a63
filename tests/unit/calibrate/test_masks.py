"""Finite masks before a Softmax are told from scores, whatever their magnitude and however they were made."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from planner.calibrate.masks import mask_limits
from planner.calibrate.observe import Run, collect
from planner.calibrate.ranges import Range
from planner.errors import RequestError
from planner.model.normalize import normalize
from tests.unit.small_models import f32, graph

INPUTS = "(float[1,4,4] s, float[1,4] m) => (float[1,4,4] y)"
ADDED = "a = Add(s, tri)  y = Softmax(a)"
CHOSEN = "a = Where(keep, s, c)  y = Softmax(a)"
COMPUTED = "u = Unsqueeze(m, one)  i = Sub(f, u)  k = Mul(i, c)  a = Add(s, k)  y = Softmax(a)"


def model(body: str, mask: float, signature: str = INPUTS) -> ir.Model:
    constants = {
        "tri": f32(np.triu(np.full((1, 4, 4), mask), 1)),
        "keep": np.tril(np.ones((1, 4, 4), bool)),
        "c": f32(mask),
        "one": np.array([1]),
        "f": f32(1),
        "h": f32(4),
    }
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    found: ir.Model = ir.from_proto(graph(signature, body, {k: v for k, v in constants.items() if k in words}))
    normalize(found, {}, 21, frozenset())
    return found


def start(extended: ir.Model) -> Run:
    session = ort.InferenceSession(ir.to_proto(extended).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    given = [i.name for i in session.get_inputs()]
    return lambda sample: dict(zip(names, session.run(None, {k: sample[k] for k in given}), strict=True))


SAMPLE = {"s": f32(np.linspace(-3, 5, 16).reshape(1, 4, 4)), "m": f32([[1, 1, 1, 0]])}


@pytest.mark.parametrize("mask", [-1e4, -1e9, -65504.0])
@pytest.mark.parametrize("body", [ADDED, CHOSEN, COMPUTED])
def test_the_range_of_masked_scores_is_that_of_the_scores(body: str, mask: float) -> None:
    ranges = collect(model(body, mask), start, [SAMPLE]).ranges()
    assert ranges["a"].masked_low and not ranges["a"].masked_high
    assert ranges["a"].low >= -3 and ranges["a"].high <= 5
    assert ranges["s"] == Range(-3, 5)


@pytest.mark.parametrize("mask", [-1e4, -1e9, -65504.0])
def test_a_constant_that_holds_masks_has_them_apart(mask: float) -> None:
    held = collect(model(ADDED, mask), start, [SAMPLE]).ranges()["tri"]
    assert (held.low, held.high, held.masked_low) == (0, 0, True)


@pytest.mark.parametrize(
    ("body", "mask"),
    [
        (ADDED, -100.0),  # of Swin: the scores keep enough codes
        ("a = Add(s, tri)  y = Relu(a)", -1e4),
        ("a = Add(s, tri)  r = Relu(a)  y = Softmax(r)", -1e4),
    ],
)
def test_what_no_softmax_reads_and_small_numbers_are_data(body: str, mask: float) -> None:
    assert mask_limits(model(body, mask)) == {}


def test_large_numbers_elsewhere_are_data() -> None:
    found = collect(model("a = Add(s, tri)  y = Neg(a)", -1e4), start, [SAMPLE]).ranges()
    assert found["a"].low < -9000 and not found["a"].masked_low


@pytest.mark.parametrize(
    "body",
    [
        "a = Where(keep, s, c)  d = Div(a, h)  y = Softmax(d)",
        "a = Where(keep, s, c)  y = Sigmoid(a)",
        "a = Where(keep, s, c)  y = Exp(a)",
        "a = Where(keep, s, c)  y = Max(a, f)",
        "a = Where(keep, s, c)  b = ReduceMax<keepdims = 1>(a, one)  y = Mul(s, b)",
    ],
)
def test_what_a_maximum_or_an_exponential_reads_may_be_masked_too(body: str) -> None:
    limits = mask_limits(model(body, -1e9))
    assert limits["a"] == 5e8 and limits.get("d", 1.25e8) == 1.25e8


def test_nan_that_no_output_shows_is_left_out_of_the_range() -> None:
    scores = np.tril(np.full((1, 4, 4), 2.0)) - np.triu(np.ones((1, 4, 4)), 1)  # Log of -1 above the diagonal
    body = "l = Log(s)  p = Neg(l)  y = Where(keep, p, f)"
    found = collect(model(body, -1.0), start, [{**SAMPLE, "s": f32(scores)}]).ranges()
    assert found["l"].nan and found["p"].nan and not found["y"].nan
    assert found["l"].high == pytest.approx(np.log(2)) and np.isfinite(found["l"].low)


def test_nan_in_an_output_is_an_error_that_names_the_node() -> None:
    with pytest.raises(RequestError, match="computes NaN"):
        collect(model("l = Log(s)  y = Neg(l)", -1.0), start, [SAMPLE]).ranges()
