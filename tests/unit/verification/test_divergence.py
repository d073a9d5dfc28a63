"""Naming the node at which a run leaves its reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from planner.codec import to_json
from planner.resolve.plan import TargetIdentity
from planner.verification.divergence import Divergence, Fusion, Row, find_divergence, first_that, rank, shared_tensors
from planner.verification.floor import Floor
from planner.verification.verify import Criteria, verify

ELSEWHERE = TargetIdentity("DmlExecutionProvider", "gpu", {})


def chain(*operators: str) -> ir.Model:
    """A chain of unary operators n0, n1, ... with values v0, v1, ..."""
    names = ["x", *(f"v{i}" for i in range(len(operators)))]
    nodes = [
        helper.make_node(op, [names[i]], [names[i + 1]], name=f"n{i}", **({"to": 1} if op == "Cast" else {}))
        for i, op in enumerate(operators)
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [4])],
        [helper.make_tensor_value_info(names[-1], 1, [4])],
        value_info=[helper.make_tensor_value_info(name, 1, [4]) for name in names[1:-1]],
    )
    made: ir.Model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    return made


def row(db: float, finite: bool = True) -> Row:
    return Row(db, 0.0, 1.0, finite)


def test_the_first_value_that_is_not_finite_is_to_blame() -> None:
    rows = {"v0": row(70), "v1": row(12), "v2": row(-50, finite=False), "v3": row(-90, finite=False)}
    divergence = rank(chain("Relu", "Exp", "Sqrt", "Abs"), rows, "EP")
    assert divergence.first is not None
    assert (divergence.first.node, divergence.first.op_type, divergence.first.depth) == ("n2", "Sqrt", 3)
    assert "infinite or NaN" in divergence.sentence()


def test_else_the_first_steep_fall() -> None:
    rows = {"v0": row(70), "v1": row(65), "v2": row(9), "v3": row(-30)}
    first = rank(chain("Relu", "Exp", "Sqrt", "Abs"), rows, "EP").first
    assert first is not None
    assert (first.node, first.drop_db) == ("n2", 56)


def test_a_fall_that_later_nodes_mend_is_not_to_blame() -> None:
    rows = {"v0": row(70), "v1": row(30), "v2": row(60), "v3": row(-10)}
    first = rank(chain("Relu", "Reciprocal", "Tanh", "Exp"), rows, "EP").first
    assert first is not None
    assert first.node == "n3"


def test_an_error_that_the_next_node_mends_wholly_is_not_to_blame() -> None:
    rows = {"v0": row(72), "v1": row(16), "v2": row(66), "v3": row(60)}
    assert rank(chain("Relu", "Add1", "Clip", "Abs"), rows, "EP").first is None
    lasting = {**rows, "v2": row(15), "v3": row(12)}
    first = rank(chain("Relu", "Add1", "Clip", "Abs"), lasting, "EP").first
    assert first is not None
    assert first.node == "n1"


def test_an_error_that_grows_step_by_step_has_no_single_culprit() -> None:
    rows = {f"v{i}": row(80 - 8 * i) for i in range(8)}
    divergence = rank(chain(*["Relu"] * 8), rows, "EP")
    assert divergence.first is None
    assert "step by step" in divergence.sentence()
    assert [t.drop_db for t in divergence.tensors] == [0, *[8] * 7]


def test_a_steep_loss_is_named_even_where_more_is_lost_later() -> None:
    rows = {"v0": row(80), "v1": row(38), "v2": row(32), "v3": row(26), "v4": row(20), "v5": row(14), "v6": row(8)}
    divergence = rank(chain(*["Relu"] * 7), rows, "EP")
    assert divergence.first is None
    assert "'n1'" in divergence.sentence() and "42.0 dB less than its inputs" in divergence.sentence()


@pytest.mark.parametrize("least", [1, 2, 5, 9, 10])
def test_the_first_tensor_that_mends_is_found_in_few_runs(least: int) -> None:
    asked: list[int] = []

    def holds(count: int) -> bool:
        asked.append(count)
        return count >= least

    assert first_that(holds, 10) == least
    assert len(asked) <= 4


def test_a_fusion_of_the_ep_is_named_where_laying_it_open_makes_the_loss_go_away() -> None:
    fusion = Fusion("c", ("conv", "sig", "silu"), ("Conv", "Sigmoid", "Mul"), 43.2)
    divergence = Divergence((), None, "AcmeExecutionProvider", 44.0, 2.9, fusion)
    assert "fusion of Conv 'conv', Sigmoid 'sig', Mul 'silu'" in divergence.sentence()
    assert "43.2 dB" in divergence.sentence() and "2.9" in divergence.sentence()


def test_a_tensor_that_was_not_measured_hands_its_inputs_fidelity_on() -> None:
    rows = {"v0": row(30), "v2": row(25)}
    assert rank(chain("Relu", "Exp", "Sqrt"), rows, "EP").tensors[-1].drop_db == 5


def test_a_quantized_tensor_is_what_its_consumers_read() -> None:
    reference = chain("Relu", "Exp", "Abs")
    candidate = chain("Relu", "Exp", "Abs")
    assert shared_tensors(reference, candidate) == {"v0": "v0", "v1": "v1", "v2": "v2"}
    candidate.graph.node(0).outputs[0].name = "v0_dequantized"
    candidate.graph.node(1).outputs[0].name = "something_else"
    assert shared_tensors(reference, candidate) == {"v0": "v0_dequantized", "v2": "v2"}


def overflow_pair(folder: Path) -> tuple[Path, Path]:
    """x * 300 * 300 / 90000: harmless in float32; 300 * 300 * x leaves float16's range at x = 1."""
    paths = []
    for name, dtype, array in (("reference", TensorProto.FLOAT, np.float32), ("half", TensorProto.FLOAT16, np.float16)):
        half = dtype == TensorProto.FLOAT16
        nodes = [
            helper.make_node("Mul", ["a", "k"], ["once"], name="first"),
            helper.make_node("Mul", ["once", "k"], ["twice"], name="too_large"),
            helper.make_node("Div", ["twice", "d"], ["b"], name="down"),
        ]
        if half:
            nodes.insert(0, helper.make_node("Cast", ["x"], ["a"], name="in", to=dtype))
            nodes.append(helper.make_node("Cast", ["b"], ["y"], name="out", to=TensorProto.FLOAT))
        else:
            nodes[0].input[0], nodes[-1].output[0] = "x", "y"
        constants = [numpy_helper.from_array(np.array(v, array), n) for n, v in (("k", 300), ("d", 60000))]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
            constants,
        )
        path = folder / f"{name}.onnx"
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        onnx.save(onnx.shape_inference.infer_shapes(model), path)
        paths.append(path)
    return paths[1], paths[0]


