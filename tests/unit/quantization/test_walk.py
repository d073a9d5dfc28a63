"""Applying plans: any mix of types over any small graph gives a valid model that computes nearly the same.

Each model is written as text, run in float32 to get ranges and reference, rewritten, and run again without the
runtime's own rewriting of Q/DQ.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from planner.calibrate.observe import Run, collect
from planner.calibrate.ranges import Range
from planner.dtypes import NO_PRECISION, PER_CHANNEL, PER_TENSOR, DType, QuantConfig
from planner.errors import RequestError
from planner.model.passes.fuse import FUSED_OPERATORS
from planner.model.read import Model, read_model
from planner.quantization.walk import Applied, apply_plan
from planner.resolve.plan import ModelIdentity, Plan, PlanNode, ProfileIdentity, TargetIdentity
from tests.unit.small_models import graph

F32, F16 = DType.FLOAT32, DType.FLOAT16
U8, I8, U16, I16, I4, U4 = DType.UINT8, DType.INT8, DType.UINT16, DType.INT16, DType.INT4, DType.UINT4
ACTIVATIONS = (F32, F16, U8, I8, U16, I16)
WEIGHTS = {U8: (U8, I8), I8: (I8,), U16: (U8, I8, I16, I4, U4), I16: (I8, I16)}
Sample = Mapping[str, np.ndarray]
Pair = tuple[DType | None, DType]
Choice = Pair | Mapping[str, Pair]


def read(proto: onnx.ModelProto, folder: Path | None = None) -> Model:
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(folder or temporary) / "m.onnx"
        path.write_bytes(proto.SerializeToString())
        return read_model(path, fused=[op for op in FUSED_OPERATORS if op != "Gelu"])


def session(proto: onnx.ModelProto) -> Run:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    made = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in made.get_outputs()]
    return lambda sample: dict(zip(names, made.run(None, dict(sample)), strict=True))


def observe(model: Model, samples: Sequence[Sample]) -> dict[str, Range]:
    assert model.ir is not None
    return collect(model.ir, lambda extended: session(ir.to_proto(extended)), samples).ranges()


def plan_of(model: Model, choose: Choice) -> Plan:
    """A plan in which every node gets (weight, activation): one pair for all, or by operator or node name."""
    lines = []
    for node in model.nodes:
        if not node.has_precision:
            lines.append(PlanNode(node.name, node.op_type, NO_PRECISION))
            continue
        pair = (
            choose if isinstance(choose, tuple) else (choose.get(node.name) or choose.get(node.op_type) or (F32, F32))
        )
        weight, activation = pair
        per_channel = weight is not None and weight.is_signed and not weight.is_float
        has = node.weight is not None
        granularity = PER_CHANNEL if per_channel and has else PER_TENSOR
        config = QuantConfig(weight if has else None, activation, granularity)
        lines.append(PlanNode(node.name, node.op_type, config))
    identity = ModelIdentity(model.path, model.sha256, model.opset, model.node_count)
    return Plan(
        identity,
        TargetIdentity("any", "any"),
        "mixed",
        model.normalized_opset,
        tuple(lines),
        ProfileIdentity("p", "0" * 64),
    )


def proto_of(applied: Applied) -> onnx.ModelProto:
    proto = ir.to_proto(applied.model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def decibels(reference: Mapping[str, np.ndarray], out: Mapping[str, np.ndarray]) -> float:
    worst = 200.0
    for name, wanted in reference.items():
        assert out[name].shape == wanted.shape and out[name].dtype == wanted.dtype
        error = float(((wanted.astype(float) - out[name].astype(float)) ** 2).sum())
        power = float((wanted.astype(float) ** 2).sum())
        if error:
            worst = min(worst, 10 * np.log10(max(power, 1e-12) / error))
    return worst


def check(model: Model, choose: Choice, samples: Sequence[Sample], floor: float) -> onnx.ModelProto:
    """Apply, check, run: every output above the floor; the applied model."""
    plan = plan_of(model, choose)
    ranges = observe(model, samples)
    proto = proto_of(apply_plan(model, plan, ranges))
    assert proto == ir.to_proto(apply_plan(model, plan, ranges).model), "the same plan gives the same model"
    assert model.ir is not None
    reference, run = session(ir.to_proto(model.ir)), session(proto)
    for sample in samples:
        assert decibels(reference(sample), run(sample)) > floor
    return proto


def samples_of(shapes: Mapping[str, Sequence[int]], count: int = 3, seed: int = 0) -> list[Sample]:
    rng = np.random.default_rng(seed)
    return [{n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()} for _ in range(count)]


def weights(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * 0.4


def ops(proto: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in proto.graph.node]


# -- any mix ---------------------------------------------------------------------------------------------------------

# Steps that keep a [1, 4, 6, 6] tensor's shape: text of nodes from {a} (and {b}, an earlier value) to {y}.
STEPS = {
    "conv": "{y} = Conv <pads=[1,1,1,1]> ({a}, w_conv, b_conv)",
    "depthwise": "{y} = Conv <pads=[1,1,1,1], group=4> ({a}, w_depth)",
    "transposed": "{y} = ConvTranspose <pads=[1,1,1,1]> ({a}, w_trans, b_conv)",
    "matmul": "{y} = MatMul ({a}, w_mat)",
    "matmul2": "{y}_t = Transpose <perm=[0,1,3,2]> ({b})\n{y}_m = MatMul ({a}, {y}_t)\n{y} = Mul({y}_m, small)",
    "add": "{y} = Add ({a}, {b})",
    "mul_constant": "{y} = Mul ({a}, half)",
    "bias_add": "{y} = Add ({a}, row)",
    "relu": "{y} = Relu ({a})",
    "clip": "{y} = Clip ({a}, low, high)",
    "sigmoid": "{y} = Sigmoid ({a})",
    "softmax": "{y} = Softmax <axis=-1> ({a})",
    "norm": "{y} = LayerNormalization <axis=-1> ({a}, g_norm, row)",
    "instance": "{y} = InstanceNormalization ({a}, g_inst, b_conv)",
    "prelu": "{y} = PRelu ({a}, slope)",
    "pool": "{y}_p = MaxPool <kernel_shape=[2,2], strides=[2,2]> ({a})\n{y} = Resize ({y}_p, , scales)",
    "cut": "{y}_l, {y}_r = Split <axis=1, num_outputs=2> ({a})\n{y} = Concat <axis=1> ({y}_r, {y}_l)",
    "shape": "{y}_f = Reshape ({a}, flat)\n{y} = Reshape ({y}_f, full)",
    "where": "{y}_c = Less ({a}, {b})\n{y} = Where ({y}_c, {a}, {b})",
    "mean": "{y}_m = ReduceMean <keepdims=1> ({a}, axes)\n{y} = Sub ({a}, {y}_m)",
}
CONSTANTS = {
    "w_conv": weights(4, 4, 3, 3) * 0.5,
    "w_depth": weights(4, 1, 3, 3),
    "w_trans": weights(4, 4, 3, 3, seed=2) * 0.5,
    "b_conv": weights(4, seed=3),
    "w_mat": weights(6, 6, seed=4),
    "half": np.array(0.5, np.float32),
    "small": np.array(0.3, np.float32),
    "row": weights(6, seed=5),
    "low": np.array(-1, np.float32),
    "high": np.array(2, np.float32),
    "g_norm": 1 + weights(6, seed=6),
    "g_inst": 1 + weights(4, seed=7),
    "slope": weights(4, 1, 1, seed=8),
    "scales": np.array([1, 1, 2, 2], np.float32),
    "flat": np.array([4, 36]),
    "full": np.array([1, 4, 6, 6]),
    "axes": np.array([-1]),
}


@st.composite
def mixed(draw: st.DrawFn) -> tuple[onnx.ModelProto, list[Pair]]:
    values = ["x"]
    body = []
    for i, step in enumerate(draw(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=7))):
        a, b = (values[draw(st.integers(max(0, len(values) - 2), len(values) - 1))] for _ in "ab")
        body.append(STEPS[step].format(a=a, b=b, y=f"v{i}"))
        values.append(f"v{i}")
    text = "\n".join(body)
    shape = "float[1,4,6,6]"
    # A second output may be consumed inside as well.
    extra = draw(st.sampled_from(values[1:]))
    outputs = [values[-1]] + ([extra] if extra != values[-1] else [])
    proto = graph(
        f"({shape} x) => ({', '.join(f'{shape} {o}' for o in outputs)})",
        text,
        {n: a for n, a in CONSTANTS.items() if n in text},
        opset=21,
    )
    activation = st.sampled_from(ACTIVATIONS)
    pairs: list[Pair] = []
    for _ in range(24):
        chosen = draw(activation)
        pairs.append((chosen if chosen.is_float else draw(st.sampled_from(WEIGHTS[chosen])), chosen))
    return proto, pairs


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(mixed())
def test_any_mix_of_types_is_valid_and_close(case: tuple[onnx.ModelProto, list[Pair]]) -> None:
    proto, pairs = case
    model = read(proto)
    choose = {n.name: pairs[i % len(pairs)] for i, n in enumerate(model.nodes)}
    # 4-bit weights and chains of 8-bit results cost much; what is wrong costs everything.
    check(model, choose, samples_of({"x": (1, 4, 6, 6)}), floor=3.0)


@pytest.mark.parametrize("step", sorted(STEPS))
@pytest.mark.parametrize("pair, floor", [((I8, U16), 25.0), ((I16, I16), 60.0), ((F16, F16), 50.0), ((U8, U8), 15.0)])
def test_each_operator_alone_keeps_the_precision_of_its_types(
    step: str, pair: tuple[DType, DType], floor: float
) -> None:
    text = STEPS[step].format(a="x", b="z", y="y")
    shape = "float[1,4,6,6]"
    constants = {n: a for n, a in CONSTANTS.items() if n in text}
    inputs = (
        f"({shape} x, {shape} z)"
        if "z" in text.replace("InstanceNormalization", "").split() or "z)" in text or "z," in text
        else f"({shape} x)"
    )
    proto = graph(f"{inputs} => ({shape} y)", text, constants, opset=21)
    shapes = {i.name: (1, 4, 6, 6) for i in proto.graph.input}
    check(read(proto), pair, samples_of(shapes), floor)


# -- where weights lie ------------------------------------------------------------------------------------------------


def stored_types(proto: onnx.ModelProto) -> dict[str, int]:
    return {t.name: t.data_type for t in proto.graph.initializer}


@pytest.mark.parametrize(
    "body, constants",
    [
        (
            "w = Constant <value_floats=[0.5,-0.25,1.0,2.0]> ()\nv = Reshape (w, two)\ny = MatMul (x, v)",
            {"two": np.array([2, 2])},
        ),
        ("v = Transpose <perm=[1,0]> (w)\ny = MatMul (x, v)", {"w": weights(2, 2)}),
        ("v = Identity (w)\ny = MatMul (x, v)", {"w": weights(2, 2)}),
        (
            "v = Reshape (w, two)\nu = Transpose <perm=[1,0]> (v)\ny = MatMul (x, u)",
            {"w": weights(4), "two": np.array([2, 2])},
        ),
    ],
)
def test_a_weight_behind_constant_and_layout_nodes_is_quantized(body: str, constants: dict[str, np.ndarray]) -> None:
    proto = graph("(float[2,2] x) => (float[2,2] y)", body, constants, opset=21)
    made = check(read(proto), (I8, U16), samples_of({"x": (2, 2)}), 25)
    assert onnx.TensorProto.INT8 in stored_types(made).values()
    assert not {"Transpose", "Reshape", "Identity", "Constant"} & set(ops(made))


def test_a_weight_that_two_nodes_share_is_stored_once_for_each_type() -> None:
    body = "a = MatMul (x, w)\nb = MatMul (a, w)\ny = MatMul (b, w)"
    model = read(graph("(float[2,4] x) => (float[2,4] y)", body, {"w": weights(4, 4)}, opset=21))
    names = [n.name for n in model.nodes]
    made = check(model, {names[0]: (I8, U16), names[1]: (I8, U16), names[2]: (F16, F16)}, samples_of({"x": (2, 4)}), 20)
    kept = [t.data_type for t in made.graph.initializer if list(t.dims) == [4, 4]]
    assert sorted(kept) == sorted([onnx.TensorProto.INT8, onnx.TensorProto.FLOAT16])


def branches(weighted: bool = True) -> onnx.ModelProto:
    return graph(
        "(bool c, float[2,4] x) => (float[2,4] y)",
        """h = Relu (x)
        y = If (c) <then_branch = t () => (float[2,4] t_out) { t_out = MatMul (h, w) },
                    else_branch = e () => (float[2,4] e_out) { s = Sigmoid (x)
                    e_out = Mul (s, h) }>""",
        {"w": weights(4, 4)},
        opset=21,
        check=False,
    )


@pytest.mark.parametrize("pair", [(I8, U16), (U8, U8), (F16, F16)])
@pytest.mark.parametrize("only_inner", [False, True])
def test_nodes_in_if_branches(pair: tuple[DType, DType], only_inner: bool) -> None:
    model = read(branches())
    samples = [{"c": np.array(c), **s} for c, s in zip((True, False), samples_of({"x": (2, 4)}), strict=False)]
    choose = {"MatMul": pair, "Sigmoid": pair, "Mul": pair} if only_inner else pair
    made = check(model, choose, samples, 20)
    kinds = {t.data_type for t in _initializers(made)}
    assert getattr(onnx.TensorProto, pair[0].name) in kinds


def _initializers(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    found, pending = [], [proto.graph]
    while pending:
        g = pending.pop()
        found += g.initializer
        pending += [a.g for n in g.node for a in n.attribute if a.type == onnx.AttributeProto.GRAPH]
    return found


@pytest.mark.parametrize("pair", [(I8, U16), (U8, U8), (F16, F16)])
def test_nodes_in_a_loop_with_captured_values(pair: tuple[DType, DType]) -> None:
    proto = graph(
        "(float[2,4] x) => (float[2,4] y, float[k,2,4] all)",
        """h = Sigmoid (x)
        y, all = Loop (n, , x) <body = b (int64 i, bool go, float[2,4] v) => (bool g, float[2,4] o, float[2,4] scan)
          { g = Identity (go)
            m = MatMul (v, w)
            o = Mul (m, h)
            scan = Tanh (o) }>""",
        {"w": weights(4, 4), "n": np.array(3)},
        opset=21,
        check=False,
    )
    check(read(proto), pair, samples_of({"x": (2, 4)}), 8)


# -- the graph's own edges --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [(I8, U16), (F16, F16)])
def test_names_and_types_of_inputs_and_outputs_stay(pair: tuple[DType, DType]) -> None:
    body = "h = MatMul (x, w)\ny = Relu (h)\nz = Mul (y, h)\nsame = Identity (x)"
    signature = "(float[2,4] x) => (float[2,4] y, float[2,4] z, float[2,4] h, float[2,4] same)"
    made = check(read(graph(signature, body, {"w": weights(4, 4)}, opset=21)), pair, samples_of({"x": (2, 4)}), 20)
    assert [o.name for o in made.graph.output] == ["y", "z", "h", "same"]
    assert {o.type.tensor_type.elem_type for o in (*made.graph.input, *made.graph.output)} == {onnx.TensorProto.FLOAT}


def test_float16_io_makes_inputs_and_outputs_float16() -> None:
    model = read(graph("(float[2,4] x) => (float[2,4] y)", "y = MatMul (x, w)", {"w": weights(4, 4)}, opset=21))
    proto = proto_of(apply_plan(model, plan_of(model, (F16, F16)), {}, float16_io=True))
    assert proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert proto.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert ops(proto) == ["MatMul"]


@pytest.mark.parametrize(
    "body",
    [
        "h = Relu (x)\nb = BitCast <to=6> (h)\ny = Cast <to=1> (b)",
        "h = Relu (x)\ns = ReduceMax <keepdims=0> (h)\nq = QuantizeLinear (h, s, z)\ny = DequantizeLinear (q, s, z)",
    ],
)
def test_where_one_type_binds_another_a_float16_plan_keeps_float32(body: str) -> None:
    made = graph("(float[2,4] x) => (float[2,4] y)", body, {"z": np.uint8(0)}, opset=21, check=False)
    made.opset_import[0].version = 26 if "BitCast" in body else 21
    model = read(made)
    session(proto_of(apply_plan(model, plan_of(model, (F16, F16)), {})))


def test_opset_and_ir_version_allow_16_bit_quantization() -> None:
    model = read(graph("(float[2,4] x) => (float[2,4] y)", "y = MatMul (x, w)", {"w": weights(4, 4)}, opset=13))
    proto = check(model, (I8, U16), samples_of({"x": (2, 4)}), 25)
    assert proto.opset_import[0].version >= 21 and proto.ir_version >= 10


# -- float16 ----------------------------------------------------------------------------------------------------------


def test_float16_constants_never_become_infinite_and_say_so() -> None:
    model = read(
        graph("(float[2,4] x) => (float[2,4] y)", "y = Min (x, big)", {"big": np.full(4, 1e6, np.float32)}, opset=21)
    )
    applied = apply_plan(model, plan_of(model, (F16, F16)), {})
    arrays = [numpy_helper.to_array(t) for t in proto_of(applied).graph.initializer]
    assert all(np.isfinite(a).all() for a in arrays)
    assert any("clamped" in note for note in applied.notes)


def test_a_wholly_float16_model_has_casts_at_its_edges_only() -> None:
    body = "a = MatMul (x, w)\nb = Relu (a)\nc = Add (b, a)\nd = Reshape (c, s)\ny = Softmax (d)"
    constants = {"w": weights(4, 4), "s": np.array([4, 2])}
    made = check(
        read(graph("(float[2,4] x) => (float[4,2] y)", body, constants, opset=21)),
        (F16, F16),
        samples_of({"x": (2, 4)}),
        50,
    )
    assert ops(made).count("Cast") == 2 and ops(made)[0] == ops(made)[-1] == "Cast"


def test_a_float32_island_costs_one_cast_for_each_value_that_crosses() -> None:
    body = "a = MatMul (x, w)\nb = Exp (a)\nc = Add (b, a)\nd = Mul (b, c)\ny = Relu (d)"
    model = read(graph("(float[2,4] x) => (float[2,4] y)", body, {"w": weights(4, 4)}, opset=21))
    names = {n.op_type: n.name for n in model.nodes}
    choose = {n.name: (F16, F16) for n in model.nodes} | {names["Exp"]: (F32, F32)}
    made = check(model, choose, samples_of({"x": (2, 4)}), 50)
    assert ops(made).count("Cast") == 4  # the two edges, into Exp, out of Exp (once, though two read it)


def test_an_index_operand_stays_as_it_is() -> None:
    body = "a = Resize (x, , scales)\ni = Cast <to=7> (z)\ny = Gather <axis=3> (a, i)"
    proto = graph(
        "(float[1,1,2,2] x, float[2] z) => (float[1,1,4,2] y)", body, {"scales": CONSTANTS["scales"]}, opset=21
    )
    model = read(proto)
    samples = [{"x": s["x"], "z": np.array([0, 3], np.float32)} for s in samples_of({"x": (1, 1, 2, 2)})]
    for pair in ((F16, F16), (I8, U16)):
        check(model, pair, samples, 50)


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [-3.4028235e38, -np.inf, -1e4])
@pytest.mark.parametrize("pair, floor", [((I8, U16), 40.0), ((U8, U8), 20.0)])
def test_masked_attention_stays_masked_and_sharp(mask: float, pair: tuple[DType, DType], floor: float) -> None:
    body = "s = MatMul (x, k)\nm = Mul (absent, big)\nt = Add (s, m)\ny = Softmax <axis=-1> (t)"
    constants = {"k": weights(4, 4) * 4, "big": np.array(mask, np.float32)}
    if np.isinf(mask):
        body = body.replace("m = Mul (absent, big)", "b = Cast <to=9> (absent)\nm = Where (b, big, nought)")
        constants["nought"] = np.array(0, np.float32)
    model = read(graph("(float[2,4] x, float[2,4] absent) => (float[2,4] y)", body, constants, opset=21))
    absent = np.array([[0, 0, 1, 1], [0, 1, 0, 0]], np.float32)
    samples = [{**s, "absent": absent} for s in samples_of({"x": (2, 4)})]
    if mask == -1e4:
        floor = 0.0 if pair[1] is U8 else 15.0  # not told from data: 16 bits bear it, 8 bits do not
    made = check(model, pair, samples, floor)
    for sample in samples:
        assert session(made)(sample)["y"][absent == 1].max() < (0.3 if mask == -1e4 else 2 / 255)


def test_a_tensor_of_zeros_gets_a_usable_scale() -> None:
    model = read(
        graph(
            "(float[2,4] x) => (float[2,4] y)",
            "z = Mul (x, nought)\ny = Add (x, z)",
            {"nought": np.zeros(4, np.float32)},
            opset=21,
        )
    )
    made = check(model, (I8, U16), samples_of({"x": (2, 4)}), 50)
    scales = [numpy_helper.to_array(t) for t in made.graph.initializer if t.name.endswith("_scale")]
    assert all((s > 0).all() and np.isfinite(s).all() for s in scales)


@pytest.mark.parametrize("pair", [(I8, U8), (U8, U8), (I8, U16), (I16, I16)])
def test_a_bias_beyond_int32_at_its_scale_is_kept(pair: tuple[DType, DType]) -> None:
    w = weights(4, 4, 1, 1)
    w[1] = 1e-9  # a channel that is nearly off: its own scale would overflow the bias
    constants = {"w": w, "b": np.array([0.5, 300.0, -0.5, 0.1], np.float32)}
    model = read(graph("(float[1,4,2,2] x) => (float[1,4,2,2] y)", "y = Conv (x, w, b)", constants, opset=21))
    check(model, pair, samples_of({"x": (1, 4, 2, 2)}), 30)


def test_16_bit_activations_have_room_for_what_calibration_did_not_see() -> None:
    model = read(
        graph("(float[1,4] x) => (float[1,4] y)", "y = MatMul (x, w)", {"w": np.eye(4, dtype=np.float32)}, opset=21)
    )
    seen, louder = [{"x": np.full((1, 4), v, np.float32)} for v in (1, 1.2)]
    for activation, out in ((U16, 1.2), (U8, 1.0)):
        proto = proto_of(apply_plan(model, plan_of(model, (I8, activation)), observe(model, [seen])))
        assert session(proto)(louder)["y"] == pytest.approx(out, rel=0.01)


def test_an_8_bit_activation_is_cut_where_the_method_says_and_a_16_bit_one_is_not() -> None:
    model = read(graph("(float[1,4] x) => (float[1,4] y)", "y = Relu (x)", opset=21))
    ranges = {n: Range(0, 10, cut=(0, 5)) for n in "xy"}
    for activation, scale in ((U8, 5 / 255), (U16, 12.5 / 65535)):
        proto = proto_of(apply_plan(model, plan_of(model, (None, activation)), ranges))
        assert numpy_helper.to_array(proto.graph.initializer[0]) == pytest.approx(scale)


def test_a_tensor_that_calibration_did_not_reach_is_refused_by_name() -> None:
    model = read(graph("(float[1,4] x) => (float[1,4] y)", "y = Relu (x)", opset=21))
    with pytest.raises(RequestError, match="'y' was never computed"):
        apply_plan(model, plan_of(model, (None, U8)), {"x": Range(0, 1)})


@pytest.mark.parametrize("relu", [U16, I8])
def test_a_tensor_that_only_a_relu_reads_is_stored_anew_over_the_range_of_the_relu(relu: DType) -> None:
    """Its own is not observed: what a Relu cuts off needs no codes."""
    body = "m = MatMul(x, w)\na = Add(m, b)\nr = Relu(a)\ny = MatMul(r, v)"
    held = {"w": weights(8, 16), "b": weights(16), "v": weights(16, 4)}
    model = read(graph("(float[1,8] x) => (float[1,4] y)", body, held))
    samples = samples_of({"x": (1, 8)})
    assert "a" not in observe(model, samples)
    check(model, {"MatMul": (U8, U8), "Add": (None, U8), "Relu": (None, relu)}, samples, floor=20.0)


def test_a_plan_for_another_model_is_refused() -> None:
    model = read(graph("(float[1,4] x) => (float[1,4] y)", "y = Relu (x)", opset=21))
    other = read(graph("(float[1,4] x) => (float[1,4] q)", "q = Sigmoid (x)", opset=21))
    with pytest.raises(RequestError, match="does not fit"):
        apply_plan(model, plan_of(other, (None, U8)), {})


def test_the_bias_of_a_recurrent_operator_stays_float() -> None:
    body = "y, h, c = LSTM <hidden_size=3> (x, w, r, b)"
    constants = {"w": weights(1, 12, 4), "r": weights(1, 12, 3), "b": weights(1, 24)}
    model = read(graph("(float[2,1,4] x) => (float[2,1,1,3] y)", body, constants))
    proto = check(model, (I8, U16), samples_of({"x": (2, 1, 4)}), 30)
    lstm = next(n for n in proto.graph.node if n.op_type == "LSTM")
    kept = {i.name: i.data_type for i in proto.graph.initializer}
    assert kept.get(lstm.input[3]) == onnx.TensorProto.FLOAT
    assert onnx.TensorProto.INT32 not in kept.values()


def test_the_exponent_of_a_float16_pow_is_float16_too() -> None:
    model = read(graph("(float[2,3] x) => (float[2,3] y)", "a = Abs(x)\ny = Pow(a, e)", {"e": np.float32(2.5)}))
    proto = check(model, (F16, F16), samples_of({"x": (2, 3)}), 40)
    power = next(n for n in proto.graph.node if n.op_type == "Pow")
    assert {i.name: i.data_type for i in proto.graph.initializer}[power.input[1]] == onnx.TensorProto.FLOAT16


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        (
            "(float[2,4] x) => (float[2,4] y, float[2,1] mean, float[2,1] z)",
            "y, mean, deviation = LayerNormalization(x, w, b)\nz = Sqrt(deviation)",
        ),
        ("(float[4] x) => (float[4] y)", "size = Constant<value = int64 {4}>()\nh = HannWindow(size)\ny = Mul(x, h)"),
    ],
)
def test_a_result_whose_type_no_input_has_keeps_its_own(signature: str, body: str) -> None:
    """LayerNormalization gives its mean in the type that an attribute names, and a window too: float32, whatever the data is."""
    constants = {"w": weights(4), "b": weights(4, seed=2)} if "w, b" in body else {}
    model = read(graph(signature, body, constants))
    check(model, (F16, F16), samples_of({"x": (2, 4) if constants else (4,)}), 40)


def test_boxes_and_scores_of_a_suppression_are_float32_in_a_float16_plan() -> None:
    body = "b = Relu(x)\nc = Sigmoid(s)\nk = NonMaxSuppression(b, c)\ny = Neg(b)"
    model = read(graph("(float[1,6,4] x, float[1,2,6] s) => (int64[K,3] k, float[1,6,4] y)", body))
    applied = ir.to_proto(apply_plan(model, plan_of(model, (None, F16)), {}).model)
    onnx.checker.check_model(applied, full_check=True)
    sample = {"x": np.ones((1, 6, 4), np.float32), "s": np.ones((1, 2, 6), np.float32)}
    assert session(applied)(sample)["y"].dtype == np.float32
