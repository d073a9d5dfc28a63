"""What DirectML, WebGPU and OpenVINO were seen to do with nodes that no probe case shows: the verdict on the file as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planner.dtypes import parse_precision
from planner.resolve.choose import check_model
from planner.resolve.target import Target
from tests.unit.small_models import f32, graph, save

RNG = np.random.default_rng(4)
RESHAPED = ("(float[1,N,8] x) => (float[A,B] y)", "s = Shape(x)\n[sum] y = Reshape(x, s)")
POOL = "[sum] y = AveragePool<kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1, count_include_pad = {}>(x)"
LSTM = "[sum] y = LSTM<hidden_size = 4{}>(x, w, r)"
RECURRENT = {"w": f32(RNG.normal(size=(1, 16, 3))), "r": f32(RNG.normal(size=(1, 16, 4)))}
KERNEL = {"w": f32(RNG.normal(size=(4, 2, 1, 1, 1)))}
SCATTER = "[sum] y = ScatterND{}(x, i, u)"
PLACES = {"i": np.array([[0], [1]]), "u": f32(np.ones((2, 4)))}


@pytest.mark.parametrize(
    ("ep", "opset", "signature", "body", "constants", "legal"),
    [
        ("webgpu", 17, *RESHAPED, {}, True),
        ("openvino", 17, *RESHAPED, {}, True),
        ("webgpu", 17, "(float[1,2,9,9] x) => (float[1,2,5,5] y)", POOL.format(1), {}, False),
        ("webgpu", 17, "(float[1,2,9,9] x) => (float[1,2,5,5] y)", POOL.format(0), {}, True),
        ("webgpu", 17, "(float[5,2,3] x) => (float[5,1,2,4] y)", LSTM.format(""), RECURRENT, True),
        (
            "webgpu", 17, "(float[5,2,3] x) => (float[5,1,2,4] y)",
            LSTM.format(', activations = ["HardSigmoid", "Tanh", "Tanh"]'), RECURRENT, False,
        ),
        ("webgpu", 17, "(float[1,4,3,3,3] x) => (float[1,4,3,3,3] y)", "[sum] y = Conv<group = 2>(x, w)", KERNEL, False),
        ("webgpu", 17, "(double[2,3] x) => (double[2,3] y)", "[sum] y = Add(x, x)", {}, False),
        ("webgpu", 17, "(int32[2,3,4] x) => (int32[1,3,4] y)", "[sum] y = Slice(x, a, b)", {"a": [0], "b": [1]}, False),
        ("webgpu", 17, "(bool[2,3,4] x) => (bool[4,3,4] y)", "[sum] y = Concat<axis = 0>(x, x)", {}, False),
        ("directml", 16, "(float[3,4] x) => (float[3,4] y)", SCATTER.format(""), PLACES, True),
        ("directml", 16, "(float[3,4] x) => (float[3,4] y)", SCATTER.format('<reduction = "add">'), PLACES, False),
    ],
)  # fmt: skip
def test_a_node_is_judged_as_the_ep_was_seen_to_take_it(
    ep: str, opset: int, signature: str, body: str, constants: dict[str, object], legal: bool, tmp_path: Path
) -> None:
    path = save(graph(signature, body, {k: np.asarray(v) for k, v in constants.items()}, opset=opset), tmp_path)
    target = Target.open(ep)
    verdicts = check_model(target, target.read(path, stored=True), None, stored=True).verdicts
    assert [v.ruling.legal for v in verdicts if v.node.name == "sum"] == [legal]


@pytest.mark.parametrize("activation", ["Relu", "Tanh", "Softplus"])
def test_a_gemm_without_a_bias_before_an_activation_builds_no_session_of_directml(
    activation: str, tmp_path: Path
) -> None:
    weight = {"w": f32(RNG.normal(size=(4, 4)))}
    path = save(graph("(float[2,4] x) => (float[2,4] y)", f"t = Gemm(x, w)\ny = {activation}(t)", weight), tmp_path)
    target = Target.open("directml")
    as_it_is = check_model(target, target.read(path, stored=True), None, stored=True)
    assert [v.ruling.rule for v in as_it_is.violations] == ["gemm-without-bias"]
    for precision in ("fp32", "fp16", "w8a8"):
        assert check_model(target, target.read(path), parse_precision(precision)).legal
    calm = save(graph("(float[2,4] x) => (float[2,4] y)", "t = Gemm(x, w)\ny = Erf(t)", weight), tmp_path, "calm.onnx")
    assert check_model(target, target.read(calm, stored=True), None, stored=True).legal


def test_a_transposed_convolution_to_a_size_is_told_and_written_with_padding_for_openvino(tmp_path: Path) -> None:
    body = "y = ConvTranspose<strides = [2, 2], output_shape = [10, 10]>(x, w)"
    weight = {"w": f32(RNG.normal(size=(4, 4, 3, 3)))}
    path = save(graph("(float[1,4,5,5] x) => (float[1,4,10,10] y)", body, weight), tmp_path)
    target = Target.open("openvino")
    as_it_is = check_model(target, target.read(path, stored=True), None, stored=True)
    assert as_it_is.legal and "transposed-to-a-size" in as_it_is.notes[0] and "padding" in as_it_is.notes[0]
    planned = target.read(path)
    assert planned.nodes[0].attributes["pads"] == (1, 1, 0, 0)
    assert not check_model(target, planned, parse_precision("fp32")).notes


@pytest.mark.parametrize(("inputs", "told"), [("u, x, z", True), ("x, u, z", True), ("x, z, u", False)])
def test_an_input_that_nothing_reads_is_told_where_openvino_feeds_others_by_its_place(
    inputs: str, told: bool, tmp_path: Path
) -> None:
    shaped = ", ".join(f"float[2,3] {name}" for name in inputs.split(", "))
    path = save(graph(f"({shaped}) => (float[2,3] y)", "y = Sub(x, z)"), tmp_path)
    for ep, notes in (("openvino", told), ("cpu", False)):
        target = Target.open(ep)
        resolution = check_model(target, target.read(path, stored=True), None, stored=True)
        assert resolution.legal and any("'u'" in note for note in resolution.notes) is notes


@pytest.mark.parametrize(
    ("weight", "bias", "attributes", "defect"),
    [
        ((8, 9, 3, 3), False, "kernel_shape = [3, 3]", "channels-by-threes"),
        ((8, 6, 3), True, "kernel_shape = [3]", "channels-by-threes"),
        ((8, 3, 3, 3), True, "kernel_shape = [3, 3]", None),
        ((8, 12, 3, 3), True, "kernel_shape = [3, 3]", None),
        ((6, 9, 3, 3), True, "kernel_shape = [3, 3]", None),
        ((8, 9, 1, 1), True, "kernel_shape = [1, 1]", None),
        ((8, 9, 1, 1), True, "kernel_shape = [1, 1], strides = [2, 2]", "channels-by-threes-strided"),
        ((8, 9, 3, 3), True, "kernel_shape = [3, 3], group = 2", None),
        ((6, 4, 1, 1), True, "kernel_shape = [1, 1]", "six-of-few-channels"),
        ((6, 4, 1, 1), False, "kernel_shape = [1, 1]", None),
        ((6, 8, 1, 1), True, "kernel_shape = [1, 1]", None),
    ],
)
def test_a_convolution_that_webgpu_gets_wrong_is_told_and_written_with_channels_of_zeros(
    weight: tuple[int, ...], bias: bool, attributes: str, defect: str | None, tmp_path: Path
) -> None:
    channels = weight[1] * (2 if "group" in attributes else 1)
    constants = {"w": f32(RNG.normal(size=weight)), "b": f32(RNG.normal(size=weight[0]))}
    sizes = ",".join(["7"] * (len(weight) - 2))
    body = f"y = Conv<{attributes}>(x, w{', b' if bias else ''})"
    path = save(
        graph(f"(float[1,{channels},{sizes}] x) => (float[A,B,{sizes.replace('7', 'C')}] y)", body, constants), tmp_path
    )
    target = Target.open("webgpu")
    as_it_is = check_model(target, target.read(path, stored=True), None, stored=True)
    assert as_it_is.legal and [defect in note.split() for note in as_it_is.notes] == ([] if defect is None else [True])
    planned = target.read(path)
    assert ("Pad" in [node.op_type for node in planned.nodes]) is (defect is not None)
    assert not check_model(target, planned, parse_precision("fp32")).notes


OPENVINO_DEFECTS = [
    ("ReduceL1<axes = [2]>(x)", 13, "sum-of-all-magnitudes"),
    ("ReduceL1(x)", 13, None),
    ("ReduceL1<axes = [2]>(x)", 11, None),
    ("Softmax<axis = 1>(x)", 11, "softmax-of-one-axis"),
    ("Softmax<axis = 2>(x)", 11, None),
    ("Softmax<axis = 1>(x)", 13, None),
]


@pytest.mark.parametrize(("node", "opset", "defect"), OPENVINO_DEFECTS)
def test_what_openvino_gets_wrong_at_old_opsets_is_told_and_written_at_a_new_one(
    node: str, opset: int, defect: str | None, tmp_path: Path
) -> None:
    path = save(graph("(float[2,4,8] x) => (float[A,B,C] y)", f"y = {node}", opset=opset), tmp_path)
    target = Target.open("openvino")
    as_it_is = check_model(target, target.read(path, stored=True), None, stored=True)
    assert as_it_is.legal and [defect in note.split() for note in as_it_is.notes] == ([] if defect is None else [True])
    assert not check_model(target, target.read(path), parse_precision("fp32")).notes


@pytest.mark.parametrize(
    ("node", "op_type", "precision", "kind"),
    [
        ("Clip(r, low)", "Clip", "w8a8", "uint16"),
        ("Clip(r, low, high)", "Clip", "w8a8", "uint8"),
        ("Clip(r, low)", "Clip", "w8a16", "uint16"),
        (
            "AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1>(r)",
            "AveragePool",
            "w8a8",
            "uint16",
        ),
        ("AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(r)", "AveragePool", "w8a8", "uint8"),
    ],
)
def test_what_openvino_gets_wrong_at_8_bits_has_16_in_a_plan(
    node: str, op_type: str, precision: str, kind: str, tmp_path: Path
) -> None:
    constants = {"w": f32(RNG.normal(size=(4, 4, 3, 3))), "low": f32(-0.5), "high": f32(4)}
    path = save(
        graph("(float[1,4,9,9] x) => (float[1,4,A,B] y)", f"r = Conv(x, w)\nt = {node}\ny = Tanh(t)", constants),
        tmp_path,
    )
    target = Target.open("openvino")
    resolution = check_model(target, target.read(path), parse_precision(precision))
    assert resolution.legal
    assert [str(v.config.activation) for v in resolution.verdicts if v.node.op_type == op_type] == [kind]


@pytest.mark.parametrize(
    ("signature", "body", "constants", "legal"),
    [
        (
            "(float[1,4,8,8] x) => (float[1,4,8,8] y)",
            "y = GroupNormalization<num_groups = 2>(x, one, one)",
            {"one": f32(np.ones(4))},
            False,
        ),
        ("(float[N,4,8,8] x) => (float[N,4,1,1] y)", "y = GlobalLpPool(x)", {}, False),
        ("(float[1,4,8,8] x) => (float[1,4,1,1] y)", "y = GlobalLpPool(x)", {}, True),
    ],
)
def test_what_openvino_takes_and_cannot_build_is_refused(
    signature: str, body: str, constants: dict[str, np.ndarray], legal: bool, tmp_path: Path
) -> None:
    path = save(graph(signature, body, constants, opset=21), tmp_path)
    target = Target.open("openvino")
    assert check_model(target, target.read(path, stored=True), None, stored=True).legal is legal
    if "Group" in body:
        planned = target.read(path)
        assert "InstanceNormalization" in [node.op_type for node in planned.nodes]
        assert check_model(target, planned, parse_precision("fp32")).legal


def test_an_lstm_of_8_bits_has_signed_weights_on_openvino(tmp_path: Path) -> None:
    body = LSTM.format("").replace("[sum] ", "")
    path = save(graph("(float[5,2,3] x) => (float[5,1,2,4] y)", body, RECURRENT), tmp_path)
    target = Target.open("openvino")
    (verdict,) = check_model(target, target.read(path), parse_precision("w8a8")).verdicts
    assert verdict.ruling.legal and (str(verdict.config.weight), str(verdict.config.activation)) == ("int8", "int8")


@pytest.mark.parametrize(("dilations", "size", "planned"), [(1, 7, True), (2, 5, False)])
def test_a_mean_of_8_bits_with_dilations_builds_no_session_of_directml(
    dilations: int, size: int, planned: bool, tmp_path: Path
) -> None:
    mean = f"AveragePool<kernel_shape = [3, 3], dilations = [{dilations}, {dilations}]>(d)"
    quantized = "q = QuantizeLinear(x, s, z)\nd = DequantizeLinear(q, s, z)"
    body = f"{quantized}\nm = {mean}\np = QuantizeLinear(m, s, z)\ny = DequantizeLinear(p, s, z)"
    signature = f"(float[1,4,9,9] x) => (float[1,4,{size},{size}] y)"
    constants = {"s": f32(0.1), "z": np.uint8(100)}
    target = Target.open("directml")
    stored = target.read(save(graph(signature, body, constants), tmp_path), stored=True)
    assert [v.ruling.rule for v in check_model(target, stored, None, stored=True).violations] == [
        "dilated-mean-of-8-bits"
    ]
    plain = target.read(save(graph(signature, f"y = {mean.replace('(d)', '(x)')}"), tmp_path, "plain.onnx"))
    for precision, legal in (("fp16", True), ("w8a8", planned)):
        assert check_model(target, plain, parse_precision(precision)).legal is legal
