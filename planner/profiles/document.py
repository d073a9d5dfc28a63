"""Reading a YAML file into the structs of the profile format: errors name file, line, dotted key and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args, get_type_hints

import msgspec
import yaml

from planner.dtypes import DType
from planner.errors import RequestError
from planner.files import read_text

# libyaml reads a large profile ten times faster; a platform without it has the same loader in Python.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LARGEST_FILE = 4 << 20
_DEEPEST = 32
Where = tuple[str | int, ...]
T = TypeVar("T", bound=msgspec.Struct)


class _Loader(_Base):  # type: ignore[misc]
    """Reads booleans as YAML 1.2 has them: `on` is a word, no yes."""

    yaml_implicit_resolvers: ClassVar = {
        first: [r for r in resolvers if first in "tTfF" or r[0] != "tag:yaml.org,2002:bool"]
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }


@dataclass(frozen=True)
class Document:
    """A YAML file as plain data.

    Attributes:
        lines: the line of every key and item, by its path.
    """

    path: Path
    text: str
    data: Any
    lines: Mapping[Where, int]

    def error(self, where: Where, what: str, hint: str = "") -> RequestError:
        """An error about the value at ``where``, at its line or that of the nearest one above."""
        at = where
        while at and at not in self.lines:
            at = at[:-1]
        return RequestError(f"{self.path}:{self.lines.get(at, 1)}: {dotted(where)}: {what}", hint)


def dotted(where: Sequence[str | int]) -> str:
    """A path as errors write it: rules[0].ops."""
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in where)
    return text.removeprefix(".") or "(top)"


def read_profile(path: Path) -> str:
    """The text of a profile, or of a file that belongs to one.

    Raises:
        RequestError: it is missing, too large or no text.
    """
    try:
        return read_text(path, limit=_LARGEST_FILE)
    except RequestError as error:
        raise RequestError(str(error), "give the path of a profile: YAML in UTF-8") from None


def parse(path: Path, text: str) -> Document:
    """The YAML document as plain data, and the line of every key.

    Aliases, custom tags and duplicate keys are refused: a profile needs none, and they are how a YAML file attacks its
    reader.

    Raises:
        RequestError: it is no such document.
    """
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise RequestError(f"{path}:{_event_line(event)}: anchors and aliases are not allowed in a profile")
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            data = None if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
        if root is None:
            raise RequestError(f"{path}: the file is empty", "see docs/writing-a-profile.md")
        lines: dict[Where, int] = {}
        _walk(path, root, (), lines)
        return Document(path, text, data, lines)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RequestError(f"{where}: not valid YAML: {problem}") from None
    except (RecursionError, ValueError, OverflowError) as error:
        raise RequestError(f"{path}: not valid YAML: {type(error).__name__}") from None


def _event_line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


def _walk(path: Path, node: yaml.Node, where: Where, lines: dict[Where, int]) -> None:
    lines[where] = node.start_mark.line + 1
    if len(where) > _DEEPEST:
        raise RequestError(f"{path}:{lines[where]}: nested more than {_DEEPEST} deep")
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise RequestError(f"{path}:{key.start_mark.line + 1}: duplicate key {dotted((*where, name))}")
            seen.add(name)
            _walk(path, value, (*where, name), lines)
            lines[(*where, name)] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            _walk(path, value, (*where, i), lines)


_AT = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<path>[^`]*)`)?$", re.DOTALL)


def convert(document: Document, data: Any, kind: type[T], named: Callable[[Where], Where] = lambda where: where) -> T:
    """Data of a document as a struct.

    Args:
        document: for the lines that errors name.
        data: its content, brought into the form of the struct.
        kind: the struct.
        named: turns a path of the struct into the one that the file has.

    Raises:
        RequestError: it does not fit.
    """
    try:
        return msgspec.convert(data, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        match = _AT.match(str(error))
        assert match is not None
        what = match["what"].replace("`", "'")
        where: Where = tuple(
            int(p) if p.isdigit() else p
            for p in re.findall(r"\[(\d+|\.\.\.)\]|\.([^.\[\]]+)", match["path"] or "")
            for p in p
            if p
        )
        where = _resolve_wildcards(where, data, what, kind)
        unknown = re.search(r"unknown field '([^']*)'", what)
        hint = f"allowed keys: {', '.join(_keys_at(where, kind))}" if unknown else _allowed(what)
        if unknown:
            where = (*where, unknown[1])
            what = "unknown key"
        raise document.error(named(where), what, hint) from None


def _resolve_wildcards(where: Where, data: Any, what: str, kind: type[msgspec.Struct]) -> Where:
    """The path with keys of mappings, which msgspec writes as [...]: the entry that is meant is found by trying each."""
    if "..." not in where:
        return where
    i = where.index("...")
    inner = data
    for step in where[:i]:
        inner = inner[step]
    for key in inner if isinstance(inner, dict) else ():
        try:
            msgspec.convert(_prune(data, where[:i], key), kind)
        except msgspec.ValidationError as error:
            if what in str(error).replace("`", "'"):
                return _resolve_wildcards((*where[:i], str(key), *where[i + 1 :]), data, what, kind)
    return where[:i]


def _prune(data: Any, where: Sequence[str | int], key: str) -> Any:
    """The data with only one entry left in the mapping at ``where``."""
    if not where:
        return {key: data[key]}
    copy: Any = dict(data) if isinstance(data, dict) else list(data)
    copy[where[0]] = _prune(data[where[0]], where[1:], key)
    return copy


def _keys_at(where: Where, kind: Any) -> list[str]:
    """The keys that the format knows at this place."""
    for part in where:
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            names = dict(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True))
            hints = get_type_hints(kind)
            kind = hints.get(names.get(str(part), str(part)), kind)
        else:
            kind = next((a for a in reversed(get_args(kind)) if a is not type(None)), kind)
    return [name for struct in _structs(kind) for name in struct.__struct_encode_fields__]


def _structs(kind: Any) -> Iterator[type[msgspec.Struct]]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    for argument in get_args(kind):
        yield from _structs(argument)


def _allowed(what: str) -> str:
    if "enum" in what.lower():
        return f"allowed: {', '.join(d.value for d in DType)}"
    return ""
