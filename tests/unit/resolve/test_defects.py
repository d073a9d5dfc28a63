"""Known defects of an EP: found in a model, told, avoided by another type or spelling, and asked again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec import structs

from planner.calibrate.ranges import Range
from planner.dtypes import DType, parse_precision
from planner.model.read import read_model
from planner.model.write import save as write
from planner.probe.defects import ask_defects, build_defect
from planner.profiles.schema import Defect
from planner.quantization.walk import apply_plan
from planner.resolve.choose import check_model, make_plan, resolve
from planner.resolve.defects import showing
from planner.resolve.plan import Basis
from planner.resolve.target import Target
from tests.unit.small_models import Array, f32, graph, random_feed, run, save

RNG = np.random.default_rng(3)
SILU = "c = Conv(x, w)\ns = Sigmoid(c)\ny = Mul(c, s)"
CONV = {"w": f32(RNG.normal(size=(4, 4, 1, 1)))}
PICTURE = "(float[1,4,12,8] x) => (float[1,4,12,8] y)"


@pytest.fixture
def qnn() -> Target:
    return Target.open("qnn", "snapdragon-x-elite")


def activations(target: Target, path: Path, precision: str) -> dict[str, tuple[DType | None, Basis]]:
    resolution = check_model(target, target.read(path), parse_precision(precision))
    assert resolution.legal
    return {v.node.op_type: (v.config.activation, v.ruling.basis) for v in resolution.verdicts}


@pytest.mark.parametrize("body", [SILU, SILU.replace("Mul(c, s)", "Mul(s, c)")])
def test_a_silu_at_uint16_gets_a_sigmoid_of_another_type(qnn: Target, body: str, tmp_path: Path) -> None:
    path = save(graph(PICTURE, body, CONV), tmp_path)
    found = activations(qnn, path, "w8a16")
    assert found["Sigmoid"] == (DType.INT16, Basis.DEFECT)
    assert found["Mul"] == (DType.UINT16, Basis.RULE)
    assert activations(qnn, path, "w8a8")["Sigmoid"] == (DType.UINT8, Basis.RULE)
    resolution = check_model(qnn, qnn.read(path), parse_precision("w8a16"))
    assert (
        len(resolution.notes) == 1 and "silu-uint16" in resolution.notes[0] and "avoided: int16" in resolution.notes[0]
    )


@pytest.mark.parametrize(
    ("height", "width", "wrong"),
    [(8, 20, False), (9, 20, True), (12, 40, True), (13, 20, False), (20, 8, True), (20, 14, False), (80, 80, False)],
)
def test_a_silu_is_avoided_only_at_the_sizes_that_are_wrong(
    qnn: Target, height: int, width: int, wrong: bool, tmp_path: Path
) -> None:
    kind = (DType.INT16, Basis.DEFECT) if wrong else (DType.UINT16, Basis.RULE)
    picture = f"(float[1,4,{height},{width}] x) => (float[1,4,{height},{width}] y)"
    assert activations(qnn, save(graph(picture, SILU, CONV), tmp_path), "w8a16")["Sigmoid"] == kind
    last = f"(float[1,{height},{width},16] x) => (float[1,{height},{width},16] y)"
    body = "s = Sigmoid(x)\ny = Mul(x, s)"
    assert activations(qnn, save(graph(last, body), tmp_path, "last.onnx"), "w8a16")["Sigmoid"] == kind


def test_a_gate_that_is_not_of_the_same_tensor_is_left_alone(qnn: Target, tmp_path: Path) -> None:
    path = save(graph(PICTURE, SILU.replace("Mul(c, s)", "Mul(x, s)"), CONV), tmp_path)
    assert activations(qnn, path, "w8a16")["Sigmoid"] == (DType.UINT16, Basis.RULE)
    assert check_model(qnn, qnn.read(path), parse_precision("w8a16")).notes == ()


def test_a_stored_model_with_a_defect_is_told_of_it_through_its_qdq(qnn: Target, tmp_path: Path) -> None:
    # Made for an EP without the defect.
    path, cpu = save(graph(PICTURE, SILU, CONV), tmp_path), Target.open("cpu")
    model = read_model(path)
    plan = make_plan(cpu, model, check_model(cpu, model, parse_precision("w8a16")))
    made = tmp_path / "made.onnx"
    write(apply_plan(model, plan, {name: Range(-1, 1) for name in "xcsy"}).model, made)
    resolution = check_model(qnn, qnn.read(made, stored=True), None, stored=True)
    assert resolution.legal and len(resolution.notes) == 1 and "silu-uint16" in resolution.notes[0]


def test_x_times_hard_sigmoid_is_told_and_written_the_other_way_round(qnn: Target, tmp_path: Path) -> None:
    body = "s = HardSigmoid<alpha = 0.16666667, beta = 0.5>(x)\ny = Mul(x, s)"
    proto = graph("(float[1,4,3,3] x) => (float[1,4,3,3] y)", body)
    path = save(proto, tmp_path)
    assert any(
        "hard-swish-float" in note for note in check_model(qnn, qnn.read(path, stored=True), None, stored=True).notes
    )
    model = qnn.read(path)
    assert check_model(qnn, model, parse_precision("fp16")).notes == ()
    mul = next(node for node in model.nodes if node.op_type == "Mul")
    assert [o.name for o in mul.inputs if o is not None] == ["s", "x"]
    feed = random_feed(proto)
    assert model.ir is not None
    np.testing.assert_array_equal(run(proto, feed)[0], run(model.ir, feed)[0])


@pytest.mark.parametrize(
    ("places", "operators"),
    [
        (np.arange(16).reshape(1, 16, 1, 1), ["MaxPool", "Reshape", "Reshape", "Transpose"]),
        (np.arange(-16, 0).reshape(4, 4), ["MaxPool", "Reshape", "Reshape", "Transpose"]),
        (RNG.permutation(16).reshape(2, 8), ["MaxPool", "Reshape", "Gather", "Reshape", "Transpose"]),
        (np.array([[0, 0], [-1, 5]]), ["MaxPool", "Reshape", "Gather", "Reshape", "Transpose"]),
    ],
)
def test_a_gather_that_aborts_is_illegal_as_it_is_and_written_otherwise(
    qnn: Target, places: Array, operators: list[str], tmp_path: Path
) -> None:
    shape = ",".join(map(str, places.shape[::-1]))
    body = "c = MaxPool<kernel_shape = [1, 1]>(x)\nf = Reshape(c, all)\ns = Gather(f, i)\ny = Transpose(s)"
    held = {"i": places, "all": np.array([16])}
    proto = graph(f"(float[1,4,2,2] x) => (float[{shape}] y)", body, held)
    path = save(proto, tmp_path)
    as_it_is = check_model(qnn, qnn.read(path, stored=True), None, stored=True)
    assert as_it_is.legal is False and as_it_is.violations[0].ruling.rule == "gather-transpose"
    assert as_it_is.violations[0].ruling.suggestion
    calm = save(
        graph(f"(float[16] f) => (float[{shape}] y)", body.partition("all)")[2], {"i": places}), tmp_path, "calm.onnx"
    )
    assert check_model(qnn, qnn.read(calm, stored=True), None, stored=True).legal
    model = qnn.read(path)
    assert [node.op_type for node in model.nodes] == operators
    assert check_model(qnn, model, parse_precision("fp16")).legal
    feed = random_feed(proto)
    assert model.ir is not None
    np.testing.assert_array_equal(run(proto, feed)[0], run(model.ir, feed)[0])


@pytest.mark.parametrize(
    ("attributes", "precision", "told"),
    [
        ("pads: ints = [1, 1, 1, 1]", "fp16", True),
        ("pads: ints = [0, 0, 1, 1]", "fp16", True),
        ("pads: ints = [1, 1, 1, 1], count_include_pad: int = 1", "fp16", False),
        ("pads: ints = [0, 0, 0, 0]", "fp16", False),
        ("pads: ints = [1, 1, 1, 1]", "w8a16", False),
    ],
)
def test_a_node_may_show_a_defect_alone(
    attributes: str, precision: str, told: bool, qnn: Target, tmp_path: Path
) -> None:
    body = f"y = AveragePool<kernel_shape: ints = [3, 3], {attributes}>(x)"
    path = save(graph("(float[1,3,32,32] x) => (float[1,3,?,?] y)", body), tmp_path)
    resolution = check_model(qnn, qnn.read(path), parse_precision(precision))
    assert resolution.legal, "the EP takes it, and gets it right at some sizes: verifying tells"
    assert any("padded-average-float" in note for note in resolution.notes) is told


@pytest.mark.parametrize("defect", Target.open("qnn").profile.file.defects, ids=lambda defect: str(defect.id))
def test_the_model_of_a_defect_is_one_and_shows_the_pattern(defect: Defect, qnn: Target, tmp_path: Path) -> None:
    proto = build_defect(defect)
    onnx.checker.check_model(proto)
    unaware = replace(qnn, profile=replace(qnn.profile, file=structs.replace(qnn.profile.file, defects=[])))
    model = unaware.read(save(proto, tmp_path), stored=True)
    verdicts = resolve(unaware, model, parse_precision(defect.precision)).verdicts
    assert defect.id in {shown.defect.id for shown in showing(qnn, verdicts, 21)}


@pytest.mark.qnn
def test_the_installed_ep_still_has_each_defect(qnn: Target) -> None:
    """Where this fails, the vendor mended one: take it out of the profile from that version on."""
    assert {asked.id: asked.shows for asked in ask_defects(qnn)} == {d.id: True for d in qnn.profile.file.defects}


@pytest.mark.parametrize(
    ("device", "precision", "factor"),
    [("npu", "w8a16", DType.INT16), ("npu", "w8a8", None), ("npu", "fp16", None), ("snapdragon-888", "w8a16", None)],
)
def test_a_second_factor_that_is_computed_is_stored_as_the_ep_keeps_it(
    device: str, precision: str, factor: DType | None, tmp_path: Path
) -> None:
    path = save(graph("(float[3,4] a, float[4,5] b) => (float[3,5] y)", "y = MatMul(a, b)", {}), tmp_path)
    target = Target.open("qnn", device)
    model = target.read(path)
    plan = make_plan(target, model, resolve(target, model, parse_precision(precision)))
    assert plan.nodes[0].factor is factor
    if not plan.is_quantized:
        return
    applied = apply_plan(model, plan, {name: Range(-1.0, 2.0) for name in "aby"}).model
    written = tmp_path / "written.onnx"
    write(applied, written)
    graph_ = onnx.load(written).graph
    numbers = {i.name: onnx.numpy_helper.to_array(i) for i in graph_.initializer}
    (zero,) = (numbers[n.input[2]] for n in graph_.node if n.op_type == "QuantizeLinear" and n.input[0] == "b")
    assert zero.dtype == str(factor or plan.nodes[0].activation)
    assert (zero == 0) == (factor is DType.INT16)
    # As it is stored, the file has the defect no more.
    again = check_model(target, target.read(written, stored=True), None, stored=True)
    assert again.legal and not again.notes


def test_a_file_whose_second_factor_loses_half_its_bits_is_told(qnn: Target, tmp_path: Path) -> None:
    path = save(graph("(float[3,4] a, float[4,5] b) => (float[3,5] y)", "y = MatMul(a, b)", {}), tmp_path)
    unaware = qnn.unaware()
    model = unaware.read(path)
    plan = make_plan(unaware, model, resolve(unaware, model, parse_precision("w8a16")))
    write(apply_plan(model, plan, {name: Range(-1.0, 2.0) for name in "aby"}).model, path)
    (note,) = check_model(qnn, qnn.read(path, stored=True), None, stored=True).notes
    assert "product-uint16" in note and "writes the second factor at int16" in note
    assert [d.id for d in qnn.unaware(but=["product-uint16"]).profile.defects(qnn.device)] == ["product-uint16"]


@pytest.mark.parametrize(
    ("largest", "device", "told"), [(32640, "npu", 1), (32639, "npu", 0), (32767, "snapdragon-888", 0)]
)
def test_a_file_whose_weights_count_for_less_than_they_say_is_told(
    largest: int, device: str, told: int, tmp_path: Path
) -> None:
    constants = {"w": f32(np.eye(4)), "b": f32(np.ones(4))}
    path = save(graph("(float[3,4] x) => (float[3,4] y)", "y = Gemm(x, w, b)", constants), tmp_path)
    target = Target.open("qnn")
    model = target.read(path)
    plan = make_plan(target, model, resolve(target, model, parse_precision("w16a16")))
    write(apply_plan(model, plan, {name: Range(-1.0, 2.0) for name in "xy"}).model, path)
    proto = onnx.load(path)
    (codes,) = (i for i in proto.graph.initializer if i.data_type == onnx.TensorProto.INT16 and list(i.dims) == [4, 4])
    array = onnx.numpy_helper.to_array(codes).copy()
    assert array.max() == 32639  # as planner writes it
    array[array == 32639] = largest
    codes.CopyFrom(onnx.numpy_helper.from_array(array, codes.name))
    onnx.save(proto, path)
    target = Target.open("qnn", device)
    notes = check_model(target, target.read(path, stored=True), None, stored=True).notes
    assert len([note for note in notes if "weight-int16" in note]) == told
