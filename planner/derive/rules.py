"""Deriving a profile's statements from evidence.

For every operator the base form says which pairs are taken on which devices. Every condition whose outcome differs from
the base form becomes a refusal (or a further allowance), with the difference between the two forms as its condition. What
no condition can express is left to the list of explained exceptions. A test holds what comes out to the same evidence, case
by case.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import structs

from planner.derive import words
from planner.derive.answers import Key, Outcomes, answers, of_base_form
from planner.derive.conditions import condition_of, forms, node
from planner.derive.pairs import Pairs, refused_pairs, taken_pairs
from planner.dtypes import DType
from planner.errors import RequestError
from planner.probe.cases import INTEGERS, data_position
from planner.probe.evidence import Evidence
from planner.probe.forms import Form
from planner.profiles.schema import Operator, Profile, Refuses, Takes
from planner.profiles.when import AttributeValue, OperandCondition, When

_NEVER = "the EP has no such operator"
_NOWHERE = "the EP has no such operator on this device"
_LEAVE = "leave it to the CPU EP, or write it with other operators"
_SHOWN = 3  # cases that a statement names
Statement = Takes | Refuses


@dataclass
class _Said:
    """Statements about one operator: each with the devices it holds on and the cases that show it."""

    statements: list[Statement] = field(default_factory=list)
    devices: list[set[str]] = field(default_factory=list)
    cases: list[list[str]] = field(default_factory=list)

    def add(self, statement: Statement, devices: Iterable[str], *cases: str) -> None:
        if statement not in self.statements:
            self.statements.append(statement)
            self.devices.append(set())
            self.cases.append([])
        at = self.statements.index(statement)
        self.devices[at] |= set(devices)
        self.cases[at] += [case for case in cases if case not in self.cases[at]]


@dataclass
class Derived:
    """What came out.

    Attributes:
        operators: by operator. unexplained: conditions that no statement can express.
    """

    operators: dict[str, Operator]
    unexplained: list[str]


def derive(profile: Profile, evidence: Mapping[str, Evidence]) -> Derived:
    """The statements that evidence on the devices of a profile gives.

    Args:
        profile: as it is written, without derived statements.
        evidence: by device.
    """
    derived = Derived({}, [])
    found = answers(profile, evidence)
    devices = _Devices(profile, tuple(evidence))
    for op in found:
        said = _Operator(op, found[op], devices.names, derived.unexplained).said()
        ordered = [
            structs.replace(statement, on=devices.traits(where), seen=cases[:_SHOWN])
            for statement, where, cases in _merged(said, forms().get((op, ""), Form(op, ())))
        ]
        derived.operators[op] = Operator(
            takes=[s for s in ordered if isinstance(s, Takes)], refuses=[s for s in ordered if isinstance(s, Refuses)]
        )
    return derived


class _Operator:
    """The statements about one operator."""

    def __init__(
        self, op: str, conditions: Mapping[str, Outcomes], devices: tuple[str, ...], unexplained: list[str]
    ) -> None:
        self.op, self.conditions, self.devices, self.unexplained = op, conditions, devices, unexplained
        self._said = _Said()
        # device -> the integer types that are refused and those that are taken, against the base form
        self._types: dict[str, tuple[set[str], set[str]]] = {}

    def said(self) -> _Said:
        form = forms().get((self.op, ""))
        do = (form.do if form is not None else "") or _LEAVE
        somewhere = {d for outcomes in self.conditions.values() for d, keys in outcomes.items() if any(keys.values())}
        if not somewhere:
            self._said.add(Refuses(why=_NEVER, do=do), self.devices, f"{self.op}/*")
            return self._said
        if nowhere := set(self.devices) - somewhere:
            self._said.add(Refuses(why=_NOWHERE, do=do), nowhere, f"{self.op}/*")
        self._base_form()
        for condition, outcomes in self.conditions.items():
            if condition:
                self._condition(condition, outcomes)
        self._integers()
        return self._said

    def _base_form(self) -> None:
        taken: dict[Key, set[str]] = defaultdict(set)
        for device in self.devices:
            for key, yes in of_base_form(self.conditions, device).items():
                if yes:
                    taken[key].add(device)
        self._take(When(), taken)

    def _take(self, when: When, taken: Mapping[Key, set[str]], *cases: str) -> None:
        """State pairs that are taken, those of the same devices together."""
        for devices, keys in _by_devices(taken).items():
            exact: list[Pairs] = [{}] if any(pair == "exact" for pair, _ in keys) else []
            for stated in taken_pairs(keys) or exact:
                self._said.add(_takes(when, stated), devices, *cases)

    def _condition(self, condition: str, outcomes: Outcomes) -> None:
        """Set a condition against the base form: what it alone refuses or takes."""
        form = forms().get((self.op, condition))
        if form is None or not form.expressible or form.dynamic or form.symmetric or node(form).rank > 5:
            return  # rank 6 is above the limit of the whole profile
        refused, further = self._differences(form, outcomes)
        if not refused and not further:
            return
        when = condition_of(form)
        if when is None:
            self.unexplained.append(f"{self.op}/{condition}: refused {_show(refused)} further {_show(further)}")
            return
        if condition in INTEGERS and _same_shapes(form, forms().get((self.op, ""), form)):
            for index, devices in ((0, refused), (1, further)):
                for device in devices:
                    self._types.setdefault(device, (set(), set()))[index].add(condition)
            return
        case = f"{self.op}/*/{condition}"
        self._refuse(form, when, refused, outcomes, case)
        taken: dict[Key, set[str]] = defaultdict(set)
        for device, keys in further.items():
            for key in sorted(keys):
                taken[key].add(device)
        self._take(when, taken, case)

    def _differences(self, form: Form, outcomes: Outcomes) -> tuple[dict[str, set[Key]], dict[str, set[Key]]]:
        """By device, the pairs that the form alone refuses, and those that it alone takes."""
        refused: dict[str, set[Key]] = defaultdict(set)
        further: dict[str, set[Key]] = defaultdict(set)
        for device, keys in outcomes.items():
            base = of_base_form(self.conditions, device)
            for key, taken in keys.items():
                if form.float_only and "float" not in key[0]:
                    continue
                expected = base.get(key, any(base.values()) if key[0] == "exact" else False)
                if taken and not expected:
                    further[device].add(key)
                elif not taken and (expected or key[1] == "blocked"):
                    refused[device].add(key)
            refused[device] |= _refused_alike(base, keys, refused[device])
        return {d: keys for d, keys in refused.items() if keys}, further

    def _refuse(self, form: Form, when: When, refused: Mapping[str, set[Key]], outcomes: Outcomes, case: str) -> None:
        """State what is refused: every pair where none was taken, else pairs, those of the same devices together."""
        partly: dict[Key, set[str]] = defaultdict(set)
        for device, keys in refused.items():
            if not any(outcomes[device].values()):
                self._said.add(_refuses(form, when, {}), [device], case)
                continue
            for key in sorted(keys):
                partly[key].add(device)
        for devices, group in _by_devices(partly).items():
            taken = {key for device in devices for key, yes in outcomes[device].items() if yes}
            blocked = {key for key in group if key[1] == "blocked"}
            for stated in refused_pairs(group - blocked, taken):
                self._said.add(_refuses(form, when, stated), devices, case)
            for stated in refused_pairs(blocked, taken):
                self._said.add(_refuses(form, structs.replace(when, blocked=True), stated), devices, case)

    def _integers(self) -> None:
        """One statement for all the integer types that the operator is refused at, one for those that it alone takes."""
        for device, (refused, further) in self._types.items():
            for types in (refused, further):
                if not types:
                    continue
                listed = [t for t in INTEGERS if t in types]
                case = f"{self.op}/exact/{listed[0]}"
                when = self._of_types(listed)
                if types is further:
                    self._said.add(Takes(when=when), [device], case)
                    continue
                why = f"it takes no plain {_listed(listed)}"
                self._said.add(Refuses(when=when, why=why, do=self._cast(device)), [device], case)

    def _of_types(self, types: list[str]) -> When:
        form = next(f for (name, c), f in forms().items() if name == self.op and c in INTEGERS)
        base = forms().get((self.op, ""))
        changed = {} if base is None else {k: [v] for k, v in form.attributes.items() if base.attributes.get(k) != v}
        operand = OperandCondition(present=True, dtype=types)
        return When(attributes=changed, inputs={str(data_position(base or form)): operand})

    def _cast(self, device: str) -> str:
        """Which type to cast to: one that the operator was seen to take."""
        for dtype in ("int32", "int64", "bool"):
            if any(self.conditions.get(dtype, {}).get(device, {}).values()):
                return f"cast to {dtype} before it, and back behind it"
        return "cast to float32 before it, and back behind it"


def _refused_alike(base: Mapping[Key, bool], asked: Mapping[Key, bool], refused: Collection[Key]) -> set[Key]:
    """Pairs that the base form takes and the condition was not asked at, where it takes no pair of integer activations of their
    width, and some pair is refused for it: the base form is asked at more types than each condition.
    """
    closed = {_width(key) for key in refused} - {_width(key) for key, taken in asked.items() if taken} - {None}
    return {key for key, taken in base.items() if taken and key not in asked and _width(key) in closed}


def _width(key: Key) -> int | None:
    """Bits of a pair's integer activation; None for a float one, and for a weight by blocks."""
    pair, grain = key
    activation = pair.rpartition("-")[2]
    is_integer = activation in ("uint8", "int8", "uint16", "int16") and grain != "blocked"
    return DType(activation).bits if is_integer else None


