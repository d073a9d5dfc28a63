"""The verdict: three runs, two questions (where did it run, is it faithful), and requests that make no sense."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from planner.calibrate.inputs import Sample
from planner.codec import to_json
from planner.errors import RequestError
from planner.resolve.plan import TargetIdentity
from planner.runtime.client import Ran
from planner.verification.divergence import Divergence
from planner.verification.floor import Floor
from planner.verification.runs import Runs
from planner.verification.verify import Criteria, Verification, verify
from tests.unit.small_models import f32, graph, save

CPU = TargetIdentity("CPUExecutionProvider", "cpu", {})
WEIGHT = np.random.default_rng(0).uniform(-1, 1, (16, 4)).astype(np.float32)
_RAN = Runs.ran
SAMPLES = [{"x": np.random.default_rng(i).uniform(-1, 1, (2, 16)).astype(np.float32)} for i in range(3)]


def write(path: Path, dtype: int = TensorProto.FLOAT, gain: float = 1.0, op_type: str = "MatMul") -> Path:
    """y = x @ (gain * W), in one float type throughout."""
    weight = numpy_helper.from_array((gain * WEIGHT).astype(helper.tensor_dtype_to_np_dtype(dtype)), "w")
    graph = helper.make_graph(
        [helper.make_node(op_type, ["x", "w"], ["y"], name="product")],
        "g",
        [helper.make_tensor_value_info("x", dtype, [2, 16])],
        [helper.make_tensor_value_info("y", dtype, [2, 4])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_the_cpu_ep_is_verified_really(tmp_path: Path) -> None:
    model = write(tmp_path / "m.onnx")
    seen: list[tuple[int, int]] = []
    found = verify(
        model, model, CPU, SAMPLES, Criteria(Floor("sqnr", 60)), progress=lambda done, total: seen.append((done, total))
    )
    assert found.passed, found.reasons
    assert (found.ran_on, found.kind) == ("CPUExecutionProvider", "hardware")
    (package,) = found.runtime.items()
    assert to_json(found.placement) == {"total": 1, "on_target": 1, "by": " ".join(package), "fallback": []}
    assert found.fidelity[0].sqnr_db == 200
    assert seen == [(1, 3), (2, 3), (3, 3)]


def scaled(folder: Path, factor: float) -> tuple[Path, Path]:
    """A candidate whose first output is so many times its reference's, and the reference."""
    text = "h = Mul(x, f)\ny = Relu(h)\nz = Neg(x)"
    candidate, reference = (
        save(graph("(float[2,16] x) => (float[2,16] y, float[2,16] z)", text, {"f": f32(f)}), folder, name)
        for f, name in ((factor, "c.onnx"), (1.0, "r.onnx"))
    )
    return candidate, reference


def shifted(folder: Path) -> tuple[Path, Path]:
    """A candidate whose every output is 1 too much, and the reference."""
    candidate, reference = (
        save(graph("(float[2,16] x) => (float[2,16] y)", "y = Add(x, f)", {"f": f32(f)}), folder, name)
        for f, name in ((1.0, "c.onnx"), (0.0, "r.onnx"))
    )
    return candidate, reference


