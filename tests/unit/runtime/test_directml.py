"""DirectML on Linux: its environment is found or named, and its log is read as a placement. Nothing runs here."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from planner.errors import EPError
from planner.runtime.eps.directml import environment, setup
from planner.runtime.eps.directml.server import with_witnesses
from planner.runtime.eps.log import Placed, read_placement

DML, CPU = "DmlExecutionProvider", "CPUExecutionProvider"


def model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph(list(nodes), "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_the_log_of_two_eps_is_read_node_by_node() -> None:
    lines = [
        "Node placements",
        f" Node(s) placed on [{CPU}]. Number of nodes: 1",
        "  Neg (a (b))",
        f" Node(s) placed on [{DML}]. Number of nodes: 2",
        "  Conv (/conv 1)",
        "  Relu (r)",
        "Some nodes were not assigned to the preferred execution providers which may or may not have an impact",
    ]
    assert read_placement(lines) == (
        Placed(CPU, "Neg", "a (b)"),
        Placed(DML, "Conv", "/conv 1"),
        Placed(DML, "Relu", "r"),
    )


def test_a_name_of_several_lines_is_one_name() -> None:
    lines = [f" Node(s) placed on [{DML}]. Number of nodes: 1", "  Relu (one\n  Neg (two))"]
    assert read_placement(lines) == (Placed(DML, "Relu", "one\n  Neg (two)"),)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [f" All nodes placed on [{DML}]. Number of nodes: 3"],
        [f" Node(s) placed on [{DML}]. Number of nodes: 2", "  Relu (r)"],
    ],
)
def test_a_log_that_names_fewer_nodes_than_it_announces_is_no_placement(lines: list[str]) -> None:
    assert read_placement(lines) is None


def test_nodes_are_named_as_planner_names_them_and_two_witnesses_are_added() -> None:
    made = model(helper.make_node("Neg", ["x"], ["h"]), helper.make_node("Abs", ["h"], ["y"], name="own"))
    asked = onnx.load_from_string(with_witnesses(made))
    onnx.checker.check_model(asked)
    assert [node.name for node in asked.graph.node][:2] == ["Neg:h", "own"]
    assert len(asked.graph.node) == 4


def test_the_folder_that_the_variable_names_counts_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = environment.Environment(tmp_path, {"onnxruntime-directml": "1.24.4"}, environment.source_digest())
    monkeypatch.setenv(environment.VARIABLE, str(tmp_path))
    assert environment.find() is None
    made.write()
    assert environment.find() == made


def test_missing_system_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(environment, "vulkan_driver", lambda: None)
    made = environment.Environment(tmp_path, {}, environment.source_digest())
    assert "wine, xvfb, mesa-vulkan-drivers" in environment.missing(made)


def test_setting_up_elsewhere_than_on_linux_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("platform.system", lambda: "Windows")
    with pytest.raises(EPError) as caught:
        setup.create(tmp_path / "made")
    assert "onnxruntime-directml" in caught.value.hint
    assert not (tmp_path / "made").exists()


def test_setting_up_spares_a_folder_that_holds_other_things(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(EPError):
        setup.remove(tmp_path)
    assert (tmp_path / "thesis.txt").exists()
