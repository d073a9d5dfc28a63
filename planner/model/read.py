"""Reading an ONNX file into a Model: checked, normalized, every node traceable to the user's own names."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx_ir as ir

from planner import limits
from planner.errors import PlannerError, RequestError, first_line
from planner.files import Snapshot
from planner.model.binding import BoundShape, Seen, bind_open, tell, with_names
from planner.model.check import BrokenGraphError, complaint
from planner.model.load import load_source, source_of
from planner.model.names import name_of
from planner.model.node import Node, Operand
from planner.model.normalize import normalize
from planner.model.passes.channels import Misconvolves
from planner.model.passes.dimensions import MostRank, any_rank
from planner.model.passes.fuse import FUSED_OPERATORS
from planner.model.passes.integers import ANY_INTEGERS, PlainIntegers
from planner.model.passes.lower_opset import definition
from planner.model.shape_arithmetic import shape_arithmetic
from planner.model.shapes import describe
from planner.model.spread import is_quantized
from planner.model.stored import (
    FLOATS,
    dtype_name,
    has_integer_bias,
    has_off_center_weight,
    has_signed_factor,
    is_asymmetric,
    is_blocked,
    largest_code,
    stored_config,
)
from planner.model.values import constant_array
from planner.operators import Keeps, Role, known_operator, operator, role_of

# Numbers of a constant that conditions may look at: it is a shape, or axes.
_SHORT = 16


@dataclass(frozen=True)
class Model:
    """A model as the planner sees it.

    Attributes:
        path: the file it was read from.
        sha256: of the file and its external data.
        opset: ai.onnx opset of the file.
        normalized_opset: ai.onnx opset after normalizing.
        node_count: nodes in the file's main graph and its subgraphs.
        nodes: of the normalized graph, in topological order, subgraphs included; Q/DQ nodes are part of their units.
        dynamic_inputs: inputs whose shape is not fixed, as "name=1,3,height,width": ready for --shape, once names are numbers.
        notes: what normalizing could not do.
        shapes: the shapes that were bound whole.
        bound: the same and those that were bound in part, with what bound them.
        sources: the files that it was read from, as they were then.
        ir: the normalized graph itself, for the backends; None on a Model that was built by hand.
    """

    path: str
    sha256: str
    opset: int
    normalized_opset: int
    node_count: int
    nodes: tuple[Node, ...]
    dynamic_inputs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    bound: Mapping[str, BoundShape] = field(default_factory=dict)
    sources: tuple[Snapshot, ...] = field(default=(), repr=False, compare=False)
    ir: ir.Model | None = field(default=None, repr=False, compare=False)

    def check_unchanged(self) -> None:
        """Raise RequestError if a file of the model is gone, or is no longer what was read."""
        for source in self.sources:
            source.check()


def read_model(
    path: Path | str,
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    target_opset: int | Callable[[Collection[str], int], int] = 21,
    fused: Collection[str] = FUSED_OPERATORS,
    integers: PlainIntegers = ANY_INTEGERS,
    most_rank: MostRank = any_rank,
    misconvolves: Misconvolves | None = None,
    as_stored: bool = False,
    seen: Seen | None = None,
) -> Model:
    """Read, check and normalize an ONNX file.

    Args:
        path: the .onnx file; external data is found beside it and mapped, not loaded.
        shapes: input name to fixed dimensions. A single entry under the name "" means the only input.
        target_opset: the opset to raise to where the file's is lower; or what chooses one by the file's operators and opset.
        fused: operators that decomposed ones may be fused into: those that the target takes.
        integers: types of plain integers that it moves and casts.
        most_rank: how many dimensions it takes of an operator.
        misconvolves: which convolutions it computes wrongly; None: none.
        as_stored: to judge the file as it is, as onnxruntime will see it: its opset is not raised.
        seen: what shapes the samples have; with it, open dimensions are bound by them or by default. None: they stay open.

    Raises:
        RequestError: missing or unreadable file, no ONNX model, broken graph, shapes that do not fit.
    """
    path = Path(path)
    own = source_of(path)
    with limits.reading(path, own.size):
        graph_model, sources = load_source(own)
        with _explained(path):
            if isinstance(target_opset, int):
                target_opset = max(target_opset, _opset(graph_model))
            else:
                operators = {n.op_type for n in graph_model.graph.all_nodes() if n.domain in ("", "ai.onnx")}
                target_opset = target_opset(operators, _opset(graph_model))
            return _normalized(
                path,
                graph_model,
                sources,
                dict(shapes or {}),
                target_opset,
                fused,
                integers,
                most_rank,
                misconvolves,
                as_stored,
                seen,
            )


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Where something fails in here, the error says what is wrong with the model."""
    try:
        yield
    except (PlannerError, MemoryError):
        raise
    except Exception as error:
        # The fault is the model's where ONNX's checker finds one, or where the libraries that rewrite it do; else ours.
        told = isinstance(error, BrokenGraphError)
        problem = str(error) if told else complaint(onnx.load(path, load_external_data=False))
        if problem is None and not _is_raised_by_us(error):
            problem = first_line(error)
        if problem is None:
            raise
        raise RequestError(f"{path}: broken ONNX model: {problem}") from None