def tampered(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """From now on the target, and it alone, gives so many times what the file says."""

    def loud(runs: Runs, *args: Any) -> Iterator[tuple[Sample, Ran]]:
        for sample, ran in _RAN(runs, *args):
            yield sample, replace(ran, outputs={name: array * factor for name, array in ran.outputs.items()})

    monkeypatch.setattr(Runs, "ran", loud)


def test_an_output_that_is_not_finite_stays_the_loss_when_tensors_are_laid_open(tmp_path: Path) -> None:
    found = verify(*scaled(tmp_path, np.inf), CPU, SAMPLES[:1], Criteria(Floor("sqnr", 30)))
    assert found.divergence is not None and found.divergence.opened_db == -200
    assert found.divergence.fusion is None


def test_no_fusion_is_sought_where_the_ep_adds_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def find(*_: object, by_ep: bool, **__: object) -> Divergence:
        asked.append(by_ep)
        return Divergence((), None, "EP")

    monkeypatch.setattr("planner.verification.verify.find_divergence", find)
    found = verify(*scaled(tmp_path, 3.0), CPU, SAMPLES[:1], Criteria(Floor("sqnr", 30)))
    assert found.causes[0].ep == 200 and asked == [False]


def test_an_output_below_the_floor_fails_and_the_reason_says_how_far(tmp_path: Path) -> None:
    candidate, reference = write(tmp_path / "c.onnx", gain=1.1), write(tmp_path / "r.onnx")
    found = verify(candidate, reference, CPU, SAMPLES, Criteria(Floor("sqnr", 30)))
    assert not found.passed
    assert found.fidelity[0].sqnr_db == pytest.approx(20, abs=0.1)  # an error of a tenth
    assert found.reasons[0] == "output 'y' has 20.0 dB SQNR, below the floor of 30 dB"
    assert verify(candidate, reference, CPU, SAMPLES, Criteria(Floor("sqnr", 15))).passed


def test_the_loss_of_the_candidates_own_numbers_is_told_from_the_eps(tmp_path: Path) -> None:
    candidate, reference = write(tmp_path / "c.onnx", gain=1.1), write(tmp_path / "r.onnx")
    (causes,) = verify(candidate, reference, CPU, SAMPLES, Criteria(Floor("sqnr", 15))).causes
    assert causes.quantizing == pytest.approx(20, abs=0.1)
    assert causes.ep is not None and causes.ep > 100


def test_float16_inputs_and_outputs_are_fed_and_compared(tmp_path: Path) -> None:
    candidate, reference = write(tmp_path / "c.onnx", TensorProto.FLOAT16), write(tmp_path / "r.onnx")
    found = verify(candidate, reference, CPU, SAMPLES, Criteria(Floor("sqnr", 50)))
    assert found.passed, found.reasons
    assert found.fidelity[0].sqnr_db < 100


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    candidate, reference = write(tmp_path / "c.onnx", TensorProto.FLOAT16, gain=2), write(tmp_path / "r.onnx")
    assert verify(candidate, reference, CPU, SAMPLES, Criteria(Floor("sqnr", 50))).divergence is not None
    assert list(temporary.iterdir()) == []


def test_no_samples_an_unreadable_file_or_a_missing_input_is_a_wrong_request(tmp_path: Path) -> None:
    model = write(tmp_path / "m.onnx")
    with pytest.raises(RequestError, match="no samples"):
        verify(model, model, CPU, [], Criteria(Floor("sqnr", 30)))
    with pytest.raises(RequestError, match="'x'"):
        verify(model, model, CPU, [{"z": np.ones(1)}], Criteria(Floor("sqnr", 30)))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"this is no model")
    with pytest.raises(RequestError, match=r"broken\.onnx"):
        verify(broken, model, CPU, SAMPLES, Criteria(Floor("sqnr", 30)))
    with pytest.raises(RequestError, match=r"missing\.onnx"):
        verify(tmp_path / "missing.onnx", model, CPU, SAMPLES, Criteria(Floor("sqnr", 30)))


def test_a_candidate_of_other_inputs_than_the_references_is_a_wrong_request(tmp_path: Path) -> None:
    reference = write(tmp_path / "r.onnx")
    flat, wide = (
        save(graph(f"(float[{shape}] x) => (float[{shape}] y)", "y = Relu(x)"), tmp_path, f"{shape[0]}.onnx")
        for shape in ("32", "2,17")
    )
    for candidate in (flat, wide):
        with pytest.raises(RequestError, match=r"input 'x' is \[.*\] in the candidate, and \[2, 16\] in the samples"):
            verify(candidate, reference, CPU, SAMPLES, Criteria(Floor("sqnr", 30)))


def test_a_scalar_may_come_in_any_shape(tmp_path: Path) -> None:
    path = save(graph("(float[2,16] x, float s) => (float[2,16] y)", "y = Mul(x, s)"), tmp_path)
    samples = [{**sample, "s": f32([2.0])} for sample in SAMPLES]
    assert verify(path, path, CPU, samples, Criteria(Floor("sqnr", 30))).passed


def test_a_candidate_that_the_target_refuses_is_a_no_but_a_broken_reference_is_not(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "good.onnx"), write(tmp_path / "bad.onnx", op_type="Nonsense")
    found = verify(bad, good, CPU, SAMPLES, Criteria(Floor("sqnr", 30)))
    assert not found.passed
    assert found.session_error is not None and "Nonsense" in found.session_error
    assert found.placement.on_target == 0
    with pytest.raises(RequestError, match="does not take the float32 model itself"):
        verify(good, bad, CPU, SAMPLES, Criteria(Floor("sqnr", 30)))


def test_a_reference_is_fed_in_its_own_types(tmp_path: Path) -> None:
    wide, candidate = write(tmp_path / "wide.onnx", TensorProto.DOUBLE), write(tmp_path / "m.onnx")
    found = verify(candidate, wide, CPU, SAMPLES, Criteria(Floor("sqnr", 60)))
    assert found.passed and found.fidelity[0].sqnr_db > 100
    wrong = verify(write(tmp_path / "g.onnx", gain=1.1), wide, CPU, SAMPLES, Criteria(Floor("sqnr", 60)))
    assert wrong.divergence is not None and not wrong.passed  # where they part is found, too