def test_a_float16_overflow_is_named_by_the_emulation(tmp_path: Path) -> None:
    candidate, reference = overflow_pair(tmp_path)
    divergence = find_divergence(candidate, reference, ELSEWHERE, [{"x": np.ones((1, 4), np.float32)}])
    assert divergence.ran_on == "CPUExecutionProvider"
    assert divergence.first is not None
    assert (divergence.first.node, divergence.first.op_type, divergence.first.precision) == (
        "too_large",
        "Mul",
        "float16",
    )
    assert "beyond float16's 65504" in divergence.sentence()


def test_verifying_fails_and_says_which_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANNER_DIRECTML", str(tmp_path / "nowhere"))
    candidate, reference = overflow_pair(tmp_path)
    found = verify(candidate, reference, ELSEWHERE, [{"x": np.ones((1, 4), np.float32)}], Criteria(Floor("sqnr", 20)))
    assert not found.passed
    assert any("'too_large'" in reason for reason in found.reasons)
    data = to_json(found)
    assert (data["ran_on"], data["kind"]) == ("CPUExecutionProvider", "emulation")
    assert data["placement"]["on_target"] is None
    assert data["fidelity"][0]["sqnr_db"] == -200
    assert data["divergence"]["first"]["node"] == "too_large"


def test_the_same_model_within_range_passes(tmp_path: Path) -> None:
    candidate, reference = overflow_pair(tmp_path)
    found = verify(
        candidate, reference, ELSEWHERE, [{"x": np.full((1, 4), 0.1, np.float32)}], Criteria(Floor("sqnr", 40))
    )
    assert found.passed, found.reasons
    assert found.divergence is None
