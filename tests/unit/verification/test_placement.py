"""Placement in the user's names, with the EP's own reasons."""

from __future__ import annotations

import pytest

from planner.codec import to_json
from planner.runtime.client import Assigned, Opened
from planner.runtime.refusals import Refusal
from planner.verification.placement import Placement, contradictions, own_name, placement_of, unplaced

NPU, CPU = "SomeExecutionProvider", "CPUExecutionProvider"
CANDIDATE = {"conv": "Conv", "dq": "DequantizeLinear", "m": "MatMul", "add": "Add", "erf": "Erf", "q": "QuantizeLinear"}


def opened(*assigned: tuple[str, str, str], refusals: tuple[Refusal, ...] = (), lone: str | None = None) -> Opened:
    return Opened(
        tuple(Assigned(*entry) for entry in assigned), refusals, lone, 0.1, None, {"onnxruntime-qnn": "2.7.0"}
    )


@pytest.mark.parametrize(
    ("after", "own"),
    [
        ("conv", "conv"),
        ("conv_token_12", "conv"),
        ("dq/duplicated", "dq"),
        ("dq/duplicated_token_3", "dq"),
        ("m/MatMulAddFusion", "m"),
        ("Transpose_token_4", None),
        ("gemm_input_reshape", None),
    ],
)
def test_names_after_optimization_are_traced_to_the_candidates(after: str, own: str | None) -> None:
    assert own_name(after, CANDIDATE) == own


def test_a_users_own_name_that_looks_like_a_suffix_is_kept() -> None:
    assert own_name("conv_token_1", {"conv": "Conv", "conv_token_1": "Conv"}) == "conv_token_1"


def test_all_on_the_target() -> None:
    placement = placement_of(
        opened((NPU, "Conv", "conv_token_1"), (NPU, "Transpose", "Transpose_token_4")), NPU, CANDIDATE
    )
    assert to_json(placement) == {"total": 2, "on_target": 2, "by": "onnxruntime-qnn 2.7.0", "fallback": []}
    assert placement.nodes == {"conv": NPU}


def test_each_fallback_has_the_eps_reason() -> None:
    session = opened(
        (NPU, "Conv", "conv_token_1"),
        (CPU, "Erf", "erf"),
        (CPU, "DequantizeLinear", "dq/duplicated"),
        refusals=(Refusal("Erf", "erf", "not supported"), Refusal("DequantizeLinear", "dq", "goes with Erf")),
    )
    placement = placement_of(session, NPU, CANDIDATE)
    assert (placement.total, placement.on_target) == (3, 1)
    assert [(f.name, f.op_type, f.reason) for f in placement.fallback] == [
        ("erf", "Erf", "not supported"),
        ("dq", "DequantizeLinear", "goes with Erf"),
    ]


def test_a_lone_q_or_dq_has_the_reason_of_its_partition_and_nothing_is_made_up() -> None:
    session = opened((CPU, "QuantizeLinear", "q"), (CPU, "Add", "add"), (CPU, "Cast", "added"), lone="no lone Q")
    reasons = [f.reason for f in placement_of(session, NPU, CANDIDATE).fallback]
    assert reasons[0] == "no lone Q"
    assert "gives no reason" in str(reasons[1])
    assert "onnxruntime added" in str(reasons[2])


def test_a_build_that_cannot_tell_gives_an_unknown_placement() -> None:
    assert placement_of(opened(), NPU, CANDIDATE).on_target is None


def test_without_a_session_nothing_is_on_the_target() -> None:
    placement = unplaced(CANDIDATE, {"conv": "refused"})
    assert (placement.total, placement.on_target) == (6, 0)
    assert [(f.name, f.reason) for f in placement.fallback] == [("conv", "refused")]


def test_a_node_that_the_ep_places_otherwise_than_predicted_contradicts_the_profile() -> None:
    names = {"conv": "Conv", "erf": "Erf", "relu": "Relu", "gone": "Identity"}
    opened = Opened(
        (Assigned("X", "Conv", "conv"), Assigned("X", "Relu", "relu"), Assigned(CPU, "Erf", "erf")),
        (Refusal("Erf", "erf", "no Erf"),),
        None,
        0.1,
        None,
        {},
    )
    placement = placement_of(opened, "X", names)
    found = contradictions({"conv": False, "erf": True, "relu": True, "gone": True}, placement, "X", names)
    assert [(c.name, c.op_type, c.predicted, c.observed, c.reason) for c in found] == [
        ("conv", "Conv", False, True, None),
        ("erf", "Erf", True, False, "no Erf"),
    ]


def test_an_emulation_contradicts_nothing() -> None:
    assert contradictions({"conv": True}, Placement(1, None, ()), "X", {"conv": "Conv"}) == ()
