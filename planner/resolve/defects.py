"""What an EP takes and gets wrong: where a model has it, and the plan around it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from planner.dtypes import DType, QuantConfig
from planner.profiles.conditions import names_of
from planner.profiles.schema import Defect, DefectNode
from planner.resolve.conditions import unmet_condition
from planner.resolve.legality import Ruling, judge
from planner.resolve.plan import Basis
from planner.resolve.target import Target
from planner.resolve.verdicts import Verdict


@dataclass(frozen=True)
class Showing:
    """Places of two verdicts whose nodes show a defect; both are the same where a node does alone."""

    defect: Defect
    first: int
    then: int


def showing(target: Target, verdicts: Sequence[Verdict], opset: int) -> Iterator[Showing]:
    """Where nodes at their configs show a defect of the target.

    Args:
        target: where the model is to run.
        verdicts: one for each node of the model, in order.
        opset: ai.onnx opset of the model that is to run.
    """
    defects = target.profile.defects(target.device)
    if not defects:
        return
    makers = {name: i for i, verdict in enumerate(verdicts) for name in verdict.node.outputs if name}
    before = [[makers.get(o.origin) if o is not None else None for o in verdict.node.inputs] for verdict in verdicts]
    for then, verdict in enumerate(verdicts):
        found = [(d, then) for d in defects if d.then is None and _is(d.first, verdict, opset)]
        found += [
            (defect, first)
            for position, first in enumerate(before[then])
            if first is not None
            for defect in defects
            if _shows(defect, verdicts[first], verdict, position, opset)
        ]
        for defect, first in found:
            if defect.behind is None or _is_behind(defect.behind, first, verdicts, before):
                yield Showing(defect, first, then)


def _is_behind(operators: str, place: int, verdicts: Sequence[Verdict], before: Sequence[Sequence[int | None]]) -> bool:
    """Whether one of the operators lies somewhere before the node."""
    names, seen, pending = set(names_of(operators)), {place}, [place]
    while pending:
        new = {maker for maker in before[pending.pop()] if maker is not None} - seen
        if any(verdicts[maker].node.op_type in names for maker in new):
            return True
        seen |= new
        pending += new
    return False


def _shows(defect: Defect, first: Verdict, then: Verdict, position: int, opset: int) -> bool:
    if defect.then is None or defect.at not in (None, position):
        return False
    if not (_is(defect.first, first, opset) and _is(defect.then, then, opset)):
        return False
    if not defect.beside:
        return True
    given = first.node.inputs[0] if first.node.inputs else None
    others = [o for i, o in enumerate(then.node.inputs) if o is not None and i != position]
    return given is not None and given.origin in [o.origin for o in others]


def _is(wanted: DefectNode, verdict: Verdict, opset: int) -> bool:
    node, config = verdict.node, verdict.config
    name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    if name not in names_of(wanted.op) or (wanted.activation and config.activation not in wanted.activation):
        return False
    return unmet_condition(wanted.when, node, config, opset, of_refusal=True) is None


def around_defects(
    target: Target, verdicts: Sequence[Verdict], opset: int, *, stored: bool = False
) -> tuple[list[Verdict], tuple[str, ...]]:
    """The verdicts with other types where they avoid a defect, and a no where no session would be built; and notes on both.

    Args:
        target: where the model is to run.
        verdicts: one for each node of the model, in order.
        opset: ai.onnx opset of the model that is to run.
        stored: the model is judged as it is: no type can be changed.
    """
    found = list(verdicts)
    notes: dict[str, list[str]] = {}
    for shown in list(showing(target, verdicts, opset)):
        defect, first, then = shown.defect, found[shown.first], found[shown.then]
        said = f"known defect {defect.id} of {target.ep}: {defect.what}"
        if defect.aborts:
            hint = f"write {defect.written}" if defect.written else "write the model otherwise at this place"
            found[shown.then] = replace(then, ruling=Ruling(False, defect.id, said, hint, basis=Basis.DEFECT))
            continue
        changed = None if stored else _avoiding(target, defect, first, opset)
        if changed is not None:
            found[shown.first] = changed
            what = first.node.op_type if defect.factor is None else f"the second factor of {first.node.op_type}"
            said = f"{said}; avoided: {defect.factor or changed.config.activation} for {what}"
        elif defect.written:
            said = f"{said}; `planner target` writes {defect.written}"
        notes.setdefault(said, []).append(then.node.name)
    return found, tuple(
        f"{said} ({len(names)} {'place' if len(names) == 1 else 'places'}, first {names[0]!r})"
        for said, names in notes.items()
    )


def _avoiding(target: Target, defect: Defect, verdict: Verdict, opset: int) -> Verdict | None:
    """The verdict at the first type that avoids the defect and is legal; None where there is none."""
    if defect.factor is not None:
        if not _is(defect.first, verdict, opset):
            return None  # another defect gave it another type
        reason = f"{defect.factor} for its second factor: known defect {defect.id} of {target.ep}"
        return replace(verdict, ruling=replace(verdict.ruling, factor=defect.factor, basis=Basis.DEFECT, reason=reason))
    for kind in defect.avoid:
        config = _at(verdict.config, kind)
        ruling = judge(target, verdict.node, config, opset)
        if ruling.legal:
            reason = f"{kind} instead of {verdict.config.activation}: known defect {defect.id} of {target.ep}"
            return Verdict(verdict.node, config, replace(ruling, basis=Basis.DEFECT, reason=reason))
    return None


def _at(config: QuantConfig, kind: DType) -> QuantConfig:
    weight = config.weight if config.weight is None or not kind.is_float else kind
    return replace(config, weight=weight, activation=kind)
