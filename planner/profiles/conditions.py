"""Conditions on a node as profiles write them, where an attribute stands under its own name; and conditions in words."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import msgspec
import onnx

from planner.codec import Where
from planner.document import Document
from planner.profiles.when import OperandCondition, When

_ATTRIBUTES = ("attributes", "attributes_not", "attributes_above")
_CONDITIONS = tuple(name for name in When.__struct_fields__ if name not in _ATTRIBUTES)
Key = tuple[str, str]  # domain, operator; "*" for any


def split(name: str) -> Key:
    """(domain, operator) of a name as profiles and case ids write it: "Conv", "com.microsoft.Gelu", "com.microsoft.*"."""
    domain, _, op = name.rpartition(".")
    return ("" if domain == "ai.onnx" else domain), op


def names_of(key: str) -> list[str]:
    """The operators that a key of `operators` names: "Conv, ConvTranspose"."""
    return [name.strip() for name in key.split(",")]


def with_attributes(document: Document) -> Any:
    """The document's data with each attribute under `attributes`, `attributes_not` or `attributes_above` of its condition.

    Raises:
        RequestError: a condition that is neither known nor an attribute of its operators.
    """
    data = document.data
    if isinstance(data, dict) and isinstance(data.get("defects"), list):
        data = {**data, "defects": [_defect(document, i, said) for i, said in enumerate(data["defects"])]}
    operators = data.get("operators") if isinstance(data, dict) else None
    if not isinstance(operators, dict):
        return data
    sorted_ = {
        key: {part: _statements(document, ("operators", key, part), said) for part, said in operator.items()}
        if isinstance(operator, dict)
        else operator
        for key, operator in operators.items()
    }
    return {**data, "operators": sorted_}


def _statements(document: Document, where: Where, said: Any) -> Any:
    if not isinstance(said, list):
        return said
    return [
        {**one, "when": _conditions(document, (*where, i, "when"), one["when"], str(where[1]))}
        if isinstance(one, dict) and isinstance(one.get("when"), dict)
        else one
        for i, one in enumerate(said)
    ]


def _defect(document: Document, place: int, said: Any) -> Any:
    if not isinstance(said, dict):
        return said
    found = dict(said)
    for part in ("first", "then"):
        node = said.get(part)
        if isinstance(node, dict) and isinstance(node.get("when"), dict):
            where: Where = ("defects", place, part, "when")
            found[part] = {**node, "when": _conditions(document, where, node["when"], str(node.get("op")))}
    return found


def _conditions(document: Document, where: Where, stated: Mapping[Any, Any], operators: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in stated.items():
        if name in _CONDITIONS:
            found[name] = value
            continue
        allowed = _attributes_of(operators)
        if not isinstance(name, str) or (allowed is not None and name not in allowed):
            known = ", ".join([*_CONDITIONS, *sorted(allowed or ())])
            raise document.error((*where, str(name)), "neither a condition nor an attribute", f"allowed: {known}")
        kind, values = _attribute(value)
        if kind is None:
            raise document.error((*where, name), "says neither values, `not` nor `above`", "write {not: VALUE}")
        found.setdefault(kind, {})[name] = values
    return found


def _attribute(value: Any) -> tuple[str | None, Any]:
    """What is said of an attribute, and about which values."""
    if not isinstance(value, dict):
        return "attributes", value if isinstance(value, list) else [value]
    if list(value) == ["not"]:
        return "attributes_not", value["not"] if isinstance(value["not"], list) else [value["not"]]
    if list(value) == ["above"]:
        return "attributes_above", value["above"]
    return None, None


@functools.cache
def _attributes_of(key: str) -> frozenset[str] | None:
    """The attributes that the operators of a key have at any opset; None where ONNX does not define one of them."""
    found: set[str] = set()
    for name in names_of(key):
        attributes = _schemas().get(split(name))
        if attributes is None:
            return None
        found |= attributes
    return frozenset(found)


@functools.cache
def _schemas() -> Mapping[Key, set[str]]:
    found: dict[Key, set[str]] = defaultdict(set)
    for schema in onnx.defs.get_all_schemas_with_history():
        found[schema.domain, schema.name].update(schema.attributes)
    return dict(found)


def in_file(where: Where) -> Where:
    """A path of the structs as the file has it: attributes stand under their own name."""
    for i, part in enumerate(where):
        if part in _ATTRIBUTES and i and where[i - 1] == "when":
            return (*where[:i], *where[i + 1 : i + 2])
    return where


def condition(stated: Mapping[str, Any]) -> When:
    """A condition as a profile writes it: {"alpha": {"not": 1.0}, "min_rank": 3}."""
    found: dict[str, Any] = {}
    for name, value in stated.items():
        if name in _CONDITIONS:
            found[name] = value
        else:
            kind, values = _attribute(value)
            assert kind is not None, name
            found.setdefault(kind, {})[name] = values
    return msgspec.convert(found, When)


def written(when: When) -> dict[str, Any]:
    """A condition as a profile writes it: what `condition` reads."""
    stated: dict[str, Any] = {
        name: value for name in _CONDITIONS if name != "inputs" and (value := getattr(when, name)) is not None
    }
    for name, values in when.attributes.items():
        stated[name] = _one_or_all(values)
    for name, values in when.attributes_not.items():
        stated[name] = {"not": _one_or_all(values)}
    for name, bound in when.attributes_above.items():
        stated[name] = {"above": bound}
    if when.inputs:
        stated["inputs"] = {
            position: {k: v for k in operand.__struct_fields__ if (v := getattr(operand, k)) is not None}
            for position, operand in when.inputs.items()
        }
        for operand in stated["inputs"].values():
            if operand.get("present") and len(operand) > 1:
                del operand["present"]
    return stated


def _one_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 and not isinstance(values[0], list) else values


# -- in words -----------------------------------------------------------------------------------------------------------

_YES_OR_NO = {
    "weight": ("constant weight", "no constant weight"),
    "per_channel": ("per channel", "per tensor"),
    "blocked": ("by blocks", "not by blocks"),
    "captures_constants": ("body reads constants from outside", "body reads no constants from outside"),
    "static_outputs": ("shapes of results known", "shapes of results not known"),
    "shape_arithmetic": ("computes with shapes alone", "not with shapes alone"),
    "integer_bias": ("an int32 bias", "no int32 bias"),
    "asymmetric": ("a zero point other than 0", "no zero point other than 0"),
    "off_center": ("zero points per channel off the middle", "zero points per channel in the middle"),
    "signed_factor": ("a second factor of a signed type", "a second factor of an unsigned type"),
    "depthwise": ("depthwise", "not depthwise"),
    "resizes_channels": ("first two dimensions change", "first two dimensions stay"),
    "cut_block": ("a block cut short", "no block cut short"),
    "given_out": ("a result is an output of the model", "no result is an output of the model"),
    "empty": ("a tensor is empty", "no tensor is empty"),
}


def words(when: When) -> str:
    """The conditions, in a few words; empty where there are none."""
    said = [words[not getattr(when, name)] for name, words in _YES_OR_NO.items() if getattr(when, name) is not None]
    said += [w for name in ("opset", "rank") if (w := _bounds(name, when))]
    if when.min_outputs is not None:
        said.append(f"{when.min_outputs} outputs or more")
    if when.weight_above is not None:
        said.append(f"a code of the weight above {when.weight_above}")
    said += [f"{k} = {any_of(k, v)}" for k, v in when.attributes.items()]
    said += [f"{k} other than {any_of(k, v)}" for k, v in when.attributes_not.items()]
    said += [f"{k} above {v:g}" for k, v in when.attributes_above.items()]
    said += [f"input {i} {_operand(c)}" for i, c in when.inputs.items()]
    return ", ".join(said)


def _bounds(name: str, bounded: When | OperandCondition) -> str:
    least, most = getattr(bounded, f"min_{name}"), getattr(bounded, f"max_{name}")
    if least is None and most is None:
        return ""
    if least is None:
        return f"{name} up to {most}"
    if most is None:
        return f"{name} {least} or more"
    return f"{name} {least}" if least == most else f"{name} {least} to {most}"


def any_of(name: str, values: list[Any]) -> str:
    """The values of an attribute: "3 or 4", "2x2"; a number of an element type by its name."""
    return " or ".join(
        "x".join(map(str, v)) if isinstance(v, list) else _type_name(v) if name in ("to", "dtype") else str(v)
        for v in values
    )


def _type_name(value: Any) -> str:
    known = value in onnx.TensorProto.DataType.values()
    return onnx.TensorProto.DataType.Name(value).lower() if known else str(value)


def _operand(condition: OperandCondition) -> str:
    if condition.present is False:
        return "missing"
    said = [] if condition.constant is None else ["constant" if condition.constant else "computed"]
    said += [] if condition.dtype is None else [" or ".join(condition.dtype)]
    said += [w for w in (_bounds("rank", condition),) if w]
    said += [f"with dimension {place} {wanted.words()}" for place, wanted in (condition.dims or {}).items()]
    said += [] if condition.holds is None else [f"with {condition.holds} in it"]
    return " ".join(said) or "given"
