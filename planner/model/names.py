"""Names of nodes."""

from __future__ import annotations

import onnx_ir as ir


def name_nodes(model: ir.Model) -> None:
    """Give each node a unique name: its own, else operator and first output; a repeated one gets a number."""
    seen: set[str] = set()
    for node in model.graph.all_nodes():
        outputs = [o.name for o in node.outputs if o.name]
        base = node.name or f"{node.op_type}:{outputs[0] if outputs else 'unnamed'}"
        name, count = base, 1
        while name in seen:
            count += 1
            name = f"{base}#{count}"
        seen.add(name)
        node.name = name
