"""The search on made-up networks whose error is known: additive noise per node, per level, on the emulation and on the EP."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from planner.dtypes import DType, QuantConfig
from planner.model.node import Node, Operand
from planner.operators import Role
from planner.resolve.legality import Ruling
from planner.resolve.verdicts import Verdict
from planner.search.candidates import IDEAL, Assignment, Candidates, Level, units
from planner.search.cost import Work
from planner.search.evaluator import leaving
from planner.search.goal import Goal, Measured
from planner.search.search import Found, search
from planner.search.sensitivity import NOISE_LIMIT, measure_blocks

PAIRS = (
    QuantConfig(DType.INT8, DType.UINT8),
    QuantConfig(DType.INT8, DType.UINT16),
    QuantConfig(DType.FLOAT16, DType.FLOAT16),
)
NAMES = ("w8a8", "w8a16", "fp16")
COSTS = (1.0, 2.0, 4.0)


def node(index: int, op_type: str = "Conv") -> Node:
    return Node(
        name=f"n{index}",
        op_type=op_type,
        domain="",
        inputs=(Operand(f"t{index}", Role.ACTIVATION, "float32", (1,), False),),
        outputs=(f"t{index + 1}",),
        output_shapes=((1,),),
        output_dtypes=("float32",),
        attributes={},
        origins=(),
        stored=QuantConfig(DType.FLOAT32, DType.FLOAT32),
    )


def candidates(count: int) -> Candidates:
    nodes = tuple(node(i) for i in range(count))
    levels = tuple(
        Level(name, tuple(Verdict(n, pair, Ruling(True, "r")) for n in nodes), (cost,) * count)
        for name, pair, cost in zip(NAMES, PAIRS, COSTS, strict=True)
    )
    return Candidates(levels, nodes, (Work(1, 0, 1, 1),) * count, units(nodes))


@dataclass
class Network:
    """Noise of node i at a level is ``noise(level, i)`` on both, plus ``on_ep(level, i)`` on the EP."""

    noise: Callable[[int, int], float]
    goal_db: float
    on_ep: Callable[[int, int], float] = lambda level, i: 0.0
    emulated_runs: set[Assignment] = field(default_factory=set)
    real_runs: set[Assignment] = field(default_factory=set)
    shows_suspects: bool = False
    ms: Callable[[Assignment], float] | None = None

    def _measured(self, noise: float) -> Measured:
        if noise >= NOISE_LIMIT:
            return Measured(-math.inf, NOISE_LIMIT, "not finite")
        return Measured(-10 * math.log10(max(noise, 1e-20)), noise)

    def emulated(self, assignment: Assignment) -> Measured:
        self.emulated_runs.add(assignment)
        return self._measured(sum(self.noise(a, i) for i, a in enumerate(assignment) if a != IDEAL))

    def real(self, assignment: Assignment) -> Measured:
        assert IDEAL not in assignment, "float32 for all is no plan for the EP"
        self.real_runs.add(assignment)
        return self._measured(sum(self.noise(a, i) + self.on_ep(a, i) for i, a in enumerate(assignment)))

    def suspects(self, assignment: Assignment) -> tuple[int, ...]:
        """A node whose own error on the EP is ten times what the emulation has stands out."""
        alone = enumerate(assignment)
        return tuple(i for i, a in alone if self.on_ep(a, i) > 10 * self.noise(a, i)) if self.shows_suspects else ()

    def slower(self, assignment: Assignment, other: Assignment) -> bool:
        return self.ms is not None and self.ms(assignment) > self.ms(other)

    def faster(self, assignment: Assignment, other: Assignment) -> bool:
        return self.ms is None or self.ms(assignment) < 0.97 * self.ms(other)

    def find(self, count: int) -> tuple[Found, Candidates]:
        steps = candidates(count)
        return search(steps, self, Goal(self.goal_db, 3.0, 10 ** (-self.goal_db / 10))), steps


def with_hot(hot: Mapping[int, float], quiet: float = 1e-7) -> Callable[[int, int], float]:
    """Node noise at w8a8; 16-bit activations lose 1e-9 a node, float16 1e-10."""
    return lambda level, i: (hot.get(i, quiet), 1e-9, 1e-10)[level]


def test_where_the_cheapest_level_passes_nothing_else_is_tried() -> None:
    network = Network(with_hot({}), goal_db=30)
    found, steps = network.find(100)
    assert found.passed
    assert found.assignment == steps.uniform(0)
    assert (len(network.emulated_runs), len(network.real_runs)) == (1, 1)


@pytest.mark.parametrize("hot", [{7: 0.1}, {123: 0.5, 124: 0.2, 400: 0.3}, {0: 1.0, 499: 1.0}])
def test_only_the_noisy_nodes_of_five_hundred_are_promoted(hot: dict[int, float]) -> None:
    network = Network(with_hot(hot), goal_db=30)
    found, steps = network.find(500)
    promoted = {i for i, level in enumerate(found.assignment) if level > 0}
    assert found.passed
    assert set(hot) <= promoted
    assert len(promoted) <= 30 * len(hot)
    assert steps.cost(found.assignment) < 1.2 * steps.cost(steps.uniform(0))
    assert len(network.emulated_runs) + len(network.real_runs) < 60


def test_the_result_says_which_nodes_were_promoted_and_what_each_gained() -> None:
    found, _ = Network(with_hot({40: 0.1}), goal_db=30).find(100)
    (first, *_) = found.promoted
    assert 40 in first.nodes
    assert (first.base, first.level) == (0, 1)
    assert first.cost == pytest.approx(len(first.nodes))
    assert first.alone_db == pytest.approx(10, abs=0.5)
    assert first.share is not None and first.share > 0.9


def test_a_loss_that_only_the_ep_has_is_found_on_the_ep() -> None:
    # Emulated, w8a16 is at 60 dB throughout; on the EP node 30 alone takes it to 15 dB.
    network = Network(
        with_hot({}, quiet=1.0), goal_db=40, on_ep=lambda level, i: 0.03 if (level, i) == (1, 30) else 0.0
    )
    found, _ = network.find(64)
    assert found.passed
    assert found.assignment[30] == 2
    assert sum(level == 1 for level in found.assignment) >= 48
    assert len(network.real_runs) < 40
    assert all(p.measured_on == "EP" for p in found.promoted)


def test_a_suspect_of_the_ep_stays_where_it_was_at_the_cost_of_few_runs() -> None:
    network = Network(
        with_hot({}, quiet=1.0),
        goal_db=40,
        on_ep=lambda level, i: 0.03 if (level, i) in ((1, 30), (1, 50)) else 0.0,
        shows_suspects=True,
    )
    found, _ = network.find(64)
    assert found.passed
    assert {i for i, level in enumerate(found.assignment) if level == 2} == {30, 50}
    assert len(network.real_runs) <= 4


def test_a_level_that_can_save_hardly_anything_takes_no_part_in_a_mix() -> None:
    # Every node at w16a16 would save 2 % over float16, and no memory: w8a8 alone is worth asking for.
    network = Network(
        lambda level, i: (1e-3 if i % 8 == 0 else 1e-9, 1.0 if i == 3 else 1e-9, 1e-10)[level], goal_db=50
    )
    steps = candidates(64)
    eight, sixteen, half = (
        replace(level, costs=(cost,) * 64) for level, cost in zip(steps.levels, (1.0, 3.92, 4.0), strict=True)
    )

    def found(weight: DType) -> Found:
        pair = QuantConfig(weight, DType.UINT16)
        level = replace(sixteen, verdicts=tuple(Verdict(v.node, pair, v.ruling) for v in sixteen.verdicts))
        return search(replace(steps, levels=(eight, level, half)), network, Goal(50, 3.0, 1e-5))

    assert found(DType.INT16).passed
    assert set(found(DType.INT16).assignment) == {0, 2}
    assert not any(1 in assignment for assignment in network.emulated_runs if len(set(assignment)) > 1)
    assert 1 in found(DType.INT8).assignment  # half the memory


def test_a_level_that_the_schedule_shows_to_be_slower_takes_no_part_in_a_mix() -> None:
    noise = with_hot({3: 1e-3}, quiet=1e-9)

    def network(eight: float) -> Network:
        return Network(noise, goal_db=40, ms=lambda assignment: sum((eight, 2.0, 3.0)[level] for level in assignment))

    assert set(network(2.0).find(20)[0].assignment) == {0, 1}, "as fast: the profile's cost decides"
    slow = network(3.0)
    found, steps = slow.find(20)
    assert found.assignment == steps.uniform(1)
    assert not any(IDEAL in assignment for assignment in slow.emulated_runs), "its blocks need not be measured"


def test_a_mix_that_is_no_faster_by_the_schedule_must_cost_clearly_less() -> None:
    def network(hot: Sequence[int]) -> Network:
        noise = with_hot(dict.fromkeys(hot, 1e-3), quiet=1e-9)
        return Network(noise, goal_db=40, ms=lambda assignment: 2.0 * len(assignment))

    assert set(network([3]).find(20)[0].assignment) == {0, 1}
    few = network(range(1, 20))  # one node in twenty can go down
    found, steps = few.find(20)
    assert found.assignment == steps.uniform(1)
    assert not any({0, 1} <= set(assignment) for assignment in few.real_runs), "and no run"


def test_where_precisions_that_meet_cost_more_than_they_save_there_is_no_mix() -> None:
    def ms(assignment: Assignment) -> float:
        return sum((1, 2, 3)[level] for level in assignment) + 5 * sum(a != b for a, b in pairwise(assignment))

    network = Network(with_hot(dict.fromkeys(range(0, 20, 4), 0.001), quiet=1e-9), goal_db=40, ms=ms)
    found, steps = network.find(20)
    assert found.passed and found.assignment == steps.uniform(1)
    assert not any({0, 1} <= set(assignment) for assignment in network.real_runs)


def test_a_mix_keeps_the_margin_that_the_goal_asks_for() -> None:
    noise = with_hot({i: 1e-5 * i for i in range(100)})
    network = Network(noise, goal_db=30)
    found = search(candidates(100), network, Goal(30, 3.0, 1e-3, margin=1.0))
    assert found.passed
    assert 31 <= found.measured.score < 32


def test_a_node_that_overflows_at_one_level_gets_another() -> None:
    # No uniform level passes: float16 overflows at node 5, 16-bit activations lose node 20, 8 bits lose everything.
    def noise(level: int, i: int) -> float:
        if level == 2:
            return NOISE_LIMIT if i == 5 else 1e-10
        return (1.0, 0.1 if i == 20 else 1e-9)[level]

    found, _ = Network(noise, goal_db=40).find(32)
    assert found.passed
    assert found.assignment[5] == 1
    assert found.assignment[20] == 2


def test_a_node_that_the_ep_does_not_take_after_all_stays_where_it_is_and_alone() -> None:
    network = Network(
        lambda level, i: (1.0 if i == 3 else 1e-9, 1e-10, 1e-11)[level],
        goal_db=40,
        on_ep=lambda level, i: NOISE_LIMIT if i == 20 and level < 2 else 0.0,
    )
    found, _ = network.find(64)
    assert found.passed
    assert found.assignment[20] == 2
    assert found.assignment[3] == 1
    assert sum(level == 0 for level in found.assignment) >= 50
    assert len(network.real_runs) < 40


def test_where_nothing_reaches_the_floor_the_most_faithful_plan_is_named_and_has_not_passed() -> None:
    found, _ = Network(lambda level, i: (1.0, 0.2, 0.1)[level], goal_db=40).find(8)
    assert not found.passed
    assert set(found.assignment) == {2}


def test_the_result_is_never_worse_than_the_uniform_level_that_passes() -> None:
    for seed in range(20):
        network = Network(lambda level, i, s=seed: ((i * 7919 + s) % 97) ** 4 * 1e-10 / 10**level, goal_db=25)  # type: ignore[misc]
        found, steps = network.find(60)
        passing = [u for u in found.uniform if u.real is not None and u.real.score >= 25]
        assert found.passed and passing
        assert found.measured.score >= 25
        assert steps.cost(found.assignment) <= steps.levels[passing[0].level].cost


def test_only_where_the_ep_leaves_its_emulation_is_a_suspect() -> None:
    emulated = {"t1": 50.0, "t2": 23.0, "t3": 22.0, "t4": 60.0, "t5": 22.0}
    on_ep = {"t1": 49.0, "t2": 8.0, "t3": 9.0, "t4": 45.0, "t5": 21.0}
    # t2 falls; t3 inherits that; t4 falls as far but keeps 45 dB, which harms nothing.
    assert leaving([node(i) for i in range(5)], on_ep, emulated) == (1,)


def test_what_only_moves_values_goes_with_its_producer() -> None:
    chain = (node(0), node(1, "Relu"), node(2, "Reshape"), node(3), node(4, "Transpose"))
    assert units(chain) == ((0, 1, 2), (3, 4))


def test_blocks_keep_to_their_number_of_evaluations_and_cover_every_unit() -> None:
    asked = []

    def measure(members: tuple[int, ...]) -> float:
        asked.append(members)
        return sum(1.0 if m == 37 else 1e-6 for m in members)

    blocks = measure_blocks(
        range(200), lambda u: 1.0, measure, background=0.0, negligible=1e-9, evaluations=16, first=8
    )
    assert len(asked) == 16
    assert [u for b in blocks for u in b.units] == list(range(200))
    noisiest = max(blocks, key=lambda b: b.noise)
    assert 37 in noisiest.units
    assert len(noisiest.units) <= 2


def test_a_level_is_narrower_than_one_that_stores_the_same_in_more_bits() -> None:
    eight, sixteen, half = candidates(3).levels
    assert eight.is_narrower(sixteen)
    assert not sixteen.is_narrower(eight) and not eight.is_narrower(eight)
    assert not eight.is_narrower(half) and not half.is_narrower(eight), "a float type is another thing"
    mixed = replace(sixteen, verdicts=(sixteen.verdicts[0], *half.verdicts[1:]))
    assert not eight.is_narrower(mixed)


def test_what_a_mix_may_add_to_a_plan_is_what_the_floor_leaves_of_it() -> None:
    goal = Goal(30.0, 3.0, 1e-3, 1.0)
    # 34 dB that count as 33: 3.0103 dB further down is as much noise again.
    about, most = goal.spare_noise(33 - 3.0103, Measured(33.0, 10**-3.4))
    assert about == pytest.approx(10**-3.4, rel=1e-4) and most > about
    assert Goal(0.9, 0.05, 0.01).spare_noise(0.9, Measured(1.0, 0.02)) == (0.01, math.inf)


def test_where_the_blocks_tell_that_nothing_fits_hardly_a_mix_is_emulated() -> None:
    # 16-bit activations reach the floor by a hair; every node at 8 bits costs more than is left.
    network = Network(lambda level, i: (1e-5, 3.1e-7, 1e-9)[level], goal_db=50)
    found = search(candidates(32), network, Goal(50, 3.0, 1e-5, 0.01))
    assert found.passed and set(found.assignment) == {1}
    mixes = {a for a in network.emulated_runs if IDEAL not in a and len(set(a)) > 1}
    assert len(mixes) <= 2
