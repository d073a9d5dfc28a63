"""An Einsum becomes a product of matrices, or what else it amounts to, and computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planner.model.read import read_model
from tests.unit.small_models import f32, graph, random_feed, run, save

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(
    ("equation", "left", "right"),
    [
        ("nd,de->ne", (5, 4), (4, 3)),
        ("nd,de", (5, 4), (4, 3)),
        ("nd,kde->ne", (5, 4), (2, 4, 3)),
        ("nkd,de->en", (5, 2, 4), (4, 3)),
        ("bhij,bhjk->bhik", (2, 3, 4, 5), (2, 3, 5, 2)),
        ("bqhd,bkhd->bhqk", (1, 4, 2, 3), (1, 5, 2, 3)),
        ("bhqk,bkhd->bqhd", (1, 2, 4, 5), (1, 5, 2, 3)),
        ("bnhd,hd->bhn", (1, 6, 2, 3), (2, 3)),
        ("bij,jk->bik", (1, 3, 4), (4, 2)),
        ("bij,bij->b", (2, 3, 4), (2, 3, 4)),
        ("bhwc,hkc->bhwk", (1, 3, 4, 5), (3, 4, 5)),
        ("...qk,...kd->...qd", (2, 3, 4, 5), (2, 3, 5, 2)),
        ("...d,de->...e", (2, 3, 4), (4, 5)),
        ("...d,de", (2, 3, 4), (4, 5)),
        ("...d,...d->...", (2, 3, 4), (2, 3, 4)),
    ],
)
def test_a_product_is_computed_alike(
    equation: str, left: tuple[int, ...], right: tuple[int, ...], constant: bool, tmp_path: Path
) -> None:
    a, b = (f32(RNG.normal(size=shape)) for shape in (left, right))
    result = ",".join(map(str, np.einsum(equation, a, b).shape))
    held = {"b": b} if constant else {}
    given = ",".join(map(str, left)), ",".join(map(str, right))
    inputs = f"float[{given[0]}] a" + ("" if constant else f", float[{given[1]}] b")
    proto = graph(f"({inputs}) => (float[{result}] y)", f'y = Einsum<equation = "{equation}">(a, b)', held, opset=17)
    model = read_model(save(proto, tmp_path))
    assert model.ir is not None
    operators = [node.op_type for node in model.nodes]
    assert "MatMul" in operators and "Einsum" not in operators
    second = next(n for n in model.nodes if n.op_type == "MatMul").inputs[1]
    assert second is not None and second.constant is constant
    feed = random_feed(proto)
    np.testing.assert_allclose(run(model.ir, feed)[0], run(proto, feed)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize(
    ("equation", "left", "right"),
    [
        ("i,j->ij", (3,), (4,)),
        ("bij,ij->bij", (2, 3, 4), (3, 4)),
        ("ij,jk->kij", (3, 4), (4, 2)),
        ("bhi,h->ibh", (2, 3, 4), (3,)),
        ("ijk,jl->jil", (2, 3, 4), (3, 5)),  # k is summed in one operand alone
    ],
)
def test_a_product_that_sums_nothing_over_both_is_a_mul(
    equation: str, left: tuple[int, ...], right: tuple[int, ...], constant: bool, tmp_path: Path
) -> None:
    a, b = (f32(RNG.normal(size=shape)) for shape in (left, right))
    result = ",".join(map(str, np.einsum(equation, a, b).shape))
    given = ",".join(map(str, left)), ",".join(map(str, right))
    inputs = f"float[{given[0]}] a" + ("" if constant else f", float[{given[1]}] b")
    body = f'y = Einsum<equation = "{equation}">(a, b)'
    proto = graph(f"({inputs}) => (float[{result}] y)", body, {"b": b} if constant else {}, opset=17)
    model = read_model(save(proto, tmp_path))
    operators = [node.op_type for node in model.nodes]
    assert "Mul" in operators and not {"Einsum", "MatMul"} & set(operators) and model.ir is not None
    feed = random_feed(proto)
    np.testing.assert_allclose(run(model.ir, feed)[0], run(proto, feed)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("equation", "operators"),
    [
        ("ijk->kij", ["Transpose"]),
        ("ijk->ki", ["ReduceSum", "Transpose"]),
        ("kji", ["Transpose"]),
        ("ijk->ijk", ["Identity"]),
    ],
)
def test_one_operand_is_summed_and_transposed(equation: str, operators: list[str], tmp_path: Path) -> None:
    a = f32(RNG.normal(size=(2, 3, 4)))
    result = ",".join(map(str, np.einsum(equation, a).shape))
    proto = graph(f"(float[2,3,4] a) => (float[{result}] y)", f'y = Einsum<equation = "{equation}">(a)', opset=17)
    model = read_model(save(proto, tmp_path))
    assert [node.op_type for node in model.nodes] == operators and model.ir is not None
    feed = random_feed(proto)
    np.testing.assert_allclose(run(model.ir, feed)[0], run(proto, feed)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("equation", "dims"),
    [
        ("bln,bsn,bhls,bshp->blhp", [(1, 4, 3), (1, 5, 3), (1, 2, 4, 5), (1, 5, 2, 6)]),  # Mamba 2, within a chunk
        ("bqhd,hde,e->bqe", [(2, 3, 4, 5), (4, 5, 6), (6,)]),
        ("i,ij,jk->k", [(3,), (3, 4), (4, 2)]),
        ("...i,...ij,...j->...", [(2, 3), (2, 3, 4), (2, 4)]),
    ],
)
def test_several_operands_are_multiplied_one_by_one(equation: str, dims: list[tuple[int, ...]], tmp_path: Path) -> None:
    arrays = [f32(RNG.normal(size=shape)) for shape in dims]
    result = ",".join(map(str, np.einsum(equation, *arrays).shape))
    given = ", ".join(f"float[{','.join(map(str, shape))}] x{i}" for i, shape in enumerate(dims))
    body = f'y = Einsum<equation = "{equation}">({", ".join(f"x{i}" for i in range(len(dims)))})'
    proto = graph(f"({given}) => (float[{result}] y)", body, opset=17)
    model = read_model(save(proto, tmp_path))
    assert "Einsum" not in [node.op_type for node in model.nodes] and model.ir is not None
    feed = {f"x{i}": array for i, array in enumerate(arrays)}
    np.testing.assert_allclose(run(model.ir, feed)[0], np.einsum(equation, *arrays), rtol=1e-4, atol=1e-5)


def test_the_matrix_of_a_layer_is_a_weight(tmp_path: Path) -> None:
    proto = graph(
        "(float[5,4] a) => (float[5,3] y)", 'y = Einsum<equation = "nd,de->ne">(a, b)', {"b": f32(np.ones((4, 3)))}
    )
    (node,) = read_model(save(proto, tmp_path)).nodes
    assert node.op_type == "MatMul" and node.weight is not None and node.weight.shape == (4, 3)


@pytest.mark.parametrize("equation", ["ii,ij->j", "...ii,ij->...j"])
def test_other_forms_stay(equation: str, tmp_path: Path) -> None:
    result = ",".join(map(str, np.einsum(equation, np.ones((4, 4)), np.ones((4, 4))).shape))
    body = f'y = Einsum<equation = "{equation}">(a, b)'
    proto = graph(f"(float[4,4] a, float[4,4] b) => (float[{result}] y)", body)
    assert [node.op_type for node in read_model(save(proto, tmp_path)).nodes] == ["Einsum"]
