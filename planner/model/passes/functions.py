"""Functions of the model's own, written out where they are called."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from planner.model.check import BrokenGraphError
from planner.model.passes.lower_opset import schema_of


def write_out_functions(model: ir.Model) -> None:
    """Put the nodes of each function in the place of its calls.

    A function may name another opset than the model: it is one with the model's where its operators mean the same at both.

    Raises:
        BrokenGraphError: they do not, or a call leaves out an input that a node of the function needs.
    """
    for function in model.functions.values():
        _agree_on_opsets(function, model)
    common.InlinePass()(model)
    opset = model.opset_imports.get("", 0)
    for node in model.graph.all_nodes():
        if node.domain == "":
            _check_inputs(node, opset)


def _agree_on_opsets(function: ir.Function, model: ir.Model) -> None:
    for domain, have in function.opset_imports.items():
        wanted = model.opset_imports.get(domain, have)
        if have == wanted:
            continue
        for node in function.all_nodes():
            if domain == "" and node.domain == "" and not _means_the_same(node.op_type, have, wanted):
                raise BrokenGraphError(
                    f"function {function.name!r} is written for opset {have}, the model for {wanted}, and {node.op_type} is "
                    "another operator there: export the model at one opset"
                )
        function.opset_imports[domain] = wanted


def _means_the_same(op_type: str, have: int, wanted: int) -> bool:
    """Whether an operator takes the same inputs and attributes, with the same defaults, at two opsets."""
    one, other = (schema_of(op_type, opset) for opset in (have, wanted))
    if one is None or other is None:
        return one is other
    return one.since_version == other.since_version or _form(one) == _form(other)


def _form(schema: onnx.defs.OpSchema) -> object:
    defaults = {name: attribute.default_value.SerializeToString() for name, attribute in schema.attributes.items()}
    return [p.name for p in schema.inputs], [p.name for p in schema.outputs], defaults


def _check_inputs(node: ir.Node, opset: int) -> None:
    """Refuse a node without an input that its operator cannot do without."""
    schema = schema_of(node.op_type, opset)
    for i, parameter in enumerate(() if schema is None else schema.inputs):
        needed = parameter.option == onnx.defs.OpSchema.FormalParameterOption.Single
        if needed and (i >= len(node.inputs) or node.inputs[i] is None):
            raise BrokenGraphError(
                f"{node.op_type} {node.name or ''!r} has no input {parameter.name!r}, which it needs"
            )
