"""Gemm: every form computes the same numbers once its bias is one number a column and its factors are folded."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from planner.model.normalize import normalize
from tests.unit.small_models import f32, graph, random_feed, run, sqnr

ROWS, SUMMED, COLUMNS = 6, 5, 4


def normalized(
    bias: tuple[int, ...] | None,
    attributes: str = "",
    *,
    columns: int = COLUMNS,
    constant_weight: bool = True,
    constant_bias: bool = True,
) -> tuple[ir.Model, float]:
    """The normalized Gemm, and how near it stays to the original in dB."""
    rng = np.random.default_rng(3)
    inputs, constants = [f"float[{ROWS},{SUMMED}] x"], {}
    for name, shape, is_constant in (("w", (SUMMED, columns), constant_weight), ("b", bias, constant_bias)):
        if shape is None:
            continue
        if is_constant:
            constants[name] = f32(rng.normal(size=shape))
        else:
            inputs.append(f"float[{','.join(map(str, shape))}] {name}")
    given = "x, w" if bias is None else "x, w, b"
    model = graph(
        f"({', '.join(inputs)}) => (float[{ROWS},{columns}] y)",
        f"[gemm] g = Gemm{attributes}({given})\ny = Sigmoid(g)",
        constants,
    )
    found: ir.Model = ir.from_proto(model)
    normalize(found, {}, 21, frozenset())
    feed = random_feed(model)
    (reference,), (value,) = run(model, feed), run(found, feed)
    assert reference.shape == value.shape
    return found, sqnr(reference, value)


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("shape", [(), (1,), (COLUMNS,), (1, 1), (1, COLUMNS)])
@pytest.mark.parametrize("attributes", ["", "<beta = 0.5>", "<alpha = 2.0>", "<alpha = 0.25, beta = 3.0>"])
def test_a_bias_of_one_number_a_column_or_one_for_all_becomes_a_vector(shape: tuple[int, ...], attributes: str) -> None:
    found, db = normalized(shape, attributes)
    gemm = found.graph[0]
    assert operators(found) == ["Gemm", "Sigmoid"] and gemm.name == "gemm"
    bias = gemm.inputs[2]
    assert bias is not None and bias.shape == ir.Shape([COLUMNS])
    assert not {"alpha", "beta"} & set(gemm.attributes)
    assert db > 100


@pytest.mark.parametrize("shape", [(ROWS, 1), (ROWS, COLUMNS)])
@pytest.mark.parametrize("attributes", ["", "<alpha = 2.0, beta = 0.5>"])
def test_a_bias_that_differs_between_rows_is_added(shape: tuple[int, ...], attributes: str) -> None:
    found, db = normalized(shape, attributes)
    assert operators(found) == ["Gemm", "Add", "Sigmoid"] and len(found.graph[0].inputs) == 2
    assert db > 100


def test_a_square_bias_is_no_vector() -> None:
    found, db = normalized((ROWS, ROWS), columns=ROWS)
    assert operators(found) == ["Gemm", "Add", "Sigmoid"]
    assert db > 100


@pytest.mark.parametrize("bias", [None, (COLUMNS,), (1, COLUMNS)])
def test_alpha_between_two_activations_becomes_a_multiplication(bias: tuple[int, ...] | None) -> None:
    found, db = normalized(bias, "<alpha = 0.5>", constant_weight=False)
    assert operators(found)[:2] == ["Gemm", "Mul"]
    assert db > 100


@pytest.mark.parametrize("shape", [(COLUMNS,), (1, COLUMNS), (ROWS, COLUMNS)])
def test_beta_of_a_bias_that_flows_becomes_a_multiplication(shape: tuple[int, ...]) -> None:
    found, db = normalized(shape, "<beta = 0.5>", constant_bias=False)
    assert operators(found)[:2] == ["Mul", "Gemm"]
    assert db > 100


def test_a_bias_times_zero_is_dropped() -> None:
    found, db = normalized((1, COLUMNS), "<beta = 0.0>")
    bias = found.graph[0].inputs[2]
    assert bias is not None and bias.const_value is not None and not bias.const_value.numpy().any()
    assert db > 100


def test_a_plain_gemm_stays_what_it_is() -> None:
    found, _ = normalized((COLUMNS,))
    bias = found.graph[0].inputs[2]
    assert bias is not None and bias.name == "b"


def test_a_gemm_that_an_activation_reads_gets_a_bias() -> None:
    """DirectML builds no session of one without (DmlFusedGemm)."""
    for attributes in ("", "<alpha = 2.0>"):
        found, db = normalized(None, attributes)
        bias = found.graph[0].inputs[2]
        assert operators(found) == ["Gemm", "Sigmoid"] and bias is not None
        assert bias.const_value is not None and not bias.const_value.numpy().any() and db > 100
    model: ir.Model = ir.from_proto(
        graph(f"(float[{ROWS},{SUMMED}] x) => (float[{ROWS},3] y)", "y = Gemm(x, w)", {"w": f32(np.ones((SUMMED, 3)))})
    )
    normalize(model, {}, 21, frozenset())
    assert len(model.graph[0].inputs) == 2


def written(text: str, body: str, constants: dict[str, np.ndarray], fused: tuple[str, ...] = ("Gemm",)) -> ir.Model:
    """A normalized model, which computes what it did."""
    model = graph(text, body, constants)
    found: ir.Model = ir.from_proto(model)
    normalize(found, {}, 21, frozenset(fused))
    feed = random_feed(model)
    for reference, value in zip(run(model, feed), run(found, feed), strict=True):
        assert reference.shape == value.shape and sqnr(reference, value) > 100
    return found


RNG = np.random.default_rng(5)
LINEAR = {"w": f32(RNG.normal(size=(SUMMED, COLUMNS))), "b": f32(RNG.normal(size=COLUMNS))}


@pytest.mark.parametrize("body", ["m = MatMul(x, w)\ny = Add(m, b)", "m = MatMul(x, w)\ny = Add(b, m)"])
def test_a_product_and_its_bias_become_a_gemm_of_rows(body: str) -> None:
    found = written(f"(float[2,3,{SUMMED}] x) => (float[2,3,{COLUMNS}] y)", body, LINEAR)
    assert operators(found) == ["Reshape", "Gemm", "Reshape"]
    assert found.graph[1].outputs[0].shape == ir.Shape([6, COLUMNS])
    assert found.graph.outputs[0].name == "y"


def test_a_product_of_matrices_needs_no_reshape() -> None:
    found = written(
        f"(float[{ROWS},{SUMMED}] x) => (float[{ROWS},{COLUMNS}] y)", "m = MatMul(x, w)\ny = Add(m, b)", LINEAR
    )
    assert operators(found) == ["Gemm"]


def test_what_several_products_read_is_reshaped_once() -> None:
    text = f"(float[2,3,{SUMMED}] x) => (float[2,3,{COLUMNS}] y, float[2,3,{COLUMNS}] z)"
    # The second product's bias is added first.
    body = "m = MatMul(x, w)\nn = MatMul(x, v)\nz = Add(n, c)\ny = Add(m, b)"
    more = {"v": f32(RNG.normal(size=(SUMMED, COLUMNS))), "c": f32(RNG.normal(size=COLUMNS))}
    found = written(text, body, {**LINEAR, **more})
    assert sorted(operators(found)) == ["Gemm", "Gemm", "Reshape", "Reshape", "Reshape"]


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("m = MatMul(x, w)\ny = Add(m, x)", {"w": f32(RNG.normal(size=(SUMMED, SUMMED)))}),
        ("m = MatMul(x, w)\ny = Add(m, b)", {"w": LINEAR["w"], "b": f32(RNG.normal(size=(3, 1)))}),
        ("m = MatMul(x, w)\ny = Add(m, b)", {"w": f32(RNG.normal(size=(2, SUMMED, COLUMNS))), "b": LINEAR["b"]}),
        ("m = MatMul(x, w)\ns = Add(m, b)\ny = Mul(m, s)", LINEAR),
    ],
    ids=["no constant", "a number a row", "a matrix a batch", "read elsewhere"],
)
def test_other_sums_of_a_product_stay(body: str, constants: dict[str, np.ndarray]) -> None:
    columns = constants["w"].shape[-1]
    found = written(f"(float[2,3,{SUMMED}] x) => (float[2,3,{columns}] y)", body, constants)
    assert "Gemm" not in operators(found)


def test_a_target_that_does_not_ask_for_it_keeps_the_product() -> None:
    body, text = "m = MatMul(x, w)\ny = Add(m, b)", f"(float[2,3,{SUMMED}] x) => (float[2,3,{COLUMNS}] y)"
    assert operators(written(text, body, LINEAR, ())) == ["MatMul", "Add"]
