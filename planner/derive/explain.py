"""What is known of an operator on a device: rules, kernels, and what the EP answered. What `planner explain` shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from planner import codec
from planner.derive.review import outcome_json
from planner.errors import RequestError
from planner.operators import known_operator
from planner.probe import evidence as files
from planner.probe.evidence import Difference, Evidence
from planner.probe.run import Outcome
from planner.profiles.conditions import split, written
from planner.profiles.kernels import Kernel
from planner.profiles.schema import Rule
from planner.resolve.plan import TargetIdentity
from planner.resolve.target import Target

SCHEMA = "planner/explain/1"


@dataclass(frozen=True)
class Explanation:
    """What is known of one operator.

    Attributes:
        rules: those that speak of it, in the order in which they are asked.
        kernels: its entries in the kernel tables that the rules name.
        evidence: what the EP was asked; None where it was not.
        seen: its answers about the operator, by case id.
        known: whether a rule or the EP speaks of it: not where all that is said is what every operator is refused for.
    """

    op: str
    target: TargetIdentity
    rules: tuple[Rule, ...]
    kernels: tuple[Kernel, ...]
    evidence: Evidence | None = field(repr=False)
    seen: Mapping[str, Outcome]
    known: bool

    def to_json(self) -> dict[str, Any]:
        """The contract's `planner/explain/1`."""
        asked = self.evidence
        return {
            "schema": SCHEMA,
            "op": self.op,
            "target": codec.to_json(self.target),
            "rules": [rule_json(rule) for rule in self.rules],
            "kernels": [
                {"opset": opsets(kernel), "types": {c: sorted(types) for c, types in kernel.types.items()}}
                for kernel in self.kernels
            ],
            "evidence": asked
            and {
                "runtime": dict(asked.runtime),
                "date": asked.date,
                "cases": [outcome_json(case, outcome) for case, outcome in self.seen.items()],
            },
        }


@dataclass(frozen=True)
class DeviceComparison:
    """Cases that two devices answer differently.

    Attributes:
        op: the operator that was asked about; None for all.
        devices: both by name.
    """

    op: str | None
    devices: tuple[str, str]
    differences: tuple[Difference, ...]

    def to_json(self) -> dict[str, Any]:
        """The contract's `planner/explain/1`."""
        one, two = self.devices
        rows = [
            {
                "case": d.case,
                one: d.before and outcome_json(d.case, d.before),
                two: d.after and outcome_json(d.case, d.after),
            }
            for d in self.differences
        ]
        return {"schema": SCHEMA, "op": self.op, "rules": [], "devices": list(self.devices), "differences": rows}


def explain(target: Target, op: str) -> Explanation:
    """What is known of an operator, named as in ONNX, with its domain where that is not ONNX's own."""
    domain, name = split(op)
    own = target.profile.of_device.get(target.device, target.profile.by_operator)
    if (domain, name) not in own:
        name = next((n for d, n in own if d == domain and n.lower() == name.lower()), name)
        op = f"{domain}.{name}" if domain else name
    rules = tuple(target.profile.rules_for(name, domain, target.device))
    kernels = tuple(
        kernel
        for rule in rules
        if rule.kernels is not None
        for kernel in target.profile.tables[rule.kernels].kernels.get((domain, name), ())
    )
    evidence = files.stored(target.ep, target.device, target.options)
    seen = {} if evidence is None else evidence.of_operator(op)
    # A kernel table speaks of all operators that there are.
    taken = any(rule.refuse is None and (rule.kernels is None or known_operator(name, domain)) for rule in rules)
    known = taken or (domain, name) in own or bool(seen)
    return Explanation(op, target.identity, rules, kernels, evidence, seen, known)


def compare(target: Target, one: str, two: str, op: str | None = None) -> DeviceComparison:
    """The cases that two devices of the target's EP answer differently.

    Raises:
        RequestError: the EP has no such device, or there is no evidence on it.
    """
    before, after = (_evidence(target, device) for device in (one, two))
    changed = files.differences(before, after)
    if op is not None:
        changed = [d for d in changed if d.case.partition("/")[0].lower() == op.lower()]
    return DeviceComparison(op, (one, two), tuple(changed))


def _evidence(target: Target, device: str) -> Evidence:
    target.profile.device(device)
    found = files.stored(target.ep, device)
    if found is None:
        raise RequestError(f"there is no evidence on {device}", "see `planner eps`, or probe it: planner probe -o FILE")
    return found


def opsets(kernel: Kernel) -> str:
    """The opsets that a kernel serves, as its table writes them: "13+" or "11-12"."""
    return f"{kernel.first_opset}+" if kernel.last_opset is None else f"{kernel.first_opset}-{kernel.last_opset}"


def rule_json(rule: Rule) -> dict[str, Any]:
    """A rule as plain data: what it states."""
    data: dict[str, Any] = {k: v for k, v in msgspec.to_builtins(rule).items() if v not in (None, [], (), {}, False)}
    data["source"] = {k: v for k, v in data["source"].items() if v is not None}
    if when := written(rule.when):
        data["when"] = when
    else:
        del data["when"]
    return data
