"""Does a build have kernels for a node? Pure: a kernel table, a node and what is planned for it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx

from planner.contrib import type_parameter
from planner.dtypes import DType, QuantConfig
from planner.model.node import Node
from planner.operators import Role
from planner.profiles.kernels import KernelTable


@dataclass(frozen=True)
class Missing:
    """What the table lacks for a node, and what to do instead, where anything is known to help."""

    reason: str
    suggestion: str | None = None


def missing_kernel(
    table: KernelTable, node: Node, config: QuantConfig, opset: int, *, cast_float16: bool
) -> Missing | None:
    """What the table lacks to run the node; None where it has all.

    Every operand needs a kernel for its type. A quantized node is stored as Q/DQ around a float32 kernel, so it needs
    QuantizeLinear and DequantizeLinear kernels for its types as well.

    Args:
        table: kernels of one build.
        node: of the model.
        config: what is planned for it.
        opset: ai.onnx opset of the model that is to run.
        cast_float16: the runtime runs a node without a float16 kernel in float32, between casts.
    """
    activation = config.activation
    if activation is not None and not activation.is_float:
        activation = DType.FLOAT32
    if activation in _ONNX_NAMES and (refused := _refused_by_onnx(node, activation, opset)):
        return Missing(f"{qualified(node)} is not defined for {activation} (ONNX, opset {opset})", refused)
    problem = _kernel_problem(table, node, activation, opset)
    if problem is not None and cast_float16:
        widened = DType.FLOAT32 if activation is DType.FLOAT16 else activation
        problem = _kernel_problem(table, _in_float32(node), widened, opset)
    if problem is None and config.activation is not None:
        problem = _conversion_problem(table, config.activation, config.weight, opset)
    return problem


def _refused_by_onnx(node: Node, activation: DType, opset: int) -> str:
    """What to choose where ONNX does not define the operator for data of the type (Celu: float32 alone), so that no runtime loads
    it; empty where it does, or does not know the operator.
    """
    try:
        formals = onnx.defs.get_schema(node.op_type, opset, node.domain).inputs
    except onnx.defs.SchemaError:
        return ""
    for position, operand in enumerate(node.inputs):
        if operand is None or operand.role is Role.EXACT or operand.dtype not in (None, *_ONNX_NAMES) or not formals:
            continue
        # A sequence or an optional of tensors is written around their type.
        types = " ".join(formals[min(position, len(formals) - 1)].types)
        if f"tensor({_ONNX_NAMES[activation]})" not in types:
            floats = [dtype for dtype, name in _ONNX_NAMES.items() if f"tensor({name})" in types]
            return f"choose {' or '.join(floats)}" if floats else "leave it as it is"
    return ""


# Float types as ONNX writes them in schemas.
_ONNX_NAMES = {DType.FLOAT32: "float", DType.FLOAT16: "float16"}


def _in_float32(node: Node) -> Node:
    """The node as a runtime runs it that casts float16 operands to float32 for want of a kernel."""

    def widened(dtype: str | None) -> str | None:
        return "float32" if dtype == "float16" else dtype

    inputs = tuple(None if o is None else replace(o, dtype=widened(o.dtype)) for o in node.inputs)
    return replace(node, inputs=inputs, output_dtypes=tuple(widened(d) for d in node.output_dtypes))


def _kernel_problem(table: KernelTable, node: Node, activation: DType | None, opset: int) -> Missing | None:
    """Why no kernel of the table serves the node, and what to do; None where one does."""
    types = table.types(node.op_type, node.domain, opset)
    problem = (
        Missing(f"{qualified(node)} has no kernel at opset {opset}")
        if types is None
        else _type_problem(types, node, activation, opset)
    )
    # The runtime replaces an operator without a kernel (for its types) by its definition in terms of others.
    body = node.expansion or _function_body(node.op_type, node.domain, opset)
    if problem is None or body is None:
        return problem
    missing = [op for op in body if not serves(table, op, opset)]
    if not missing:
        return None
    return Missing(f"{qualified(node)} has no kernel, nor has {missing[0]}, which defines it")


def _type_problem(
    types: Mapping[str, frozenset[str]], node: Node, activation: DType | None, opset: int
) -> Missing | None:
    for position, operand in enumerate(node.inputs):
        if operand is None:
            continue
        flows = operand.role is not Role.EXACT and activation is not None
        dtype = activation.value if flows and activation is not None else operand.dtype
        constraint = _constraint(node.op_type, node.domain, opset, position)
        if not _listed(types, constraint, dtype):
            floats = [t for t in ("float16", "float32", "float64") if t in types[constraint or ""]]
            hint = f"choose {' or '.join(floats)}" if flows and floats else None
            return Missing(f"{qualified(node)} has no {dtype} kernel", hint)
    inputs = {_constraint(node.op_type, node.domain, opset, i): o for i, o in enumerate(node.inputs) if o is not None}
    for position, dtype in enumerate(node.output_dtypes):
        constraint = _constraint(node.op_type, node.domain, opset, position, output=True)
        given = inputs.get(constraint)
        if given is not None and given.role is Role.EXACT and None not in (dtype, given.dtype) and dtype != given.dtype:
            name = node.outputs[position]
            hint = f"declare {name!r} as {given.dtype}"
            return Missing(
                f"{qualified(node)} gives {given.dtype}, and the model declares its result {name!r} as {dtype}", hint
            )
        # A type that an input shares was looked at there, as the plan would have it.
        if constraint not in inputs and not _listed(types, constraint, dtype):
            return Missing(f"{qualified(node)} has no kernel that gives {dtype}")
    return None


def _listed(types: Mapping[str, frozenset[str]], constraint: str | None, dtype: str | None) -> bool:
    """Whether a kernel has the type; what is unknown contradicts nothing."""
    return dtype is None or dtype in types.get(constraint or "", {dtype})


# Operators whose definition depends on their node, where they stand in the definition of another: what they need at most.
_NESTED = {
    "CastLike": ("Cast",),
    "NegativeLogLikelihoodLoss": (
        "Cast", "Div", "Equal", "GatherElements", "Mul", "Neg", "ReduceMean", "ReduceSum", "Slice", "Squeeze", "Sub",
        "Unsqueeze", "Where",
    ),
}  # fmt: skip


def serves(table: KernelTable, op_type: str, opset: int) -> bool:
    """Whether the table has kernels for an operator of ONNX, or for all that it is defined by. Constants need none."""
    if op_type == "Constant" or table.types(op_type, "", opset) is not None:
        return True
    body = _NESTED.get(op_type) or _function_body(op_type, "", opset)
    return body is not None and all(serves(table, op, opset) for op in body)


def _conversion_problem(table: KernelTable, activation: DType, weight: DType | None, opset: int) -> Missing | None:
    needed = []
    if not activation.is_float:
        needed += [("QuantizeLinear", activation), ("DequantizeLinear", activation)]
    if weight is not None and not weight.is_float:
        needed.append(("DequantizeLinear", weight))  # weights are quantized offline
    for operator, dtype in needed:
        kernel = table.types(operator, "", opset) or {}
        listed = frozenset[str]().union(*kernel.values())
        if dtype not in listed:
            integers = sorted(t for t in listed if "int" in t and t != "int32")
            if not integers:
                return Missing(
                    f"{operator} has no kernel at opset {opset}",
                    "choose a float precision, or export the model at an older opset",
                )
            hint = "choose 8-bit types" if any("8" in t for t in integers) else "choose a float precision"
            return Missing(f"{operator} has no {dtype} kernel, only {', '.join(integers)}", hint)
    return None


@functools.cache
def _constraint(op_type: str, domain: str, opset: int, position: int, *, output: bool = False) -> str | None:
    """Name of the type parameter of an operand, as ONNX and ONNX Runtime call it ("T")."""
    try:
        schema = onnx.defs.get_schema(op_type, opset, domain)
        formal = schema.outputs if output else schema.inputs
    except onnx.defs.SchemaError:
        return type_parameter(op_type, domain, position, output=output) or "T"
    return str(formal[min(position, len(formal) - 1)].type_str) if formal else None


@functools.cache
def _function_body(op_type: str, domain: str, opset: int) -> tuple[str, ...] | None:
    """Operators that ONNX defines this one by; None where it is primitive, or its definition depends on its inputs."""
    try:
        schema = onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None
    if not schema.has_function:
        return None
    return tuple(n.op_type for n in schema.function_body.node)


def qualified(node: Node) -> str:
    """The operator's name, with its domain where that is not ONNX's own."""
    return f"{node.domain}:{node.op_type}" if node.domain else node.op_type
