"""Arguments of a wrong kind are a PlannerError that names the argument, whichever public function they are given to."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import planner
from planner import public
from planner.errors import RequestError
from tests.unit.small_models import f32, graph, save


@pytest.mark.parametrize("name", planner.__all__)
def test_every_argument_is_checked_or_is_a_switch(name: str) -> None:
    function = getattr(planner, name)
    for argument, parameter in inspect.signature(function).parameters.items():
        if argument not in public._ARGUMENTS:
            assert isinstance(parameter.default, bool), argument
            continue
        with pytest.raises(RequestError, match=f"planner.{name}: {argument} takes .*, not the object"):
            public._taken(name, argument, object())


@pytest.mark.parametrize(
    ("argument", "value", "says"),
    [
        ("model", None, "a path, not the NoneType"),
        ("model", "a\0b", "a path"),
        ("ep", 3, "a name, not the int 3"),
        ("device", ["npu"], "a name"),
        ("precision", 8, "a name or a planner.dtypes.Precision"),
        ("shapes", {"x": 3}, "dimensions by the name"),
        ("shapes", {"x": ["a"]}, "dimensions by the name"),
        ("shapes", {"x": [True]}, "dimensions by the name"),
        ("profiles", "mine.yaml", "a list of paths, not the str 'mine.yaml'"),
        ("evidence", [None], "a list of paths"),
    ],
)
def test_what_is_given_wrongly_is_named(argument: str, value: object, says: str) -> None:
    with pytest.raises(RequestError, match=f"planner.check: {argument} takes {says}"):
        planner.check(**{"model": "m.onnx", "ep": "cpu", argument: value})  # type: ignore[arg-type]


def test_lists_of_models_and_numbers_are_checked() -> None:
    for argument, value in (("models", "m.onnx"), ("eps", "cpu"), ("seed", -1), ("floor", 30), ("baseline", 3)):
        with pytest.raises(RequestError, match=f"planner.report: {argument} takes"):
            planner.report(**{"models": ["m.onnx"], "eps": ["cpu"], argument: value})  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="time_budget takes a number of seconds"):
        planner.target("m.onnx", "cpu", time_budget=float("nan"))


def test_what_is_right_is_taken(tmp_path: Path) -> None:
    path = save(graph("(float[n,4] x) => (float[n,8] y)", "y = MatMul(x, w)", {"w": f32(np.ones((4, 8)))}), tmp_path)
    np.savez(tmp_path / "x.npz", x=f32(np.ones((4, 2, 4))))
    shapes: Any = {"x": (np.int64(2), 4)}
    assert planner.check(path, "cpu", precision=None, shapes=shapes).legal
    samples: Any = tmp_path / "x.npz"
    made = planner.plan(path, "cpu", precision="w8a8", shapes=shapes, inputs=samples)
    assert made.inputs is not None and made.inputs["source"] == str(tmp_path / "x.npz")
    assert planner.quantize(path, made, tmp_path / "o.onnx").artifact.bytes > 0


def test_a_public_function_can_be_handed_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(planner.check)) is planner.check