def _by_devices(keys: Mapping[Key, set[str]]) -> dict[frozenset[str], set[Key]]:
    """What holds on the same devices, together."""
    found: dict[frozenset[str], set[Key]] = defaultdict(set)
    for key, devices in keys.items():
        found[frozenset(devices)].add(key)
    return found


def _takes(when: When, pairs: Pairs) -> Takes:
    data: dict[str, Any] = {"when": msgspec.to_builtins(when), **pairs}
    return msgspec.convert(data, Takes)


def _refuses(form: Form, when: When, pairs: Pairs) -> Refuses:
    why, do = form.why or words.why(form, when), form.do or words.do(form, when, only_pairs=bool(pairs))
    data: dict[str, Any] = {"when": msgspec.to_builtins(when), **pairs, "why": why, "do": do}
    return msgspec.convert(data, Refuses)


def _merged(said: _Said, form: Form) -> list[tuple[Statement, set[str], list[str]]]:
    """Statements that differ only in the values of one attribute become one that lists them all."""
    found: dict[object, tuple[Statement, set[str], list[str]]] = {}
    for statement, where, cases in zip(said.statements, said.devices, said.cases, strict=True):
        if len(statement.when.attributes) != 1:
            found[len(found)] = (statement, where, cases)
            continue
        ((name, values),) = statement.when.attributes.items()
        alike = _with_values(statement, [], form)
        key = name, frozenset(where), isinstance(statement, Takes), msgspec.json.encode(alike)
        if key not in found:
            found[key] = (statement, where, list(cases))
            continue
        known, _, before = found[key]
        whole = _with_values(statement, [*known.when.attributes[name], *values], form)
        found[key] = (whole, where, [*before, *cases])
    return list(found.values())


