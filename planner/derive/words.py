"""Reasons and next steps of derived refusals, for people, where the probe's form has none of its own."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from planner.probe.forms import Form
from planner.profiles.conditions import any_of
from planner.profiles.when import OperandCondition, When


@dataclass(frozen=True)
class _Part:
    """One condition: as what holds of a refused node, as what must hold instead, and what to do about it."""

    holds: str
    must: str
    do: str


def why(form: Form, when: When) -> str:
    """The reason, from what the refused nodes have in common."""
    parts = list(_parts(form, when))
    if len(parts) == 1:
        return parts[0].must
    return f"not taken where {' and '.join(part.holds for part in parts)}"


def do(form: Form, when: When, *, only_pairs: bool) -> str:
    """The next step.

    Args:
        form: that was refused.
        when: what the refused nodes have in common.
        only_pairs: whether other pairs are taken.
    """
    steps = list(dict.fromkeys(part.do for part in _parts(form, when) if part.do))[:2]
    if only_pairs:
        steps.append("choose another precision for it")
    return ", or ".join(steps) if steps else "leave it to the CPU EP"


def _parts(form: Form, when: When) -> Iterator[_Part]:
    for name, values in when.attributes.items():
        value = any_of(name, values)
        yield _Part(f"{name} is {value}", f"{name} must not be {value}", f"choose another {name}")
    for name, values in when.attributes_not.items():
        value = any_of(name, values)
        yield _Part(f"{name} is not {value}", f"{name} must be {value}", f"set {name} to {value}")
    for position, operand in when.inputs.items():
        yield from _of_operand(_name(form, int(position)), operand)
    yield from _of_weight(when)
    yield from _of_bounds(when)
    yield from _of_shapes(when)


def _of_operand(name: str, operand: OperandCondition) -> Iterator[_Part]:
    if operand.present is False:
        yield _Part(f"{name} is left out", f"{name} must be given", f"give {name}")
        return
    if operand.constant is not None:
        if operand.constant:
            yield _Part(f"{name} is constant", f"{name} must not be constant", f"compute {name} in the graph")
        else:
            yield _Part(f"{name} is computed", f"{name} must be constant", f"store {name} as an initializer")
    if operand.dtype is not None:
        types = " or ".join(operand.dtype)
        yield _Part(
            f"{name} is {types}", f"{name} must not be {types}", f"give {name} another type by a Cast before it"
        )
    if operand.min_rank is not None or operand.max_rank is not None:
        bound = f"rank {operand.min_rank} or more" if operand.max_rank is None else f"rank {operand.max_rank} or less"
        yield _Part(f"{name} has {bound}", f"{name} must not have {bound}", f"change the rank of {name} by a Reshape")
    if operand.holds is not None:
        yield _Part(
            f"{name} holds {operand.holds}",
            f"{name} must not hold {operand.holds}",
            f"write {name} without {operand.holds}",
        )
    if operand == OperandCondition(present=True):
        yield _Part(f"{name} is given", f"{name} must be left out", f"leave {name} out")


def _of_weight(when: When) -> Iterator[_Part]:
    if when.weight is not None:
        stated = "a constant weight" if when.weight else "a computed weight"
        yield _Part(f"it has {stated}", f"not taken with {stated}", "")
    if when.blocked:
        scales = "one scale per block"
        yield _Part(f"its weight has {scales}", f"its weight must not have {scales}", "scale its weight per channel")


def _of_bounds(when: When) -> Iterator[_Part]:
    if when.min_rank is not None and when.max_rank is None:
        do = "merge dimensions by a Reshape before it"
        yield _Part(f"its rank is {when.min_rank} or more", f"its rank must be below {when.min_rank}", do)
    elif when.max_rank is not None:
        exact = when.min_rank == when.max_rank
        rank = str(when.max_rank) if exact else f"{when.max_rank} or less"
        do = "add dimensions by a Reshape before it" if when.max_rank < 4 else "merge dimensions by a Reshape before it"
        yield _Part(f"its rank is {rank}", f"its rank must not be {rank}", do)
    if when.min_opset is not None:
        do = f"export the model at an opset below {when.min_opset}"
        yield _Part(f"the opset is {when.min_opset} or later", f"the opset must be below {when.min_opset}", do)
    elif when.max_opset is not None:
        do = f"raise the model's opset above {when.max_opset}"
        yield _Part(f"the opset is {when.max_opset} or earlier", f"the opset must be above {when.max_opset}", do)


def _of_shapes(when: When) -> Iterator[_Part]:
    if when.static_outputs is False:
        do = "state the shapes of its results in the model"
        yield _Part("the shapes of its results are unknown", "the shapes of its results must be known", do)
    if when.empty:
        do = "remove the empty tensor from the model"
        yield _Part("one of its tensors is empty", "none of its tensors may be empty", do)
    if when.min_outputs is not None:
        last = when.min_outputs - 1
        uses = f"it gives {when.min_outputs} results"
        yield _Part(uses, f"output {last} must not be asked for", f"compute output {last} by other operators")


@functools.cache
def _formal(op: str, domain: str, opset: int) -> tuple[str, ...]:
    try:
        return tuple(formal.name for formal in onnx.defs.get_schema(op, opset, domain).inputs)
    except onnx.defs.SchemaError:
        return ()


def _name(form: Form, position: int) -> str:
    """An operand as ONNX calls it, where it calls it by a word."""
    formal = _formal(form.op, form.domain, form.opset)
    name = formal[position] if position < len(formal) else ""
    return name if len(name) > 2 else f"input {position}"
