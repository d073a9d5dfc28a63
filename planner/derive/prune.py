"""Leaving out derived rules that say nothing new.

A condition that was probed together with another (a depthwise convolution in one dimension) gives a rule of its own, though
a simpler rule says as much (a convolution in one dimension). The simpler one is kept: it also speaks rightly of what lies
between the probed values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from planner.derive.predict import agrees, predict
from planner.probe.evidence import Evidence, parse_id
from planner.profiles.conditions import Key, split
from planner.profiles.rules import DERIVED
from planner.profiles.schema import Profile, Rule
from planner.profiles.when import When


def superfluous(profile: Profile, evidence: Mapping[str, Evidence]) -> set[str]:
    """Ids of derived rules without which every case is still judged as it is now, found from the most special one on.

    Args:
        profile: with the rules that may be left out; only those with a condition are tried, and where a kernel table stands
            behind them, all.
        evidence: by device; devices of the same traits and outcomes are looked at once.
    """
    found: set[str] = set()
    devices = _distinct(profile, evidence)
    cases: dict[Key, list[str]] = {}
    for case in next(iter(evidence.values())).outcomes:
        cases.setdefault(split(parse_id(case)[0]), []).append(case)
    candidates = [
        (key, rule)
        for key, rules in profile.by_operator.items()
        for rule in rules
        if rule.id.startswith(DERIVED) and (_size(rule) > 0 or any(other.kernels is not None for other in rules))
    ]
    for key, rule in sorted(candidates, key=lambda candidate: _rank(candidate[1]), reverse=True):
        domain, op = key
        places = [d for d in devices if rule in profile.rules_for(op, domain, d)]
        without = _without(profile, key, rule)
        if not any(_spoils(profile, without, evidence[d], d, cases.get(key, ())) for d in places):
            profile = without
            found.add(rule.id)
    return found


def _spoils(before: Profile, after: Profile, evidence: Evidence, device: str, cases: Collection[str]) -> bool:
    """Whether a case that was judged rightly no longer is."""
    for case in cases:
        outcome = evidence.outcomes.get(case)
        if outcome is None or agrees(predict(case, after, device), outcome) is not False:
            continue
        if agrees(predict(case, before, device), outcome):
            return True
    return False


def _rank(rule: Rule) -> tuple[bool, int]:
    """What is tried first: what a kernel table takes too, since the refusals around it go with it; then what asks most."""
    return rule.refuse is None and _size(rule) == 0, _size(rule)


def _size(rule: Rule) -> int:
    """How much a rule asks of a node."""
    stated = [value for name in When.__struct_fields__ if (value := getattr(rule.when, name)) not in (None, {})]
    return sum(len(value) if isinstance(value, dict) else 1 for value in stated)


def _without(profile: Profile, key: Key, rule: Rule) -> Profile:
    kept = tuple(r for r in profile.by_operator[key] if r is not rule)
    return replace(profile, by_operator={**profile.by_operator, key: kept})


def _distinct(profile: Profile, evidence: Mapping[str, Evidence]) -> list[str]:
    seen: dict[tuple[object, ...], str] = {}
    for device, found in evidence.items():
        results = hash(tuple((case, outcome.result) for case, outcome in sorted(found.outcomes.items())))
        seen.setdefault((tuple(profile.device(device).traits), results), device)
    return list(seen.values())