def _with_values(statement: Statement, values: list[AttributeValue], form: Form) -> Statement:
    """The statement about other values of its one attribute; a reason that follows from its condition follows."""
    (name,) = statement.when.attributes
    other = structs.replace(statement, when=structs.replace(statement.when, attributes={name: values}))
    if isinstance(statement, Refuses) and statement.why == words.why(form, statement.when):
        return structs.replace(other, why=words.why(form, other.when))
    return other


@dataclass(frozen=True)
class _Devices:
    profile: Profile
    names: tuple[str, ...]

    def traits(self, devices: Collection[str]) -> list[str]:
        """The fewest traits so that exactly these devices have one of them; none for all devices."""
        if set(devices) == set(self.names):
            return []
        having: dict[str, set[str]] = defaultdict(set)
        for device in self.names:
            for trait in self.profile.device(device).traits:
                having[trait].add(device)
        usable = [trait for trait in sorted(having) if having[trait] <= set(devices)]
        choices = [
            choice
            for count in range(1, len(usable) + 1)
            for choice in itertools.combinations(usable, count)
            if set().union(*(having[trait] for trait in choice)) == set(devices)
        ]

        def cost(choice: tuple[str, ...]) -> tuple[int, int, int]:
            """Few traits that overlap little and are short to read come first."""
            return len(choice), sum(len(having[trait]) for trait in choice), len("".join(choice))

        if choices:
            best = min(choices, key=cost)
            return list(best)
        raise RequestError(
            f"no traits tell {', '.join(sorted(devices))} from the others", "give these devices one in the profile"
        )


def _same_shapes(one: Form, two: Form) -> bool:
    return [s and s.shape for s in one.slots] == [s and s.shape for s in two.slots]


def _listed(types: list[str]) -> str:
    return types[0] if len(types) == 1 else f"{', '.join(types[:-1])} or {types[-1]}"


def _show(found: Mapping[str, set[Key]]) -> str:
    return "; ".join(f"{d}: {' '.join('/'.join(filter(None, k)) for k in sorted(keys))}" for d, keys in found.items())
