"""DirectML on Linux: its environment is found or named, its log is read as a placement, and numbers are taken from proven machines alone."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from planner.errors import EPError
from planner.runtime.eps.directml import environment, setup
from planner.runtime.eps.directml.asker import Answer, Died, NotDone
from planner.runtime.eps.directml.proof import computes, questions
from planner.runtime.eps.directml.server import Server, with_witnesses
from planner.runtime.eps.directml.tensors import pack, unpack
from planner.runtime.eps.log import Placed, read_placement
from planner.runtime.registry import launcher

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


# -- numbers ------------------------------------------------------------------------------------------------------------

_DTYPES = (np.float32, np.float16, np.int64, np.int8, np.uint16, np.bool_, np.float64)


@given(
    st.lists(
        st.tuples(st.text(max_size=9), st.sampled_from(_DTYPES), st.lists(st.integers(0, 5), max_size=4)),
        max_size=4,
        unique_by=lambda entry: entry[0],
    )
)
def test_tensors_come_back_as_they_were_handed_over(entries: list[tuple[str, type, list[int]]]) -> None:
    rng = np.random.default_rng(0)
    tensors: dict[str, np.ndarray[Any, Any]] = {
        name: (rng.normal(size=shape) * 100).astype(dtype) for name, dtype, shape in entries
    }
    found = unpack(pack(tensors))
    assert list(found) == list(tensors)
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_tensors_that_are_cut_short_are_an_error() -> None:
    whole = pack({"x": np.arange(100, dtype=np.float32)})
    for length in (8, 40, 70, 200):
        with pytest.raises((ValueError, struct.error)):
            unpack(whole[:length])


class Program:
    """Stands for the program: it runs a model by ONNX's own definition of its operators, or not."""

    def __init__(self, *, zeros: bool = False, fails: Exception | None = None) -> None:
        self.zeros, self.fails = zeros, fails
        self.model: Any = None

    def open(self, model: bytes, _data: Path, *, optimize: bool) -> None:
        assert optimize
        self.model = onnx.load_from_string(model)

    def run(self, feed: Mapping[str, np.ndarray[Any, Any]]) -> tuple[dict[str, np.ndarray[Any, Any]], float]:
        if self.fails is not None:
            raise self.fails
        names = [output.name for output in self.model.graph.output]
        made = dict(zip(names, ReferenceEvaluator(self.model).run(None, dict(feed)), strict=True))
        return {name: array * 0 if self.zeros else array for name, array in made.items()}, 0.0


def test_a_machine_that_computes_gives_the_known_answers(tmp_path: Path) -> None:
    right: Any = Program()
    assert computes(right, tmp_path)
    assert len(list(questions())) == 6


@pytest.mark.parametrize(
    "program", [Program(zeros=True), Program(fails=NotDone("no shader")), Program(fails=Died("signal SIGSEGV"))]
)
def test_a_machine_that_returns_zeros_or_fails_is_not_believed(program: Any, tmp_path: Path) -> None:
    assert not computes(program, tmp_path)


@pytest.mark.parametrize("proven", [False, True])
def test_models_run_where_the_machine_was_proven(proven: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(environment.VARIABLE, str(tmp_path))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(environment, "missing", lambda _: "")
    packages = {"onnxruntime-directml": "1.24.4"}
    environment.Environment(tmp_path, packages, environment.source_digest(), computes=proven).write()
    found = launcher("DmlExecutionProvider").availability()
    assert (found.kind, found.runs) == (("software", True) if proven else ("placement", False))


class Machine:
    """Stands for a started program: it places the model's Relu, runs it, and loses its device at the first run."""

    made = 0

    def __init__(self, made_of: environment.Environment) -> None:
        Machine.made += 1
        self.number, self.lost, self.computes = Machine.made, False, made_of.computes

    @property
    def alive(self) -> bool:
        return not self.lost

    def open(self, _model: bytes, _data: Path, *, optimize: bool) -> Answer:
        return Answer((Placed(DML, "Relu", "r"),), "", 0.1)

    def ask(self, _model: bytes, _data: Path, *, optimize: bool) -> Answer:
        return Answer((Placed(DML, "Relu", "r"),), "no shader", 0.1)

    def run(self, feed: Mapping[str, np.ndarray[Any, Any]]) -> tuple[dict[str, np.ndarray[Any, Any]], float]:
        if self.number == 1:
            self.lost = True
            raise NotDone("device removed")
        return {"y": feed["x"], "planner/witness/Relu/out": feed["x"]}, 0.2

    def close(self) -> None:
        pass


@pytest.fixture
def request_for(tmp_path: Path) -> dict[str, Any]:
    onnx.save(model(helper.make_node("Relu", ["x"], ["y"], name="r")), tmp_path / "m.onnx")
    return {"model": str(tmp_path / "m.onnx"), "optimize": True}


def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, computes: bool) -> Server:
    Machine.made = 0
    monkeypatch.setattr("planner.runtime.eps.directml.server.Asker", Machine)
    monkeypatch.setattr("planner.runtime.eps.directml.proof.computes", lambda *_: True)
    return Server(environment.Environment(tmp_path, {}, "", computes=computes))


def test_after_the_device_was_lost_a_new_program_is_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request_for: dict[str, Any]
) -> None:
    asked = server(monkeypatch, tmp_path, computes=True)
    x = np.ones(2, np.float32)
    assert asked.open(request_for)["unbuilt"] == ""
    assert asked.run({"x": x})[0] == {"status": "run_failed", "message": "device removed", "lost": True}
    asked.open(request_for)
    reply, outputs = asked.run({"x": x})
    assert (reply["status"], list(outputs), Machine.made) == ("ok", ["y"], 2)


@pytest.mark.parametrize("fault", [Died("signal SIGKILL"), Answer(None, "no memory", 0.0)])
def test_what_goes_wrong_once_is_no_answer(
    fault: Died | Answer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request_for: dict[str, Any]
) -> None:
    asked = server(monkeypatch, tmp_path, computes=False)
    right, faults = Machine.ask, [fault]

    def ask(self: Machine, model: bytes, data: Path, *, optimize: bool) -> Answer:
        if not faults:
            return right(self, model, data, optimize=optimize)
        if isinstance(found := faults.pop(), Died):
            self.lost = True
            raise found
        return found

    monkeypatch.setattr(Machine, "ask", ask)
    assert asked.open(request_for)["assignment"] == [(DML, "Relu", "r")]
    faults = [Answer(None, "wrong", 0.0), Answer(None, "wrong", 0.0)]
    assert asked.open(request_for)["status"] == "session_failed"


def test_a_machine_that_was_not_proven_tells_the_placement_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request_for: dict[str, Any]
) -> None:
    asked = server(monkeypatch, tmp_path, computes=False)
    assert asked.open(request_for)["assignment"] == [(DML, "Relu", "r")]
    assert asked.run({"x": np.ones(2, np.float32)})[0]["status"] == "run_failed"


def test_a_machine_that_computes_no_longer_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("planner.runtime.eps.directml.server.Asker", Machine)
    monkeypatch.setattr("planner.runtime.eps.directml.proof.computes", lambda *_: False)
    with pytest.raises(Died, match="computes wrongly now"):
        Server(environment.Environment(tmp_path, {}, "", computes=True))
