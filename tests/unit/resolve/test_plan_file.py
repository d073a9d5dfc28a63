"""The plan file: what is written is read back; a damaged one is refused with the place named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.dtypes import NO_PRECISION, PER_CHANNEL, DType, QuantConfig
from planner.errors import RequestError
from planner.profiles.schema import FixedParameters
from planner.resolve.plan import Basis, ModelIdentity, Plan, PlanNode, ProfileIdentity, TargetIdentity, read_plan

PLAN = Plan(
    model=ModelIdentity("model.onnx", "ab" * 32, 17, 3),
    target=TargetIdentity("AcmeExecutionProvider", "npu", {"soc_model": "60"}),
    precision="w8a16",
    opset=21,
    nodes=(
        PlanNode(
            "conv",
            "Conv",
            QuantConfig(DType.INT8, DType.UINT16, PER_CHANNEL),
            rule="takes-conv",
            reason="w8a16",
            origins=("conv", "bias"),
        ),
        PlanNode(
            "sigmoid",
            "Sigmoid",
            QuantConfig(None, DType.UINT16),
            fixed=FixedParameters(1 / 65536, 0),
            rule="sigmoid",
            basis=Basis.RULE,
            reason="w8a16",
            origins=("sigmoid",),
        ),
        PlanNode("shape", "Shape", NO_PRECISION, basis=Basis.FALLBACK, on_target=False, reason="left as it is"),
    ),
    profile=ProfileIdentity("AcmeExecutionProvider", "cd" * 32),
    shapes={"x": (1, 3, 48, 320)},
    inputs={"source": "x.npz", "samples": 4, "sha256": "ef" * 32, "synthetic": False},
)


def write(folder: Path, data: object) -> Path:
    path = folder / "plan.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def test_a_plan_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_plan(write(tmp_path, PLAN.to_json())) == PLAN


def test_a_plan_is_quantized_where_an_activation_is_an_integer() -> None:
    assert PLAN.is_quantized
    floats = tuple(PlanNode(n.name, n.op_type, QuantConfig(None, DType.FLOAT16)) for n in PLAN.nodes)
    assert not Plan(PLAN.model, PLAN.target, "fp16", 21, floats, ProfileIdentity("x", "y")).is_quantized


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a plan file"),
        ("# text", "not a plan file"),
        ("[]", "not a plan file"),
        ("{}", "expected 'planner/plan/1'"),
        ('{"schema": "planner/plan/2"}', "expected 'planner/plan/1'"),
        ("[" * 100_000, "not a plan file"),
    ],
    ids=["empty", "text", "list", "no schema", "another schema", "deep"],
)
def test_what_is_no_plan_is_refused(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"plan\.json") as caught:
        read_plan(write(tmp_path, text))
    assert words in str(caught.value)


def test_a_missing_file_a_folder_and_a_binary(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such file"):
        read_plan(tmp_path / "none.json")
    with pytest.raises(RequestError, match="is a directory"):
        read_plan(tmp_path)
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RequestError, match="not a plan file"):
        read_plan(tmp_path / "b.json")


def changed(where: tuple[str | int, ...], value: object) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(json.dumps(PLAN.to_json()))
    inner: Any = data
    for step in where[:-1]:
        inner = inner[step]
    inner[where[-1]] = value
    return data


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (("model",), None, "model: expected an object"),
        (("model", "sha256"), 5, "model.sha256: expected a string"),
        (("opset",), True, "opset: expected an integer"),
        (("shapes", "x"), [1, 0], "shapes.x[1]: expected an integer above 0"),
        (("shapes", "x"), [1, True], "shapes.x[1]: expected an integer above 0"),
        (("nodes",), {}, "nodes: expected a list"),
        (("nodes", 1), "x", "nodes[1]: expected an object"),
        (("nodes", 0, "weight"), "int7", "nodes[0].weight: expected one of float32, float16, "),
        (("nodes", 0, "name"), None, "nodes[0].name: expected a string"),
        (("nodes", 1, "fixed", "scale"), 0, "nodes[1].fixed.scale: expected a number above 0"),
        (("nodes", 1, "fixed", "zero_point"), 0.5, "nodes[1].fixed.zero_point: expected an integer"),
        (("nodes", 1, "factor"), "float16", "nodes[1]: factor: expected int8 or int16"),
        (("nodes", 1, "origins"), 5, "nodes[1].origins: expected a list"),
        (("nodes", 1, "per_channel"), "no", "nodes[1].per_channel: expected true or false"),
        (("nodes", 1, "block_size"), 17, "nodes[1]: block_size: expected a power of two from 16 on, or null, not 17"),
        (("nodes", 1, "replacement"), "X", "nodes[1].replacement: expected one of com.microsoft.MatMulNBits, "),
        (("nodes", 1, "basis"), "guess", "nodes[1].basis: expected one of rule, learned, "),
        (("inputs",), [], "inputs: expected an object or null"),
    ],
    ids=lambda v: ".".join(map(str, v)) if isinstance(v, tuple) else None,
)
def test_a_wrong_field_is_named(where: tuple[str | int, ...], value: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError) as caught:
        read_plan(write(tmp_path, changed(where, value)))
    assert words in str(caught.value)


def _paths(value: object, where: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return ([where] if where else []) + [p for key, v in inner for p in _paths(v, (*where, key))]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    where=st.sampled_from(_paths(json.loads(json.dumps(PLAN.to_json())))),
    value=st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2)),
)  # fmt: skip
def test_anything_in_any_field_is_read_or_refused(where: tuple[str | int, ...], value: object, tmp_path: Path) -> None:
    try:
        read_plan(write(tmp_path, changed(where, value)))
    except RequestError as error:
        assert "plan.json" in str(error)
