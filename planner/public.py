"""The public functions, with their arguments checked: what is of a wrong kind is a PlannerError by its name, not a TypeError from
somewhere within.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import operator
import os
from collections.abc import Callable, Mapping, Set
from typing import Any

from planner.errors import RequestError
from planner.limits import MOST_SECONDS


class _Wrong(Exception):
    """A value is not what its argument takes; says what it takes, in words."""


def checked(module: str, name: str) -> Callable[..., Any]:
    """The function of a module, as it stands in the package: what it is given is checked first."""
    function = getattr(importlib.import_module(module), name)
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # Python's own complaint names the function
        for argument, value in bound.arguments.items():
            if value is not None or signature.parameters[argument].default is not None:
                bound.arguments[argument] = _taken(name, argument, value)
        return function(*bound.args, **bound.kwargs)

    call.__module__ = "planner"
    return call


def _taken(function: str, argument: str, value: object) -> object:
    take = _ARGUMENTS.get(argument)
    try:
        return value if take is None else take(value)
    except _Wrong as wrong:
        raise RequestError(
            f"planner.{function}: {argument} takes {wrong}, not {_shown(value)}", f"see help(planner.{function})"
        ) from None


def _shown(value: object) -> str:
    text = repr(value)
    return f"the {type(value).__name__} {text if len(text) <= 60 else f'{text[:57]}...'}"


# -- what arguments take: each of these returns the value, or raises _Wrong ---------------------------------------------


def _path(value: Any) -> object:
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str) or "\0" in os.fspath(value):
        raise _Wrong("a path")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _Wrong("a name")
    return value


def _or_value(take: Callable[[object], object], home: str, words: str) -> Callable[[object], object]:
    """What takes this too: an instance of a class of planner's, "planner.module:Class"."""

    def either(value: object) -> object:
        module, _, name = home.partition(":")
        if type(value).__name__ == name and isinstance(value, getattr(importlib.import_module(module), name)):
            return value
        try:
            return take(value)
        except _Wrong as wrong:
            raise _Wrong(f"{wrong} or {words}" if str(wrong) else words) from None

    return either


def _no(_value: object) -> object:
    raise _Wrong("")


def _list(take: Callable[[object], object], words: str) -> Callable[[object], object]:
    def each(value: object) -> object:
        if isinstance(value, str | bytes | os.PathLike | Mapping | Set):
            raise _Wrong(f"a list of {words}")
        try:
            return tuple(take(item) for item in value)  # type: ignore[attr-defined]
        except (TypeError, _Wrong):
            raise _Wrong(f"a list of {words}") from None

    return each


def _shapes(value: object) -> object:
    try:
        if not isinstance(value, Mapping):
            raise TypeError
        return {_text(name): tuple(_whole(d) for d in dims) for name, dims in value.items()}
    except (TypeError, _Wrong):
        raise _Wrong("dimensions by the name of the input, such as {'x': [1, 3, 224, 224]}") from None


def _whole(value: object) -> int:
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)  # type: ignore[arg-type]


def _count(least: int) -> Callable[[object], object]:
    def count(value: object) -> int:
        try:
            number = _whole(value)
        except TypeError:
            number = least - 1
        if number < least:
            raise _Wrong("a whole number above zero" if least else "a whole number from 0 on")
        return number

    return count


def _seconds(value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = 0.0
    if isinstance(value, str | bytes) or not 0 < number < MOST_SECONDS:
        raise _Wrong("a number of seconds above zero")
    return number


def _inputs(value: Any) -> object:
    _path(value)
    return os.fspath(value)


def _called(value: object) -> object:
    if not callable(value):
        raise _Wrong("a function")
    return value


_precision = _or_value(_text, "planner.dtypes:Precision", "a planner.dtypes.Precision")
_ARGUMENTS: Mapping[str, Callable[[object], object]] = {
    **dict.fromkeys(("model", "candidate", "reference", "output", "report_to", "spec", "old", "new", "path"), _path),
    **dict.fromkeys(("ep", "device", "scheduler"), _text),
    **dict.fromkeys(("profiles", "evidence"), _list(_path, "paths")),
    **dict.fromkeys(("eps", "devices", "gate", "formats"), _list(_text, "names")),
    **dict.fromkeys(("progress", "told"), _called),
    "baseline": _or_value(_path, "planner.reporting:Report", "a planner.reporting.Report"),
    "derived": _text,
    "floor": _or_value(
        _no, "planner.verification.floor:Floor", "a planner.verification.floor.Floor, such as parse_floor('30') gives"
    ),
    "inputs": _or_value(_inputs, "planner.calibrate.source:Source", "a planner.calibrate.source.Source"),
    "memory": _count(1),
    "models": _list(
        _or_value(_path, "planner.reporting.matrix:Subject", ""), "paths or planner.reporting.matrix.Subject"
    ),
    "plan": _or_value(_path, "planner.resolve.plan:Plan", "a planner.resolve.plan.Plan"),
    "precision": lambda value: None if value is None else _precision(value),
    "precisions": _list(_precision, "names or planner.dtypes.Precision"),
    "seconds": _seconds,
    "seed": _count(0),
    "shapes": _shapes,
    "time_budget": _seconds,
    "workers": _count(1),
}
