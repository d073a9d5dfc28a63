"""Values to JSON and back, driven by their types. An error names the file and the dotted path of what is wrong.

A frozen dataclass is an object with a key for each field. Three markers change that, given as a field's metadata:

    base: str = field(metadata=named("from"))   # the key is "from"
    config: QuantConfig = field(metadata=FLAT)  # its keys stand in this object itself
    nodes: Mapping = field(metadata=HIDDEN)     # not in the JSON; it needs a default to be read back

A class lists the properties that its JSON shows as well in ``SHOWN = ("passed",)``; reading passes them over, as it does
any key that it does not know. Numbers that are not finite are written as null.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from planner.errors import RequestError, first_line
from planner.files import read_text

T = TypeVar("T")
Where = tuple[str | int, ...]
Decoder = Callable[[Any], Any]

FLAT: Mapping[str, Any] = {"flat": True}
HIDDEN: Mapping[str, Any] = {"hidden": True}


def named(key: str) -> Mapping[str, Any]:
    """Metadata of a field whose JSON key is not its name."""
    return {"key": key}


class MalformedError(RequestError):
    """A document that is not of its type.

    Attributes:
        where: keys and indices that lead to what is wrong.
        problem: what is wrong there.
        expected: whether it says what is expected in the place of a value.
    """

    def __init__(self, where: Where, problem: str, hint: str = "", source: str = "", *, expected: bool = False) -> None:
        self.where, self.problem, self.expected = where, problem, expected
        super().__init__(": ".join(filter(None, (source, dotted(where), problem))), hint)

    def within(self, key: str | int) -> MalformedError:
        """The same error as seen from what holds the value under this key or index."""
        return MalformedError((key, *self.where), self.problem, self.hint, expected=self.expected)


def dotted(where: Iterable[str | int]) -> str:
    """The place as people write it: ``nodes[3].weight``."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in where).removeprefix(".")


# -- writing ----------------------------------------------------------------------------------------------------------


def to_json(value: object) -> dict[str, Any]:
    """A dataclass as a JSON object of plain values."""
    found: dict[str, Any] = {}
    for entry in _fields(cast(Any, type(value))):
        inner = getattr(value, entry.name)
        if entry.flat:
            found.update(to_json(inner))
        elif not entry.hidden:
            found[entry.key] = plain(inner)
    for name in getattr(value, "SHOWN", ()):
        found[name] = plain(getattr(value, name))
    return found


_PLAIN = frozenset({str, int, bool, type(None)})


def plain(value: object) -> Any:
    """Any value as JSON values: dataclasses and mappings as objects, sequences as lists, NaN and infinity as None."""
    return value if type(value) in _PLAIN else _encoder(cast(Any, type(value)))(value)


@cache
def _encoder(kind: type) -> Callable[[Any], Any]:
    """What writes values of a type: found once for each, since a sweep writes thousands of rows."""
    if issubclass(kind, enum.Enum):
        return lambda value: value.value
    if issubclass(kind, float):
        return lambda value: value if math.isfinite(value) else None
    if issubclass(kind, str | int):
        return lambda value: value
    if issubclass(kind, msgspec.Struct):
        return msgspec.to_builtins
    if dataclasses.is_dataclass(kind):
        return msgspec.to_builtins if _is_native(kind) else to_json
    if issubclass(kind, Mapping):
        return lambda value: {str(key): plain(item) for key, item in value.items()}
    if issubclass(kind, Iterable):
        return lambda value: [plain(item) for item in value]
    raise TypeError(f"{kind.__name__} has no JSON form")


# -- reading ----------------------------------------------------------------------------------------------------------


def from_json(kind: type[T], data: object, source: str = "") -> T:
    """A JSON value as an instance of a dataclass or msgspec Struct.

    Args:
        kind: the class; its fields are decoded by their type hints.
        data: what a JSON or YAML parser returned.
        source: the file that it came from, for the error.

    Raises:
        MalformedError: a field is missing or of another type; it is a RequestError.
    """
    try:
        return cast(T, _decoder(kind)(data))
    except MalformedError as error:
        raise MalformedError(error.where, error.problem, error.hint, source) from None


