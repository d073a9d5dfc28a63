"""The ai.onnx opset, lowered, for targets whose kernels end before the file's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from planner.model.passes.match import own, scalar_of

_EXPANDED = "planner.expanded"


def lower_opset(model: ir.Model, target: int) -> str | None:
    """Lower the ai.onnx opset to ``target``; what could not be done, in words.

    An operator that both opsets have stays, if its types, operands and attributes are known to the older form; the few whose form or
    meaning has changed since opset 18 are changed back. One that only the newer has is replaced by ONNX's own definition of it.

    Args:
        model: changed in place, types inferred.
        target: the opset to reach, 18 or above.
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
            if _crosses(node, have, target) and (change := _CHANGES.get(node.op_type)) is not None:
                change(node)
            for name in _unknown_attributes(node, target):
                del node.attributes[name]
    model.opset_imports[""] = target
    return None


def _problems(model: ir.Model, have: int, target: int) -> Iterator[str]:
    for node in model.graph.all_nodes():
        if not own(node):
            continue
        newer, older = schema_of(node.op_type, have), schema_of(node.op_type, target)
        if older is None:
            if newer is None or not (newer.has_function or newer.has_context_dependent_function):
                yield f"{node.op_type} {node.name!r} is not in it"
            continue
        if newer is None or newer.since_version == older.since_version:
            continue
        yield from (f"{node.op_type} {node.name!r} {what}" for what in _unknown_to(older, newer, node, have, target))


def _unknown_to(
    older: onnx.defs.OpSchema, newer: onnx.defs.OpSchema, node: ir.Node, have: int, target: int
) -> Iterator[str]:
    """What of the node the older form does not know."""
    if _crosses(node, have, target):
        if obstacle := _OBSTACLES[node.op_type](node):
            yield obstacle
    elif (count := sum(v is not None for v in node.inputs)) > older.max_input:
        yield f"has {count} inputs"
    for name in _unknown_attributes(node, target):
        if not _says_nothing(node, name, newer.attributes[name].default_value):
            yield f"has the attribute {name}"
    for formals, values in ((older.inputs, node.inputs), (older.outputs, node.outputs)):
        for i, value in enumerate(values):
            types = formals[min(i, len(formals) - 1)].types
            if value is not None and value.type is not None and str(_type_name(value)) not in types:
                yield f"computes with {value.type}"


def _says_nothing(node: ir.Node, name: str, default: onnx.AttributeProto) -> bool:
    """Whether the attribute has the value that the operator has without it."""
    value = node.attributes[name].value
    if default.type == onnx.AttributeProto.UNDEFINED:
        return name == "dilations" and all(v == 1 for v in value)
    return bool(value == _value(default))


# -- operators whose form or meaning has changed since opset 18 ------------------------------------------------------------


def _text(node: ir.Node, name: str) -> str | None:
    return node.attributes[name].as_string() if name in node.attributes else None


def _obstacle_to_grid_sample(node: ir.Node) -> str:
    x = node.inputs[0]
    is_flat = x is not None and x.shape is not None and len(x.shape) == 4
    return "" if is_flat else "samples volumes, or what has no known rank"


def _grid_sample(node: ir.Node) -> None:
    mode = _text(node, "mode") or "linear"
    node.attributes["mode"] = ir.AttrString("mode", {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode))


def _dft_axis(node: ir.Node) -> int | None:
    x, given = node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None
    axis = -2 if given is None else scalar_of(given)
    if axis is None or x is None or x.shape is None:
        return None
    return int(axis) % len(x.shape)


def _dft(node: ir.Node) -> None:
    axis = _dft_axis(node)
    assert axis is not None, "looked at before"
    node.attributes["axis"] = ir.AttrInt64("axis", axis)
    node.resize_inputs(min(len(node.inputs), 2))


# By operator: the opset that changed it, and why it cannot be changed back; empty where it can.
_SINCE: Mapping[str, int] = {"DFT": 20, "GridSample": 20, "GroupNormalization": 21, "Pad": 19, "Resize": 19}
_OBSTACLES: Mapping[str, Callable[[ir.Node], str]] = {
    "DFT": lambda node: "" if _dft_axis(node) is not None else "has an axis that is not known",
    "GridSample": _obstacle_to_grid_sample,
    "GroupNormalization": lambda _: "has a scale and a bias for each channel",
    "Pad": lambda node: "wraps around" if _text(node, "mode") == "wrap" else "",
    "Resize": lambda node: (
        "has half_pixel_symmetric" if _text(node, "coordinate_transformation_mode") == "half_pixel_symmetric" else ""
    ),
}
_CHANGES: Mapping[str, Callable[[ir.Node], None]] = {"DFT": _dft, "GridSample": _grid_sample}


def _crosses(node: ir.Node, have: int, target: int) -> bool:
    """Whether the operator changed between the two opsets in more than types and attributes."""
    return target < _SINCE.get(node.op_type, 0) <= have


def _unknown_attributes(node: ir.Node, target: int) -> list[str]:
    schema = schema_of(node.op_type, target)
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


@functools.cache
def schema_of(op_type: str, opset: int) -> onnx.defs.OpSchema | None:
    """What ONNX says of one of its own operators at an opset; None where it has none of that name."""
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
    except (RuntimeError, IndexError, ValueError):
        return None
    return onnx.FunctionProto.FromString(found)


def _expand(model: ir.Model, have: int, target: int) -> None:
    """Put ONNX's definition in the place of each node whose operator the older opset lacks."""
    count = 0
    for node in list(model.graph.all_nodes()):
        if not own(node) or schema_of(node.op_type, target) is not None:
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
