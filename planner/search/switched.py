"""One model in which every unit's rounding can be switched on while it runs: what a precision does to the output, block by block,
without writing, reading and building a model for each block.

Of each precision the quantized model as it is written gives how every tensor is stored, and what every constant becomes. In a
float32 copy each result x is then x + s (rounded(x) - x), and each constant w is w + s (w' - w), with a switch s of 0 or 1 for
its unit and precision, which comes in as an input. Whoever reads x reads it rounded where the maker's switch is on or the reader's.
It ranks blocks; plans are judged by the models that are written for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
                switch = place * len(units) + unit
                making.add_constants(node, other, switch)
                making.add_results(node, results, switch)
                making.add_reads(node, other, switch)
    making.finish()
    return Switched(making.model, making.name, tuple(quantized), len(units))


@dataclass(frozen=True)
class _Stored:
    """How a tensor is stored; two that are stored so hold the same. The scale is None for float16."""

    scale: float | None
    zero: int
    dtype: ir.DataType

    @classmethod
    def of(cls, value: ir.Value | None) -> _Stored | None:
        """How a value of a written model is; None for float32, and where scales differ by channel."""
        node = None if value is None else value.producer()
        if node is not None and node.op_type == "DequantizeLinear" and node.inputs[0] is not None:
            scale, zero = (constant_array(v) for v in node.inputs[1:3])
            kind = tensor_dtype(node.inputs[0])
            if scale is None or zero is None or kind is None or scale.size != 1:
                return None
            return cls(float(scale.reshape(())), int(zero.reshape(())), kind)
        half = value is not None and (tensor_dtype(value) == _HALF or _cast_from_half(value))
        return cls(None, 0, _HALF) if half else None


# By how a tensor is stored, the switches that make it so.
_Switches = dict[_Stored, list[int]]


@dataclass
class _Making:
    """A copy of the reference on its way to switches.

    Attributes:
        nodes: of the copy, as they were, by name.
        parts: of the switches' input, a number each. head: the node that cuts it.
        constants: by node and position of a constant, what it becomes, and by which switches.
        made: by tensor, how its maker stores it. read: how each of its readers does.
        either: the larger of two sums of switches.
    """

    model: ir.Model
    name: str
    nodes: dict[str, ir.Node]
    rewriting: Rewriting
    parts: Sequence[ir.Value]
    head: ir.Node
    constants: dict[tuple[ir.Node, int], list[tuple[np.ndarray[Any, Any], list[int]]]] = field(default_factory=dict)
    made: dict[ir.Value, _Switches] = field(default_factory=dict)
    read: dict[ir.Value, dict[tuple[ir.Node, int], _Switches]] = field(default_factory=dict)
    either: dict[tuple[tuple[int, ...], tuple[int, ...]], ir.Value] = field(default_factory=dict)

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
        return cls(model, name, nodes, rewriting, split.outputs, split)

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
            stored = _Stored.of(results.get(f"{out.name}_dequantized") or results.get(out.name))
            if stored is not None and out.name and _can_be_mixed(out):
                self.made.setdefault(out, {}).setdefault(stored, []).append(switch)

    def add_reads(self, node: ir.Node, other: ir.Node, switch: int) -> None:
        """How what a node reads is stored for it."""
        for position, (value, theirs) in enumerate(zip(node.inputs, other.inputs, strict=False)):
            stored = _Stored.of(theirs)
            if value is not None and stored is not None and constant_array(value) is None and _can_be_mixed(value):
                reader = self.read.setdefault(value, {}).setdefault((node, position), {})
                reader.setdefault(stored, []).append(switch)

    def finish(self) -> None:
        """Put the switches in."""
        for (node, position), found in self.constants.items():
            value = node.inputs[position]
            assert value is not None
            total = value
            for array, switches in found:
                change = (array - constant_array(value)).astype(np.float32)
                constant = self.rewriting.initializer(self.model.graph, f"{value.name}_change", change, _FLOAT)
                total = self._mixed(total, constant, self._sum(switches), value.name or "w", node)
            node.replace_input_with(position, total)
        for value in dict.fromkeys([*self.made, *self.read]):
            self._round(value)
        self.model.graph.sort()

    def _round(self, value: ir.Value) -> None:
        """Give each reader of a tensor the tensor as it is stored for it."""
        name, beside = value.name or "", value.producer() or self.head
        made, read = self.made.get(value, {}), self.read.get(value, {})
        uses, output = tuple(value.uses()), value.is_graph_output()
        if output:
            value.name = self.rewriting.names.value(f"{name}_exact")
        kinds = dict.fromkeys([*made, *(kind for switches in read.values() for kind in switches)])
        errors = {kind: self._error(value, kind, name, beside) for kind in kinds}
        known: dict[tuple[tuple[_Stored, ir.Value], ...], ir.Value] = {}

        def stored(own: _Switches) -> ir.Value:
            mixed = tuple(
                (kind, self._either(made.get(kind, []), own.get(kind, [])))
                for kind in kinds
                if kind in made or kind in own
            )
            if mixed not in known:
                total = value
                for kind, switch in mixed:
                    total = self._mixed(total, errors[kind], switch, name, beside)
                known[mixed] = total
            return known[mixed]

        for use in uses:
            use.node.replace_input_with(use.idx, stored(read.get((use.node, use.idx), {})))
        if output:
            total = stored({})
            total.name, total.shape = name, value.shape
            self.model.graph.outputs[list(self.model.graph.outputs).index(value)] = total

    def _error(self, value: ir.Value, kind: _Stored, name: str, beside: ir.Node) -> ir.Value:
        """What a tensor that is stored so is off by."""
        if kind.scale is None:
            narrow = self._add("Cast", [value], name, beside, {"to": int(_HALF)}, _HALF)
            rounded = self._add("Cast", [narrow], name, beside, {"to": int(_FLOAT)})
        else:
            graph, zero = self.model.graph, np.array(kind.zero).astype(kind.dtype.numpy())
            pair = [
                self.rewriting.initializer(graph, f"{name}_scale", np.array(kind.scale, np.float32), _FLOAT),
                self.rewriting.initializer(graph, f"{name}_zero", zero, kind.dtype),
            ]
            codes = self._add("QuantizeLinear", [value, *pair], name, beside, dtype=kind.dtype)
            rounded = self._add("DequantizeLinear", [codes, *pair], name, beside)
        return self._add("Sub", [rounded, value], name, beside)

    def _sum(self, switches: Sequence[int]) -> ir.Value:
        """Of switches of which at most one is on."""
        total = self.parts[switches[0]]
        for further in switches[1:]:
            total = self._add("Add", [total, self.parts[further]], "switches", self.head)
        return total

    def _either(self, one: Sequence[int], other: Sequence[int]) -> ir.Value:
        """1 where a switch of either is on."""
        key = tuple(sorted(one)), tuple(sorted(other))
        if key not in self.either:
            sums = [self._sum(switches) for switches in dict.fromkeys(key) if switches]
            self.either[key] = sums[0] if len(sums) == 1 else self._add("Max", sums, "switches", self.head)
        return self.either[key]

    def _mixed(self, total: ir.Value, change: ir.Value, switch: ir.Value, name: str, beside: ir.Node) -> ir.Value:
        """The total, and the change where the switch is on."""
        return self._add("Add", [total, self._add("Mul", [change, switch], name, beside)], name, beside)

    def _add(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        beside: ir.Node,
        attributes: Mapping[str, int] | None = None,
        dtype: ir.DataType | None = _FLOAT,
    ) -> ir.Value:
        made = self.rewriting.node(
            op_type,
            inputs,
            (f"{name}_{op_type}", dtype or _FLOAT, None),
            name=f"{name}_{op_type}",
            attributes=attributes,
        )
        self.model.graph.insert_after(beside, made)
        return made.outputs[0]


def _can_be_mixed(value: ir.Value) -> bool:
    """A switch has a dimension, which it would give to a number that has none."""
    return tensor_dtype(value) == _FLOAT and value.shape is not None and len(value.shape) > 0


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