def _is_raised_by_us(error: BaseException) -> bool:
    """Whether the error arose in a line of planner itself."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is None or Path(trace.tb_frame.f_code.co_filename).is_relative_to(Path(__file__).parents[1])


def _normalized(
    path: Path,
    graph_model: ir.Model,
    sources: tuple[Snapshot, ...],
    asked: dict[str, Sequence[int]],
    target_opset: int,
    fused: Collection[str],
    integers: PlainIntegers,
    most_rank: MostRank,
    misconvolves: Misconvolves | None,
    as_stored: bool,
    seen: Seen | None,
) -> Model:
    shapes = _resolve_shapes(graph_model, asked)
    bound = bind_open(graph_model, shapes, seen)
    original = _Original(graph_model)
    opset = _opset(graph_model)
    node_count = sum(1 for _ in graph_model.graph.all_nodes())
    notes = normalize(
        graph_model,
        with_names(graph_model, bound),
        target_opset,
        fused,
        integers=integers,
        most_rank=most_rank,
        misconvolves=misconvolves,
        as_stored=as_stored,
    )
    _restore_names(graph_model.graph, original)
    return Model(
        path=str(path),
        sha256=_hash(sources),
        opset=opset,
        normalized_opset=graph_model.opset_imports.get("", opset),
        node_count=node_count,
        nodes=_all_nodes(graph_model.graph, original),
        dynamic_inputs=tuple(
            f"{v.name}={_dims(v.shape)}"
            for v in graph_model.graph.inputs
            if isinstance(v.type, ir.TensorType | None) and (v.shape is None or not v.shape.is_static())
        ),
        notes=(*tell(bound), *notes),
        shapes={name: dims for name, shape in bound.items() if (dims := shape.known) is not None},
        bound=bound,
        sources=sources,
        ir=graph_model,
    )


def _opset(model: ir.Model) -> int:
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))


def _dims(shape: ir.Shape | None) -> str:
    """Dimensions as --shape takes them; those that are not fixed by their name, or by N0, N1, ... where they have none."""
    if shape is None:
        return "..."
    return ",".join(str(d) if isinstance(d, int) else d.value or f"N{i}" for i, d in enumerate(shape))


def nodes_as_written(model: ir.Model) -> tuple[Node, ...]:
    """The nodes of a graph as it stands, without normalizing it: what probes judge, whose models are the question itself."""
    return _all_nodes(model.graph, _Original(model))


def _all_nodes(graph: ir.Graph, original: _Original) -> tuple[Node, ...]:
    # Q and DQ belong to the nodes between them; where there are none, they are the question themselves.
    return tuple(_nodes(graph, original, ()) or [_node(node, original, (), set()) for node in graph])


def _hash(sources: Sequence[Snapshot]) -> str:
    """SHA-256 of the bytes of the files, one after the other."""
    digest = hashlib.sha256()
    for source in sources:
        with source.open() as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        source.check()
    return digest.hexdigest()


def _resolve_shapes(model: ir.Model, shapes: dict[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    if "" in shapes:
        if len(model.graph.inputs) != 1 or len(shapes) != 1:
            raise RequestError(
                "--shape without a name needs a model with exactly one input",
                f"write --shape NAME=1,3,224,224; inputs: {describe(model)}",
            )
        name = model.graph.inputs[0].name
        assert name is not None
        return {name: shapes[""]}
    return shapes


def _restore_names(graph: ir.Graph, original: _Original) -> None:
    """Give a node that a library renamed its user's name back: that of the origin with the same operator."""
    taken = {node.name for node in graph}
    for node in graph:
        if node.name in original.names:
            continue
        origins = original.of(node)
        same = [name for name in origins if original.names[name] == node.op_type]
        name = next(iter([*same, *reversed(origins)]), None)
        if name is not None and name not in taken:
            taken.add(name)
            node.name = name


