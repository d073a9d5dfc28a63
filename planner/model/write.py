"""Writing a model: the same graph gives the same bytes; above protobuf's 2 GB the weights lie beside it."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

# Protobuf refuses messages of 2 GiB; the graph itself needs room beside the weights.
_EMBEDDED_LIMIT = 1_800_000_000


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers."""
    return sum(
        value.const_value.nbytes
        for graph in (model.graph, *model.graph.subgraphs())
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def save(model: ir.Model, path: Path, *, embed: bool = True) -> None:
    """Save to ``path``; weights go to ``path`` + ".data" where they do not fit the file itself.

    Args:
        embed: false to put the weights beside the file whatever their size: they are written one by one, never all of
            them in memory, and whoever loads the model can map them.
    """
    if embed and weight_bytes(model) <= _EMBEDDED_LIMIT:
        path.write_bytes(ir.serde.serialize_model(model).SerializeToString(deterministic=True))
    else:
        ir.save(model, path, external_data=f"{path.name}.data")
