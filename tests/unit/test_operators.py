"""Roles: what each operand of an operator is for."""

from __future__ import annotations

import onnx
import pytest

from planner.operators import OPERATORS, Role, channel_axis, role_of


@pytest.mark.parametrize(
    ("op_type", "roles"),
    [
        ("Conv", "awb"),
        ("ConvTranspose", "awb"),
        ("MatMul", "aw"),
        ("Gemm", "awb"),
        ("LayerNormalization", "awb"),
        ("InstanceNormalization", "awb"),
        ("GroupNormalization", "awa"),
        ("PRelu", "aw"),
        ("LSTM", "awwbe"),
        ("Gather", "ae"),
        ("Resize", "aeee"),
        ("Clip", "aee"),
        ("Where", "eaa"),
        ("Add", "aa"),
        ("Relu", "a"),
        ("ArgMax", "e"),
        ("Cast", "e"),
        ("TopK", "ee"),
        ("QuantizeLinear", "eee"),
    ],
)
def test_the_roles_of_constant_float_operands(op_type: str, roles: str) -> None:
    letters = {Role.ACTIVATION: "a", Role.WEIGHT: "w", Role.BIAS: "b", Role.EXACT: "e"}
    # The first operand flows, the others are constants.
    found = [role_of(op_type, i, is_constant=i > 0, is_float=True) for i in range(len(roles))]
    assert "".join(letters[r] for r in found) == roles


@pytest.mark.parametrize("op_type", ["MatMul", "Conv", "Gemm", "PRelu"])
def test_what_is_not_constant_is_no_weight(op_type: str) -> None:
    assert role_of(op_type, 1, is_constant=False, is_float=True) is Role.ACTIVATION


@pytest.mark.parametrize("op_type", ["Add", "MatMul", "Concat", "Relu"])
def test_integers_and_booleans_keep_their_type(op_type: str) -> None:
    assert role_of(op_type, 0, is_constant=False, is_float=False) is Role.EXACT


@pytest.mark.parametrize(
    ("op_type", "position", "rank", "attributes", "axis"),
    [
        ("Conv", 1, 4, {}, 0),
        ("ConvTranspose", 1, 4, {}, 1),
        ("ConvTranspose", 1, 4, {"group": 2}, None),
        ("MatMul", 1, 2, {}, 1),
        ("MatMul", 1, 3, {}, 2),
        ("MatMul", 1, 1, {}, None),
        ("MatMul", 0, 2, {}, None),
        ("Gemm", 1, 2, {}, 1),
        ("Gemm", 1, 2, {"transB": 1}, 0),
        ("PRelu", 1, 3, {}, None),
        ("Relu", 0, 3, {}, None),
        ("Conv", 1, 0, {}, None),
    ],
)
def test_scales_per_channel_run_along_the_output_channels(
    op_type: str, position: int, rank: int, attributes: dict[str, object], axis: int | None
) -> None:
    assert channel_axis(op_type, position, rank, attributes) == axis


def test_the_table_names_operators_and_operands_that_onnx_has() -> None:
    contrib = {"SimplifiedLayerNormalization"}
    for op_type, row in OPERATORS.items():
        if op_type in contrib:
            continue
        assert onnx.defs.has(op_type), op_type
        schemas = [s for s in onnx.defs.get_all_schemas_with_history() if s.name == op_type and not s.domain]
        most = max(len(s.inputs) for s in schemas)
        assert max(row.roles, default=-1) < most, op_type


def test_the_columns_of_a_row_do_not_contradict_one_another() -> None:
    for op_type, row in OPERATORS.items():
        assert not (row.exact and row.keeps), op_type
        if row.channel_axis is not None:
            assert row.roles[1] is Role.WEIGHT, op_type
