"""The estimate of a model file as it is, from a session that was built for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from planner.errors import EPError
from planner.estimation.compile import read_compiled
from planner.estimation.estimate import Estimate, price
from planner.estimation.latency import latency_model
from planner.model.check import graphs
from planner.quantization.write import with_data
from planner.resolve.plan import TargetIdentity
from planner.runtime.client import Opened

# Of the estimate that goes with a verified model, so many nodes and findings are kept: the largest.
_SHOWN = 20


def estimate_session(target: TargetIdentity, path: Path, precision: str, folder: Path, opened: Opened) -> Estimate:
    """The estimate of a model for which a session was built; one without a schedule says why.

    Args:
        target: where the session was built.
        path: the model.
        precision: for the estimate.
        folder: that the session was given for its schedules.
        opened: the session.
    """
    try:
        compiled = read_compiled(target.ep, path, folder, opened)
    except EPError as error:
        return Estimate.without(target.device, precision, f"no schedule: {error}")
    size = sum(file.stat().st_size for file in with_data(path))
    rates = latency_model(target.ep)
    made = price(target.device, target.options, precision, compiled, node_names(path), size, rates)
    return replace(made, nodes=made.nodes[:_SHOWN], findings=made.findings[:_SHOWN])


def node_names(path: Path) -> frozenset[str]:
    """The names of a model file's nodes but for Q and DQ, which only say how others compute; inner graphs among them."""
    import onnx

    nodes = (node for graph in graphs(onnx.load(path, load_external_data=False).graph) for node in graph.node)
    return frozenset(n.name for n in nodes if n.op_type not in ("QuantizeLinear", "DequantizeLinear"))
