"""Verification on the real QNN EP: its own placement, its own reasons, its own numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from planner.codec import to_json
from planner.model.read import read_model
from planner.resolve.plan import TargetIdentity
from planner.runtime.client import SessionFailed, Worker
from planner.verification.divergence import Divergence, find_divergence
from planner.verification.floor import Floor
from planner.verification.verify import Criteria, verify

pytestmark = pytest.mark.qnn

QNN = "QNNExecutionProvider"


def target(soc_model: str = "60") -> TargetIdentity:
    options = {"soc_model": soc_model, "offload_graph_io_quantization": "0"}
    if soc_model != "37":
        options["enable_htp_fp16_precision"] = "1"
    return TargetIdentity(QNN, f"soc-{soc_model}", options)


class Quantized:
    """A small QDQ model and its float32 reference, side by side."""

    def __init__(self, scale: float = 0.05) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.float_nodes: list[onnx.NodeProto] = []
        self.constants = [
            numpy_helper.from_array(np.array(scale / 256, np.float32), "scale"),
            numpy_helper.from_array(np.array(32768, np.uint16), "zero"),
        ]
        self.float_constants: list[onnx.TensorProto] = []

    def quantized(self, name: str) -> str:
        for op, ins, out in (
            ("QuantizeLinear", [name, "scale", "zero"], f"{name}_quantized"),
            ("DequantizeLinear", [f"{name}_quantized", "scale", "zero"], f"{name}_dequantized"),
        ):
            self.nodes.append(helper.make_node(op, ins, [out], name=f"{name}_{op}"))
        return f"{name}_dequantized"

    def weight(self, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        codes: np.ndarray = np.random.default_rng(1).integers(-100, 100, shape).astype(dtype)
        self.constants += [
            numpy_helper.from_array(codes, "w_quantized"),
            numpy_helper.from_array(np.array(0.01, np.float32), "w_scale"),
            numpy_helper.from_array(np.array(0, dtype), "w_zero"),
        ]
        self.float_constants.append(numpy_helper.from_array((codes * 0.01).astype(np.float32), "w"))
        inputs = ["w_quantized", "w_scale", "w_zero"]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, ["w_dequantized"], name="w_dq"))

    def add(self, op: str, inputs: list[str], output: str, float_inputs: list[str], **attributes: object) -> None:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        self.float_nodes.append(helper.make_node(op, float_inputs, [output], name=output, **attributes))

    def save(self, folder: Path, shape: list[int], outputs: list[onnx.ValueInfoProto]) -> tuple[Path, Path]:
        """Write both; the candidate's outputs come out of its last DequantizeLinear under the reference's names."""
        paths = []
        pairs = (("candidate", self.nodes, self.constants), ("reference", self.float_nodes, self.float_constants))
        for name, nodes, constants in pairs:
            x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
            graph = helper.make_graph(nodes, "g", [x], outputs, constants)
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
            onnx.checker.check_model(model, full_check=True)
            paths.append(folder / f"{name}.onnx")
            onnx.save(model, paths[-1])
        return paths[0], paths[1]


def matmul(folder: Path, weight: type = np.int8, scale: float = 0.05) -> tuple[Path, Path]:
    build = Quantized(scale)
    x = build.quantized("x")
    build.weight((8, 4), weight)
    build.add("MatMul", [x, "w_dequantized"], "m", ["x", "w"])
    m = build.quantized("m")
    build.add("Relu", [m], "r", ["m"])
    r = build.quantized("r")
    # the last DQ gives the graph output
    build.nodes[-1].output[0] = "y"
    del r
    build.float_nodes[-1].output[0] = "y"
    return build.save(folder, [2, 8], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])])


def samples(*shape: int, count: int = 2) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.uniform(-1, 1, shape).astype(np.float32)} for _ in range(count)]


def test_a_legal_model_is_wholly_placed_and_its_losses_are_told_apart(tmp_path: Path) -> None:
    candidate, reference = matmul(tmp_path)
    found = verify(candidate, reference, target(), samples(2, 8), Criteria(Floor("sqnr", 30)))
    assert found.passed, found.reasons
    data = to_json(found)
    assert (data["ran_on"], data["kind"]) == (QNN, "simulator")
    assert set(data["runtime"]) == {"onnxruntime", "onnxruntime-qnn"}
    assert data["placement"]["on_target"] == data["placement"]["total"] >= 9  # the graph's own Q and DQ included
    (causes,) = data["causes"]
    assert 30 < causes["quantizing_sqnr_db"] < 200
    assert 50 < causes["ep_sqnr_db"] < 200
    assert data["seconds"]["load"] > 0


def test_an_illegal_pair_falls_back_with_the_reason_of_the_ep(tmp_path: Path) -> None:
    candidate, reference = matmul(tmp_path, np.int16)
    found = verify(candidate, reference, target("36"), samples(2, 8), Criteria(Floor("sqnr", 30)))
    assert not found.passed
    (entry,) = [f for f in found.placement.fallback if f.op_type == "MatMul"]
    assert entry.name == "m"
    assert "Failed to add fused Matmul node" in str(entry.reason)
    assert "not on QNNExecutionProvider" in found.reasons[0]


def test_a_refused_session_is_a_failed_verification_that_names_the_node(tmp_path: Path) -> None:
    build = Quantized()
    x = build.quantized("x")
    build.weight((4, 3, 3, 3), np.int16)
    build.add("Conv", [x, "w_dequantized"], "c", ["x", "w"])
    build.quantized("c")
    build.nodes[-1].output[0] = "y"
    build.float_nodes[-1].output[0] = "y"
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])
    candidate, reference = build.save(tmp_path, [1, 3, 8, 8], [output])
    found = verify(candidate, reference, target("36"), samples(1, 3, 8, 8), Criteria(Floor("sqnr", 30)))
    assert not found.passed
    assert found.session_error
    assert found.placement.on_target == 0
    assert ("c", "Conv") in [(f.name, f.op_type) for f in found.placement.fallback]
    assert "refused Conv 'c'" in found.reasons[0]


def test_an_operator_the_ep_does_not_know_takes_its_neighbours_along(tmp_path: Path) -> None:
    build = Quantized()
    x = build.quantized("x")
    build.add("Erf", [x], "e", ["x"])
    e = build.quantized("e")
    build.add("Relu", [e], "r", ["e"])
    build.quantized("r")
    build.nodes[-1].output[0] = "y"
    build.float_nodes[-1].output[0] = "y"
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16])
    candidate, reference = build.save(tmp_path, [1, 16], [output])
    found = verify(candidate, reference, target(), samples(1, 16), Criteria(Floor("sqnr", 30)))
    reasons = {f.name: f.reason for f in found.placement.fallback}
    assert "`Erf` are not supported by QNN EP" in str(reasons["e"])
    # the DQ before it belongs to the same unit
    assert reasons["x_DequantizeLinear"] == reasons["e"]
    assert found.fidelity[0].sqnr_db > 30  # the CPU EP ran them: right numbers, wrong place


def test_a_range_too_small_is_found_at_the_tensor_that_it_clips(tmp_path: Path) -> None:
    # Codes reach 0.64: enough for x within a half, too little for its product.
    candidate, reference = matmul(tmp_path, scale=0.005)
    halves = [{"x": 0.5 * sample["x"]} for sample in samples(2, 8)]
    found = verify(candidate, reference, target(), halves, Criteria(Floor("sqnr", 30)))
    assert not found.passed
    assert found.divergence is not None and found.divergence.first is not None
    first = found.divergence.first
    assert (first.tensor, first.op_type, first.precision) == ("m", "MatMul", "uint16")
    assert found.reasons[-1].startswith("where the two part: MatMul 'm'")


def test_one_worker_serves_many_models_and_outlives_failed_sessions(tmp_path: Path) -> None:
    candidate, _ = matmul(tmp_path)
    bad = tmp_path / "bad"
    bad.mkdir()
    chip = target()
    with Worker(QNN) as worker:
        worker.open(candidate, chip.options)
        for _ in range(3):
            with pytest.raises(SessionFailed):
                worker.open(tmp_path / "missing.onnx", chip.options)
            assert worker.open(candidate, chip.options).assignment
        for log in (True, False, True):
            opened = worker.open(candidate, {**chip.options, "soc_model": "999999"}, log=log)
            assert {a.ep for a in opened.assignment} == {"CPUExecutionProvider"}


def test_what_is_doubted_is_laid_open_beside_the_run_of_its_hardest_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate, reference = matmul(tmp_path)
    asked: list[bool] = []

    def find(*args: Any, **more: Any) -> Divergence:
        asked.append(more["worker"] is not None)
        return find_divergence(*args, **more)

    monkeypatch.setattr("planner.verification.verify.find_divergence", find)
    monkeypatch.setattr("planner.verification.verify._PATIENCE", -1.0)
    criteria, given = Criteria(Floor("sqnr", 90)), samples(2, 8, count=12)
    found = verify(candidate, reference, target(), given[:3], criteria, more=given[3:], brief=True, doubted=True)
    assert not found.passed and found.samples == 1 and asked == [True]
    assert found.divergence is not None and found.divergence.ran_on == QNN
    assert found.divergence.explained_db == pytest.approx(found.worst_sample[1])


@pytest.mark.models
@pytest.mark.slow
def test_det_in_float16_loses_it_all_in_the_last_sigmoid(example: Callable[[str], Path], tmp_path: Path) -> None:
    model = read_model(example("det"), {"x": (1, 3, 160, 160)})
    assert model.ir is not None
    path = tmp_path / "det.onnx"
    ir.save(model.ir, path)
    found = verify(path, path, target(), samples(1, 3, 160, 160, count=1), Criteria(Floor("sqnr", 20)))
    assert found.placement.on_target == found.placement.total
    assert not found.passed
    assert found.causes[0].quantizing == 200  # float32 against itself: the loss is all the EP's
    assert found.divergence is not None and found.divergence.first is not None
    assert found.divergence.first.op_type == "Sigmoid"


@pytest.mark.models
@pytest.mark.slow
def test_magika_in_float16_overflows_in_its_second_layer_normalization(
    example: Callable[[str], Path], tmp_path: Path
) -> None:
    model = read_model(example("magika"), {"bytes": (1, 2048)}, fused=frozenset())
    assert model.ir is not None
    path = tmp_path / "magika.onnx"
    ir.save(model.ir, path)
    lines = (f"def double_{i}(number: int) -> int:\n    return {i} * number  # once more\n\n\n" for i in range(20))
    text = "".join(lines).encode()[:1024]
    sample = {"bytes": np.array([[*text, *text]], np.int32)}
    found = verify(path, path, target(), [sample], Criteria(Floor("sqnr", 20)))
    assert found.fidelity[0].sqnr_db < -50
    assert found.divergence is not None and found.divergence.first is not None
    assert found.divergence.first.op_type == "ReduceSum"
    assert "LayerNorm_1/Sum_1" in found.divergence.first.node
    assert "beyond float16's 65504" in found.divergence.sentence()
