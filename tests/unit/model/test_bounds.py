"""Small files that ask for what is not small are read in no more time and memory than others, or refused."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from planner.errors import RequestError
from planner.model.bounds import is_data_small
from planner.model.read import read_model
from tests.unit.small_models import f32, graph, save

HUGE = 10**12


def doubling(count: int, op: str = "Concat<axis = 0>") -> str:
    return "\n".join(f"v{i + 1} = {op}(v{i}, v{i})" for i in range(count))


def sum_into_y(value: str) -> str:
    return f"f = Cast<to = 1>({value})\ns = ReduceSum<keepdims = 0>(f)\ny = Add(x, s)"


BODIES: dict[str, tuple[str, dict[str, np.ndarray], str]] = {
    "a range": ("v = Range(a, b, d)", {"a": np.array(0), "b": np.array(HUGE), "d": np.array(1)}, "v"),
    "a range of floats": ("v = Range(a, b, d)", {"a": f32(0), "b": f32(1e12), "d": f32(1)}, "v"),
    "a window": ("v = HannWindow(n)", {"n": np.array(HUGE)}, "v"),
    "a padding": ("v = Pad(a, p)", {"a": f32([1, 2]), "p": np.array([0, HUGE])}, "v"),
    "a shape that doubles": (f"v0 = Shape(x)\n{doubling(40)}", {}, "v40"),
    "numbers that double": (doubling(40), {"v0": f32([1])}, "v40"),
    "an expansion": ("v = Expand(a, n)", {"a": f32(1), "n": np.array([10**6, 10**6])}, "v"),
    "a picture": ("v = Resize(a, , , n)", {"a": f32(np.ones((1, 1, 2, 2))), "n": np.array([1, 1, 10**6, 10**6])}, "v"),
    "an outer product": ("v = MatMul(a, b)", {"a": f32(np.ones((1 << 20, 1))), "b": f32(np.ones((1, 1 << 20)))}, "v"),
    "a sum of a row and a column": (
        "v = Add(a, b)",
        {"a": f32(np.ones((1 << 20, 1))), "b": f32(np.ones((1, 1 << 20)))},
        "v",
    ),
    "a lookup": ("v = Gather(a, b)", {"a": f32(np.ones((1, 1 << 20))), "b": np.zeros(1 << 20, np.int64)}, "v"),
}


@pytest.mark.parametrize("what", BODIES)
def test_a_constant_that_would_be_huge_is_not_made(what: str, tmp_path: Path) -> None:
    body, constants, last = BODIES[what]
    text = f"{body}\n{sum_into_y(last)}"
    path = save(graph("(float[4] x) => (float[4] y)", text, constants, check=False), tmp_path)
    started = time.process_time()
    model = read_model(path)
    assert any(node.op_type == "Add" for node in model.nodes)
    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    "op", ["v = Slice(i, z, z)", "v = Gather(i, z)", "v = Concat<axis = 0>(i, i)", "v = Reshape(x, i)"]
)
def test_an_index_input_of_any_length_is_a_value_like_any_other(op: str, tmp_path: Path) -> None:
    signature = "(float[4] x, int64[1099511627776] i) => (float[4] y)"
    path = save(graph(signature, f"{op}\n{sum_into_y('v')}", {"z": np.array([0])}, check=False), tmp_path)
    assert read_model(path).nodes


def test_the_shapes_of_models_as_they_are_meant_are_followed() -> None:
    text = """
        a = Shape(x)
        b = Gather(a, zero)
        c = Concat<axis = 0>(b, minus)
        h = Reshape(x, c)
        e = Slice(h, zero, largest)
        y = Identity(e)
    """
    constants = {"zero": np.array([0]), "minus": np.array([-1]), "largest": np.array([2**63 - 1])}
    assert is_data_small(ir.from_proto(graph("(float[2,3,4] x) => (float[a,b] y)", text, constants)))


def functions(calls: dict[str, list[str]]) -> onnx.ModelProto:
    """A model of functions, each of them the others that it names, one after the other."""
    made = []
    for name, inner in calls.items():
        values = ["a", *(f"v{i}" for i in range(len(inner) - 1)), "b"]
        nodes = [
            helper.make_node(op, [source], [out], domain="" if op == "Sin" else "own")
            for op, source, out in zip(inner, values, values[1:], strict=False)
        ]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        made.append(helper.make_function("own", name, ["a"], ["b"], nodes, opsets))
    ends = (
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
    )
    main = helper.make_graph([helper.make_node("last", ["x"], ["y"], domain="own")], "g", *ends)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(main, opset_imports=opsets, ir_version=9, functions=made)


def test_functions_that_double_are_refused_before_they_are_written_out(tmp_path: Path) -> None:
    calls = {"f0": ["Sin", "Sin"], **{f"f{i}": [f"f{i - 1}"] * 2 for i in range(1, 40)}, "last": ["f39"]}
    with pytest.raises(RequestError, match="write out to more than"):
        read_model(save(functions(calls), tmp_path))


def test_functions_nested_deeper_than_any_model_are_refused(tmp_path: Path) -> None:
    calls = {"f0": ["Sin"], **{f"f{i}": [f"f{i - 1}"] for i in range(1, 1100)}, "last": ["f1099"]}
    with pytest.raises(RequestError, match="call one another more than 1,000 deep"):
        read_model(save(functions(calls), tmp_path))


@pytest.mark.parametrize("calls", [{"last": ["last"]}, {"last": ["f"], "f": ["g"], "g": ["f"]}])
def test_functions_that_call_themselves_are_refused(calls: dict[str, list[str]], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="calls itself"):
        read_model(save(functions(calls), tmp_path))


def test_functions_as_they_are_meant_are_written_out(tmp_path: Path) -> None:
    model = read_model(save(functions({"f": ["Sin", "Sin"], "last": ["f", "f", "Sin"]}), tmp_path))
    assert [node.op_type for node in model.nodes] == ["Sin"] * 5
