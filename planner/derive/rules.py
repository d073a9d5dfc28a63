"""Deriving a profile's rules from evidence: `python -m planner.derive.rules PROFILE` rewrites the rules of a profile.

For every operator the base form says which pairs are taken on which devices: operators that agree share a rule. Every
condition whose outcome differs from the base form becomes a refusal (or a further allowance), with the difference
between the two forms as its condition. What no condition can express is left to the list of explained exceptions.
The rules that come out are then checked case by case against the same evidence by a test.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from planner.derive.predict import node_of, predict
from planner.derive.prune import superfluous
from planner.dtypes import DType
from planner.model.node import Node
from planner.probe.cases import INTEGERS, all_cases, data_position
from planner.probe.evidence import Evidence, directory, load, parse_id
from planner.probe.forms import Form, Kind, text
from planner.probe.run import Result
from planner.profiles.load import load_profile
from planner.profiles.schema import Profile

_MARK = (
    "  # Derived from the evidence by `python -m planner.derive.rules`; a test holds these rules to it, case by case.\n"
)
_ORDER = [
    str(d)
    for d in (DType.FLOAT32, DType.FLOAT16, DType.UINT8, DType.INT8, DType.UINT16, DType.INT16, DType.UINT4, DType.INT4)
]
# Attributes that follow from the shapes of a form, not conditions of their own.
_SHAPED = {"kernel_shape", "pads", "strides", "output_shape", "hidden_size", "perm"}
# Conditions whose difference from the base form says too little or too much; {} where none can say it.
_WHEN: dict[tuple[str, str], dict[str, Any]] = {
    ("MaxPool", "dilations=2x2"): {"attributes_not": {"dilations": [[1], [1, 1], [1, 1, 1]]}},
    ("AveragePool", "dilations=2x2"): {"attributes_not": {"dilations": [[1], [1, 1], [1, 1, 1]]}},
    ("LpPool", "dilations=2x2"): {"attributes_not": {"dilations": [[1], [1, 1], [1, 1, 1]]}},
    ("ConvTranspose", "dilations=2x2"): {"attributes_not": {"dilations": [[1], [1, 1], [1, 1, 1]]}},
    ("Gemm", "alpha=0.5"): {"attributes_not": {"alpha": [1.0]}},
    ("Gemm", "beta=0.5"): {"attributes_not": {"beta": [1.0]}, "inputs": {"2": {"present": True}}},
    ("Resize", "rank=5"): {"min_rank": 5, "attributes": {"mode": ["nearest"]}},
    ("Resize", "linear,antialias=1"): {"attributes": {"antialias": [1]}},
    ("GatherND", "batch_dims=1"): {"attributes_not": {"batch_dims": [0]}},
    ("LpNormalization", "p=1"): {"attributes_not": {"p": [2]}},
    ("LpPool", "p=3"): {"attributes_not": {"p": [1, 2]}},
    ("LpPool", "p=4"): {"attributes_not": {"p": [1, 2]}},
    ("LpPool", "ceil_mode=1"): {"attributes": {"ceil_mode": [1]}},
    ("LayerNormalization", "axis=1"): {"inputs": {"1": {"min_rank": 2}}},
    ("LayerNormalization", "rank=4,axis=1"): {"inputs": {"1": {"min_rank": 2}}},
    ("Gemm", "bias=scalar"): {"inputs": {"2": {"present": True, "max_rank": 0}}},
    **{(op, "large"): {"blocked": True} for op in ("Conv", "ConvTranspose", "MatMul", "Gemm")},
    **{("Pow", f"exponent={e},plain"): {} for e in (2.0, 3.0, 0.5, -0.5)},
    ("GroupNormalization", "stated"): {"static_outputs": True, "min_opset": 21},
    ("Identity", "sequence"): {"static_outputs": False},
    ("If", "sequence"): {"static_outputs": False},
    **{("Resize", f"mode=linear,coordinate_transformation_mode={c}"): {"attributes": {"coordinate_transformation_mode": [c]}}
       for c in ("half_pixel_symmetric", "tf_crop_and_resize")},
    ("Mod", "opset=28,fmod=0"): {
        "min_opset": 28, "attributes": {"fmod": [0]}, "inputs": {"0": {"present": True, "dtype": ["float32", "float16"]}}
    },
    ("ReduceLogSum", "opset=28"): {"min_opset": 28, "inputs": {"1": {"constant": True}}},
    ("ReduceLogSumExp", "opset=28"): {"min_opset": 28, "inputs": {"1": {"constant": True}}},
    ("Cast", "activation-to-int32"): {},
    ("Cast", "activation-to-float32"): {},
    ("Cast", "int64-to-int32,opset=11"): {},
    ("Conv", "weight=dynamic,bias"): {"weight": False, "inputs": {"2": {"present": True, "constant": True}}},
    ("Gemm", "weight=dynamic,bias"): {"weight": False, "inputs": {"2": {"present": True, "constant": True}}},
    ("MatMul", "dynamic,rank=5"): {"weight": False, "min_rank": 5},
    ("MatMul", "rank=5"): {"weight": True, "min_rank": 5},
    **{(op, "axes=empty,noop"): {"attributes": {"noop_with_empty_axes": [1]}, "inputs": {"1": {"present": False}}} for op in
       ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")},
}  # fmt: skip

# Conditions that say something of float alone: their quantized cases differ from the base form in another way.
_FLOAT_ONLY = {("Pow", "exponent=float32")}
_NEVER = "the EP has no such operator"
_NOWHERE = "the EP has no such operator on this device"
Key = tuple[str, str]  # pair, granularity
Devices = frozenset[str]


@dataclass
class _Rules:
    """Statements so far: what is said -> the operators and devices it is said of, and a case that shows it."""

    said: dict[str, tuple[dict[str, Any], dict[str, set[str]], list[str]]] = field(default_factory=dict)

    def add(self, body: dict[str, Any], op: str, devices: Iterable[str], case: str) -> None:
        key = repr(sorted(body.items()))
        _, where, cases = self.said.setdefault(key, (body, defaultdict(set), []))
        where[op] |= set(devices)
        if case not in cases:
            cases.append(case)


class Deriver:
    """Turns the evidence on the devices of a profile into rules."""

    def __init__(self, profile: Profile, evidence: Mapping[str, Evidence]) -> None:
        self.profile = profile
        self.devices = tuple(evidence)
        self.taken: dict[str, dict[str, dict[str, dict[Key, bool]]]] = {}
        documented = {r.id for r in profile.file.rules if r.refuse is not None and r.source.observed is None}
        first = next(iter(evidence.values()), None)
        for device, found in evidence.items():
            for case, outcome in found.outcomes.items():
                if outcome.result in (Result.FOLDED, Result.INVALID):
                    continue
                if first is not None and predict(case, profile, device).rule in documented and case in first.outcomes:
                    outcome = first.outcomes[case]  # decided already, whatever was observed: no rule of its own
                op, pair, granularity, condition = parse_id(case)
                pair = _as_read(case, pair)
                here = self.taken.setdefault(op, {}).setdefault(condition, {}).setdefault(device, {})
                here[pair, granularity] = outcome.result is Result.TAKEN
        self.forms: dict[tuple[str, str], Form] = {
            (c.form.name, c.form.condition): c.form for c in all_cases().values()
        }
        self._first = {(c.form.name, c.form.condition): c.id for c in reversed(list(all_cases().values()))}
        self.allowed, self.refused, self.further, self.untyped = _Rules(), _Rules(), _Rules(), _Rules()
        self.unexplained: list[str] = []
        # operator -> device -> the integer types that are refused and those that are taken, against its base form
        self.types: dict[str, dict[str, tuple[set[str], set[str]]]] = {}
        self._ids: dict[str, int] = defaultdict(int)

    def derive(self) -> list[dict[str, Any]]:
        """All rules, in the order in which a profile must have them."""
        for op, conditions in self.taken.items():
            if any(t for devices in conditions.values() for keys in devices.values() for t in keys.values()):
                self._operator(op, conditions)
            else:
                self.refused.add({"refuse": _NEVER}, op, self.devices, f"{op}/*")
        self._types()
        said = (self.untyped, self.further, self.refused, self.allowed)
        return [rule for rules in said for rule in self._written(rules)]

    # -- one operator -----------------------------------------------------------------------------------------------

    def _operator(self, op: str, conditions: Mapping[str, Mapping[str, Mapping[Key, bool]]]) -> None:
        base = conditions.get("", {})
        by_pairs: dict[str, tuple[list[dict[str, Any]], set[str]]] = {}
        for device in self.devices:
            keys = self._base(op, device)
            pairs = _pair_rules(keys)
            if pairs or any(p == "exact" and t for (p, _), t in base.get(device, {}).items()):
                by_pairs.setdefault(repr(pairs), (pairs, set()))[1].add(device)
            gaps = {k for k in keys if not keys[k] and k[1] == "" and keys.get((k[0], "per-channel"))}
            without_bias = conditions.get("no-bias", {}).get(device, {})
            for with_bias in (True, False):
                here = {k for k in gaps if bool(without_bias.get(k)) is with_bias}
                when: dict[str, Any] = {"per_channel": False}
                if with_bias:
                    when["inputs"] = {"2": {"present": True, "constant": True}}
                if here:
                    words = f"a weight quantized per tensor{' and a constant bias' if with_bias else ''}"
                    self._refuse(op, {device: here}, when, "", words)
        somewhere = {d for c in conditions.values() for d, keys in c.items() if any(keys.values())}
        if nowhere := set(self.devices) - somewhere:
            self.refused.add({"refuse": _NOWHERE}, op, nowhere, f"{op}/*")
        for pairs, devices in by_pairs.values():
            self.allowed.add({"pairs": pairs} if pairs else {}, op, devices, f"{op}/*")
        for condition in conditions:
            if condition:
                self._condition(op, condition, conditions[condition], bool(by_pairs))

    def _base(self, op: str, device: str) -> dict[Key, bool]:
        """Outcomes of the base form on a device, the weight's type left out where a dynamic weight was probed."""
        keys = dict(self.taken[op].get("", {}).get(device, {}))
        for condition in ("weight=dynamic", "dynamic", "scale=dynamic", "slope=dynamic"):
            for key, t in self.taken[op].get(condition, {}).get(device, {}).items():
                keys.setdefault(key, t)
        return keys

    def _condition(self, op: str, condition: str, outcomes: Mapping[str, Mapping[Key, bool]], has_base: bool) -> None:
        form = self.forms.get((op, condition))
        if form is None or "dynamic-" in condition or condition in ("symmetric", "free-output-range"):
            return
        if self._rank(form) > 5:
            return  # the limit of the whole profile
        refused: dict[str, set[Key]] = {}
        further: dict[str, set[Key]] = {}
        for device, keys in outcomes.items():
            base = self._base(op, device)
            allows_exact = any(base.values())
            for key, t in keys.items():
                if (op, condition) in _FLOAT_ONLY and "float" not in key[0]:
                    continue
                expected = base.get(key, allows_exact if key[0] == "exact" else False)
                if t and not expected:
                    further.setdefault(device, set()).add(key)
                elif not t and (expected or key[1] == "blocked"):
                    refused.setdefault(device, set()).add(key)
        if not refused and not further:
            return
        when = self._when(op, form)
        if when is None:
            self.unexplained.append(f"{op}/{condition}: refused {_show(refused)} further {_show(further)}")
            return
        if condition in INTEGERS and _same_shapes(form, self.forms.get((op, ""), form)):
            for index, devices in ((0, refused), (1, further)):
                for device in devices:
                    self.types.setdefault(op, {}).setdefault(device, (set(), set()))[index].add(condition)
            return
        if refused:
            self._refuse(op, refused, when, condition, None)
        for device, taken in further.items():
            exact = any(p == "exact" for p, _ in taken)
            # A blocked weight has many scales: to a rule's pairs it is one per channel.
            here = {(p, "per-channel" if g == "blocked" else g) for p, g in taken if p != "exact"}
            pairs = _pair_rules(dict.fromkeys(here, True))
            if exact or pairs:
                self.further.add(
                    {"when": when, **({"pairs": pairs} if pairs else {})}, op, [device], f"{op}/*/{condition}"
                )

    def _refuse(
        self, op: str, refused: Mapping[str, set[Key]], when: dict[str, Any], condition: str, words: str | None
    ) -> None:
        for device, keys in refused.items():
            probed = self.taken[op][condition][device]
            everything = condition != "" and not any(probed.values())
            case = f"{op}/*/{condition}" if condition else f"{op}/*"
            reason = words or _words(condition, when)
            if everything:
                self.refused.add({"when": when, "refuse": f"not taken with {reason}"}, op, [device], case)
                continue
            for granularity in ("", "per-channel", "blocked"):
                here = {k for k in keys if k[1] == granularity}
                if not here:
                    continue
                other = "per-channel" if granularity == "" else ""
                both = {(p, other) for p, _ in here}
                special: dict[str, Any] = {}
                if granularity == "blocked":
                    special = {"blocked": True}
                elif any((p, other) in probed for p, _ in here) and not both & keys:
                    special = {"per_channel": granularity == "per-channel"}
                body = {
                    "when": {**when, **special},
                    "refuse": f"not taken with {reason}",
                    "pairs": _refused_pairs(here),
                }
                self.refused.add(body, op, [device], case)

    def _types(self) -> None:
        """One statement for all the integer types that an operator is refused at, one for those that it alone takes."""
        for op, by_device in self.types.items():
            form = next(f for (name, c), f in self.forms.items() if name == op and c in INTEGERS)
            changed = (
                {k: [v] for k, v in form.attributes.items() if self.forms[op, ""].attributes.get(k) != v}
                if (op, "") in self.forms
                else {}
            )
            extra = {"attributes": changed} if changed else {}
            for device, kinds in by_device.items():
                for types, rules, words in zip(kinds, (self.untyped, self.further), ("refuse", ""), strict=True):
                    if not types:
                        continue
                    listed = [t for t in INTEGERS if t in types]
                    operand = {str(data_position(self.forms.get((op, ""), form))): {"present": True, "dtype": listed}}
                    body: dict[str, Any] = {"when": {**extra, "inputs": operand}}
                    if words:
                        body[words] = "not taken with plain integers of this type"
                    rules.add(body, op, [device], f"{op}/exact/{listed[0]}")

    def _rank(self, form: Form) -> int:
        """The rank of the form's node as rules count it."""
        return self._node(form).rank

    def _node(self, form: Form) -> Node:
        """The form's node, as planner reads it, in the first of its cases."""
        return node_of(self._first[form.name, form.condition])[0]

    def _when(self, op: str, form: Form) -> dict[str, Any] | None:
        """What sets a form apart from its operator's base form, as the conditions of a rule; None if nothing can."""
        own = _WHEN.get((op, form.condition))
        if own is not None:
            return own or None
        base = self.forms.get((op, ""))
        if base is None:
            base = Form(form.op, ())
        when: dict[str, Any] = {}
        if self._node(form).has_empty:
            return {"empty": True}
        if re.fullmatch(r"opset=\d+", form.condition):
            return dict(_opsets(form))
        if op == "Resize" and form.condition.startswith(("mode=", "coordinate")):
            return {
                "attributes": {
                    k: [v]
                    for k, v in form.attributes.items()
                    if k != "nearest_mode" or form.attributes["mode"] == "nearest"
                }
            }
        changed = {
            k: [list(v) if isinstance(v, tuple) else v]
            for k, v in form.attributes.items()
            if base.attributes.get(k) != v and k not in _SHAPED
        }
        if changed:
            when["attributes"] = changed
        rank = self._rank(form)
        if base.slots and rank != self._rank(base):
            when.update({"min_rank": rank} if rank >= 5 else {"min_rank": rank, "max_rank": rank})
        inputs: dict[str, Any] = {}
        for i, (one, two) in enumerate(itertools.zip_longest(form.slots, base.slots)):
            if one is None and two is not None:
                inputs[str(i)] = {"present": False}
            elif one is not None and two is None and base.slots:
                inputs[str(i)] = {"present": True}
            if one is None or (two is not None and one == two):
                continue
            constant = one.kind is not Kind.ACTIVATION and (one.kind is not Kind.EXACT or one.constant)
            if two is None and base.slots:
                inputs[str(i)]["constant"] = constant
            if two is not None:
                was = two.kind is not Kind.ACTIVATION and (two.kind is not Kind.EXACT or two.constant)
                if constant != was:
                    inputs.setdefault(str(i), {}).update(present=True, constant=constant)
            if one.kind is Kind.EXACT and (two is None or two.kind is not Kind.EXACT or two.dtype != one.dtype):
                inputs.setdefault(str(i), {}).update(present=True, dtype=[one.dtype])
        if inputs:
            when["inputs"] = inputs
        if form.opset != base.opset and base.slots:
            when.update(_opsets(form))
        static = self._node(form).static_outputs
        if static is not (not base.slots or self._node(base).static_outputs):
            when["static_outputs"] = static
        if form.outputs > base.outputs and base.slots:
            when["min_outputs"] = form.outputs
        return when or None

    # -- writing ----------------------------------------------------------------------------------------------------

    def _written(self, rules: _Rules) -> list[dict[str, Any]]:
        written = []
        for body, where, cases in _merged(rules):
            by_devices: dict[Devices, list[str]] = defaultdict(list)
            for op, devices in where.items():
                by_devices[frozenset(devices)].append(op)
            for group, ops in by_devices.items():
                for traits in self._traits(group):
                    by_domain: dict[str, list[str]] = defaultdict(list)
                    for op in ops:
                        domain, _, name = op.rpartition(".")
                        by_domain[domain].append(name)
                    for domain, names in by_domain.items():
                        shown = [c for c in cases if c.split("/")[0].rpartition(".")[2] in names]
                        rule = {"ops": names, **({"domain": domain} if domain else {}), **traits, **body}
                        written.append({"id": self._id(rule, _condition_of(shown[0])), **rule, "cases": shown})
        return written

    def _traits(self, devices: Devices) -> list[dict[str, Any]]:
        """Combinations of traits that together pick exactly these devices, one wherever one can."""
        if devices == frozenset(self.devices):
            return [{}]
        every = {d: frozenset(self.profile.device(d).traits) for d in self.devices}
        universe = sorted(frozenset().union(*every.values()))
        choices = [
            (a, b)
            for n in (1, 2, 3)
            for picked in itertools.combinations(universe, n)
            for k in range(n + 1)
            for a, b in [(picked[:k], picked[k:])]
        ]
        choices += [(b, a) for a, b in choices]
        for wanted, unwanted in choices:
            if frozenset(d for d, t in every.items() if t.issuperset(wanted) and t.isdisjoint(unwanted)) == devices:
                return [{k: list(v) for k, v in (("traits", wanted), ("without", unwanted)) if v}]
        # No one combination: a rule for each kind of device.
        kinds = {every[d] for d in devices}
        if len(kinds) == 1:
            raise SystemExit(f"no traits tell {sorted(devices)} from the others")
        return [
            t
            for kind in sorted(kinds, key=sorted)
            for t in self._traits(frozenset(d for d in devices if every[d] == kind))
        ]

    def _id(self, rule: Mapping[str, Any], condition: str) -> str:
        """A name that says what the rule is about: operators, condition, devices, kinds of pairs; numbered where two agree."""
        refuses = "refuse" in rule
        parts = ["no" if refuses else "takes"]
        if rule.get("refuse") in (_NEVER, _NOWHERE):
            parts.append("such-operator")
        elif "domain" in rule:
            parts.append(rule["domain"].rpartition(".")[2])
        if rule.get("refuse") not in (_NEVER, _NOWHERE):
            parts.append(_named(rule["ops"]))
        elif "domain" in rule:
            parts.append(f"in-{rule['domain'].rpartition('.')[2]}")
        parts.append(_type_kinds(rule) if condition in INTEGERS else condition)
        for key in ("per_channel", "blocked"):
            if key in rule.get("when", {}):
                parts.append(key if rule["when"][key] else "per-tensor")
        if refuses:
            parts.append(_pair_kinds(rule.get("pairs", [])))
        parts += rule.get("traits", [])
        parts += [f"not-{trait}" for trait in rule.get("without", [])]
        base = re.sub(r"[^a-z0-9.]+", "-", "-".join(filter(None, parts)).lower())[:76].strip("-")
        self._ids[base] += 1
        return base if self._ids[base] == 1 else f"{base}-{self._ids[base]}"


