"""What an EP answered, ordered for deriving: operator, condition, device, pair."""

from __future__ import annotations

from collections.abc import Mapping

from planner.derive.predict import node_of, predict
from planner.probe.evidence import Evidence, parse_id
from planner.probe.run import Result
from planner.profiles.schema import Profile

Key = tuple[str, str]  # pair, granularity
Outcomes = Mapping[str, Mapping[Key, bool]]  # device -> pair -> whether it was taken
Answers = dict[str, dict[str, dict[str, dict[Key, bool]]]]  # operator -> condition -> outcomes


def answers(profile: Profile, evidence: Mapping[str, Evidence]) -> Answers:
    """The answers that rules are derived from.

    Args:
        profile: as it is written, without derived rules.
        evidence: by device.
    """
    found: Answers = {}
    # What a document refuses, and what a person wrote of some devices alone.
    decided = {r.id for r in profile.rules if r.refuse is not None and (r.source.observed is None or r.on)}
    first = next(iter(evidence.values()), None)
    for device, said in evidence.items():
        for case, outcome in said.outcomes.items():
            if outcome.result in (Result.FOLDED, Result.INVALID):
                continue
            if first is not None and case in first.outcomes and predict(case, profile, device).rule in decided:
                outcome = first.outcomes[case]  # decided already, whatever was observed: no rule of its own
            op, pair, granularity, condition = parse_id(case)
            here = found.setdefault(op, {}).setdefault(condition, {}).setdefault(device, {})
            here[_as_read(case, pair), granularity] = outcome.result is Result.TAKEN
    return found


def _as_read(case: str, pair: str) -> str:
    """The pair as planner reads it off the file: a second operand of an Einsum is no weight to it, whatever its type."""
    stored = node_of(case)[0].stored
    if stored.activation is None:
        return pair
    if stored.weight is None or (stored.weight.is_float and stored.weight == stored.activation):
        return str(stored.activation)
    return f"{stored.weight}-{stored.activation}"


def of_base_form(conditions: Mapping[str, Outcomes], device: str) -> dict[Key, bool]:
    """Outcomes of the base form on a device, the weight's type left out where a dynamic weight was probed."""
    keys = dict(conditions.get("", {}).get(device, {}))
    for condition in ("weight=dynamic", "dynamic", "scale=dynamic", "slope=dynamic"):
        for key, taken in conditions.get(condition, {}).get(device, {}).items():
            keys.setdefault(key, taken)
    return keys