def test_a_reference_with_a_name_given_twice_runs_as_planner_names_it(tmp_path: Path) -> None:
    body = "m = MatMul(x, w)\ny = Relu(m)"
    proto = graph("(float[2,16] x) => (float[2,4] y)", body, {"w": WEIGHT})
    for node in proto.graph.node:
        node.name = "twice"
    reference = save(proto, tmp_path, "r.onnx")
    for node, name in zip(proto.graph.node, ("one", "other"), strict=True):
        node.name = name
    assert verify(save(proto, tmp_path), reference, CPU, SAMPLES, Criteria(Floor("sqnr", 60))).passed
    with pytest.raises(RequestError, match="does not take the float32 model itself"):
        verify(reference, reference, CPU, SAMPLES, Criteria(Floor("sqnr", 60)))


def test_a_quantized_reference_is_computed_as_it_is_written(tmp_path: Path) -> None:
    """Fused, its products of 8 bits would be summed by kernels that saturate on a processor without VNNI."""
    held = {"s": f32(0.01), "z": np.array(128, np.uint8), "t": f32(0.01), "o": np.array(0, np.int8),
            "w": np.full((16, 4), 127, np.int8), "u": f32(0.5), "v": np.array(100, np.uint8)}  # fmt: skip
    body = (
        "q = QuantizeLinear(x, s, z)\nd = DequantizeLinear(q, s, z)\nf = DequantizeLinear(w, t, o)\nm = MatMul(d, f)\n"
        "p = QuantizeLinear(m, u, v)\ny = DequantizeLinear(p, u, v)"
    )
    model = save(graph("(float[2,16] x) => (float[2,4] y)", body, held), tmp_path)
    full = [{"x": np.full((2, 16), 1.27, np.float32)}]
    found = verify(model, model, CPU, full, Criteria(Floor("sqnr", 60)))
    assert found.causes[0].quantizing == 200


