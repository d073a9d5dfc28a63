"""Learning from a model: its nodes as they are stored, where the EP puts each, and what the profile had said.

The whole model is given to the EP, so fusions and neighbours count.
"""

from __future__ import annotations

from pathlib import Path

from planner.errors import RequestError
from planner.model.node import signature
from planner.model.read import read_model
from planner.profiles.learned import LearnedFile, LearnedNode
from planner.profiles.schema import Profile
from planner.resolve.choose import judge_stored
from planner.resolve.target import Target
from planner.runtime.client import SessionFailed, Worker
from planner.verification.placement import placement_of, unplaced


def from_model(path: Path, profile: Profile, device: str) -> LearnedFile:
    """Give the file to the EP and set what it does with each node against the profile.

    Raises:
        RequestError: unreadable model, or inputs without a fixed shape. EPError: the EP cannot be started.
    """
    model = read_model(path, as_stored=True)
    if model.dynamic_inputs and profile.limits.static_shapes:
        raise RequestError(f"{path}: dynamic inputs: {', '.join(model.dynamic_inputs)}", "fix their shapes first")
    verdicts = judge_stored(Target.on(profile, device), model).verdicts
    candidate = {name: v.node.op_type for v in verdicts for name in (v.node.name, *v.node.origins)}
    with Worker(profile.ep) as worker:
        try:
            opened = worker.open(path, profile.options(device), log=True)
            placement = placement_of(opened, profile.ep, candidate)
        except SessionFailed as error:
            placement = unplaced(candidate, {r.name: r.reason for r in error.refusals})
        runtime = dict(worker.runtime)
    reasons = {f.name: f.reason for f in placement.fallback}
    kinds: dict[tuple[object, ...], int] = {}
    for verdict in verdicts:
        names = [n for n in (verdict.node.name, *verdict.node.origins) if n in placement.nodes or n in reasons]
        # A node stands for all that it was fused from: it is on the target where all of them are.
        on_target = all(placement.nodes.get(n) == profile.ep for n in names) if names else None
        reason = next((reasons[n] for n in names if n in reasons), None)
        entry = (
            signature(verdict.node, verdict.config),
            on_target,
            verdict.ruling.legal,
            verdict.ruling.rule,
            reason,
        )
        kinds[entry] = kinds.get(entry, 0) + 1
    nodes = [LearnedNode(e[0], n, *e[1:]) for e, n in kinds.items()]  # type: ignore[arg-type]
    return LearnedFile(model.sha256, profile.ep, device, runtime, tuple(sorted(nodes, key=lambda n: n.signature)))
