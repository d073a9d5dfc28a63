"""How much of the output's error each part of a model causes at a precision, measured by group testing. Pure but for `measure`.

A block of consecutive units alone gets the precision, everything else stays as it is in a background; what the output's
error grows by is the block's. Error energies of independent roundings add up, so a block that holds much of the error
is halved, one half measured and the other taken as the rest, until the noisy units stand alone or the evaluations are
spent. A model of 500 nodes takes about twenty evaluations, where testing node by node takes hundreds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Noise where an output is not finite: -200 dB.
NOISE_LIMIT = 1e20
# The part of a block's noise that its quieter half has at least: a difference of two measurements is no zero.
_LEAST_SHARE = 0.02

# Indices of units, ascending.
Members = tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """Units that were measured together.

    Attributes:
        noise: error energy relative to the signal's, of the worst output, that the block alone causes.
    """

    units: Members
    noise: float


@dataclass(frozen=True)
class Sensitivity:
    """What each block causes at a level.

    Attributes:
        on_ep: whether that was measured on the EP, not by emulation.
    """

    level: int
    blocks: tuple[Block, ...]
    on_ep: bool

    @functools.cached_property
    def by_unit(self) -> dict[int, float]:
        """Noise of each unit that was measured: its block's, in equal parts."""
        return {unit: block.noise / len(block.units) for block in self.blocks for unit in block.units}


def measure_blocks(
    units: Sequence[int],
    weight: Callable[[int], float],
    measure: Callable[[Members], float],
    *,
    background: float,
    negligible: float,
    evaluations: int,
    first: int = 8,
) -> tuple[Block, ...]:
    """Split the units into blocks and measure each, in their order.

    Args:
        units: candidates, in the order of the graph.
        weight: what a unit is worth (blocks are cut to equal worth).
        measure: noise of the output with these units changed.
        background: noise with none changed.
        negligible: noise below which a block is not split further.
        evaluations: how many times `measure` may be called.
        first: how many blocks to start with.
    """
    if not units:
        return ()
    spent = 0

    def own(members: Members) -> float:
        nonlocal spent
        spent += 1
        noise = measure(members)
        return NOISE_LIMIT if noise >= NOISE_LIMIT else max(noise - background, 0.0)

    blocks = [Block(part, own(part)) for part in _cut(tuple(units), weight, min(first, evaluations))]
    while spent < evaluations:
        noisy = max((b for b in blocks if len(b.units) > 1), key=lambda b: b.noise, default=None)
        if noisy is None or noisy.noise <= negligible / len(blocks):
            break
        left, right = _cut(noisy.units, weight, 2)
        noise = own(left)
        if noisy.noise < NOISE_LIMIT:
            rest = max(noisy.noise - noise, _LEAST_SHARE * noisy.noise)
        elif spent < evaluations:
            rest = own(right)
        else:
            rest = NOISE_LIMIT
        at = blocks.index(noisy)
        blocks[at : at + 1] = [Block(left, noise), Block(right, rest)]
    return tuple(blocks)


def _cut(units: Members, weight: Callable[[int], float], parts: int) -> list[Members]:
    """Consecutive parts of about equal worth, none empty; fewer where there are fewer units."""
    parts = min(parts, len(units))
    # A unit that saves nothing still takes part in being told apart.
    least = max(sum(weight(u) for u in units) / (10 * len(units)), 1e-12)
    worth = [max(weight(u), least) for u in units]
    cuts: list[Members] = []
    start, reached, total = 0, 0.0, sum(worth)
    for index, value in enumerate(worth):
        reached += value
        left_over = len(units) - index - 1
        missing = parts - len(cuts) - 1
        if missing and (left_over == missing or (reached >= total * (len(cuts) + 1) / parts and left_over >= missing)):
            cuts.append(units[start : index + 1])
            start = index + 1
    cuts.append(units[start:])
    return [c for c in cuts if c]
