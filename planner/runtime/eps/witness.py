"""Two nodes to be added to a graph, one that a GPU's EP takes and one that it leaves to the CPU EP.

onnxruntime's log lists nodes by name only where two EPs share a graph. Protocol buffers allow to add to a message by bytes behind
it, so that nothing of the model is read, and no package of ONNX is needed in the EP's environment.
"""

from __future__ import annotations

from typing import Any

from .log import Placed

_PREFIX = "planner/witness/"
# What onnxruntime puts between two EPs.
_COPIES = ("MemcpyFromHost", "MemcpyToHost")
# Field numbers and element types of onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP_TYPE = 1, 2, 3, 4
_FLOAT, _DOUBLE = 1, 11


def nodes() -> bytes:
    """Bytes that, behind those of a model, add the two nodes with an input and an output each."""
    return _field(_MODEL_GRAPH, _node("Relu", _FLOAT) + _node("Neg", _DOUBLE))


def feed() -> dict[str, Any]:
    """The arrays that the added inputs are fed with when the graph is run."""
    import numpy as np

    return {f"{_PREFIX}Relu/in": np.zeros(1, np.float32), f"{_PREFIX}Neg/in": np.zeros(1, np.float64)}


def is_ours(name: str) -> bool:
    """Whether a tensor of that name was added."""
    return name.startswith(_PREFIX)


def is_added(placed: Placed) -> bool:
    """Whether the node is one of ours, or was put between them and the rest."""
    return placed.name.startswith(_PREFIX) or placed.op_type in _COPIES


def _node(op_type: str, dtype: int) -> bytes:
    name = f"{_PREFIX}{op_type}".encode()
    source, result = name + b"/in", name + b"/out"
    node = _field(_NODE_INPUT, source) + _field(_NODE_OUTPUT, result)
    node += _field(_NODE_NAME, name) + _field(_NODE_OP_TYPE, op_type.encode())
    return (
        _field(_GRAPH_NODE, node)
        + _field(_GRAPH_INPUT, _vector(source, dtype))
        + _field(_GRAPH_OUTPUT, _vector(result, dtype))
    )


def _vector(name: bytes, dtype: int) -> bytes:
    """A ValueInfoProto of a tensor of that type and of shape [1]."""
    dimension = _field(1, b"\x08\x01")  # dim { dim_value: 1 }
    tensor = bytes([0x08, dtype]) + _field(2, dimension)  # elem_type, shape
    return _field(1, name) + _field(2, _field(1, tensor))


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited field; its number is below 16."""
    size, length = len(payload), b""
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + payload


__all__ = ["feed", "is_added", "is_ours", "nodes"]
