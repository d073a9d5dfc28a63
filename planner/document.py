"""Reading YAML files that people write: errors name file, line, dotted key and what is allowed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml

from planner.codec import MalformedError, Where, dotted, from_json
from planner.errors import RequestError, first_line
from planner.files import read_text

# libyaml reads a large profile ten times faster; a platform without it has the same loader in Python.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LARGEST_FILE = 4 << 20
_DEEPEST = 32
T = TypeVar("T")


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
        return RequestError(f"{self.path}:{self.lines.get(at, 1)}: {dotted(where) or '(top)'}: {what}", hint)

    @contextlib.contextmanager
    def at(self, *where: str | int) -> Iterator[None]:
        """What is wrong in here is wrong with the value at ``where``."""
        try:
            yield
        except RequestError as error:
            raise self.error(where, str(error), error.hint) from None

    def decode(self, kind: type[T], data: Any, named: Callable[[Where], Where] = lambda where: where) -> T:
        """The content as an instance of a class.

        Args:
            kind: the class: a msgspec Struct.
            data: the content, brought into the form of the class.
            named: turns a path of the class into the one that the file has.

        Raises:
            RequestError: it does not fit.
        """
        try:
            return from_json(kind, data)
        except MalformedError as error:
            raise self.error(named(error.where), error.problem, error.hint) from None


def read_yaml(kind: type[T], path: Path, what: str, hint: str) -> tuple[T, Document]:
    """Read a YAML file: its content as an instance of a class, and the document, to say where in it something is wrong.

    Args:
        kind: class of its content: a msgspec Struct.
        path: of the file.
        what: the file should be, for the error: "a sweep".
        hint: what such a file holds.

    Raises:
        RequestError: the file is missing, hostile, no YAML or malformed.
    """
    try:
        document = parse(path, read_yaml_text(path, what))
        return document.decode(kind, document.data), document
    except RequestError as error:
        raise RequestError(str(error), error.hint or hint) from None


def read_yaml_text(path: Path, what: str = "a text file") -> str:
    """The text of a YAML file.

    Args:
        path: of the file.
        what: it should be, for the error: "a profile".

    Raises:
        RequestError: it is missing, too large or no text.
    """
    return read_text(path, what, limit=_LARGEST_FILE)


def parse(path: Path, text: str) -> Document:
    """The YAML document as plain data, and the line of every key.

    Aliases, custom tags and duplicate keys are refused: none is needed, and they are how a YAML file attacks its reader.

    Raises:
        RequestError: it is no such document.
    """
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise RequestError(f"{path}:{line}: anchors and aliases are not allowed")
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            data = None if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
        if root is None:
            raise RequestError(f"{path}: the file is empty")
        lines: dict[Where, int] = {}
        _walk(path, root, (), lines)
        return Document(path, text, data, lines)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        problem = getattr(error, "problem", None) or first_line(error)
        raise RequestError(f"{where}: not valid YAML: {problem}") from None
    except (RecursionError, ValueError, OverflowError) as error:
        raise RequestError(f"{path}: not valid YAML: {type(error).__name__}") from None


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
