"""A product and its bias are one Gemm on an EP that is faster so, but where weights alone are integers, at every place that reads a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from planner import api
from planner.dtypes import as_precision
from planner.estimation.run import questions_of
from planner.reporting.matrix import Subject, make_report
from planner.resolve.target import Target
from tests.unit.small_models import f32, graph, save

RNG = np.random.default_rng(3)
SAMPLE = f32(RNG.normal(size=(1, 4, 64)))
AS_GEMM, AS_PRODUCT = ["Reshape", "Gemm", "Reshape"], ["MatMul", "Add"]
FORMS = [("w8a16", AS_GEMM), ("w8a8", AS_GEMM), ("fp16", AS_GEMM), ("w4", AS_PRODUCT), ("w4-fp16", AS_PRODUCT)]


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    """A product of 64 numbers with a constant matrix, and a bias."""
    constants = {"w": f32(RNG.normal(size=(64, 64))), "b": f32(RNG.normal(size=64))}
    text = "(float[1,4,64] x) => (float[1,4,64] y)"
    return save(graph(text, "m = MatMul(x, w)\ny = Add(m, b)", constants), tmp_path)


@pytest.mark.parametrize(("precision", "form"), FORMS)
def test_the_form_hangs_on_the_precision_and_is_legal(linear: Path, precision: str, form: list[str]) -> None:
    checked = api.check(linear, "qnn", precision=precision)
    assert checked.legal
    assert [verdict.node.op_type for verdict in checked.verdicts] == form


@pytest.mark.parametrize(("precision", "form"), FORMS)
def test_a_plan_is_applied_to_the_form_that_it_was_made_for(
    linear: Path, precision: str, form: list[str], tmp_path: Path
) -> None:
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=SAMPLE)
    planned = api.plan(linear, "qnn", precision=precision, inputs=str(samples))
    assert [node.op_type for node in planned.nodes] == form
    written = tmp_path / "out.onnx"
    api.quantize(linear, planned, written)
    found = {node.op_type for node in onnx.load(written).graph.node}
    assert ("Gemm" in found) is (form == AS_GEMM)


def test_rows_and_estimates_of_both_forms_stand_side_by_side(linear: Path) -> None:
    target, precisions = Target.open("qnn"), [as_precision(name) for name, _ in FORMS]
    report = make_report([Subject(linear)], [target], precisions, run=False)
    assert [row.legal for row in report.rows] == [True] * len(FORMS)
    questions = questions_of(linear, None, [target], precisions)
    assert [[node.op_type for node in asked.model.nodes] for asked in questions] == [form for _, form in FORMS]


def test_an_ep_that_is_not_faster_so_reads_the_product(linear: Path) -> None:
    target = Target.open("cpu")
    assert target.asked(as_precision("w4")) is target
    assert [node.op_type for node in target.read(linear).nodes] == AS_PRODUCT