class _Original:
    """The user's graph, by value name: which node computed a value, from what. Kept to trace normalized nodes."""

    def __init__(self, model: ir.Model) -> None:
        self.producers: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.names: dict[str, str] = {}  # of each named node: its operator
        self.values = {v.name for v in (*model.graph.inputs, *model.graph.initializers.values())}
        for node in model.graph.all_nodes():
            self.values.update(o.name for o in node.outputs)
            if node.op_type in ("Constant", "Shape"):
                continue  # they compute nothing of the data: no user looks for them
            name = name_of(node)
            self.names[name] = node.op_type
            inputs = tuple(v.name for v in node.inputs if v is not None and v.name)
            for out in node.outputs:
                if out.name:
                    self.producers[out.name] = (name, inputs)

    def of(self, node: ir.Node) -> tuple[str, ...]:
        """Names of the user's nodes that a normalized node stands for.

        Where it is one of several that replace them, such as a LayerNormalization between two Transposes, each stands for
        them all.
        """
        return self.between(self._known(node, before=True), self._known(node, before=False))

    def _known(self, node: ir.Node, *, before: bool) -> list[str]:
        """The nearest values before or after the node that are the user's own."""
        found, seen = list[str](), {node}
        pending = [node]
        while pending:
            current = pending.pop()
            for value in current.inputs if before else current.outputs:
                if value is None:
                    continue
                if value.name in self.values:
                    found.append(value.name or "")
                    continue
                producer = value.producer()
                further = [producer] if before else [usage.node for usage in value.uses()]
                new = [n for n in further if n is not None and n not in seen]
                seen.update(new)
                pending += new
        return found

    def between(self, inputs: Sequence[str], outputs: Sequence[str]) -> tuple[str, ...]:
        """Names of the user's nodes that lie between these values, in order of discovery from the outputs."""
        stop, found, pending, seen = set(inputs), list[str](), list(outputs), set[str]()
        while pending:
            value = pending.pop()
            if value in seen or value in stop or value not in self.producers:
                continue
            seen.add(value)
            name, sources = self.producers[value]
            if name not in found:
                found.append(name)
            pending.extend(sources)
        return tuple(reversed(found))


def _nodes(graph: ir.Graph, original: _Original, scope: tuple[str, ...]) -> list[Node]:
    nodes: list[Node] = []
    on_shapes = shape_arithmetic(graph)
    for node in graph:
        if not (
            node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.domain in ("", "ai.onnx", "com.microsoft")
        ):
            nodes.append(_node(node, original, scope, on_shapes))
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                nodes += _nodes(attribute.as_graph(), original, (*scope, node.name or ""))
            elif attribute.type == ir.AttributeType.GRAPHS:
                for sub in attribute.as_graphs():
                    nodes += _nodes(sub, original, (*scope, node.name or ""))
    return nodes


def _node(node: ir.Node, original: _Original, scope: tuple[str, ...], on_shapes: set[ir.Node]) -> Node:
    domain = "" if node.domain == "ai.onnx" else node.domain
    operands = tuple(None if v is None else _operand(node, i, v) for i, v in enumerate(node.inputs))
    stored = stored_config(node, operands)
    outputs = tuple(o.name or "" for o in node.outputs)
    return Node(
        name=node.name or "",
        op_type=node.op_type,
        domain=domain,
        inputs=operands,
        outputs=outputs,
        output_shapes=tuple(_shape(o) for o in node.outputs),
        output_dtypes=tuple(_dtype_of(o) for o in node.outputs),
        attributes={
            k: a.value
            for k, a in node.attributes.items()
            if a.type
            in (
                ir.AttributeType.INT,
                ir.AttributeType.FLOAT,
                ir.AttributeType.STRING,
                ir.AttributeType.INTS,
                ir.AttributeType.STRINGS,
            )
        },
        origins=original.of(node),
        stored=stored,
        stored_blocked=is_blocked(node, operands),
        shape_arithmetic=node in on_shapes,
        integer_bias=has_integer_bias(node, operands),
        asymmetric=is_asymmetric(node, operands),
        off_center=has_off_center_weight(node, operands),
        signed_factor=has_signed_factor(node),
        largest_code=largest_code(node, operands),
        scope=scope,
        known=known_operator(node.op_type, domain),
        captures_constants=any(_captures_constants(body) for body in _bodies(node)),
        given_out=not scope and any(o.is_graph_output() for o in node.outputs),
        expansion=_expansion(node, domain),
    )