def test_one_hard_sample_among_easy_ones_fails_a_floor_that_the_sum_over_them_reaches(tmp_path: Path) -> None:
    """A large signal that is kept hides one sample whose answer is lost, unless samples count."""
    model, lossy = tmp_path / "m.onnx", tmp_path / "l.onnx"
    for path, kept in ((model, 1.0), (lossy, 0.0)):
        graph = helper.make_graph(
            [helper.make_node("Mul", ["x", "f"], ["y"], name="scale")],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
            [numpy_helper.from_array(np.array([1.0, kept], np.float32), "f")],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    easy = [{"x": np.array([[1.0, 0.0]], np.float32)}] * 11
    hard = {"x": np.array([[0.0, 0.3]], np.float32)}
    floor = Criteria(Floor("sqnr", 20))
    assert verify(lossy, model, CPU, easy, floor).passed
    found = verify(lossy, model, CPU, [*easy, hard], floor)
    assert found.fidelity[0].sqnr_db > 20
    assert not found.passed
    assert "lower end" in found.reasons[0]


def test_further_samples_run_on_the_hardware_too_the_hardest_first(tmp_path: Path) -> None:
    candidate, reference = write(tmp_path / "c.onnx", gain=1.1), write(tmp_path / "r.onnx")
    more = [{"x": np.random.default_rng(100 + i).uniform(-1, 1, (2, 16)).astype(np.float32)} for i in range(70)]
    found = verify(candidate, reference, CPU, SAMPLES, Criteria(Floor("sqnr", 15)), more=more)
    assert found.samples == len(SAMPLES) + 64
    assert [f.samples for f in found.emulated] == [len(SAMPLES) + 70]
    assert not found.notes
    (few,) = verify(candidate, reference, CPU, SAMPLES, Criteria(Floor("sqnr", 15))).notes
    assert "judged on 3 samples" in few


def test_nor_does_it_run_more_of_what_no_further_sample_can_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate, reference = write(tmp_path / "c.onnx"), write(tmp_path / "r.onnx")
    more = [{"x": np.random.default_rng(100 + i).uniform(-1, 1, (2, 16)).astype(np.float32)} for i in range(9)]

    def off(factor: float) -> Verification:
        tampered(monkeypatch, factor)
        return verify(candidate, reference, CPU, SAMPLES, Criteria(Floor("sqnr", 20)), more=more, brief=True)

    monkeypatch.setattr("planner.verification.verify._PATIENCE", -1.0)
    assert off(1.05).samples == 12
    found = off(2.0)
    assert found.samples == 1 and not found.passed
    assert any("ran 1 of 12 samples: with the others as good as by emulation" in note for note in found.notes)
    assert 1 < off(1.2).samples < 12, "14 dB: too much for all only once some of them ran"
    asked = verify(candidate, reference, CPU, SAMPLES, Criteria(Floor("sqnr", 20)), more=more[:2])
    assert not asked.passed and any("judged on 5 samples" in note for note in asked.notes), (
        "all ran: nothing was left out"
    )


def test_an_ep_that_takes_long_runs_few_samples_of_what_falls_short_anyway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate, reference = write(tmp_path / "c.onnx", gain=1.1), write(tmp_path / "r.onnx")
    more = [{"x": np.random.default_rng(100 + i).uniform(-1, 1, (2, 16)).astype(np.float32)} for i in range(9)]
    # Ten per cent more is 20 dB: short of 30, not of 15.
    for patience, floor, ran in ((math.inf, 30, 12), (-1.0, 15, 12), (-1.0, 30, 1)):
        monkeypatch.setattr("planner.verification.verify._PATIENCE", patience)
        found = verify(candidate, reference, CPU, SAMPLES, Criteria(Floor("sqnr", floor)), more=more, brief=True)
        assert (found.samples, found.passed) == (ran, floor == 15)
    assert [f.samples for f in found.emulated] == [12]
    assert any("ran 1 of 12 samples: by emulation on all" in note for note in found.notes)
    monkeypatch.setattr("planner.verification.verify._PATIENCE", -1.0)
    assert verify(candidate, reference, CPU, SAMPLES, Criteria(Floor("sqnr", 30)), more=more).samples == 12


def test_what_is_doubted_begins_with_the_hardest_sample_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An error of 1 in every output weighs the more, the smaller a sample is.
    candidate, reference = shifted(tmp_path)
    samples, more = ([{"x": np.full((2, 16), size, np.float32)} for size in sizes] for sizes in ((9, 8), (7, 3, 5)))
    monkeypatch.setattr("planner.verification.verify._PATIENCE", -1.0)
    criteria = Criteria(Floor("sqnr", 30))
    found = verify(candidate, reference, CPU, samples, criteria, more=more, brief=True, doubted=True)
    assert (found.samples, found.worst_sample[0]) == (1, 3) and found.divergence is not None
    trusted = verify(candidate, reference, CPU, samples, criteria, more=more, brief=True, bisect=False)
    assert (trusted.samples, trusted.worst_sample[0]) == (1, 1) and trusted.divergence is None


def test_who_asks_to_stop_gets_a_verdict_of_what_ran_so_far(tmp_path: Path) -> None:
    candidate, reference = write(tmp_path / "c.onnx", gain=1.1), write(tmp_path / "r.onnx")
    ran: list[int] = []
    criteria = Criteria(Floor("sqnr", 15))
    found = verify(
        candidate, reference, CPU, SAMPLES, criteria,
        progress=lambda done, _: ran.append(done), stopped=lambda: len(ran) == 2,
    )  # fmt: skip
    assert found.passed and found.samples == 2
    assert found.notes == (f"interrupted: the verdict rests on 2 of 3 samples that {CPU.ep} ran",)
    late = verify(candidate, reference, CPU, SAMPLES[:1], criteria, stopped=lambda: True)
    assert late.samples == 1 and "interrupted" not in " ".join(late.notes), "nothing was left out"
    short = verify(candidate, reference, CPU, SAMPLES, Criteria(Floor("sqnr", 40)), stopped=lambda: True)
    assert short.samples == 1 and short.divergence is None, "nor is it looked for what is to blame"


def test_few_samples_are_enough_for_a_floor_that_no_interval_is_compared_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between four and seven samples the interval has a lower end, and the floor is compared with the whole alone."""
    candidate, reference = shifted(tmp_path)
    samples, more = ([{"x": np.full((2, 16), size, np.float32)} for size in sizes] for sizes in ((3, 40), (12, 12, 12)))
    monkeypatch.setattr("planner.verification.verify._PATIENCE", -1.0)
    found = verify(candidate, reference, CPU, samples, Criteria(Floor("sqnr", 25)), more=more, brief=True)
    assert found.passed and found.samples == 5


def test_a_result_that_is_not_finite_settles_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate, reference = write(tmp_path / "c.onnx"), write(tmp_path / "r.onnx")
    more = [{"x": np.random.default_rng(100 + i).uniform(-1, 1, (2, 16)).astype(np.float32)} for i in range(9)]
    tampered(monkeypatch, np.nan)
    monkeypatch.setattr("planner.verification.verify._PATIENCE", -1.0)
    found = verify(candidate, reference, CPU, SAMPLES, Criteria(Floor("sqnr", 20)), more=more, brief=True, bisect=False)
    assert not found.passed and found.samples == 1
