"""Pairs of one operator as the fewest statements: which weights, which activations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from planner.derive.answers import Key
from planner.dtypes import DType

_ORDER = [
    str(d)
    for d in (DType.FLOAT32, DType.FLOAT16, DType.UINT8, DType.INT8, DType.UINT16, DType.INT16, DType.UINT4, DType.INT4)
]
Pairs = dict[str, list[str]]  # "weight" and "activation", as a statement says them


def taken_pairs(keys: Collection[Key]) -> list[Pairs]:
    """Pairs that are taken. A weight by blocks has many scales: to a statement it is one per channel."""
    taken = {(pair, "per-channel" if grain == "blocked" else grain) for pair, grain in keys}
    return _statements(_spelled(taken, _both(taken)))


def refused_pairs(refused: Collection[Key], otherwise_taken: Collection[Key]) -> list[Pairs]:
    """Pairs that are refused: however the weight is scaled, unless it was taken scaled otherwise."""
    other = {"": "per-channel", "per-channel": ""}
    narrow = {pair for pair, grain in refused if grain in other and (pair, other[grain]) in otherwise_taken}
    return _statements(_spelled(refused, {pair for pair, _ in refused if pair not in narrow}))


def _both(keys: Collection[Key]) -> set[str]:
    """Pairs that stand for the weight however it is scaled."""
    return {pair for pair, grain in keys if grain == "" and (pair, "per-channel") in keys}


def _spelled(keys: Iterable[Key], whole: Collection[str]) -> set[tuple[str | None, str]]:
    """(weight, activation) as statements spell them."""
    found: set[tuple[str | None, str]] = set()
    for pair, grain in keys:
        weight, _, activation = pair.rpartition("-")
        if pair == "exact":
            continue
        if not weight:
            found.add((None, activation))
        else:
            scaled = "" if pair in whole or weight.startswith("float") else f"-{grain or 'per-tensor'}"
            found.add((f"{weight}{scaled}", activation))
    return found


def _statements(pairs: Collection[tuple[str | None, str]]) -> list[Pairs]:
    plain = [activation for weight, activation in pairs if weight is None]
    found: list[Pairs] = [{"activation": _sorted(plain)}] if plain else []
    weighted = {(weight, activation) for weight, activation in pairs if weight is not None}
    by_activation = _together(weighted)
    by_weight = [(activations, weights) for weights, activations in _together({(a, w) for w, a in weighted})]
    for weights, activations in min((by_activation, [(w, a) for a, w in by_weight]), key=len):
        found.append({"weight": _sorted(weights), "activation": _sorted(activations)})
    return found


def _together(pairs: Collection[tuple[str, str]]) -> list[tuple[list[str], list[str]]]:
    """Second members that go with the same first ones, together."""
    firsts: dict[str, set[str]] = defaultdict(set)
    for first, second in sorted(pairs):
        firsts[second].add(first)
    together: dict[frozenset[str], list[str]] = defaultdict(list)
    for second, group in firsts.items():
        together[frozenset(group)].append(second)
    return [(list(group), seconds) for group, seconds in together.items()]


def _sorted(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (_ORDER.index(name.partition("-")[0]), name))
