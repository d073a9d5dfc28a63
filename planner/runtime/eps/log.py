"""What onnxruntime's verbose log says of placement (`VerifyEachNodeIsAssignedToAnEp`). Pure text in, values out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# The function of onnxruntime that logs it.
WHERE = "VerifyEachNodeIsAssignedToAnEp"
_GROUP = re.compile(r" (?:All nodes|Node\(s\)) placed on \[(?P<ep>\w+)\]\. Number of nodes: (?P<count>\d+)")
_NODE = re.compile(r"  (?P<op>\S+) \((?P<name>.*)\)", re.DOTALL)


@dataclass(frozen=True)
class Placed:
    """A node in onnxruntime's log, and the EP that got it."""

    ep: str
    op_type: str
    name: str


def read_placement(lines: Sequence[str]) -> tuple[Placed, ...] | None:
    """The nodes that onnxruntime's log names, by EP; None where it names fewer than it announces.

    It names the nodes of a graph only where two EPs share them; where one has all, it gives a count.

    Args:
        lines: messages of `VerifyEachNodeIsAssignedToAnEp`, in order.
    """
    found = read_named(lines)
    announced = sum(int(group["count"]) for line in lines if (group := _GROUP.match(line)))
    return found if announced and len(found) == announced else None


def read_named(lines: Sequence[str]) -> tuple[Placed, ...]:
    """The nodes that onnxruntime's log names, by EP, be they all or not; `lines` as above."""
    found: list[Placed] = []
    ep = ""
    for line in lines:
        if group := _GROUP.match(line):
            ep = group["ep"]
        elif ep and (node := _NODE.fullmatch(line)):
            found.append(Placed(ep, node["op"], node["name"]))
    return tuple(found)


__all__ = ["WHERE", "Placed", "read_named", "read_placement"]
