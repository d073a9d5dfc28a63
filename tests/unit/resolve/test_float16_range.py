"""What float16 cannot hold, told from ranges and constants; and the types that such nodes get instead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from planner.calibrate.ranges import Range
from planner.dtypes import DType, parse_precision
from planner.model.read import Model, read_model
from planner.resolve.choose import make_plan, resolve
from planner.resolve.float16_range import unsafe_in_float16
from planner.resolve.plan import Plan
from planner.resolve.revise import notes_on_revisions, without_unsafe_float16
from planner.resolve.target import Target
from tests.unit.small_models import graph


def read(
    folder: Path, body: str, signature: str = "(float[2,4] x) => (float[2,4] y)", **constants: npt.ArrayLike
) -> Model:
    path = folder / "m.onnx"
    path.write_bytes(
        graph(
            signature, body, {n: np.asarray(a, np.float32) for n, a in constants.items()}, opset=21
        ).SerializeToString()
    )
    return read_model(path)


def unsafe_ops(model: Model, **seen: tuple[float, float]) -> dict[str, str]:
    problems = unsafe_in_float16(model, {n: Range(*r) for n, r in seen.items()})
    return {n.op_type: problems[n.name] for n in model.nodes if n.name in problems}


CHAIN = "a = Exp (x)\nb = Sqrt (a)\ny = Neg (b)"


def test_what_computes_and_what_reads_a_large_tensor_is_unsafe(tmp_path: Path) -> None:
    found = unsafe_ops(read(tmp_path, CHAIN), x=(0, 12), a=(1, 162754.8), b=(1, 403.4), y=(-403, -1))
    assert set(found) == {"Exp", "Sqrt"}
    assert "1.63e+05" in found["Exp"] and "65504" in found["Exp"]


@pytest.mark.parametrize("most, unsafe", [(50_000, False), (55_000, True), (-55_000, True)])
def test_headroom_for_inputs_that_calibration_did_not_see(tmp_path: Path, most: float, unsafe: bool) -> None:
    found = unsafe_ops(read(tmp_path, CHAIN), a=(min(most, 0), max(most, 0)))
    assert bool(found) == unsafe


def test_masks_are_no_reason(tmp_path: Path) -> None:
    model = read(tmp_path, "a = Add (x, m)\ny = Softmax (a)", m=[0, 0, -3.4e38, -np.inf])
    assert unsafe_in_float16(model, {"a": Range(-3, 3, masked_low=True)}) == {}


def test_small_values_are_unsafe_where_they_are_multiplied_and_safe_where_they_are_added(tmp_path: Path) -> None:
    small = (1e-7, 2e-6)
    assert set(unsafe_ops(read(tmp_path, "a = Exp (x)\ny = Log (a)"), a=small)) == {"Exp", "Log"}
    assert unsafe_ops(read(tmp_path, "a = Exp (x)\ny = Add (a, x)"), a=small) == {}
    assert "Exp" in unsafe_ops(read(tmp_path, "y = Exp (x)"), y=small)


@pytest.mark.parametrize("reader", ["Log (a)", "Reciprocal (a)", "Div (x, a)"])
def test_what_would_become_zero_before_a_division_is_unsafe(tmp_path: Path, reader: str) -> None:
    model = read(tmp_path, f"a = Exp (x)\ny = {reader}")
    found = unsafe_ops(model, a=(1e-10, 100))
    assert set(found) == {"Exp", reader.split()[0]} and "1e-10" in found["Exp"]
    assert unsafe_ops(model, a=(1e-3, 100)) == {}


def test_zeros_are_safe(tmp_path: Path) -> None:
    assert unsafe_ops(read(tmp_path, CHAIN), a=(0, 0)) == {}


def test_constants(tmp_path: Path) -> None:
    assert "1e-12" in unsafe_ops(read(tmp_path, "a = Add (x, e)\ny = Sqrt (a)", e=1e-12))["Add"]
    assert unsafe_ops(read(tmp_path, "a = Add (x, e)\ny = Sqrt (a)", e=1e-5)) == {}
    assert "1e+06" in unsafe_ops(read(tmp_path, "y = Mul (x, e)", e=1e6))["Mul"]
    assert unsafe_ops(read(tmp_path, "y = Clip (x, e)", e=-3e38)) == {}


def planned(ep: str, device: str | None, model: Model, ranges: dict[str, Range]) -> Plan:
    target = Target.open(ep, device)
    plan = make_plan(target, model, resolve(target, model, parse_precision("fp16")))
    return without_unsafe_float16(target, model, plan, ranges)


BIG = {"x": Range(-9, 9), "a": Range(0, 1e5), "b": Range(0, 400), "y": Range(-400, 0)}
TWO = "a = MatMul (x, w)\nb = Sqrt (a)\ny = Neg (b)"


@pytest.mark.parametrize(
    "ep, device, expected", [("directml", None, DType.FLOAT32), ("qnn", "snapdragon-x-elite", DType.UINT16)]
)
def test_unsafe_nodes_get_float32_where_there_is_any_and_16_bit_integers_elsewhere(
    tmp_path: Path, ep: str, device: str | None, expected: DType
) -> None:
    model = read(tmp_path, TWO, w=np.ones((4, 4)))
    plan = planned(ep, device, model, BIG)
    kinds = {n.op_type: n.activation for n in plan.nodes}
    assert kinds["MatMul"] is expected and kinds["Neg"] is DType.FLOAT16
    assert plan.precision == "mixed" and "instead of float16" in plan.nodes[0].reason
    assert "not float16" in notes_on_revisions(plan)[0]


def test_a_safe_plan_stays_what_it_is(tmp_path: Path) -> None:
    model = read(tmp_path, TWO, w=np.ones((4, 4)))
    plan = planned("directml", None, model, {n: Range(0, 1) for n in "xaby"})
    assert plan.precision == "fp16" and notes_on_revisions(plan) == ()
