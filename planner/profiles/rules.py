"""The statements of a profile, as written by operator, turned into the rules that a node is judged by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from msgspec import structs

from planner.profiles.conditions import Key, names_of, split
from planner.profiles.schema import Operator, ProfileFile, Refuses, Rule, RulesFile, Source, Statement, Takes
from planner.profiles.when import When

DERIVED = "derived."  # what the ids of generated rules begin with
Item = TypeVar("Item")


def index(file: ProfileFile, derived: RulesFile | None) -> dict[Key, tuple[Rule, ...]]:
    """Rules by (domain, operator), in the order in which they are asked.

    What is written stands above what is derived; in each, refusals above what is taken, and what is said of an operator
    above what is said of every operator of its domain. A kernel table of every operator comes last.
    """
    parts = [_rules(file.operators, file.source, "")]
    if derived is not None:
        parts.append(_rules(derived.operators, derived.source, DERIVED))
    return _ordered(parts)


def index_rules(said: RulesFile, prefix: str) -> dict[Key, tuple[Rule, ...]]:
    """The same of a file that stands for itself; the rules' ids begin with the prefix."""
    return _ordered([_rules(said.operators, said.source, prefix)])


def _ordered(parts: Sequence[tuple[_ByKey, _ByKey]]) -> dict[Key, tuple[Rule, ...]]:
    keys = dict.fromkeys(key for part in parts for kind in part for key in kind)
    taken = {key for _, takes in parts for key in takes}
    found: dict[Key, tuple[Rule, ...]] = {}
    for domain, op in keys:
        rules = [
            (each, rule)
            for part in parts
            for kind in part
            for each in dict.fromkeys((op, "*"))
            for rule in kind.get((domain, each), ())
            # Every pair of every operator: that speaks of the operators that are not taken elsewhere.
            if not (each == "*" and _refuses_all(rule) and (domain, op) in taken)
        ]
        # A table of all operators is asked last: what was observed corrects it.
        found[domain, op] = tuple(
            rule for _, rule in sorted(rules, key=lambda r: r[0] == "*" and r[1].kernels is not None)
        )
    return found


def _refuses_all(rule: Rule) -> bool:
    return rule.refuse is not None and rule.when == When() and not rule.activation and not rule.weight


_ByKey = Mapping[Key, Sequence[Rule]]


def _rules(operators: Mapping[str, Operator], source: Source | None, prefix: str) -> tuple[_ByKey, _ByKey]:
    """The refusals of a file and what it takes."""
    refused: dict[Key, list[Rule]] = defaultdict(list)
    taken: dict[Key, list[Rule]] = defaultdict(list)
    for key, operator in operators.items():
        for name in names_of(key):
            for i, refusal in enumerate(operator.refuses):
                refused[split(name)].append(_rule(refusal, refusal.id or f"{prefix}{name}.refuses[{i}]", source))
            for i, allowance in enumerate(operator.takes):
                taken[split(name)].append(_rule(allowance, allowance.id or f"{prefix}{name}.takes[{i}]", source))
    return refused, taken


def _rule(statement: Takes | Refuses, name: str, source: Source | None) -> Rule:
    rule = Rule(
        id=name,
        source=_source(statement, source),
        on=tuple(_listed(statement.on)),
        when=_present(statement.when),
        weight=tuple(_listed(statement.weight)),
        activation=tuple(_listed(statement.activation)),
    )
    if isinstance(statement, Refuses):
        return replace(rule, refuse=statement.why, suggestion=statement.do)
    return replace(
        rule,
        blocks=tuple(statement.blocks),
        fixed=statement.fixed,
        kernels=statement.kernels,
        cast_float16=statement.cast_float16,
        suggestion=statement.do,
    )


def _listed(value: Item | list[Item]) -> list[Item]:
    """What may be written as one item or as a list of them."""
    return value if isinstance(value, list) else [value]


def _source(statement: Statement, of_file: Source | None) -> Source:
    """Where a statement comes from, with the cases that show it."""
    source = statement.source or of_file
    assert source is not None  # the loader has seen to it
    if not statement.seen:
        return source
    return structs.replace(source, observed=": ".join(filter(None, (source.observed, ", ".join(statement.seen)))))


def _present(when: When) -> When:
    """What a condition asks of an operand, it asks of one that is given."""
    return structs.replace(
        when,
        inputs={
            position: structs.replace(operand, present=operand.present is not False)
            for position, operand in when.inputs.items()
        },
    )
