"""Names of nodes and values."""

from __future__ import annotations

import onnx_ir as ir


def name_nodes(model: ir.Model) -> None:
    """Give each node a unique name: its own, else operator and first output; a repeated one gets a number."""
    seen: dict[str, int] = {}
    for node in model.graph.all_nodes():
        node.name = _free(name_of(node), seen, "#")


def name_of(node: ir.Node) -> str:
    """The node's own name, else its operator and first output."""
    return node.name or f"{node.op_type}:{next((out.name for out in node.outputs if out.name), 'unnamed')}"


def name_values(model: ir.Model) -> None:
    """Give each value a unique name; what the user's file names in its main graph keeps its own.

    The branches of an If may name theirs alike, and so may what is around them: QNN (2.7) refuses that.
    """
    main, inner = model.graph, list(model.graph.subgraphs())
    given = [*main.inputs, *main.initializers.values(), *main.outputs]
    seen = {v.name: 1 for v in given if v.name}
    kept = {id(v) for v in given}
    within = (v for graph in inner for v in (*graph.inputs, *graph.initializers.values()))
    computed = (out for graph in (main, *inner) for node in graph for out in node.outputs)
    for value in (*computed, *within):
        if value.name and id(value) not in kept:
            kept.add(id(value))
            value.name = _free(value.name, seen)


def name_main_results(model: ir.Model) -> None:
    """Give a node's first result a name where only later ones are read.

    ONNX lets it stay without one; QNN (2.7) ends the process over such an LSTM or GRU between Casts to float16.
    """
    names = Names(model)
    for node in model.graph.all_nodes():
        if node.outputs and not node.outputs[0].name and any(out.name for out in node.outputs):
            node.outputs[0].name = names.value(f"{name_of(node)}_unread")


class Names:
    """The names of a model's values and nodes, over all its graphs: the one place that makes up new ones."""

    def __init__(self, model: ir.Model) -> None:
        graphs = (model.graph, *model.graph.subgraphs())
        values = [v for graph in graphs for v in (*graph.inputs, *graph.initializers.values())]
        values += [out for graph in graphs for node in graph for out in node.outputs]
        self._values = {value.name: 1 for value in values if value.name}
        self._nodes = {node.name: 1 for graph in graphs for node in graph if node.name}

    def value(self, name: str) -> str:
        """A name for a new value: this one, with a number where it is taken. It is taken from now on."""
        return _free(name, self._values)

    def node(self, name: str) -> str:
        """A name for a new node: this one, with a number where it is taken. It is taken from now on."""
        return _free(name, self._nodes)

    def beside(self, node: ir.Node, suffix: str) -> str | None:
        """A name for a new node that does part of another's work; None where that one has none."""
        return self.node(f"{node.name}_{suffix}") if node.name else None


def _free(name: str, taken: dict[str, int], mark: str = "_") -> str:
    """A name that is not taken, and taken from now on; ``taken`` has the last number that each name was given with."""
    free, number = name, taken.get(name, 0)
    while free in taken:
        number += 1
        free = f"{name}{mark}{number}"
    taken[free] = 1
    if number:
        taken[name] = number
    return free
