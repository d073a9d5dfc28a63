"""One model in which every unit's rounding can be switched on while it runs: what a precision does to the output, block by block,
without writing, reading and building a model for each block.

Of each precision the quantized model as it is written gives how every tensor is stored, and what every constant becomes. In a
float32 copy each result x is then x + s (rounded(x) - x), and each constant w is w + s (w' - w), with a switch s of 0 or 1 for
its unit and precision, which comes in as an input. What a node reads from nodes of another precision is not rounded once more:
that error is counted where the tensor is made. It ranks blocks; plans are judged by the models that are written for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from planner.model.names import Names
from planner.model.values import constant_array, tensor_dtype
from planner.operators import Role, role_of
from planner.quantization.graph import Rewriting, put

# Numbers in all constants, for each precision: beyond it, a run would take long over its weights.
_MOST_WEIGHTS = 1 << 25
_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


@dataclass(frozen=True)
class Switched:
    """The model, and what it is fed beside its own inputs.

    Attributes:
        switches: name of the input: float32 of shape (levels x units,), level after level.
        levels: those that can be switched on. units: how many.
    """

    model: ir.Model
    switches: str
    levels: tuple[int, ...]
    units: int

    def feed(self, by_unit: Mapping[int, int]) -> dict[str, np.ndarray[Any, Any]]:
        """The switches for these units at their levels, all others float32."""
        array = np.zeros((len(self.levels), self.units), np.float32)
        for unit, level in by_unit.items():
            array[self.levels.index(level), unit] = 1
        return {self.switches: array.reshape(-1)}


def make_switched(
    reference: ir.Model, units: Sequence[Sequence[str]], quantized: Mapping[int, Callable[[], ir.Model]]
) -> Switched | None:
    """The switched model; None where it cannot be made: branches and loops, a rewritten operator, or very many weights.

    Args:
        reference: float32, left untouched.
        units: names of the nodes that are switched together.
        quantized: by level, gives the model that is written where all nodes have it.
    """
    nodes = {node.name: node for node in reference.graph}
    inner = any(
        a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        for n in reference.graph
        for a in n.attributes.values()
    )
    weights = sum(v.const_value.size for v in reference.graph.initializers.values() if v.const_value is not None)
    if inner or weights > _MOST_WEIGHTS or not quantized or any(name not in nodes for unit in units for name in unit):
        return None
    making = _Making.of(reference, len(units), tuple(quantized))
    for place, make in enumerate(quantized.values()):
        stored = make()
        written = {node.name: node for node in stored.graph}
        results = {out.name: out for node in stored.graph for out in node.outputs}
        for unit, names in enumerate(units):
            for name in names:
                node, other = making.nodes[name], written.get(name)
                if other is None or (other.op_type, other.domain) != (node.op_type, node.domain):
                    return None
                making.add_constants(node, other, place * len(units) + unit)
                making.add_results(node, results, place * len(units) + unit)
    making.finish()
    return Switched(making.model, making.name, tuple(quantized), len(units))


@dataclass
class _Making:
    """A copy of the reference on its way to switches.

    Attributes:
        nodes: of the copy, as they were, by name.
        wide: by node and position of a constant, its array, and by what it becomes, the switches.
        rounded: by result, a list of what rounds it and by which switch.
    """

    model: ir.Model
    name: str
    nodes: dict[str, ir.Node]
    rewriting: Rewriting
    parts: Sequence[ir.Value]
    constants: dict[tuple[ir.Node, int], list[tuple[np.ndarray[Any, Any], list[int]]]]
    rounded: dict[ir.Value, list[tuple[ir.Value | None, ir.Value | None, int]]]

    @classmethod
    def of(cls, reference: ir.Model, units: int, levels: tuple[int, ...]) -> _Making:
        """A copy with the input for the switches, cut into one number for each."""
        model = reference.clone()
        nodes = {node.name or "": node for node in model.graph}
        rewriting = Rewriting(Names(model), {})
        name, count = rewriting.names.value("switches"), units * len(levels)
        switches = ir.Value(name=name, shape=ir.Shape([count]), type=ir.TensorType(_FLOAT))
        model.graph.inputs.append(switches)
        sizes = rewriting.initializer(model.graph, "switch_sizes", np.ones(count, np.int64), ir.DataType.INT64)
        split = ir.node(
            "Split", [switches, sizes], {"axis": 0}, num_outputs=count, name=rewriting.names.node("switches")
        )
        for index, out in enumerate(split.outputs):
            out.name, out.shape, out.type = (
                rewriting.names.value(f"switch_{index}"),
                ir.Shape([1]),
                ir.TensorType(_FLOAT),
            )
        put(split, model.graph)
        return cls(model, name, nodes, rewriting, split.outputs, {}, {})

    def add_constants(self, node: ir.Node, other: ir.Node, switch: int) -> None:
        """What the constants of a node become."""
        for position, value in enumerate(node.inputs):
            array = constant_array(value)
            # A switch has a dimension, which it would give to a number that has none.
            if value is None or array is None or not array.ndim or tensor_dtype(value) != _FLOAT:
                continue
            if role_of(node.op_type, position, is_constant=True, is_float=True) is Role.EXACT:
                continue
            new = _content(other.inputs[position]) if position < len(other.inputs) else None
            if new is None or new.shape != array.shape or np.array_equal(new, array):
                continue
            known = self.constants.setdefault((node, position), [])
            same = next((switches for content, switches in known if np.array_equal(content, new)), None)
            if same is None:
                known.append((new, [switch]))
            else:
                same.append(switch)

    def add_results(self, node: ir.Node, results: Mapping[str | None, ir.Value], switch: int) -> None:
        """How the results of a node are stored."""
        for out in node.outputs:
            if not out.name or tensor_dtype(out) != _FLOAT or out.shape is None or not len(out.shape):
                continue
            found = results.get(f"{out.name}_dequantized") or results.get(out.name)
            producer = None if found is None else found.producer()
            if producer is not None and producer.op_type == "DequantizeLinear" and producer.inputs[0] is not None:
                scale, zero = (constant_array(v) for v in producer.inputs[1:3])
                kind = tensor_dtype(producer.inputs[0])
                if scale is None or zero is None or kind is None:
                    continue
                graph = self.model.graph
                pair = (
                    self.rewriting.initializer(graph, f"{out.name}_scale", scale.astype(np.float32), _FLOAT),
                    self.rewriting.initializer(graph, f"{out.name}_zero", zero, kind),
                )
                self.rounded.setdefault(out, []).append((*pair, switch))
            elif found is not None and (tensor_dtype(found) == _HALF or _cast_from_half(found)):
                self.rounded.setdefault(out, []).append((None, None, switch))

    def finish(self) -> None:
        """Put the switches in."""
        for (node, position), found in self.constants.items():
            value = node.inputs[position]
            assert value is not None
            total = value
            for array, switches in found:
                change = (array - constant_array(value)).astype(np.float32)
                constant = self.rewriting.initializer(self.model.graph, f"{value.name}_change", change, _FLOAT)
                total = self._mixed(total, constant, switches, value.name or "w", node, before=True)
            node.replace_input_with(position, total)
        for out, kinds in self.rounded.items():
            self._round(out, kinds)
        self.model.graph.sort()

    def _round(self, out: ir.Value, kinds: Sequence[tuple[ir.Value | None, ir.Value | None, int]]) -> None:
        node, name = out.producer(), out.name or ""
        assert node is not None
        uses, is_output = tuple(out.uses()), out.is_graph_output()
        out.name = self.rewriting.names.value(f"{name}_exact")
        total = out
        for scale, zero, switch in kinds:
            if scale is None:
                narrow = self._add("Cast", [out], name, node, {"to": int(_HALF)}, _HALF)
                rounded = self._add("Cast", [narrow], name, node, {"to": int(_FLOAT)})
            else:
                codes = self._add(
                    "QuantizeLinear", [out, scale, zero], name, node, dtype=tensor_dtype(zero) if zero else _FLOAT
                )
                rounded = self._add("DequantizeLinear", [codes, scale, zero], name, node)
            error = self._add("Sub", [rounded, out], name, node)
            total = self._mixed(total, error, [switch], name, node, before=False)
        total.name = name
        total.shape = out.shape
        for user, index in uses:
            user.replace_input_with(index, total)
        if is_output:
            for index, current in enumerate(self.model.graph.outputs):
                if current is out:
                    self.model.graph.outputs[index] = total

    def _mixed(
        self, total: ir.Value, change: ir.Value, switches: Sequence[int], name: str, node: ir.Node, *, before: bool
    ) -> ir.Value:
        """The total, and the change where one of the switches is on."""
        switch = self.parts[switches[0]]
        for further in switches[1:]:
            switch = self._add("Add", [switch, self.parts[further]], name, node, before=before)
        return self._add(
            "Add", [total, self._add("Mul", [change, switch], name, node, before=before)], name, node, before=before
        )

    def _add(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        beside: ir.Node,
        attributes: Mapping[str, int] | None = None,
        dtype: ir.DataType | None = _FLOAT,
        *,
        before: bool = False,
    ) -> ir.Value:
        made = self.rewriting.node(
            op_type,
            inputs,
            (f"{name}_{op_type}", dtype or _FLOAT, None),
            name=f"{name}_{op_type}",
            attributes=attributes,
        )
        if before:
            self.model.graph.insert_before(beside, made)
        else:
            self.model.graph.insert_after(beside, made)
        return made.outputs[0]


def _content(value: ir.Value | None) -> np.ndarray[Any, Any] | None:
    """What a constant operand of a quantized model stands for, as float32; None where it is none."""
    if value is None:
        return None
    array = constant_array(value)
    if array is not None:
        return array.astype(np.float32) if array.dtype.kind == "f" else None
    node = value.producer()
    if node is None or node.op_type not in ("DequantizeLinear", "Cast"):
        return None
    source = constant_array(node.inputs[0])
    if node.op_type == "Cast" or source is None:
        return None if source is None or source.dtype.kind != "f" else source.astype(np.float32)
    scale, zero = constant_array(node.inputs[1]), constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    if scale is None or "block_size" in node.attributes:
        return None
    axis = node.attributes["axis"].value if "axis" in node.attributes else 1
    shape = [1] * source.ndim
    if scale.ndim and scale.size > 1:
        shape[int(axis)] = scale.size

    def spread(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return array.astype(np.float64).reshape(shape if array.size > 1 else [1] * source.ndim)

    codes = source.astype(np.float64) - (0.0 if zero is None else spread(zero))
    return np.asarray(codes * spread(scale), np.float32)


def _cast_from_half(value: ir.Value) -> bool:
    node = value.producer()
    return (
        node is not None
        and node.op_type == "Cast"
        and node.inputs[0] is not None
        and tensor_dtype(node.inputs[0]) == _HALF
    )
