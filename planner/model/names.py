"""Names of nodes and values."""

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


def name_values(model: ir.Model) -> None:
    """Give each value that a node computes a unique name; what the user's file names keeps its own."""
    graphs = (model.graph, *model.graph.subgraphs())
    given = [v for graph in graphs for v in (*graph.inputs, *graph.initializers.values(), *graph.outputs)]
    seen = {v.name for v in given if v.name}
    kept = {id(v) for v in given}
    for value in (out for graph in graphs for node in graph for out in node.outputs if out.name):
        if id(value) not in kept:
            value.name = _free(value.name or "", seen)


class Names:
    """The names of a model's values and nodes, over all its graphs: the one place that makes up new ones."""

    def __init__(self, model: ir.Model) -> None:
        self._values: set[str] = set()
        self._nodes: set[str] = set()
        for graph in (model.graph, *model.graph.subgraphs()):
            self._values.update(value.name for value in graph.inputs if value.name)
            self._values.update(graph.initializers)
            for node in graph:
                self._nodes.add(node.name or "")
                self._values.update(value.name for value in node.outputs if value.name)

    def value(self, name: str) -> str:
        """A name for a new value: this one, with a number where it is taken. It is taken from now on."""
        return _free(name, self._values)

    def node(self, name: str) -> str:
        """A name for a new node: this one, with a number where it is taken. It is taken from now on."""
        return _free(name, self._nodes)


def _free(name: str, taken: set[str]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free
