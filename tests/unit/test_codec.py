"""Values to JSON and back: without loss, and every error with the place of what is wrong."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from msgspec import Meta, Struct

from planner.codec import FLAT, HIDDEN, MalformedError, from_json, named, read_json, to_json
from planner.dtypes import DType
from planner.errors import RequestError
from planner.profiles.schema import ProfileFile, RulesFile
from planner.sweeps.spec import Spec


@dataclass(frozen=True)
class Types:
    weight: DType | None
    scale: Annotated[float, Meta(gt=0)] = 1.0

    def __post_init__(self) -> None:
        if self.weight is DType.INT4 and self.scale > 100:
            raise ValueError("a scale above 100 for int4")


@dataclass(frozen=True)
class Line:
    SHOWN: ClassVar = ("big",)

    name: str
    types: Types = field(metadata=FLAT)
    base: str | None = field(default=None, metadata=named("from"))
    seen: tuple[str, ...] = field(default=(), metadata=HIDDEN)
    score: float | None = None

    @property
    def big(self) -> bool:
        return self.types.scale > 10


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    ops: Annotated[list[str], Meta(min_length=1)]
    rank: int | None = None


@dataclass(frozen=True)
class Document:
    kind: Literal["plan", "report"]
    lines: tuple[Line, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, Rule] = field(default_factory=dict)


VALUE = Document(
    "plan",
    (Line("a", Types(DType.INT8, 20.0), "w8a8"), Line("b", Types(None), score=1.5)),
    {"soc": "60"},
    {"conv": Rule(["Conv"])},
)


def test_a_value_is_read_back_as_it_was_written() -> None:
    assert from_json(Document, to_json(VALUE)) == VALUE


def test_fields_may_be_flat_renamed_hidden_and_joined_by_properties() -> None:
    line = Line("a", Types(DType.INT8, 20.0), "w8a8", ("x",))
    assert to_json(line) == {
        "name": "a", "weight": "int8", "scale": 20.0, "from": "w8a8", "score": None, "big": True,
    }  # fmt: skip


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_written_as_null(number: float) -> None:
    assert to_json(Line("a", Types(None), score=number))["score"] is None


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ((), [], "f.json: expected an object, not []"),
        (("kind",), "x", "f.json: kind: expected one of plan, report, not 'x'"),
        (("lines",), "ab", "lines: expected a list"),
        (("lines", 1), 5, "lines[1]: expected an object, not 5"),
        (("lines", 0, "name"), None, "lines[0].name: expected a string"),
        (("lines", 0, "weight"), "int7", "lines[0].weight: expected one of float32, "),
        (("lines", 0, "scale"), 0, "lines[0].scale: expected a number above 0, not 0"),
        (("lines", 0, "scale"), math.nan, "lines[0].scale: expected a number above 0, not nan"),
        (("lines", 0, "scale"), True, "lines[0].scale: expected a number above 0, not True"),
        (("lines", 0, "from"), 3, "lines[0].from: expected a string or null, not 3"),
        (("options", "a b"), 1, "options.a b: expected a string, not 1"),
        (("rules", "conv", "rank"), "2", "rules.conv.rank: expected an integer or null, not '2'"),
        (("rules", "conv", "ops"), [], "rules.conv.ops: expected a list with at least 1, not []"),
        (("rules", "conv", "ops"), ["a", 1], "rules.conv.ops[1]: expected a string, not 1"),
        (("rules", "conv", "opps"), 1, "rules.conv.opps: unknown key"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(where: tuple[str | int, ...], value: object, message: str) -> None:
    data: Any = to_json(VALUE)
    inner = data
    for step in where[:-1]:
        inner = inner[step]
    if where:
        inner[where[-1]] = value
    else:
        data = value
    with pytest.raises(MalformedError) as caught:
        from_json(Document, data, "f.json")
    assert message in str(caught.value)
    assert caught.value.where == where or caught.value.where[: len(where)] == where


def test_what_is_missing_is_named() -> None:
    with pytest.raises(RequestError, match=r"^lines: is missing"):
        from_json(Document, {"kind": "plan"})


def test_what_the_class_itself_refuses_is_placed() -> None:
    with pytest.raises(RequestError, match=r"lines\[0\]: a scale above 100 for int4"):
        from_json(Document, {"kind": "plan", "lines": [{"name": "a", "weight": "int4", "scale": 101}]})


def test_keys_that_are_not_known_are_passed_over() -> None:
    assert from_json(Line, {"name": "a", "weight": None, "more": 1, "big": True}) == Line("a", Types(None))


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"schema": "planner/line/2"}', "\x00"])
def test_a_file_of_another_kind_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RequestError, match=r"f\.json: not a line file"):
        read_json(Line, path, "planner/line/1", "a line file")


def _hints(hint: Any) -> Iterator[Any]:
    yield hint
    for part in get_args(hint):
        yield from _hints(part)


def _has_pattern(hint: Any) -> bool:
    return any(isinstance(part, Meta) and part.pattern is not None for part in _hints(hint))


@pytest.mark.parametrize("kind", [ProfileFile, RulesFile, Spec])
def test_no_pattern_stands_beside_a_container_in_a_union(kind: type[Struct]) -> None:
    """msgspec 0.22 frees such a pattern once too often: the process crashes later, at its end for the most part."""
    pending, seen = [kind], set[type[Struct]]()
    while pending:
        struct = pending.pop()
        seen.add(struct)
        for whole in get_type_hints(struct, include_extras=True).values():
            for hint in _hints(whole):
                if isinstance(hint, type) and issubclass(hint, Struct) and hint not in seen:
                    pending.append(hint)
                if get_origin(hint) in (Union, types.UnionType):
                    texts = [part for part in get_args(hint) if get_origin(part) is Annotated and _has_pattern(part)]
                    containers = [part for part in get_args(hint) if get_origin(part) in (list, dict, tuple)]
                    assert not (texts and containers), f"{struct.__name__}: {hint}"
