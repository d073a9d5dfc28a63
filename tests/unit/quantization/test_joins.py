"""What an operator puts side by side is stored at one scale, and a GroupNormalization's bias as its data are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from planner.calibrate.observe import Run, collect
from planner.dtypes import parse_precision
from planner.model.read import read_model
from planner.quantization.walk import apply_plan
from planner.resolve.choose import check_model, make_plan
from planner.resolve.target import Target
from tests.unit.small_models import Array, f32, graph, random_feed, run, save, sqnr

RNG = np.random.default_rng(8)
ROWS = np.array([[[2] * 8, [0] * 8]])


def quantized(proto: onnx.ModelProto, feed: dict[str, Array], folder: Path, precision: str) -> onnx.ModelProto:
    """The model at the precision on the CPU EP, calibrated by one sample."""
    target, model = Target.open("cpu"), read_model(save(proto, folder))
    plan = make_plan(target, model, check_model(target, model, parse_precision(precision)))
    assert model.ir is not None

    def start(extended: ir.Model) -> Run:
        session = ort.InferenceSession(ir.to_proto(extended).SerializeToString(), providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs()]
        return lambda sample: dict(zip(names, session.run(None, sample), strict=True))

    made = ir.to_proto(apply_plan(model, plan, collect(model.ir, start, [feed]).ranges()).model)
    onnx.checker.check_model(made)
    return made


def constants(model: onnx.ModelProto) -> dict[str, Array]:
    return {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}


@pytest.mark.parametrize("precision", ["w8a8", "w8a16"])
@pytest.mark.parametrize("spread", [0.5, 4.0])
def test_constants_that_are_scattered_have_the_scale_of_what_they_go_into(
    precision: str, spread: float, tmp_path: Path
) -> None:
    updates = f32(RNG.normal(size=(1, 2, 8)) * spread)
    body = "m = MatMul(x, w)\ns = ScatterElements<axis = 1>(m, i, u)\ny = Relu(s)"
    held = {"w": f32(RNG.normal(size=(8, 8))), "i": ROWS, "u": updates}
    proto = graph("(float[1,6,8] x) => (float[1,6,8] y)", body, held)
    feed = random_feed(proto)
    made = quantized(proto, feed, tmp_path, precision)
    arrays, producers = constants(made), {o: n for n in made.graph.node for o in n.output}
    scatter = next(n for n in made.graph.node if n.op_type == "ScatterElements")
    behind = next(n for n in made.graph.node if scatter.output[0] in n.input)
    scales = {
        float(arrays[n.input[1]])
        for n in (producers[scatter.input[0]], producers[scatter.input[2]], behind)
        if n.op_type in ("QuantizeLinear", "DequantizeLinear")
    }
    assert len(scales) == 1 and behind.op_type == "QuantizeLinear"
    assert sqnr(run(proto, feed)[0], run(made, feed)[0]) > (25 if precision == "w8a8" else 30)


def test_the_bias_of_a_group_normalization_is_stored_as_its_data_are(tmp_path: Path) -> None:
    proto = graph(
        "(float[1,4,3,3] x) => (float[1,4,3,3] y)",
        "n = GroupNormalization<num_groups = 2>(x, g, b)  y = Relu(n)",
        {"g": f32(RNG.normal(size=4)), "b": f32(RNG.normal(size=4))},
        opset=21,
    )
    made = quantized(proto, random_feed(proto), tmp_path, "w8a16")
    node = next(n for n in made.graph.node if n.op_type == "GroupNormalization")
    source = next(n for n in made.graph.node if node.input[2] in n.output)
    assert constants(made)[source.input[0]].dtype == np.uint16


@pytest.mark.parametrize("value", [-100.0, 2.5])
def test_a_pad_by_a_number_from_outside_stores_its_data_as_its_result(value: float, tmp_path: Path) -> None:
    held = {"p": np.array([0, 1, 0, 1]), "v": f32(value)}
    proto = graph("(float[4,8] x) => (float[4,10] y)", "t = Tanh(x)\ny = Pad(t, p, v)", held)
    feed = random_feed(proto)
    made = quantized(proto, feed, tmp_path, "w8a16")
    arrays, producers = constants(made), {o: n for n in made.graph.node for o in n.output}
    pad = next(n for n in made.graph.node if n.op_type == "Pad")
    before, behind = producers[pad.input[0]], next(n for n in made.graph.node if pad.output[0] in n.input)
    assert [arrays[n].tolist() for n in before.input[1:3]] == [arrays[n].tolist() for n in behind.input[1:3]]
    assert sqnr(run(proto, feed)[0], run(made, feed)[0]) > 60
