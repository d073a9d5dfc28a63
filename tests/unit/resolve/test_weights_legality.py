"""Where weights in blocks and dynamic activations are legal: where the operators that take a node's place are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.dtypes import PER_CHANNEL, DType, Granularity, QuantConfig, parse_precision
from planner.model.node import Node
from planner.model.read import Model, read_model
from planner.profiles.load import load_profiles
from planner.profiles.schema import Profile
from planner.resolve.choose import make_plan, resolve
from planner.resolve.legality import judge
from planner.resolve.plan import read_plan
from planner.resolve.target import Target
from tests.unit import small_profiles
from tests.unit.small_models import f32, graph, save

BLOCKS = QuantConfig(DType.UINT4, DType.FLOAT32, Granularity(block_size=32))
DYNAMIC = QuantConfig(DType.INT8, DType.UINT8, PER_CHANNEL, dynamic=True)


def profile(folder: Path, *statements: dict[str, Any]) -> Profile:
    return small_profiles.profile(folder, *statements, prefer=["fp32"])


def product(folder: Path, numbers: int = 64) -> Model:
    proto = graph(f"(float[2,{numbers}] x) => (float[2,8] y)", "y = MatMul(x, w)", {"w": f32(np.ones((numbers, 8)))})
    return read_model(save(proto, folder))


@pytest.fixture
def matmul(tmp_path: Path) -> Node:
    return product(tmp_path).nodes[0]


FLOATS = {"op": "MatMul, Mul, Add", "activation": ["float32"]}


def test_blocks_are_legal_where_matmulnbits_is_taken(matmul: Node, tmp_path: Path) -> None:
    contrib = {"op": "com.microsoft.MatMulNBits", "activation": ["float32"]}
    ruling = judge(Target.on(profile(tmp_path, FLOATS, contrib), "npu"), matmul, BLOCKS, 21)
    assert ruling.legal and ruling.replacement == "com.microsoft.MatMulNBits" and ruling.rule == "r1"
    ruling = judge(Target.on(profile(tmp_path, FLOATS), "npu"), matmul, BLOCKS, 21)
    assert not ruling.legal and ruling.replacement is None
    only4 = {**contrib, "when": {"bits": 4}}
    found = profile(tmp_path, FLOATS, only4)
    assert judge(Target.on(found, "npu"), matmul, BLOCKS, 21).legal
    assert not judge(Target.on(found, "npu"), matmul, replace(BLOCKS, weight=DType.UINT8), 21).legal


def test_or_where_a_rule_allows_blocks_of_that_size_behind_a_dequantize_linear(matmul: Node, tmp_path: Path) -> None:
    allowed = {"weight": ["uint4"], "activation": ["float32", "uint16"], "blocks": [32]}
    found = profile(tmp_path, allowed)
    for activation in (DType.FLOAT32, DType.UINT16):
        ruling = judge(Target.on(found, "npu"), matmul, replace(BLOCKS, activation=activation), 21)
        assert ruling.legal and ruling.replacement is None
    assert not judge(Target.on(found, "npu"), matmul, replace(BLOCKS, granularity=Granularity(block_size=64)), 21).legal
    assert not judge(Target.on(found, "npu"), matmul, replace(BLOCKS, weight=DType.INT4), 21).legal


def test_a_rule_that_saw_stored_blocks_taken_does_not_let_them_be_planned(matmul: Node, tmp_path: Path) -> None:
    seen = {"weight": "uint4", "activation": "float32"}
    found = profile(tmp_path, {**seen, "when": {"blocked": True}})
    assert not judge(Target.on(found, "npu"), matmul, BLOCKS, 21).legal
    stored = replace(matmul, stored_blocked=True)
    assert judge(Target.on(found, "npu"), stored, QuantConfig(DType.UINT4, DType.FLOAT32, PER_CHANNEL), 21).legal


def test_dynamic_is_legal_where_every_operator_that_it_is_made_of_is(matmul: Node, tmp_path: Path) -> None:
    made = ["DynamicQuantizeLinear", "MatMulInteger", "Cast"]
    found = profile(tmp_path, FLOATS, {"op": ", ".join(made)})
    ruling = judge(Target.on(found, "npu"), matmul, DYNAMIC, 21)
    assert ruling.legal and ruling.replacement == "MatMulInteger"
    for missing in made:
        found = profile(tmp_path, FLOATS, {"op": ", ".join(op for op in made if op != missing)})
        assert not judge(Target.on(found, "npu"), matmul, DYNAMIC, 21).legal


@pytest.mark.usefixtures("exact_sums")
def test_the_cpu_ep_and_directml_are_asked_for_their_kernels(tmp_path: Path) -> None:
    cpu, directml = load_profiles().find("cpu"), load_profiles().find("directml")
    whole, cut = product(tmp_path).nodes[0], product(tmp_path, 100).nodes[0]
    for bits in (DType.UINT4, DType.INT4, DType.UINT8, DType.INT8):
        pair = replace(BLOCKS, weight=bits)
        assert judge(Target.on(cpu, "cpu"), whole, pair, 21).replacement == "com.microsoft.MatMulNBits"
        assert judge(Target.on(cpu, "cpu"), cut, pair, 21).legal
        assert judge(Target.on(directml, "gpu"), whole, pair, 21).replacement == "com.microsoft.MatMulNBits"
        ruling = judge(Target.on(directml, "gpu"), cut, pair, 21)
        assert ruling.legal is False and "whole blocks" in (ruling.reason or "")
    assert judge(Target.on(cpu, "cpu"), whole, DYNAMIC, 21).replacement == "MatMulInteger"


@pytest.mark.usefixtures("exact_sums")
def test_sixteen_bit_activations_over_blocks_read_a_dequantize_linear(matmul: Node) -> None:
    ruling = judge(Target.open("cpu"), matmul, replace(BLOCKS, activation=DType.UINT16), 21)
    assert ruling.legal and ruling.replacement is None


def test_the_npu_plans_no_blocks_on_evidence_of_stored_ones(tmp_path: Path) -> None:
    qnn = Target.open("qnn", "snapdragon-x-elite")
    model = product(tmp_path)
    plan = resolve(qnn, model, parse_precision("w4a16"))
    assert {v.config.block_size for v in plan.verdicts} == {None}


@pytest.mark.usefixtures("exact_sums")
@pytest.mark.parametrize("precision", ["w4", "w8", "w8a8-dynamic", "w4a16"])
def test_a_plan_with_blocks_or_dynamic_nodes_survives_its_file(precision: str, tmp_path: Path) -> None:
    model, cpu = product(tmp_path), Target.open("cpu")
    plan = make_plan(cpu, model, resolve(cpu, model, parse_precision(precision)))
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan.to_json()))
    assert read_plan(path) == plan
    assert plan.is_quantized is (precision == "w4a16")
    assert plan.nodes[0].config.block_size == (None if "dynamic" in precision else 32)
