"""From what was found to rows of a report. Pure: values in, values out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from planner.reporting.data import Inputs, Model, Range, Row, Tier
from planner.resolve.verdicts import NodeVerdict, Violation
from planner.search.finalists import is_faster, narrowest

if TYPE_CHECKING:
    from planner.calibrate import inputs as calibration
    from planner.estimation.latency import Interval
    from planner.model import read
    from planner.resolve.choose import Resolution
    from planner.resolve.plan import TargetIdentity
    from planner.search.attempt import Attempt
    from planner.verification.verify import Verification

_TIERS: dict[str, Tier] = {
    "hardware": "measured",
    "software": "simulated",
    "simulator": "simulated",
    "emulation": "emulated",
}


def model_of(model: read.Model, name: str, path: str | None = None) -> Model:
    """The model as a report names it; ``path`` where it is not to be the one that was read."""
    return Model(model.path if path is None else path, model.sha256, model.opset, model.node_count, name=name)


def inputs_of(inputs: calibration.Inputs) -> Inputs:
    """Where the samples came from, and how many there are in all."""
    return Inputs(inputs.source, len(inputs.calibration) + len(inputs.evaluation), inputs.synthetic)


def resolution_row(resolution: Resolution, model: Model, target: TargetIdentity, asked: str) -> Row:
    """What the profile says of a precision; nothing ran."""
    nodes = tuple(map(NodeVerdict.of, resolution.verdicts))
    violations = tuple(map(Violation.of, resolution.violations))
    total = len(nodes)
    row = Row(model, target, asked, "passed", resolution.precision, legal=resolution.legal, nodes=nodes)
    if resolution.legal:
        return row
    if violations:
        first = violations[0]
        reason = (
            f"{len(violations)} of {total} nodes are not accepted, first {first.op_type} {first.node!r}: {first.reason}"
        )
        return replace(row, status="illegal", chosen=None, reason=reason, violations=violations)
    unknown = resolution.unknown[0].node
    count = len(resolution.unknown)
    return replace(
        row,
        status="unknown",
        reason=f"no evidence for {count} of {total} nodes, first {unknown.op_type} {unknown.name!r}",
        suggestions=("Let the EP itself decide: --allow-unknown.",),
    )


def attempt_row(
    attempt: Attempt,
    model: Model,
    target: TargetIdentity,
    asked: str,
    *,
    legal: bool | None,
    inputs: calibration.Inputs,
    ranges: tuple[Range, ...] = (),
) -> Row:
    """What verifying one plan showed.

    Args:
        attempt: the plan and what came of it.
        model: as the report names it.
        target: where it is to run.
        asked: the precision asked for.
        legal: by the profile.
        inputs: what calibrated and judged it.
        ranges: what the float32 model's tensors hold.
    """
    verified = attempt.verification
    floor = verified.floor
    placement = verified.placement
    placed = None if placement.on_target is None else not placement.fallback
    ran = bool(verified.fidelity)
    faithful = not list(floor.shortfalls(verified.fidelity, verified.metric.value if verified.metric else None))
    return Row(
        model,
        target,
        asked,
        "passed" if attempt.passed else "failed",
        attempt.plan.precision,
        reason="; ".join(verified.reasons),
        suggestions=_suggestions(verified, target, faithful=faithful, synthetic=inputs.synthetic),
        legal=legal,
        placed=placed,
        faithful=faithful if ran else None,
        tier=_TIERS[verified.kind],
        kind=verified.kind,
        floor_db=floor.value if floor.kind == "sqnr" else None,
        size_bytes=attempt.artifact.bytes,
        latency_ms=None if attempt.latency is None else attempt.latency.candidate,
        estimate=attempt.estimate,
        inputs=inputs_of(inputs),
        verification=verified,
        nodes=_planned(attempt, target),
        ranges=ranges,
    )


def error_row(
    message: str, hint: str, model: Model, target: TargetIdentity, asked: str, legal: bool | None = None
) -> Row:
    """A precision that could not be judged because the EP or its worker failed; ``legal`` by the profile."""
    return Row(model, target, asked, "error", reason=message, suggestions=(hint,) if hint else (), legal=legal)


def recommend(rows: Sequence[Row], preference: Iterable[str]) -> tuple[Row, ...]:
    """The rows of one model and target, with the cheapest precision that passed marked.

    The cheapest is the first in the profile's order, or one that its compiled schedule shows to be faster
    and whose activations are no narrower.

    Args:
        rows: in the order in which they were made.
        preference: precisions in the profile's order, cheapest first. Others come after them, in the order of the rows.
    """
    order = list(preference)

    def cost(row: Row) -> int:
        return order.index(row.precision) if row.precision in order else len(order)

    passed = sorted((row for row in rows if row.status == "passed"), key=cost)
    best = passed[0] if passed else None
    faster = [row for row in passed if best is not None and _takes_its_place(row, best)]
    best = min(faster, key=lambda row: row.estimate.ms.mid if row.estimate and row.estimate.ms else 0.0, default=best)
    return tuple(replace(row, recommended=row is best) for row in rows)


def _takes_its_place(row: Row, best: Row) -> bool:
    """Whether it is faster, with activations that are no narrower: the profile's order speaks of accuracy as well."""
    one, other = (narrowest(node.activation for node in r.nodes) for r in (row, best))
    return one >= other and is_faster(_estimated(row), _estimated(best))


def _estimated(row: Row) -> Interval | None:
    """Milliseconds of the whole model: an estimate that leaves out what runs elsewhere is none."""
    return None if row.estimate is None or row.estimate.elsewhere else row.estimate.ms


def _planned(attempt: Attempt, target: TargetIdentity) -> tuple[NodeVerdict, ...]:
    placement = attempt.verification.placement

    def where(name: str) -> bool | None:
        if placement.on_target is None:
            return None
        if placement.on_target == placement.total:
            return True  # a node that was fused or folded away is on the target along with all others
        ep = placement.nodes.get(name)
        return None if ep is None else ep == target.ep

    refused = {entry.name: entry.reason for entry in placement.fallback}
    return tuple(
        NodeVerdict(
            n.name, n.op_type, n.weight, n.activation,
            where(n.name), n.rule, refused.get(n.name) or n.reason or None,
        )
        for n in attempt.plan.nodes
    )  # fmt: skip


def _suggestions(verified: Verification, target: TargetIdentity, *, faithful: bool, synthetic: bool) -> tuple[str, ...]:
    if verified.passed:
        return ()
    found = []
    if verified.fidelity and not faithful:
        if synthetic:
            found.append("Give real data with --inputs: the ranges of synthetic data are not those of yours.")
        found.append(
            f"Search for a mix of precisions: planner target MODEL --ep {target.ep} --device {target.device} --floor "
            f"{verified.floor.value:g}."
        )
    if verified.placement.on_target is not None and verified.placement.fallback:
        found.append("Let the nodes that the target refuses run on the CPU: planner target ... --allow-fallback.")
    return tuple(found)
