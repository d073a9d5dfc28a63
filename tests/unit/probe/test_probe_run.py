"""The runner's pure parts: what an opened session says of a case, tidied messages, decibels, resuming."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from planner.probe.build import NODE, build
from planner.probe.cases import all_cases, case_by_id
from planner.probe.run import Outcome, Result, _read_partial, _sqnr_db, in_company, placed, select, tidy
from planner.profiles import kernels
from planner.runtime.client import Assigned, Opened
from planner.runtime.refusals import Refusal

EP = "SomeExecutionProvider"
CONV = case_by_id("Conv/uint8-uint8")


def opened(*assigned: tuple[str, str], refusals: tuple[Refusal, ...] = ()) -> Opened:
    assignment = tuple(Assigned(ep, op, f"{op}_{i}") for i, (ep, op) in enumerate(assigned))
    return Opened(assignment, refusals, None, 0.0, None, {})


def test_an_operator_that_the_ep_runs_is_taken_wherever_its_q_and_dq_run() -> None:
    session = opened(("CPUExecutionProvider", "QuantizeLinear"), (EP, "DequantizeLinear"), (EP, "Conv"))
    assert placed(session, EP, CONV) == Outcome(Result.TAKEN)


def test_an_operator_left_to_the_cpu_carries_the_eps_own_reason() -> None:
    session = opened(("CPUExecutionProvider", "Conv"), refusals=(Refusal("Conv", "target", "no such Conv"),))
    assert placed(session, EP, CONV) == Outcome(Result.CPU, "no such OP")


def test_an_operator_that_nobody_runs_was_folded() -> None:
    assert placed(opened((EP, "QuantizeLinear")), EP, CONV).result is Result.FOLDED


def test_messages_lose_what_is_of_one_case_only() -> None:
    message = "Conv node `target_token_3` with x0_dq at 0x7ffe12 in case.onnx; it last said: 12:00 [V:x]"
    assert tidy(message, CONV) == "OP node `…` with … at … in the model"


@pytest.mark.parametrize(
    ("reference", "output", "decibels"),
    [
        ([1.0, 2.0], [1.0, 2.0], 200.0),
        ([1.0, 0.0], [1.1, 0.0], 20.0),
        ([1.0], [np.nan], -200.0),
        ([0.0], [1.0], -200.0),
        ([np.inf], [np.inf], 200.0),
        ([1.0, 2.0], [1.0], -200.0),
    ],
)
def test_decibels_are_finite(reference: list[float], output: list[float], decibels: float) -> None:
    assert _sqnr_db(np.array(reference), np.array(output)) == pytest.approx(decibels, abs=0.01)


def test_an_interrupted_probe_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path, stamp = tmp_path / "partial", {"ep": EP, "probe": 1}
    lines = [
        json.dumps(stamp),
        json.dumps({"case": CONV.id, "result": "taken", "reason": None, "sqnr_db": 40.0}),
        '{"cas',
    ]
    path.write_text("\n".join(lines))
    assert _read_partial(path, stamp, {CONV.id}) == {CONV.id: Outcome(Result.TAKEN, None, 40.0)}


def test_answers_of_another_run_are_not_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "partial"
    path.write_text(json.dumps({"ep": EP, "probe": 0}) + "\n" + json.dumps({"case": CONV.id, "result": "taken"}))
    assert _read_partial(path, {"ep": EP, "probe": 1}, {CONV.id}) == {}
    assert json.loads(path.read_text()) == {"ep": EP, "probe": 1}


def test_operators_are_selected_by_name_in_any_case() -> None:
    assert {c.form.op for c in select(all_cases().values(), ["conv", "com.microsoft.gelu"])} == {"Conv", "Gelu"}
    assert len(select(all_cases().values(), [])) == len(all_cases())


def test_two_registries_are_compared_kernel_by_kernel() -> None:
    def table(**types: list[str]) -> kernels.Table:
        return {
            "source": "x",
            "kernels": {"ai.onnx": {op: [{"opset": "13+", "types": {"T": t}}] for op, t in types.items()}},
        }

    changed = kernels.differences(table(Abs=["float"], Add=["float"]), table(Abs=["float", "float16"], Div=["float"]))
    assert changed == [
        ("ai.onnx Abs 13+", "T: float", "T: float float16"),
        ("ai.onnx Add 13+", "T: float", None),
        ("ai.onnx Div 13+", None, "T: float"),
    ]


def test_a_registry_file_holds_what_was_written(tmp_path: Path) -> None:
    table = kernels.read(kernels.stored("CPUExecutionProvider"))
    path = tmp_path / "k.json"
    path.write_text(kernels.dump(table))
    assert kernels.read(path) == table


def test_a_case_in_company_is_the_same_case_with_two_nodes_beside_it() -> None:
    case = case_by_id("Cast/exact/int64-to-int32")
    model = in_company(build(case))
    assert [n.op_type for n in model.graph.node][-2:] == ["Relu", "Neg"]
    # Who runs the company says nothing of the case.
    assigned = tuple(Assigned("X", n.op_type, n.name) for n in model.graph.node if n.op_type != "Cast")
    left = Opened((Assigned("CPUExecutionProvider", "Cast", NODE), *assigned), (), None, 0.1, None, {})
    assert placed(left, "X", case).result is Result.CPU