def _condition_of(case: str) -> str:
    """The condition that a rule's first case shows."""
    return case.split("/", 2)[2] if case.count("/") > 1 else ""


def _named(ops: Sequence[str]) -> str:
    """Operators in a few words: their names, or what their names begin with."""
    if len(ops) > 3:
        prefix = next((p for p in ("Reduce", "Global", "Bitwise", "Arg") if all(op.startswith(p) for op in ops)), None)
        return prefix or f"{ops[0]}-and-{len(ops) - 1}-more"
    return "-".join(ops)


def _pair_kinds(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Which pairs a refusal is about, in one word or a few; empty for all."""
    activations = {a for pair in pairs for a in pair["activation"]}
    if not activations:
        return ""
    if activations <= {"float32", "float16"}:
        return "float" if len(activations) == 2 else next(iter(activations))
    return "quantized" if {"uint8", "uint16"} <= activations else "-".join(_sorted(activations)[:2])


def _type_kinds(rule: Mapping[str, Any]) -> str:
    """Which integer types a rule is about."""
    types = next(iter(rule["when"]["inputs"].values()))["dtype"]
    return "-".join(types) if len(types) < 4 else "plain-integers"


def _merged(rules: _Rules) -> list[tuple[dict[str, Any], dict[str, set[str]], list[str]]]:
    """Statements that differ only in the values of one attribute become one that lists them all."""
    found: dict[str, tuple[dict[str, Any], dict[str, set[str]], list[str]]] = {}
    for body, where, cases in rules.said.values():
        attributes = body.get("when", {}).get("attributes", {})
        key = repr((sorted(body.items()), len(found)))
        if len(attributes) == 1:
            name = next(iter(attributes))
            begins = f"not taken with {name} "
            bare = {**body, "when": {**body["when"], "attributes": name}}
            if str(body.get("refuse")).startswith(begins):
                bare["refuse"] = begins
            key = repr((sorted(bare.items()), sorted((op, sorted(devices)) for op, devices in where.items())))
            if key in found:
                known = found[key]
                known[0]["when"]["attributes"][name].extend(attributes[name])
                known[2].extend(cases)
                if "refuse" in bare and bare["refuse"] == begins:
                    known[0]["refuse"] += " or " + body["refuse"].removeprefix(begins)
                continue
            body = {**body, "when": {**body["when"], "attributes": {name: list(attributes[name])}}}
        found[key] = (body, where, list(cases))
    return list(found.values())


def _as_read(case: str, pair: str) -> str:
    """The pair as planner reads it off the file: a second operand of an Einsum is no weight to it, whatever its type."""
    stored = node_of(case)[0].stored
    if stored.activation is None:
        return pair
    if stored.weight is None or (stored.weight.is_float and stored.weight == stored.activation):
        return str(stored.activation)
    return f"{stored.weight}-{stored.activation}"


def _opsets(form: Form) -> dict[str, int]:
    """The opsets at which the operator is the version that the form uses."""
    versions = sorted(
        {
            s.since_version
            for s in onnx.defs.get_all_schemas_with_history()
            if s.name == form.op and s.domain == form.domain
        }
    )
    own = max(v for v in versions if v <= form.opset)
    later = [v for v in versions if v > own]
    # What is asked at opset 11 stands for everything before it.
    return {**({"min_opset": own} if own > 11 else {}), **({"max_opset": later[0] - 1} if later else {})}


def _split(pair: str) -> tuple[str | None, str]:
    weight, _, activation = pair.rpartition("-")
    return weight or None, activation


def _sorted(names: Iterable[str]) -> list[str]:
    return sorted(names, key=_ORDER.index)


def _pair_rules(keys: Mapping[Key, bool]) -> list[dict[str, Any]]:
    """The taken pairs as the fewest statements: activations that take the same weights stand together."""
    plain = {p for (p, g), t in keys.items() if t and "-" not in p and p != "exact"}
    rules: list[dict[str, Any]] = [{"activation": _sorted(plain)}] if plain else []
    by_activation: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for (pair, granularity), t in keys.items():
        weight, activation = _split(pair) if pair != "exact" else (None, "")
        if t and weight is not None and granularity != "blocked":
            by_activation[activation][granularity == "per-channel"].add(weight)
    together: dict[tuple[frozenset[str], frozenset[str]], list[str]] = defaultdict(list)
    for activation, (tensor, channel) in by_activation.items():
        together[frozenset(tensor | channel), frozenset(channel)].append(activation)
    for (weights, channel_), activations in together.items():
        rule = {"weight": _sorted(weights), "activation": _sorted(activations)}
        if channel_:
            rule["per_channel"] = _sorted(channel_)
        rules.append(rule)
    return rules


_ALIKE = {
    "uint8": ["uint8", "int8"],
    "uint16": ["uint16", "int16"],
    "int4": ["int4", "uint4"],
    "uint4": ["int4", "uint4"],
    "int8": ["uint8", "int8"],
    "int16": ["uint16", "int16"],
}


def _refused_pairs(keys: Iterable[Key]) -> list[dict[str, Any]]:
    by_weight: dict[str | None, set[str]] = defaultdict(set)
    for pair, _ in keys:
        weight, activation = _split(pair)
        by_weight[weight].add(activation)
    together: dict[frozenset[str], list[str | None]] = defaultdict(list)
    for weight, activations in by_weight.items():
        together[frozenset(activations)].append(weight)
    rules: list[dict[str, Any]] = []
    for activations_, weights in together.items():
        if None in weights:
            rules.append({"activation": _sorted(activations_)})
        if named := [w for w in weights if w is not None]:
            rules.append({"weight": _sorted(named), "activation": _sorted(activations_)})
    return rules


def _show(found: Mapping[str, set[Key]]) -> str:
    return "; ".join(f"{d}: {' '.join('/'.join(filter(None, k)) for k in sorted(keys))}" for d, keys in found.items())


def _words(condition: str, when: Mapping[str, Any]) -> str:
    """A condition as reasons put it."""
    if list(when) == ["attributes_not"] and len(when["attributes_not"]) == 1:
        ((name, values),) = when["attributes_not"].items()
        return f"{name} other than {' or '.join(text(v) for v in values)}"
    return condition.replace("=", " ").replace(",", ", ")


def _same_shapes(one: Form, two: Form) -> bool:
    return [s and s.shape for s in one.slots] == [s and s.shape for s in two.slots]


def to_yaml(rules: Sequence[Mapping[str, Any]], source: str) -> str:
    """The rules section of a profile."""
    lines = []
    for rule in rules:
        lines.append(f"  - id: {rule['id']}")
        for key in ("ops", "domain", "traits", "without", "when", "pairs", "refuse", "suggestion", "fixed"):
            if key in rule:
                lines.append(f"    {key}: {_flow(rule[key])}")
        cases = ", ".join(rule["cases"][:3]) + (", ..." if len(rule["cases"]) > 3 else "")
        lines.append(f"    source: {{observed: {_flow(f'{source}: {cases}')}}}")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(k) if str(k).isdigit() else k}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(v) for v in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return (
            value
            if re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", value)
            and value not in ("true", "false", "null", "no", "yes", "on", "off")
            else '"' + value.replace('"', "'") + '"'
        )
    return str(value)


def main(path: Path) -> None:
    """Rewrite the derived rules of a profile, those behind the mark, from the evidence on its devices."""
    head, mark, _ = path.read_text(encoding="utf-8").partition(_MARK)
    if not mark:
        raise SystemExit(f"{path}: no line {_MARK.strip()!r} that the derived rules could follow")
    profile = _loaded(path, head)
    folder = directory(profile.ep)
    evidence = {d: load(folder / f"{d}.json") for d in profile.devices if (folder / f"{d}.json").is_file()}
    deriver = Deriver(profile, evidence)
    rules = deriver.derive()
    packages = ("onnxruntime-qnn", "onnxruntime-openvino")
    versions = {f"{p} {e.runtime[p]}" for e in evidence.values() for p in packages if p in e.runtime}
    source = ", ".join(sorted(versions))
    whole = _loaded(path, head + mark + to_yaml(rules, source))
    left_out = superfluous(whole, {rule["id"] for rule in rules}, evidence)
    rules = [rule for rule in rules if rule["id"] not in left_out]
    path.write_text(head + mark + to_yaml(rules, source), encoding="utf-8")
    for line in deriver.unexplained:
        print(line, file=sys.stderr)
    print(f"{len(rules)} rules from {len(evidence)} devices", file=sys.stderr)


def _loaded(path: Path, content: str) -> Profile:
    """A profile that is about to be written, read back: from a file beside it, since it names others there."""
    draft = path.with_suffix(".draft")
    draft.write_text(content, encoding="utf-8")
    try:
        return load_profile(draft)
    finally:
        draft.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
