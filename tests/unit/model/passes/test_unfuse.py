"""Operators of onnxruntime's optimizer, written with ONNX's again, give what they gave."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from planner.model.normalize import normalize
from tests.unit.small_models import Array, f32, graph, run

RNG = np.random.default_rng(5)
ROWS = f32(RNG.normal(size=(8, 8)))
TABLE = {name: f32(RNG.normal(size=(20, 8))) for name in ("words", "places", "kinds")}
VECTORS = {name: f32(RNG.normal(size=8)) for name in ("g", "b", "c")}
PICTURES = {"w": f32(RNG.normal(size=(4, 3, 3, 3))), "v": f32(RNG.normal(size=4))}
IDS = {"i": RNG.integers(0, 20, (2, 6)).astype(np.int32), "m": (np.arange(6) < [[4], [6]]).astype(np.int32)}
WIDE = {"q": f32(RNG.normal(size=(8, 24)) * 0.3), "p": f32(RNG.normal(size=24))}

CASES: dict[str, tuple[str, str, dict[str, Array], dict[str, Array]]] = {
    "skip": (
        "(float[2,6,8] x, float[2,6,8] s) => (float[2,6,8] y)",
        "y = com.microsoft.SkipLayerNormalization<epsilon = 0.001>(x, s, g, b, c)", VECTORS, {},
    ),
    "skip with its sum": (
        "(float[2,6,8] x, float[2,6,8] s) => (float[2,6,8] y, float[2,6,8] t)",
        "y, , , t = com.microsoft.SkipLayerNormalization(x, s, g, b)", VECTORS, {},
    ),
    "skip, simplified": (
        "(float[2,6,8] x, float[2,6,8] s) => (float[2,6,8] y)",
        "u, , , t = com.microsoft.SkipSimplifiedLayerNormalization(x, s, g)  y = Add(u, t)", VECTORS, {},
    ),
    "bias and gelu": ("(float[2,8] x) => (float[2,8] y)", "y = com.microsoft.BiasGelu(x, b)", VECTORS, {}),
    "fast gelu": ("(float[2,8] x) => (float[2,8] y)", "y = com.microsoft.FastGelu(x, b)", VECTORS, {}),
    "conv and relu": (
        "(float[1,3,6,6] x) => (float[1,4,4,4] y)", 'y = com.microsoft.FusedConv<activation = "Relu">(x, w, v)', PICTURES, {},
    ),
    "conv and clip": (
        "(float[1,3,6,6] x) => (float[1,4,6,6] y)",
        'y = com.microsoft.FusedConv<activation = "Clip", activation_params = [0.0, 6.0], pads = [1, 1, 1, 1]>(x, w)', PICTURES, {},
    ),
    "gemm and leaky relu": (
        "(float[2,8] x) => (float[2,8] y)",
        'y = com.microsoft.FusedGemm<activation = "LeakyRelu", activation_alpha = 0.2, transB = 1>(x, r, b)',
        {**VECTORS, "r": ROWS}, {},
    ),
    "embedding": (
        "(int32[2,6] i, int32[2,6] m) => (float[2,6,8] y)",
        "y, n = com.microsoft.EmbedLayerNormalization(i, , words, places, , g, b, m)", {**VECTORS, **TABLE}, IDS,
    ),
    "embedding and attention": (
        "(int32[2,6] i, int32[2,6] m) => (float[2,6,8] y)",
        "e, n = com.microsoft.EmbedLayerNormalization(i, , words, places, , g, b, m)  "
        "y = com.microsoft.Attention<num_heads = 2>(e, q, p, n)", {**VECTORS, **TABLE, **WIDE}, IDS,
    ),
    "attention": (
        "(float[2,6,8] x, int32[2,6] m) => (float[2,6,8] y)",
        "y = com.microsoft.Attention<num_heads = 4>(x, q, p, m)", WIDE, {"m": IDS["m"]},
    ),
    "attention without a mask": (
        "(float[2,6,8] x) => (float[2,6,8] y)", "y = com.microsoft.Attention<num_heads = 1, scale = 0.5>(x, q, p)", WIDE, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_an_optimizer_fused_is_written_with_operators_of_onnx(name: str) -> None:
    signature, body, constants, feed = CASES[name]
    used = {
        k: v for k, v in constants.items() if k in body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    }
    made = graph(signature, body, used, domains=["com.microsoft"], check=False)
    for value in made.graph.input:
        if value.name not in feed:
            dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
            feed = {**feed, value.name: f32(np.random.default_rng(1).normal(size=dims))}
    found: ir.Model = ir.from_proto(made)
    normalize(found, {}, 21, frozenset({"Gelu", "LayerNormalization"}))
    assert not any(node.domain == "com.microsoft" for node in found.graph)
    assert [out.name for out in found.graph.outputs] == [out.name for out in made.graph.output]
    for before, after in zip(run(made, feed), run(found, feed), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4)


def test_what_the_target_takes_stays() -> None:
    signature, body, constants, _ = CASES["skip"]
    found: ir.Model = ir.from_proto(graph(signature, body, constants, domains=["com.microsoft"], check=False))
    normalize(found, {}, 21, frozenset({"LayerNormalization", "com.microsoft.SkipLayerNormalization"}))
    assert [node.op_type for node in found.graph] == ["SkipLayerNormalization"]


@pytest.mark.parametrize(
    ("signature", "body", "stays"),
    [
        ("(int32[2,6] i, int32[2,6] m) => (float[2,6,8] y, int32[2] n)", CASES["embedding"][1], []),
        (
            "(float[2,6,8] x, float[2,6,8] s) => (float[2,6,8] y, float[2,6,1] n)",
            "y, n = com.microsoft.SkipLayerNormalization(x, s, g, b)", ["SkipLayerNormalization"],
        ),
        (
            "(float[2,6,8] x, int32[4] m) => (float[2,6,8] y)",
            "y = com.microsoft.Attention<num_heads = 2>(x, q, p, m)", ["Attention"],
        ),
    ],
    ids=["lengths given out", "means given out", "a mask of ends and starts"],
)  # fmt: skip
def test_no_result_that_is_given_out_is_lost(signature: str, body: str, stays: list[str]) -> None:
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    used = {k: v for k, v in {**VECTORS, **TABLE, **WIDE}.items() if k in words}
    made = graph(signature, body, used, domains=["com.microsoft"], check=False)
    found: ir.Model = ir.from_proto(made)
    normalize(found, {}, 21, frozenset({"LayerNormalization"}))
    names = [value.name for value in made.graph.output]
    assert [value.name for value in found.graph.outputs] == names
    assert set(names) <= {out.name for node in found.graph for out in node.outputs}
    assert [node.op_type for node in found.graph if node.domain == "com.microsoft"] == stays
