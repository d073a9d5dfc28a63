"""What a profile predicts for a probe case, judged as the file says: nothing folded, fused or raised in opset."""

from __future__ import annotations

import fnmatch
import functools
import json
from dataclasses import dataclass, field

import onnx
import onnx_ir as ir

from planner import codec
from planner.codec import named
from planner.files import read_text
from planner.model.node import Node
from planner.model.read import nodes_as_written
from planner.probe.build import NODE, build
from planner.probe.cases import case_by_id
from planner.probe.run import Outcome, Result
from planner.profiles.schema import Profile
from planner.profiles.shipped import folder_of
from planner.resolve.legality import Ruling, judge
from planner.resolve.plan import TargetIdentity
from planner.resolve.target import Target


@functools.lru_cache(16384)
def node_of(case: str) -> tuple[Node, int]:
    """The case's node as planner reads it from the model, and the model's opset."""
    proto = onnx.shape_inference.infer_shapes(build(case_by_id(case)), data_prop=True)
    model = ir.from_proto(proto)
    node = next(n for n in nodes_as_written(model) if n.name == NODE)
    return node, model.opset_imports.get("", 1)


def predict(case: str, profile: Profile, device: str) -> Ruling:
    """The profile's ruling on the case's node at the pair that the file stores."""
    node, opset = node_of(case)
    # Of the profile's own traits alone: what a case is must not hang on the processor at hand.
    target = Target(profile, TargetIdentity(profile.ep, device, profile.options(device)))
    return judge(target, node, node.stored, opset)


def agrees(ruling: Ruling, outcome: Outcome) -> bool | None:
    """Whether ruling and outcome say the same; None where the outcome says nothing about the EP.

    Left to the CPU EP, failing and crashing are all a no. A node that was folded before any EP saw it proves nothing.
    """
    if outcome.result in (Result.FOLDED, Result.INVALID):
        return None
    return ruling.legal is (outcome.result is Result.TAKEN)


@dataclass(frozen=True)
class Exemption:
    """Cases that a profile is known to misjudge, and why that is left so.

    Attributes:
        patterns: of case ids, as in file names of a shell.
    """

    patterns: tuple[str, ...] = field(metadata=named("cases"))
    reason: str


@functools.cache
def exemptions(ep: str) -> tuple[Exemption, ...]:
    """The list that ships beside the profile of an EP: exceptions.json."""
    path = folder_of(ep) / "exceptions.json"
    if not path.is_file():
        return ()
    return tuple(codec.from_json(Exemption, entry, str(path)) for entry in json.loads(read_text(path)))


def explanation(case: str, profile: Profile, ruling: Ruling, outcome: Outcome) -> str | None:
    """Why ruling and outcome may differ: a documented rule that is stricter than what was observed, or the list."""
    rule = next((r for r in profile.rules if r.id == ruling.rule), None)
    if rule is not None and rule.source.observed is None and outcome.result is Result.TAKEN and rule.refuse is not None:
        return f"{rule.id}: {rule.refuse} ({rule.source.documented})"
    for entry in exemptions(profile.ep):
        if any(fnmatch.fnmatchcase(case, pattern) for pattern in entry.patterns):
            return entry.reason
    return None
