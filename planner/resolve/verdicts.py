"""What the profile says of one node, as documents write it: a line of `planner check`, of a report, of a violation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.dtypes import QuantConfig
from planner.model.node import Node
from planner.resolve.legality import Ruling


@dataclass(frozen=True)
class Verdict:
    """One node judged at one config: a line of `planner check`."""

    node: Node
    config: QuantConfig
    ruling: Ruling


@dataclass(frozen=True)
class Prediction:
    """What the profile expects of a file that runs as it is.

    Attributes:
        on_target: by name, whether a node is on the target; a node of which the profile says nothing is left out.
        open_inputs: inputs with open dimensions, where the target takes static shapes only.
    """

    on_target: Mapping[str, bool] = field(default_factory=dict)
    open_inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class NodeVerdict:
    """The decision for one node.

    Attributes:
        name: of the node, in topological order of the graph.
        op_type: its operator.
        weight: dtype of its weight; None where it has none or is left alone.
        activation: dtype that it computes with; None where it is left alone.
        on_target: whether the target EP runs it; None where nothing is known.
        rule: the profile's rule that decides.
        reason: why not (or why so); None where there is nothing to say.
    """

    name: str
    op_type: str
    weight: str | None = None
    activation: str | None = None
    on_target: bool | None = None
    rule: str | None = None
    reason: str | None = None

    @classmethod
    def of(cls, verdict: Verdict) -> NodeVerdict:
        """The line of a verdict."""
        node, config, ruling = verdict.node, verdict.config, verdict.ruling
        reason = None if ruling.legal else ruling.reason
        return cls(node.name, node.op_type, config.weight, config.activation, ruling.legal, ruling.rule, reason)


@dataclass(frozen=True)
class Violation:
    """A node that the profile forbids.

    Attributes:
        node: its name.
        op_type: its operator.
        weight: dtype that was judged, None where there is none.
        activation: dtype that was judged, None where there is none.
        rule: the profile's rule that forbids it.
        reason: why.
        suggestion: what to do about it.
    """

    node: str
    op_type: str
    weight: str | None
    activation: str | None
    rule: str | None
    reason: str
    suggestion: str | None = None

    @classmethod
    def of(cls, verdict: Verdict) -> Violation:
        """The violation that an illegal verdict is."""
        node, config, ruling = verdict.node, verdict.config, verdict.ruling
        reason = ruling.reason or "not accepted"
        return cls(
            node.name, node.op_type, config.weight, config.activation, ruling.rule, reason, ruling.suggestion or None
        )
