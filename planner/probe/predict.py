"""What a profile predicts for a probe case, judged as the file says: nothing folded, fused or raised to another opset."""

from __future__ import annotations

import functools

import onnx
import onnx_ir as ir

from planner.model.node import Node
from planner.model.read import nodes_as_written
from planner.probe.cases import NODE, build, case_by_id
from planner.probe.run import Outcome, Result
from planner.profiles.schema import Profile
from planner.resolve.legality import Ruling, judge


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
    return judge(node, node.stored, node.stored_per_channel, profile, device, opset)


def agrees(ruling: Ruling, outcome: Outcome) -> bool | None:
    """Whether ruling and outcome say the same; None where the outcome says nothing about the EP.

    Left to the CPU EP, failing and crashing are all a no. A node that was folded before any EP saw it proves nothing.
    """
    if outcome.result in (Result.FOLDED, Result.INVALID):
        return None
    return ruling.legal is (outcome.result is Result.TAKEN)
