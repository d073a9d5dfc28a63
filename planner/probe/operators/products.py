"""Matrix products, Einsum, attention."""

from __future__ import annotations

from planner.probe.forms import Form, Forms, act, bias, const, weight


def matrix_products() -> Forms:
    """MatMul, Gemm, Einsum and attention."""
    base = Form("MatMul", (act(1, 4, 8), weight(8, 6, axis=1)))
    yield base
    yield base.but("rank=2", act(4, 8), weight(8, 6, axis=1))
    yield base.but("rank=4", act(1, 2, 4, 8), weight(8, 6, axis=1))
    yield base.but("rank=5", act(1, 2, 2, 4, 8), weight(8, 6, axis=1)).as_rule({"weight": True, "min_rank": 5})
    yield base.but("rank=6", act(1, 2, 1, 2, 4, 8), weight(8, 6, axis=1))
    yield base.but("rank=1", act(8), weight(8, 6, axis=1))
    yield base.but("batch=3", act(3, 4, 8), weight(8, 6, axis=1))
    yield base.but("weight-rank=1", act(1, 4, 8), weight(8, axis=None))
    yield base.but("weight-rank=3", act(2, 4, 8), weight(2, 8, 6, axis=2))
    yield base.but("weight-rank=4", act(1, 2, 4, 8), weight(1, 2, 8, 6, axis=3))
    yield base.but("constant-first", weight(4, 8, axis=None), act(1, 8, 6))
    yield base.but("dynamic", act(1, 2, 4, 8), act(1, 2, 8, 6))
    yield base.but("dynamic,rank=2", act(4, 8), act(8, 6))
    yield base.but("dynamic,rank=3", act(2, 4, 8), act(2, 8, 6))
    yield base.but("dynamic,rank=5", act(1, 2, 2, 4, 8), act(1, 2, 2, 8, 6)).as_rule({"weight": False, "min_rank": 5})
    yield base.but("dynamic,rank=6", act(1, 1, 2, 2, 4, 8), act(1, 1, 2, 2, 8, 6))
    yield base.but("dynamic,broadcast", act(2, 2, 4, 8), act(8, 6))
    yield base.but("dynamic,broadcast-batch", act(1, 2, 4, 8), act(3, 1, 8, 6))
    yield base.but("dynamic,vector", act(1, 4, 8), act(8))
    yield base.but("dynamic-batch", dynamic=(0,))
    yield base.but("symmetric", symmetric=True)
    yield base.but("large", act(1, 16, 64), weight(64, 32, axis=1)).as_rule({"blocked": True})
    gemm = Form("Gemm", (act(4, 8), weight(8, 6, axis=1), bias(6)))
    yield gemm
    yield gemm.but("transB=1", act(4, 8), weight(6, 8, axis=0), bias(6), attributes={"transB": 1})
    yield gemm.but("transB=1,batch=1", act(1, 8), weight(6, 8, axis=0), bias(6), attributes={"transB": 1})
    yield gemm.but("transA=1", act(8, 4), weight(8, 6, axis=1), bias(6), attributes={"transA": 1})
    yield gemm.but("large", act(4, 64), weight(64, 32, axis=1), bias(32)).as_rule({"blocked": True})
    yield gemm.but("no-bias", act(4, 8), weight(8, 6, axis=1))
    yield gemm.but("bias=scalar", act(4, 8), weight(8, 6, axis=1), bias()).as_rule(
        {"inputs": {"2": {"present": True, "max_rank": 0}}},
        why="the bias must not be a scalar",
        do="write the bias as one number a column",
    )
    yield gemm.but("bias=one", act(4, 8), weight(8, 6, axis=1), bias(1))
    yield gemm.but("bias=row", act(4, 8), weight(8, 6, axis=1), bias(1, 6))
    yield gemm.but("bias=matrix", act(4, 8), weight(8, 6, axis=None), bias(4, 6))
    yield gemm.but("bias=dynamic", act(4, 8), weight(8, 6, axis=1), act(6)).as_rule(
        why="the bias must be constant", do="add the bias by an Add behind it"
    )
    yield gemm.attrs(alpha=0.5).as_rule({"alpha": {"not": 1.0}}, why="alpha must be 1", do="fold alpha into the weight")
    yield gemm.attrs(beta=0.5).as_rule(
        {"beta": {"not": 1.0}, "inputs": {"2": {"present": True}}}, why="beta must be 1", do="fold beta into the bias"
    )
    yield gemm.but("weight=dynamic", act(4, 8), act(8, 6))
    yield gemm.but("weight=dynamic,bias", act(4, 8), act(8, 6), bias(6)).as_rule(
        {"weight": False, "inputs": {"2": {"present": True, "constant": True}}},
        why="a Gemm of two computed matrices takes no constant bias",
        do="write it as MatMul and Add",
    )
    yield gemm.but("weight=dynamic,transB=1", act(4, 8), act(6, 8), attributes={"transB": 1})
    yield gemm.but("constant-first", weight(4, 8, axis=None), act(8, 6))
    yield gemm.but("symmetric", symmetric=True)
    yield gemm.but("dynamic-batch", dynamic=(0,))
    einsum = Form("Einsum", (act(1, 2, 4, 8), act(1, 2, 8, 6)), {"equation": "bhij,bhjk->bhik"})
    yield einsum
    yield einsum.but("equation=ij,jk->ik", act(4, 8), act(8, 6), attributes={"equation": "ij,jk->ik"})
    yield einsum.but("equation=bij,bjk->bik", act(2, 4, 8), act(2, 8, 6), attributes={"equation": "bij,bjk->bik"})
    yield einsum.but(
        "equation=bij,jk->bik,constant", act(2, 4, 8), weight(8, 6, axis=1), attributes={"equation": "bij,jk->bik"}
    )
    yield einsum.but(
        "equation=bhwc,hkc->bhwk", act(1, 2, 4, 8), act(2, 6, 8), attributes={"equation": "bhwc,hkc->bhwk"}
    )
    yield einsum.but("equation=bid,bjd->bij", act(2, 4, 8), act(2, 6, 8), attributes={"equation": "bid,bjd->bij"})
    yield einsum.but("equation=ij->ji", act(4, 8), attributes={"equation": "ij->ji"}).as_rule(
        {"equation": "ij->ji", "inputs": {"1": {"present": False}}, "min_rank": 2, "max_rank": 2},
        why="it computes products of two operands only",
        do="write it as Transpose",
    )
    attention = Form("Attention", (act(1, 2, 4, 8), act(1, 2, 4, 8), act(1, 2, 4, 8)), opset=23)
    yield attention
    rotary = Form("RotaryEmbedding", (act(1, 2, 4, 8), const(1, 4, 4), const(1, 4, 4)), opset=23)
    yield rotary
