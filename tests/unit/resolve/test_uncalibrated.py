"""Nodes that calibration did not reach stay float, with the reason; where the EP takes no float, the request is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from planner.calibrate.ranges import Range
from planner.calibrate.run import calibrate
from planner.dtypes import DType, parse_precision
from planner.errors import RequestError
from planner.model.read import Model
from planner.quantization.write import write_quantized
from planner.resolve.choose import check_model, make_plan
from planner.resolve.plan import Plan
from planner.resolve.revise import notes_on_revisions, without_uncalibrated
from planner.resolve.target import Target
from planner.resolve.uncalibrated import uncalibrated
from tests.unit import small_models as sm
from tests.unit import small_profiles

SEEN = Range(-1, 1)


def if_model(folder: Path) -> Path:
    """h = Relu(x); y = h for c, else Relu(-x), whose Neg nobody else reads."""
    model = sm.graph(
        "(float[1,4] x, bool c) => (float[1,4] y)",
        """
        h = Relu(x)
        y = If(c) <then_branch = t () => (float[1,4] a) { a = Identity(h) },
                   else_branch = e () => (float[1,4] b) { n = Neg(x)
                                                         b = Relu(n) }>
        """,
        opset=21,
    )
    for node, name in zip(model.graph.node, ("relu", "choose"), strict=True):
        node.name = name
    for attribute in model.graph.node[1].attribute:
        for node in attribute.g.node:
            node.name = f"{node.op_type.lower()} of {attribute.name[:4]}"
    return sm.save(model, folder)


def planned(path: Path, ep: str = "cpu", device: str | None = None) -> tuple[Target, Model, Plan]:
    target = Target.open(ep, device)
    model = target.read(path)
    resolution = check_model(target, model, parse_precision("w8a8"))
    assert resolution.legal is not False, [v.ruling for v in resolution.violations]
    return target, model, make_plan(target, model, resolution)


REACHED = {"x": SEEN, "h": SEEN, "y": SEEN, "a": SEEN}


def test_the_branch_that_never_ran_is_named(tmp_path: Path) -> None:
    _, model, _ = planned(if_model(tmp_path))
    assert uncalibrated(model, REACHED) == {
        "neg of else": "else_branch of If 'choose'",
        "relu of else": "else_branch of If 'choose'",
    }


def test_what_only_a_relu_reads_is_seen_with_the_relu(tmp_path: Path) -> None:
    _, model, _ = planned(if_model(tmp_path))
    assert not uncalibrated(model, {**REACHED, "b": SEEN})


def test_unreached_nodes_stay_float_and_say_why(tmp_path: Path) -> None:
    target, model, plan = planned(if_model(tmp_path))
    new = without_uncalibrated(target, model, plan, REACHED)
    lines = {line.name: line for line in new.nodes}
    assert lines["neg of else"].activation is lines["relu of else"].activation is DType.FLOAT32
    assert lines["relu"] == {line.name: line for line in plan.nodes}["relu"]
    assert "no calibration sample reached it (else_branch of If 'choose')" in lines["neg of else"].reason
    assert new.precision == "mixed"
    (note,) = notes_on_revisions(new)
    assert "2 of 5 nodes" in note and "'neg of else'" in note


def test_a_plan_that_calibration_saw_whole_is_left_as_it_was(tmp_path: Path) -> None:
    target, model, plan = planned(if_model(tmp_path))
    assert without_uncalibrated(target, model, plan, {**REACHED, "b": SEEN}) is plan
    assert notes_on_revisions(plan) == ()


def integers_only(folder: Path) -> Target:
    """A device that takes uint8 alone, and no precision for If."""
    path = small_profiles.write(folder, {"op": "If"}, {"op": "*", "activation": "uint8"})
    return Target.open("AcmeExecutionProvider", profiles=[path])


def test_a_device_without_float_refuses_by_node_branch_and_next_step(tmp_path: Path) -> None:
    target = integers_only(tmp_path)
    model = target.read(if_model(tmp_path))
    plan = make_plan(target, model, check_model(target, model, parse_precision("w8a8")))
    with pytest.raises(RequestError) as failed:
        without_uncalibrated(target, model, plan, REACHED)
    assert "Neg 'neg of else' in else_branch of If 'choose' has no range" in str(failed.value)
    assert "cannot stay float on AcmeExecutionProvider" in str(failed.value)
    assert "--inputs" in failed.value.hint and "--allow-fallback" in failed.value.hint
    new = without_uncalibrated(target, model, plan, REACHED, allow_fallback=True)
    left = {line.name: line for line in new.nodes}["neg of else"]
    assert left.activation is DType.FLOAT32 and left.rule is None and "--allow-fallback" in left.reason


def test_the_body_of_a_node_that_is_left_to_the_cpu_goes_with_it(tmp_path: Path) -> None:
    target = integers_only(tmp_path)
    model = target.read(if_model(tmp_path))
    plan = make_plan(target, model, check_model(target, model, parse_precision("w8a8")))
    plan = replace(plan, nodes=tuple(replace(n, on_target=False) if n.op_type == "If" else n for n in plan.nodes))
    new = without_uncalibrated(target, model, plan, REACHED)
    left = {line.name: line for line in new.nodes}["neg of else"]
    assert left.activation is DType.FLOAT32 and left.rule is None and "with 'choose'" in left.reason


def test_what_was_never_calibrated_computes_as_in_float32(tmp_path: Path) -> None:
    path = if_model(tmp_path)
    target, model, plan = planned(path)
    rng = np.random.default_rng(0)
    samples = [{"x": rng.normal(size=(1, 4)).astype(np.float32), "c": np.array(True)} for _ in range(3)]
    ranges = calibrate(model, samples)
    new = without_uncalibrated(target, model, plan, ranges)
    write_quantized(model, new, ranges, tmp_path / "q.onnx")
    x = np.array([[-500, 0.25, -0.125, 7]], np.float32)
    other = sm.run(tmp_path / "q.onnx", {"x": x, "c": np.array(False)})[0]
    assert (other == np.maximum(-x, 0)).all()


def test_a_loop_that_never_ran(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["v", "v"], ["w"], name="square"),
            helper.make_node("Identity", ["go"], ["on"], name="go on"),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", 7, []),
            helper.make_tensor_value_info("go", 9, []),
            helper.make_tensor_value_info("v", 1, [4]),
        ],
        [helper.make_tensor_value_info("on", 9, []), helper.make_tensor_value_info("w", 1, [4])],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body, name="loop")],
        "g",
        [helper.make_tensor_value_info("n", 7, []), helper.make_tensor_value_info("x", 1, [4])],
        [helper.make_tensor_value_info("y", 1, [4])],
    )
    path = sm.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path)
    target, model, plan = planned(path)
    ranges = calibrate(model, [{"n": np.array(0), "x": np.ones(4, np.float32)}])
    new = without_uncalibrated(target, model, plan, ranges)
    assert "body of Loop 'loop'" in {line.name: line for line in new.nodes}["square"].reason
    write_quantized(model, new, ranges, tmp_path / "q.onnx")
    (y,) = sm.run(tmp_path / "q.onnx", {"n": np.array(2), "x": np.full(4, 3, np.float32)})
    assert np.allclose(y, 81)
