"""Applying a plan: rewriting the normalized graph so that it stores and computes what the plan says.

One walk over the graph in topological order serves every mix of float32, float16 and Q/DQ nodes. It knows nothing of
EPs. Each float value has one owner, the node that produces it, which decides how it is stored; a consumer that needs
another type gets an explicit conversion, made once per value and type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx
import onnx_ir as ir

from planner.calibrate.ranges import Range
from planner.contrib import type_parameter
from planner.dtypes import DType, QuantConfig
from planner.errors import RequestError
from planner.model.names import Names
from planner.model.node import Node
from planner.model.read import Model
from planner.model.values import constant_array, tensor_dtype
from planner.operators import Role, role_of
from planner.quantization.casts import as_float, cast, remove_cast_pairs
from planner.quantization.constants import weight_only
from planner.quantization.graph import FLOATS, IR_TYPES, Rewriting
from planner.quantization.qdq import quantize_node
from planner.quantization.replaced import replace_node
from planner.quantization.rounding import Rounding
from planner.resolve.plan import Plan, PlanNode

# In a plan's inputs: whether the mean error of rounded weights is taken off the biases (it is where nothing is said).
CORRECTS = "bias_correction"
# Whether the codes of its weights are learned (they are not where nothing is said).
LEARNS = "learned_rounding"

# Their bodies, or what they compute, have types of their own.
_OWN_TYPES = frozenset({"If", "Loop", "Scan", "Cast", "CastLike"})
# The type of one input binds that of another, or of what they compute: the model's own Q and DQ, with their scales. And what ONNX has
# in float32 alone.
_BOUND_TYPES = frozenset({"BitCast", "QuantizeLinear", "DequantizeLinear", "NonMaxSuppression"})


@dataclass(frozen=True)
class Applied:
    """A rewritten model, and notes on what had to be done to values (clamped constants, unseen tensors)."""

    model: ir.Model
    notes: tuple[str, ...]


def apply_plan(
    model: Model, plan: Plan, ranges: Mapping[str, Range], rounding: Rounding | None = None, *, float16_io: bool = False
) -> Applied:
    """Rewrite a copy of the model as the plan says.

    Args:
        model: normalized, as read with the plan's shapes; left untouched.
        plan: made for it.
        ranges: observed range of each float tensor that becomes an integer activation, by name.
        rounding: how its weights are rounded, where the plan wants that learned.
        float16_io: let float32 graph inputs and outputs that meet float16 nodes be float16 themselves.

    Raises:
        RequestError: the plan names other nodes than the model has, or a range is missing.
    """
    assert model.ir is not None
    copy = model.ir.clone()
    planned = {node.name: node for node in plan.nodes}
    _check_names(copy, planned, model.path)
    for node in model.nodes:
        _check_line(node, planned.get(node.name))
    if plan.inputs is not None and plan.inputs.get(CORRECTS) is False:
        ranges = {name: replace(seen, means=None) for name, seen in ranges.items()}
    rewriting = Rewriting(Names(copy), ranges, rounding)
    if float16_io:
        _float16_inputs(copy.graph, planned)
    _graph(rewriting, copy.graph, planned, keep_outputs=not float16_io)
    remove_cast_pairs(copy)
    copy.graph.sort()
    _remove_unused_initializers(copy)
    if any(line.replacement is not None and line.replacement.startswith("com.microsoft.") for line in plan.nodes):
        copy.opset_imports["com.microsoft"] = 1
    copy.producer_name = "planner"
    return Applied(copy, tuple(rewriting.notes))


def _check_line(node: Node, line: PlanNode | None) -> None:
    """Refuse a line that no planner wrote for such a node: a plan is a file, and anybody can change it.

    Raises:
        RequestError: with the name of the node.
    """
    if line is None:
        return
    activation = line.config.activation
    stored = activation is not None and not activation.is_float
    wrong = None
    if stored and node.weight is not None and line.config.weight is None:
        wrong = "it has a weight, and the plan no type for it"
    elif line.replacement is not None and stored and not line.config.dynamic:
        wrong = f"{line.replacement} takes weights in blocks and float activations"
    elif line.fixed is not None and activation is not None and stored:
        low, high = activation.integer_range
        if not low <= line.fixed.zero_point <= high or not 0 < line.fixed.scale < float("inf"):
            wrong = f"no {activation} has the scale and zero point that the plan fixes"
    if wrong is not None:
        raise RequestError(f"the plan does not fit {node.op_type} {node.name!r}: {wrong}", "make the plan anew")


def _check_names(model: ir.Model, planned: Mapping[str, PlanNode], path: str) -> None:
    names = {n.name for n in model.graph.all_nodes() if n.op_type not in ("QuantizeLinear", "DequantizeLinear")}
    missing = sorted(str(n) for n in names - set(planned))
    extra = sorted(set(planned) - names)
    if missing or extra:
        what = f"has no line for node {missing[0]!r}" if missing else f"names node {extra[0]!r}, which is not there"
        raise RequestError(f"the plan does not fit {path}: it {what}", "make the plan anew with `planner plan`")


def _float16_inputs(graph: ir.Graph, planned: Mapping[str, PlanNode]) -> None:
    """Let inputs that only float16 nodes read be float16."""
    for value in graph.inputs:
        readers = [planned.get(use.node.name or "") for use in value.uses()]
        all_float16 = all(line is not None and line.activation is DType.FLOAT16 for line in readers)
        if tensor_dtype(value) == ir.DataType.FLOAT and readers and all_float16:
            value.type = ir.TensorType(ir.DataType.FLOAT16)


def _graph(rewriting: Rewriting, graph: ir.Graph, planned: Mapping[str, PlanNode], *, keep_outputs: bool) -> None:
    """Rewrite a graph, bodies of its nodes first.

    Args:
        rewriting: the model.
        graph: the main one, or a body.
        planned: the plan's lines, by name of the node.
        keep_outputs: its outputs keep their types.
    """
    outputs = [(out.name, tensor_dtype(out)) for out in graph.outputs]
    for node in list(graph):
        for body in _bodies(node):
            _graph(rewriting, body, planned, keep_outputs=True)
        _node(rewriting, node, planned.get(node.name or ""))
    for index, (name, dtype) in enumerate(outputs):
        _restore_output(rewriting, graph, index, name, dtype if keep_outputs else None)


def _bodies(node: ir.Node) -> list[ir.Graph]:
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found += attribute.as_graphs()
    return found


def _node(rewriting: Rewriting, node: ir.Node, line: PlanNode | None) -> None:
    if node.op_type in _BOUND_TYPES:
        _take_float32(rewriting, node)
    elif line is None or line.activation is None:
        _leave(rewriting, node)
    elif line.replacement is not None:
        replace_node(rewriting, node, line)
    elif line.activation.is_float:
        _compute_in_float(rewriting, node, line.activation, line.config)
    else:
        quantize_node(rewriting, node, line)


def _restore_output(
    rewriting: Rewriting, graph: ir.Graph, index: int, name: str | None, dtype: ir.DataType | None
) -> None:
    """Give a graph output its name back and, where ``dtype`` is given, its type."""
    current = graph.outputs[index]
    if dtype in FLOATS and tensor_dtype(current) in FLOATS and tensor_dtype(current) != dtype:
        key = (current, DType.FLOAT32 if dtype == ir.DataType.FLOAT else DType.FLOAT16)
        if key not in rewriting.made:
            rewriting.made[key] = cast(rewriting, current, dtype, graph)
        current = graph.outputs[index] = rewriting.made[key]
    if current.name == name or current.is_graph_input():
        return
    for out in (out for node in graph for out in node.outputs if out.name == name and out is not current):
        out.name = rewriting.names.value(f"{name}_float")
    current.name = name


def _leave(rewriting: Rewriting, node: ir.Node) -> None:
    """Leave the node alone; where it must choose between float types, it follows its first flowing input."""
    # The types of a body's values, and of a sequence's elements, are written down elsewhere as float32.
    if node.op_type in ("Loop", "Scan") or _has_sequences(node):
        _take_float32(rewriting, node)
    if _has_sequences(node):
        return
    flowing = [v for v in node.inputs if v is not None and tensor_dtype(v) in FLOATS and constant_array(v) is None]
    if flowing and node.op_type not in _OWN_TYPES:
        dtype = DType.FLOAT16 if tensor_dtype(flowing[0]) == ir.DataType.FLOAT16 else DType.FLOAT32
        _compute_in_float(rewriting, node, dtype)


def _take_float32(rewriting: Rewriting, node: ir.Node) -> None:
    """Let the node have its inputs as the model has them, where a node before it computes in float16 now."""
    for i, value in enumerate(node.inputs):
        if value is not None and tensor_dtype(value) == ir.DataType.FLOAT16:
            node.replace_input_with(i, as_float(rewriting, value, DType.FLOAT32, node))


def _has_sequences(node: ir.Node) -> bool:
    """Whether the node takes or gives a value that is no tensor: a sequence or an optional."""
    return any(v is not None and not isinstance(v.type, ir.TensorType | None) for v in (*node.inputs, *node.outputs))


def _compute_in_float(rewriting: Rewriting, node: ir.Node, dtype: DType, config: QuantConfig | None = None) -> None:
    """Let the node compute in a float type; a weight may be stored as integers nevertheless."""
    for i, value in enumerate(node.inputs):
        if value is None or tensor_dtype(value) not in FLOATS:
            continue
        array = constant_array(value)
        role = role_of(node.op_type, i, is_constant=array is not None, is_float=True)
        stored = config is not None and config.weight is not None and not config.weight.is_float
        if stored and config is not None and array is not None and role is Role.WEIGHT:
            node.replace_input_with(i, weight_only(rewriting, node, i, value, array, config, dtype))
        elif _shares_data_type(node, i):
            node.replace_input_with(i, as_float(rewriting, value, dtype, node))
    for position, out in enumerate(node.outputs):
        if tensor_dtype(out) in FLOATS and _follows_an_input(node, position):
            out.type = ir.TensorType(IR_TYPES[dtype])


def _follows_an_input(node: ir.Node, position: int) -> bool:
    """Whether result ``position`` has the type of some input. The mean that LayerNormalization gives out, say, has the type that its
    attribute names, and a window that of another attribute.
    """
    domain = "" if node.domain in ("", "ai.onnx") else node.domain
    try:
        schema = onnx.defs.get_schema(node.op_type, domain=domain)
    except onnx.defs.SchemaError:
        own = type_parameter(node.op_type, domain, position, output=True)
        return own is None or own in {type_parameter(node.op_type, domain, i) for i in range(len(node.inputs))}
    own = schema.outputs[min(position, len(schema.outputs) - 1)].type_str
    return own in {formal.type_str for formal in schema.inputs}


def _shares_data_type(node: ir.Node, position: int) -> bool:
    """Whether input ``position`` has the type of the node's data (ONNX: the same type parameter), so that it follows
    it to float16; Resize's scales, say, stay float32.
    """
    domain = "" if node.domain in ("", "ai.onnx") else node.domain
    try:
        schema = onnx.defs.get_schema(node.op_type, 21, domain)
    except onnx.defs.SchemaError:
        return True
    formal = schema.inputs[min(position, len(schema.inputs) - 1)]
    first = schema.inputs[1] if node.op_type in ("Where", "OneHot") else schema.inputs[0]
    if node.op_type == "OneHot":
        return position == 2
    if node.op_type in ("Pow", "GridSample"):
        return True  # exponent and grid may have another type, but EPs have kernels for equal ones only
    return bool(formal.type_str == first.type_str) or (
        "float16" in str(formal.types)
        and formal.type_str not in ("tensor(float)",)
        and node.op_type in ("BatchNormalization",)
    )


def _remove_unused_initializers(model: ir.Model) -> None:
    for graph in (model.graph, *model.graph.subgraphs()):
        outputs = {id(o) for o in graph.outputs}
        for name, value in list(graph.initializers.items()):
            if not value.uses() and id(value) not in outputs and not value.is_graph_input():
                del graph.initializers[name]
