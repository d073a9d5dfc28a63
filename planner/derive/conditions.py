"""What sets a form of the probe apart from its operator's base form, as the condition of a rule."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping
from typing import Any

import onnx

from planner.derive.predict import node_of
from planner.model.node import Node
from planner.probe.cases import all_cases
from planner.probe.forms import Form, Kind, Slot
from planner.profiles.conditions import condition
from planner.profiles.when import OperandCondition, When

# Attributes that follow from the shapes of a form, not conditions of their own.
_SHAPED = {"kernel_shape", "pads", "strides", "output_shape", "hidden_size", "perm"}


@functools.cache
def forms() -> Mapping[tuple[str, str], Form]:
    """Every form by operator and condition."""
    return {(c.form.name, c.form.condition): c.form for c in all_cases().values()}


def node(form: Form) -> Node:
    """The form's node, as planner reads it, in the first of its cases."""
    return node_of(_first_cases()[form.name, form.condition])[0]


@functools.cache
def _first_cases() -> Mapping[tuple[str, str], str]:
    return {(c.form.name, c.form.condition): c.id for c in reversed(list(all_cases().values()))}


def condition_of(form: Form) -> When | None:
    """The condition of a rule that speaks of the form; None where no condition can tell it from the base form."""
    if not form.expressible or form.dynamic or form.symmetric:
        return None
    if form.when is not None:
        return condition(form.when)
    if node(form).has_empty:
        return When(empty=True)
    if re.fullmatch(r"opset=\d+", form.condition):
        return condition(opsets(form))
    if form.op == "Resize" and form.condition.startswith(("mode=", "coordinate")):
        # Interpolation goes by all of its attributes together.
        unused = () if form.attributes["mode"] == "nearest" else ("nearest_mode",)
        return When(attributes={k: [v] for k, v in form.attributes.items() if k not in unused})
    base = forms().get((form.name, ""))
    when = When(**_node_conditions(form, base), attributes=_attributes(form, base), inputs=_operands(form, base))
    return None if when == When() else when


def _attributes(form: Form, base: Form | None) -> dict[str, list[Any]]:
    usual = {} if base is None else base.attributes
    return {
        k: [list(v) if isinstance(v, tuple) else v]
        for k, v in form.attributes.items()
        if usual.get(k) != v and k not in _SHAPED
    }


def _node_conditions(form: Form, base: Form | None) -> dict[str, Any]:
    """Conditions on rank, opset, shapes and outputs."""
    static = node(form).static_outputs
    if base is None or not base.slots:
        return {} if static else {"static_outputs": False}
    when: dict[str, Any] = {}
    rank, usual = node(form).rank, node(base).rank
    if rank != usual:
        when.update({"min_rank": rank} if rank >= 5 else {"min_rank": rank, "max_rank": rank})
    if form.opset != base.opset:
        when.update(opsets(form))
    if static is not node(base).static_outputs:
        when["static_outputs"] = static
    if form.outputs > base.outputs:
        when["min_outputs"] = form.outputs
    return when


def _operands(form: Form, base: Form | None) -> dict[str, OperandCondition]:
    slots = () if base is None else base.slots
    found = {}
    for i, (own, usual) in enumerate(itertools.zip_longest(form.slots, slots)):
        if own != usual and (stated := _operand(own, usual, has_base=bool(slots))):
            found[str(i)] = OperandCondition(**stated)
    return found


def _operand(own: Slot | None, usual: Slot | None, *, has_base: bool) -> dict[str, Any]:
    """What must hold of an operand that differs from the base form's."""
    if own is None:
        return {"present": False} if usual is not None else {}
    stated: dict[str, Any] = {}
    if usual is None and has_base:
        stated = {"present": True, "constant": _is_constant(own)}
    if usual is not None and _is_constant(own) is not _is_constant(usual):
        stated = {"present": True, "constant": _is_constant(own)}
    if own.kind is Kind.EXACT and (usual is None or usual.kind is not Kind.EXACT or usual.dtype != own.dtype):
        stated |= {"present": True, "dtype": [own.dtype]}
    return stated


def _is_constant(slot: Slot) -> bool:
    return slot.kind is not Kind.ACTIVATION and (slot.kind is not Kind.EXACT or slot.constant)


def opsets(form: Form) -> dict[str, int]:
    """The opsets at which the operator is the version that the form uses, as bounds of a condition."""
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