def read_json(kind: type[T], path: Path, schema: str, what: str, hint: str = "") -> T:
    """Read a JSON file whose key ``schema`` says what it is.

    Args:
        kind: class of the document.
        path: of the file.
        schema: the only one that is read.
        what: the file should be, for the error: "a plan file".
        hint: how such a file is made.

    Raises:
        RequestError: the file is missing, too large or no JSON, has another schema, or is malformed.
    """
    return from_json(kind, read_document(path, schema, what, hint), str(path))


def read_document(path: Path, schema: str, what: str, hint: str = "") -> dict[str, Any]:
    """The plain JSON object of a file, its schema checked. Arguments and errors are those of `read_json`."""
    try:
        data = json.loads(read_text(path, what))
    except RequestError as error:
        raise RequestError(str(error), hint) from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path}: not {what}: {first_line(error)}", hint) from None
    found = data.get("schema") if isinstance(data, dict) else type(data).__name__
    if found != schema:
        raise RequestError(f"{path}: not {what}: schema is {str(found)[:60]!r}, expected {schema!r}", hint)
    return cast(dict[str, Any], data)


class _Field(NamedTuple):
    name: str
    key: str
    hint: Any
    required: bool
    decode: Decoder
    flat: bool = False
    hidden: bool = False


@cache
def _fields(kind: Any) -> tuple[_Field, ...]:
    hints = get_type_hints(kind, include_extras=True)
    decoders = {name: _decoder(hint) for name, hint in hints.items()}
    if issubclass(kind, msgspec.Struct):
        return tuple(
            _Field(f.name, f.encode_name, hints[f.name], f.required, decoders[f.name])
            for f in msgspec.structs.fields(kind)
        )
    return tuple(
        _Field(
            f.name,
            f.metadata.get("key", f.name),
            hints[f.name],
            f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING,
            decoders[f.name],
            "flat" in f.metadata,
            "hidden" in f.metadata,
        )
        for f in dataclasses.fields(kind)
    )


# A decoder says where something is wrong as seen from its own value; what holds the value adds the way there.


def _decoder(hint: Any) -> Decoder:
    """What decodes values of a type: found once for each field, since a sweep reads thousands of rows of one type."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return partial(_native if _is_native(hint) else _object, hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType) and type(None) in arguments:
        others = [a for a in arguments if a is not type(None)]
        if len(others) == 1:
            return partial(_optional, others[0], _decoder(others[0]))
    if origin is tuple and arguments[-1] is Ellipsis:
        items = _decoder(arguments[0])
        return lambda value: tuple(_items(items, value))
    if origin in (list, Sequence):
        return partial(_items, _decoder(arguments[0]))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return partial(_mapping, _decoder(arguments[0]), _decoder(arguments[1]))
    return partial(_scalar, hint) if hint in (str, int, bool) else partial(_leaf, hint)


@cache
def _is_native(kind: Any) -> bool:
    """Whether each field is a word, a whole number, a truth or null: msgspec reads and writes those as this module does, in C."""
    hints = get_type_hints(kind, include_extras=True)

    def is_native(hint: Any) -> bool:
        kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        return _PLAIN.issuperset(kinds)

    return not hasattr(kind, "SHOWN") and all(
        not field.metadata and is_native(hints[field.name]) for field in dataclasses.fields(kind)
    )


def _native(kind: Any, value: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return _object(kind, value)  # to say what is wrong in the words of this module


def _optional(hint: Any, decode: Decoder, value: Any) -> Any:
    if value is None:
        return None
    try:
        return decode(value)
    except MalformedError as error:
        if not error.where and error.expected:
            raise _wrong(f"{_describe(hint)} or null", value) from None
        raise


def _object(kind: Any, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong("an object", value)
    arguments: dict[str, Any] = {}
    for entry in _fields(kind):
        if entry.flat:
            arguments[entry.name] = entry.decode(value)
        elif entry.key in value and not entry.hidden:
            try:
                arguments[entry.name] = entry.decode(value[entry.key])
            except MalformedError as error:
                raise error.within(entry.key) from None
        elif entry.required:
            raise MalformedError((entry.key,), "is missing")
    try:
        return kind(**arguments)
    except ValueError as error:
        raise MalformedError((), str(error)) from None


def _items(decode: Decoder, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _wrong("a list", value)
    found: list[Any] = []
    for item in value:
        try:
            found.append(decode(item))
        except MalformedError as error:
            raise error.within(len(found)) from None
    return found


def _mapping(decode_key: Decoder, decode: Decoder, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong("an object", value)
    found: dict[str, Any] = {}
    for key, item in value.items():
        decode_key(key)
        try:
            found[key] = decode(item)
        except MalformedError as error:
            raise error.within(key) from None
    return found


def _scalar(hint: type, value: Any) -> Any:
    return value if type(value) is hint else _leaf(hint, value)


def _leaf(hint: Any, value: Any) -> Any:
    """A scalar, or a Struct: msgspec checks it, with its constraints; where it refuses, the place is looked for."""
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(_describe(hint), value)
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        _locate(hint, value)
        problem = str(error).split(" - at `", 1)[0].replace("`", "'")
        what = _describe(hint)
        raise (_wrong(what, value) if what else MalformedError((), problem)) from None
    except RecursionError:
        raise MalformedError((), "is nested too deep") from None


def _locate(hint: Any, value: Any) -> None:
    """Raise for the innermost part of a Struct or of what holds Structs that is wrong; return where the whole is."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        _locate_in_struct(hint, value)
    elif get_origin(hint) in (Union, types.UnionType):
        for member in get_args(hint):
            if isinstance(value, list) and _has_items(member):
                _decoder(member)(value)
    elif _has_items(hint):
        _decoder(hint)(value)


