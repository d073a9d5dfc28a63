"""Dataclasses to plain JSON values and back, driven by their type hints; errors name the place of what is wrong."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from planner.errors import RequestError

T = TypeVar("T")


def encode(value: Any) -> Any:
    """``value`` (dataclasses, mappings, tuples, scalars) as JSON values; NaN and infinity become None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def decode(cls: type[T], value: object, path: str) -> T:
    """``value`` as an instance of the dataclass ``cls``; ``path`` is where it stands, for the error message.

    Raises:
        RequestError: if a field is missing or of another type.
    """
    if not isinstance(value, Mapping):
        raise _wrong(path, "an object", value)
    arguments: dict[str, Any] = {}
    for name, hint, required in _shape(cast(Any, cls)):
        place = f"{path}.{name}" if path else name
        if name in value:
            arguments[name] = _decode(hint, value[name], place)
        elif required:
            raise RequestError(f"{place} is missing")
    return cls(**arguments)


@cache
def _shape(cls: type) -> tuple[tuple[str, Any, bool], ...]:
    hints = get_type_hints(cls)
    return tuple(
        (f.name, hints[f.name], f.default is MISSING and f.default_factory is MISSING) for f in fields(cast(Any, cls))
    )


def _decode(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):  # only "X | None" is used
        if value is None:
            return None
        (inner,) = (a for a in arguments if a is not type(None))
        return _decode(inner, value, path)
    if origin is Literal:
        if value not in arguments:
            raise _wrong(path, "one of " + ", ".join(arguments), value)
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(path, "a list", value)
        return tuple(_decode(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(path, "an object", value)
        return {key: _decode(arguments[1], item, f"{path}.{key}") for key, item in value.items()}
    if is_dataclass(hint):
        return decode(cast(type, hint), value, path)
    return _scalar(hint, value, path)


def _scalar(hint: type, value: Any, path: str) -> Any:
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _wrong(path, "a finite number", value)
        return float(value)
    if type(value) is not hint:  # not isinstance: true is no integer here
        raise _wrong(path, {str: "a string", int: "an integer", bool: "true or false"}[hint], value)
    return value


def _wrong(path: str, expected: str, value: object) -> RequestError:
    found = repr(value)
    return RequestError(f"{path or 'the document'} must be {expected}, not {found[:60]}")