def _expansion(node: ir.Node, domain: str) -> tuple[str, ...] | None:
    """Operators of the definition that ONNX gives for this very node; None where the operator's does not depend on it."""
    opset = node.graph.opset_imports.get("", 1) if isinstance(node.graph, ir.Graph) and node.graph.opset_imports else 21
    try:
        if not onnx.defs.get_schema(node.op_type, opset, domain).has_context_dependent_function:
            return None
    except onnx.defs.SchemaError:
        return None
    found = definition(node, opset, domain)
    return None if found is None else tuple(n.op_type for n in found.node)


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _captures_constants(body: ir.Graph) -> bool:
    own = {id(graph) for graph in (body, *body.subgraphs())}
    return any(
        value is not None and value.is_initializer() and id(value.graph) not in own
        for inner in body.all_nodes()
        for value in inner.inputs
    )


def _shape(value: ir.Value) -> tuple[int | None, ...] | None:
    if value.shape is None or not isinstance(value.type, ir.TensorType | None):
        return None  # a sequence has a length, which nobody knows ahead
    return tuple(d if isinstance(d, int) else None for d in value.shape)


def _dtype_of(value: ir.Value) -> str | None:
    """Element type of a tensor; None for a sequence or an optional, whatever it holds."""
    return dtype_name(value.dtype) if isinstance(value.type, ir.TensorType | None) else None


def is_constant(value: ir.Value, *, behind_dq: bool = True) -> bool:
    """Whether the value is known before the model runs: an initializer, or one behind layout nodes, and Q and DQ where these count."""
    for _ in range(4):
        if value.const_value is not None and not value.is_graph_input():
            return True
        producer = value.producer()
        if producer is None or not (
            _passes_constants_on(producer.op_type) or (behind_dq and producer.op_type in _Q_DQ)
        ):
            return False
        first = producer.inputs[0]
        if first is None:
            return False
        value = first
    return False


def _passes_constants_on(op_type: str) -> bool:
    return operator(op_type).keeps is Keeps.ALL or op_type == "Cast"


_Q_DQ = ("QuantizeLinear", "DequantizeLinear")


def _operand(node: ir.Node, position: int, value: ir.Value) -> Operand:
    is_float = value.dtype in FLOATS or (value.dtype is None and constant_array(value) is None)
    constant = is_constant(value)
    role = role_of(node.op_type, position, is_constant=constant, is_float=is_float)
    if role is Role.EXACT and constant:
        # A quantized node holds the DQ of all that it reads; before another it stays, since onnxruntime folds none.
        constant = is_constant(value, behind_dq=any(is_quantized(out) for out in node.outputs))
    shape = _shape(value)
    if role is Role.WEIGHT and shape is not None and 0 in shape:
        role = Role.ACTIVATION  # there is nothing to quantize offline, and kernels of quantized weights fail over none
    short = value.dtype == ir.DataType.INT64 and shape is not None and len(shape) == 1 and (shape[0] or 0) <= _SHORT
    content = constant_array(value) if short else None
    numbers = None if content is None else tuple(int(number) for number in content)
    return Operand(value.name or "", role, _dtype_of(value), shape, constant, _before_qdq(value), numbers)


def _before_qdq(value: ir.Value) -> str | None:
    """Name of the value that was quantized and dequantized to this one."""
    dequantize = value.producer()
    codes = dequantize.inputs[0] if dequantize is not None and dequantize.op_type == "DequantizeLinear" else None
    quantize = None if codes is None else codes.producer()
    source = quantize.inputs[0] if quantize is not None and quantize.op_type == "QuantizeLinear" else None
    return None if source is None else source.name