def _locate_in_struct(kind: type[msgspec.Struct], value: Any) -> None:
    if not isinstance(value, Mapping):
        raise _wrong("an object", value)
    known = {entry.key: entry for entry in _fields(kind)}
    for key, item in value.items():
        if key in known:
            try:
                known[key].decode(item)
            except MalformedError as error:
                raise error.within(key) from None
        elif kind.__struct_config__.forbid_unknown_fields:
            raise MalformedError((str(key),), "unknown key", f"allowed keys: {', '.join(known)}")
    for entry in known.values():
        if entry.required and entry.key not in value:
            raise MalformedError((entry.key,), "is missing")


def _has_items(hint: Any) -> bool:
    origin = get_origin(hint)
    if origin is tuple:
        return get_args(hint)[-1] is Ellipsis
    return isinstance(origin, type) and issubclass(origin, list | Sequence | Mapping)


_NAMES: dict[Any, str] = {
    str: "a string", int: "an integer", float: "a finite number", bool: "true or false", list: "a list",
    dict: "an object", type(None): "null",
}  # fmt: skip


def _describe(hint: Any) -> str:
    """What the type takes, in words; empty where only msgspec can tell."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [b for meta in arguments[1:] if isinstance(meta, msgspec.Meta) for b in _bounds(meta)]
        return " ".join((_describe(arguments[0]).replace("finite ", ""), *bounds))
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (Union, types.UnionType):
        return " or ".join(map(_describe, arguments))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return f"one of {', '.join(str(member.value) for member in hint)}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "an object"
    return _NAMES.get(hint, _NAMES.get(origin, "a list" if origin is tuple else ""))


def _bounds(meta: msgspec.Meta) -> Iterable[str]:
    for text, bound in (("above", meta.gt), ("below", meta.lt)):
        if bound is not None:
            yield f"{text} {bound:g}"
    for text, limit in (("of at least", meta.ge), ("of at most", meta.le), ("with at least", meta.min_length)):
        if limit is not None:
            yield f"{text} {limit:g}"
    if meta.max_length is not None:
        yield f"no longer than {meta.max_length}"
    if meta.pattern is not None:
        yield f"that matches {meta.pattern}"


def _wrong(expected: str, value: object) -> MalformedError:
    return MalformedError((), f"expected {expected}, not {repr(value)[:60]}", expected=True)
