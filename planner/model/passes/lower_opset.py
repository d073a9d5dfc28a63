"""The ai.onnx opset, lowered, for targets whose kernels end before the file's."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from planner.model.passes.match import own

_EXPANDED = "planner.expanded"


def lower_opset(model: ir.Model, target: int) -> str | None:
    """Lower the ai.onnx opset to ``target``; what could not be done, in words.

    An operator that both opsets have stays, if its types and attributes are known to the older form: since opset 21 new
    versions have added types and attributes, and changed no meaning. One that only the newer has is replaced by ONNX's own
    definition of it.

    Args:
        model: changed in place, types inferred.
        target: the opset to reach, 21 or above.
    """
    have = model.opset_imports.get("", 0)
    problem = next(_problems(model, have, target), None)
    if problem is None:
        _expand(model, have, target)
        problem = next(_problems(model, have, target), None)
    if problem is not None:
        return f"opset {have} could not be lowered to {target}: {problem}"
    for node in model.graph.all_nodes():
        if own(node):
            for name in _unknown_attributes(node, target):
                del node.attributes[name]
    model.opset_imports[""] = target
    return None


def _problems(model: ir.Model, have: int, target: int) -> Iterator[str]:
    for node in model.graph.all_nodes():
        if not own(node):
            continue
        newer, older = _schema(node.op_type, have), _schema(node.op_type, target)
        if older is None:
            if newer is None or not (newer.has_function or newer.has_context_dependent_function):
                yield f"{node.op_type} {node.name!r} is not in it"
            continue
        if newer is None or newer.since_version == older.since_version:
            continue
        for name in _unknown_attributes(node, target):
            default = newer.attributes[name].default_value
            if default.type == onnx.AttributeProto.UNDEFINED or node.attributes[name].value != _value(default):
                yield f"{node.op_type} {node.name!r} has the attribute {name}"
        for formals, values in ((older.inputs, node.inputs), (older.outputs, node.outputs)):
            for i, value in enumerate(values):
                types = formals[min(i, len(formals) - 1)].types
                if value is not None and value.type is not None and str(_type_name(value)) not in types:
                    yield f"{node.op_type} {node.name!r} computes with {value.type}"


def _unknown_attributes(node: ir.Node, target: int) -> list[str]:
    schema = _schema(node.op_type, target)
    return [] if schema is None else [name for name in node.attributes if name not in schema.attributes]


def _value(default: onnx.AttributeProto) -> object:
    value = onnx.helper.get_attribute_value(default)
    return value.decode() if isinstance(value, bytes) else value


def _type_name(value: ir.Value) -> str:
    """The value's type as schemas write it: "tensor(float)"."""
    if isinstance(value.type, ir.TensorType):
        return f"tensor({value.type.dtype.name.lower()})"
    proto = ir.to_proto(value).type
    return str(onnx.helper.printable_type(proto))


def _schema(op_type: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None


def definition(node: ir.Node, opset: int, domain: str = "") -> onnx.FunctionProto | None:
    """ONNX's definition of this very node at the opset; None where the operator is primitive, or cannot be looked at."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None
    if schema.has_function:
        return schema.function_body
    if not schema.has_context_dependent_function:
        return None
    types = [onnx.TypeProto() if v is None or v.type is None else ir.to_proto(v).type for v in node.inputs]
    versions = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
    try:
        found = schema.get_context_dependent_function_with_opset_version(
            versions[-1], ir.to_proto(node).SerializeToString(), [t.SerializeToString() for t in types]
        )
    except (RuntimeError, IndexError):
        return None
    return onnx.FunctionProto.FromString(found)


def _expand(model: ir.Model, have: int, target: int) -> None:
    """Put ONNX's definition in the place of each node whose operator the older opset lacks."""
    count = 0
    for node in list(model.graph.all_nodes()):
        if not own(node) or _schema(node.op_type, target) is not None:
            continue
        body = definition(node, have)
        if body is None:
            continue
        _say_defaults(node, have)
        del body.output[len(node.outputs) :]  # what this node does not give out may not be computed
        body.domain, body.name = _EXPANDED, f"{node.op_type}_{count}"
        for imported in body.opset_import:
            if not imported.domain:
                imported.version = have  # since opset 18 no form has changed
        function = ir.from_proto(body)
        model.functions[function.identifier()] = function
        node.domain, node.op_type = _EXPANDED, body.name
        count += 1
    if count:
        model.opset_imports[_EXPANDED] = 1
        common.InlinePass()(model)
        common.RemoveUnusedOpsetsPass()(model)


def _say_defaults(node: ir.Node, opset: int) -> None:
    """Write the defaults of its attributes down: a definition refers to them."""
    for name, formal in onnx.defs.get_schema(node.op_type, opset, "").attributes.items():
        if name not in node.attributes and formal.default_value.type != onnx.AttributeProto.UNDEFINED:
            node.attributes[name] = ir.from_proto(formal.default_value)
