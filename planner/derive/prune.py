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
from planner.profiles.schema import Profile, Rule, When

Places = Mapping[str, Collection[str]]  # device -> cases


def superfluous(profile: Profile, derived: Collection[str], evidence: Mapping[str, Evidence]) -> set[str]:
    """Ids of derived rules without which every case is still judged as it is now, found from the most special one on.

    Args:
        derived: ids of the rules that may be left out; only those with a condition are tried.
        evidence: by device; devices of the same traits and outcomes are looked at once.
    """
    found: set[str] = set()
    devices = _distinct(profile, evidence)
    cases: dict[str, list[str]] = {}
    for case in next(iter(evidence.values())).outcomes:
        cases.setdefault(parse_id(case)[0], []).append(case)
    candidates = [r for r in profile.file.rules if r.id in derived and _size(r) > 0]
    for rule in sorted(candidates, key=_size, reverse=True):
        names = [f"{rule.domain}.{op}" if rule.domain else op for op in rule.ops]
        places = {
            device: [case for name in names for case in cases.get(name, ())]
            for device in devices
            if rule in profile.rules_for(rule.ops[0], rule.domain, device)
        }
        without = _without(profile, rule)
        if not any(_spoils(profile, without, evidence[d], d, asked) for d, asked in places.items()):
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


def _size(rule: Rule) -> int:
    """How much a rule asks of a node."""
    stated = [value for name in When.__struct_fields__ if (value := getattr(rule.when, name)) not in (None, {})]
    return sum(len(value) if isinstance(value, dict) else 1 for value in stated)


def _without(profile: Profile, rule: Rule) -> Profile:
    by_operator = dict(profile._by_operator)
    for op in rule.ops:
        key = rule.domain, op
        by_operator[key] = tuple(r for r in by_operator[key] if r is not rule)
    return replace(profile, _by_operator=by_operator)


def _distinct(profile: Profile, evidence: Mapping[str, Evidence]) -> list[str]:
    seen: dict[tuple[object, ...], str] = {}
    for device, found in evidence.items():
        results = hash(tuple((case, outcome.result) for case, outcome in sorted(found.outcomes.items())))
        seen.setdefault((tuple(profile.device(device).traits), results), device)
    return list(seen.values())
