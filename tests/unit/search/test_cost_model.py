"""What a node costs: multiply-accumulates and bytes, by the rates that a profile declares."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import ValidationError, convert, structs

from examples import digits
from planner.dtypes import DType, QuantConfig
from planner.model.node import Node, Operand
from planner.model.read import read_model
from planner.operators import Role
from planner.profiles.load import load_profiles
from planner.profiles.schema import Cost, Profile
from planner.resolve.target import Target
from planner.search.candidates import find_candidates
from planner.search.cost import Work, node_cost, share_in_8_bit, work


def node(op_type: str, shapes: list[tuple[int, ...]], output: tuple[int, ...], **attributes: object) -> Node:
    roles = [Role.ACTIVATION, Role.WEIGHT, Role.BIAS]
    return Node(
        op_type,
        op_type,
        "",
        tuple(Operand(f"i{i}", roles[i], "float32", s, i > 0) for i, s in enumerate(shapes)),
        ("y",),
        (output,),
        ("float32",),
        attributes,
        (),
        QuantConfig(DType.FLOAT32, DType.FLOAT32),
    )


@pytest.mark.parametrize(
    ("made", "macs"),
    [
        (node("Conv", [(1, 16, 8, 8), (32, 16, 3, 3), (32,)], (1, 32, 8, 8)), 32 * 64 * 16 * 9),
        (node("Conv", [(1, 16, 8, 8), (16, 1, 3, 3)], (1, 16, 8, 8)), 16 * 64 * 9),
        (node("ConvTranspose", [(1, 16, 8, 8), (16, 4, 2, 2)], (1, 4, 16, 16)), 16 * 64 * 4 * 4),
        (node("MatMul", [(1, 10, 64), (64, 128)], (1, 10, 128)), 10 * 64 * 128),
        (node("Gemm", [(64, 1), (64, 10)], (1, 10), transA=1), 640),
        (node("Relu", [(1, 16, 8, 8)], (1, 16, 8, 8)), 0),
    ],
)
def test_multiply_accumulates_by_operator(made: Node, macs: int) -> None:
    assert work(made).macs == macs


def test_wider_types_cost_more_and_declared_rates_count() -> None:
    done = Work(macs=1000, operations=0, weights=100, activations=50)
    pairs = [
        QuantConfig(DType.INT8, DType.UINT8),
        QuantConfig(DType.INT8, DType.UINT16),
        QuantConfig(DType.INT16, DType.UINT16),
        QuantConfig(DType.FLOAT32, DType.FLOAT32),
    ]
    costs = [node_cost(done, pair, Cost()) for pair in pairs]
    assert costs == sorted(costs) and len(set(costs)) == 4
    assert node_cost(done, pairs[1], Cost(byte=0, multiply={"8x16": 3})) == 3000
    assert node_cost(done, pairs[0], Cost(byte=2)) == 1000 + 2 * 150
    assert node_cost(done, QuantConfig(None, None), Cost()) == 0


def test_the_share_of_macs_in_8_bit_counts_nodes_with_a_weight() -> None:
    done = [Work(300, 0, 1, 1), Work(100, 0, 1, 1), Work(999, 0, 0, 1)]
    pairs = [
        QuantConfig(DType.INT8, DType.UINT16),
        QuantConfig(DType.FLOAT16, DType.FLOAT16),
        QuantConfig(None, DType.UINT8),
    ]
    assert share_in_8_bit(zip(done, pairs, strict=True)) == 0.75
    assert share_in_8_bit([]) is None


def test_a_profile_declares_rates_and_senseless_ones_are_refused() -> None:
    assert convert({"byte": 4, "multiply": {"8x16": 2, "float16": 3}}, Cost).multiply["float16"] == 3
    for wrong in ({"byte": -1}, {"multiply": {"8by8": 1}}, {"multiply": {"8x8": 0}}, {"speed": 1}):
        with pytest.raises(ValidationError):
            convert(wrong, Cost)


def test_every_shipped_profile_declares_what_computing_costs_and_where_that_is_known_from() -> None:
    for profile in load_profiles().by_ep.values():
        for device in profile.devices:
            cost = profile.cost(device)
            assert cost.multiply and cost.source, f"{profile.ep} {device}"


def test_a_type_that_the_device_holds_as_another_costs_what_that_one_costs() -> None:
    done = Work(macs=1000, operations=0, weights=100, activations=50)
    float32, float16 = QuantConfig(DType.FLOAT32, DType.FLOAT32), QuantConfig(DType.FLOAT16, DType.FLOAT16)
    held = Cost(held_as={DType.FLOAT32: DType.FLOAT16})
    assert node_cost(done, float32, held) == node_cost(done, float16, held) < node_cost(done, float32, Cost())


def test_the_shipped_rates_say_what_each_device_is_fast_at() -> None:
    layer = Work(macs=10**8, operations=0, weights=10**5, activations=10**5)
    w8a8, w8a16 = QuantConfig(DType.INT8, DType.UINT8), QuantConfig(DType.INT8, DType.UINT16)
    float16, float32 = QuantConfig(DType.FLOAT16, DType.FLOAT16), QuantConfig(DType.FLOAT32, DType.FLOAT32)

    def costs(ep: str, *pairs: QuantConfig) -> list[float]:
        profile = load_profiles().find(ep)
        return [node_cost(layer, pair, profile.cost(profile.file.default_device)) for pair in pairs]

    npu = costs("qnn", w8a8, w8a16, float16, float32)
    assert npu[0] < npu[1] < npu[2] == npu[3]  # float32 runs as float16
    cpu = costs("cpu", w8a8, float32, w8a16)
    assert cpu[0] < cpu[1] < cpu[2]  # 16-bit activations are computed in float32, between conversions
    float_on_gpu = costs("directml", float16, float32)
    assert float_on_gpu[0] < float_on_gpu[1]


def test_the_search_goes_by_the_rates_of_the_profile() -> None:
    model = read_model(digits.model()[0])
    profile = load_profiles().find("qnn")
    turned = replace(profile, file=structs.replace(profile.file, cost=Cost(byte=0, multiply={"8x8": 9, "8x16": 1})))

    def cheapest(profile: Profile) -> str:
        return find_candidates(Target.on(profile, "snapdragon-x-elite"), model).levels[0].name

    assert cheapest(profile) == "w8a8"
    assert cheapest(turned).startswith("w8a16")


def test_float32_is_no_candidate_where_the_device_computes_it_in_float16() -> None:
    model = read_model(digits.model()[0])
    names = {ep: [level.name for level in find_candidates(Target.open(ep), model).levels] for ep in ("qnn", "cpu")}
    assert "fp16" in names["qnn"] and "fp32" not in names["qnn"]
    assert "fp32" in names["cpu"]
