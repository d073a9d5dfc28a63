"""Normalizing: what EPs see computes what the file says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from planner.errors import RequestError
from planner.model.names import name_nodes
from planner.model.normalize import normalize
from planner.model.read import read_model
from planner.model.shapes import bind_shapes
from planner.model.write import weight_bytes
from planner.operators import known_operator
from tests.unit.small_models import f32, graph, random_feed, run, save, sqnr


def normalized(model: onnx.ModelProto, opset: int = 21, **shapes: tuple[int, ...]) -> ir.Model:
    found: ir.Model = ir.from_proto(model)
    notes = normalize(found, shapes, opset, frozenset())
    assert notes == []
    return found


def test_inputs_that_nothing_reads_stand_last() -> None:
    """OpenVINO's EP feeds by place, among those that are read: -3 dB where one that is not stood before them."""
    made = graph("(float[2,8] u, float[2,3] x, float[4] v, float[2,3] z) => (float[2,3] y)", "y = Sub(x, z)")
    model = normalized(made)
    assert [value.name for value in model.graph.inputs] == ["x", "z", "u", "v"]
    feed = random_feed(made)
    np.testing.assert_array_equal(run(made, feed)[0], run(model, feed)[0])


def test_a_float64_whose_bits_are_read_stays_one() -> None:
    made = graph("(int64[4] x) => (double[4] y)", "y = BitCast<to=11>(x)", opset=26, check=False)
    model = normalized(made, opset=26)
    assert model.graph.outputs[0].dtype == ir.DataType.DOUBLE


def test_a_model_of_other_domains_alone_has_an_opset_for_what_a_plan_adds() -> None:
    body = "y = com.microsoft.Gelu(x)"
    made = graph("(float[4] x) => (float[4] y)", body, domains=["com.microsoft"], check=False)
    assert normalized(made).opset_imports[""] == 21


def operators(model: ir.Model) -> list[str]:
    return [n.op_type for n in model.graph.all_nodes()]


def same(model: onnx.ModelProto, found: ir.Model) -> None:
    onnx.checker.check_model(ir.to_proto(found))
    feed = random_feed(model)
    for reference, value in zip(run(model, feed), run(found, feed), strict=True):
        assert reference.shape == value.shape and reference.dtype == value.dtype
        assert sqnr(reference, value) > 100


def test_shape_arithmetic_is_folded_once_the_shapes_are_bound() -> None:
    body = (
        "s = Shape(x)\nn = Gather(s, zero)\nm = Unsqueeze(n, zeros)\nt = Concat<axis = 0>(m, rest)\ny = Reshape(x, t)"
    )
    constants = {"zero": np.int64(0), "zeros": np.array([0]), "rest": np.array([-1])}
    model = graph("(float[N,4,2] x) => (float[N,8] y)", body, constants)
    assert operators(normalized(model, x=(3, 4, 2))) == ["Reshape"]
    assert "Shape" in operators(normalized(model))


def test_constant_subgraphs_are_folded_but_stored_quantized_weights_are_kept() -> None:
    body = "v = DequantizeLinear(w, s)\nk = Mul(a, b)\nh = MatMul(x, v)\ny = Add(h, k)"
    constants = {"w": np.ones((4, 8), np.int8), "s": f32(0.5), "a": f32(2), "b": f32(3)}
    model = graph("(float[2,4] x) => (float[2,8] y)", body, constants, opset=21)
    found = normalized(model)
    assert operators(found) == ["DequantizeLinear", "MatMul", "Add"]
    same(model, found)


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose", "Gemm"])
def test_batch_normalization_is_fused_into_what_precedes_it(operator: str) -> None:
    rng = np.random.default_rng(0)
    per = {n: f32(rng.uniform(0.5, 2, 4)) for n in ("s", "b", "m", "v")}
    if operator == "Gemm":
        weight, dims, out = f32(rng.normal(size=(3, 4))), "2,3", "2,4"
    else:
        weight = f32(rng.normal(size=(4, 3, 3, 3) if operator == "Conv" else (3, 4, 3, 3)))
        dims, out = "1,3,7,7", "1,4,5,5" if operator == "Conv" else "1,4,9,9"
    body = f"h = {operator}(x, w)\ny = BatchNormalization(h, s, b, m, v)"
    model = graph(f"(float[{dims}] x) => (float[{out}] y)", body, {"w": weight, **per})
    found = normalized(model)
    assert operators(found) == [operator]
    same(model, found)


def test_a_large_tensor_is_not_made_by_folding(tmp_path: Path) -> None:
    model = graph(
        "(float[1] x) => (float[8192,8192] y)", "z = ConstantOfShape(s)\ny = Add(z, x)", {"s": np.array([8192, 8192])}
    )
    read = read_model(save(model, tmp_path))
    assert read.ir is not None and len(ir.to_proto(read.ir).SerializeToString()) < 10_000


# One model for each operator whose form changed on the way to opset 21.
_OLD = {
    "Softmax-11": ("(float[2,3,5] x) => (float[2,3,5] y)", "y = Softmax<axis = 1>(x)", {}, 11),
    "LogSoftmax-11": ("(float[2,3,5] x) => (float[2,3,5] y)", "y = LogSoftmax<axis = 1>(x)", {}, 11),
    "Squeeze-11": ("(float[2,1,5] x) => (float[2,5] y)", "y = Squeeze<axes = [1]>(x)", {}, 11),
    "Unsqueeze-11": ("(float[2,5] x) => (float[2,1,5] y)", "y = Unsqueeze<axes = [1]>(x)", {}, 11),
    "ReduceSum-11": ("(float[2,3,5] x) => (float[2,1,5] y)", "y = ReduceSum<axes = [1]>(x)", {}, 11),
    "ReduceMean-13": ("(float[2,3,5] x) => (float[2,3,1] y)", "y = ReduceMean<axes = [-1]>(x)", {}, 13),
    "Clip-6": ("(float[2,3] x) => (float[2,3] y)", "y = Clip<min = -1.0, max = 1.0>(x)", {}, 9),
    "Pad-2": ("(float[2,3] x) => (float[3,5] y)", "y = Pad<pads = [1,1,0,1]>(x)", {}, 9),
    "Slice-1": ("(float[4,5] x) => (float[2,5] y)", "y = Slice<starts = [1], ends = [3], axes = [0]>(x)", {}, 9),
    "Split-2": ("(float[4,6] x) => (float[4,2] y, float[4,4] z)", "y, z = Split<axis = 1, split = [2,4]>(x)", {}, 11),
    "Split even": ("(float[4,6] x) => (float[4,3] y, float[4,3] z)", "y, z = Split<axis = 1>(x)", {}, 13),
    "TopK-1": ("(float[4,6] x) => (float[4,2] y, int64[4,2] z)", "y, z = TopK<axis = 1, k = 2>(x)", {}, 9),
    "Dropout-7": ("(float[4,6] x) => (float[4,6] y)", "y = Dropout<ratio = 0.5>(x)", {}, 9),
    "Upsample-9": ("(float[1,2,3,3] x) => (float[1,2,6,6] y)", "y = Upsample(x, s)", {"s": f32([1, 1, 2, 2])}, 9),
    "BatchNormalization-9": (
        "(float[1,2,3,3] x) => (float[1,2,3,3] y)", "y = BatchNormalization(x, s, b, s, s)",
        {"s": f32([1, 2]), "b": f32([3, 4])}, 9,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", _OLD)
def test_raising_the_opset_keeps_the_meaning(name: str, tmp_path: Path) -> None:
    signature, body, constants, opset = _OLD[name]
    model = graph(signature, body, constants, opset=opset)
    read = read_model(save(model, tmp_path))
    assert read.opset == opset and read.ir is not None
    same(model, read.ir)
    assert read.normalized_opset == 21 or any("could not be raised" in n for n in read.notes)


def test_an_identity_between_input_and_output_stays() -> None:
    model = graph("(float[2] x) => (float[2] y)", "y = Identity(x)")
    found = normalized(model)
    assert operators(found) == ["Identity"]
    same(model, found)


def test_two_outputs_of_one_value_stay_two_outputs() -> None:
    model = graph("(float[2] x) => (float[2] y, float[2] z)", "y = Relu(x)\nz = Identity(y)")
    found = normalized(model)
    assert [o.name for o in found.graph.outputs] == ["y", "z"]
    same(model, found)


def test_an_identity_before_an_output_gives_its_name_away() -> None:
    model = graph("(float[2] x) => (float[2] y)", "h = Relu(x)\ny = Identity(h)")
    found = normalized(model)
    assert operators(found) == ["Relu"] and found.graph.outputs[0].name == "y"
    same(model, found)


def test_nothing_of_a_graph_that_needs_nothing_changes() -> None:
    body = "h = MatMul(x, w)\ny = Relu(h)"
    model = graph("(float[2,4] x) => (float[2,8] y)", body, {"w": f32(np.ones((4, 8)))}, opset=21)
    found = normalized(model)
    assert [(n.op_type, [v.name for v in n.inputs if v]) for n in found.graph] == [
        ("MatMul", ["x", "w"]),
        ("Relu", ["h"]),
    ]


def test_the_dimension_that_exporters_write_for_unknown_is_unknown() -> None:
    found = ir.from_proto(graph("(float[2,4] x) => (float[2,4] y)", "y = Relu(x)"))
    found.graph.inputs[0].shape = ir.Shape([-1, 4])
    bind_shapes(found, {})
    assert list(found.graph.inputs[0].shape) == [None, 4]  # type: ignore[arg-type]
    bind_shapes(found, {"x": (2, 4)})
    assert found.graph.inputs[0].shape == (2, 4)


def test_a_dimension_of_zero_is_a_number_as_it_is_for_onnxruntime() -> None:
    found = ir.from_proto(graph("(float[0,4] x) => (float[0,4] y)", "y = Relu(x)"))
    bind_shapes(found, {})
    assert list(found.graph.inputs[0].shape) == [0, 4]  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="contradicts"):
        bind_shapes(found, {"x": (2, 4)})


def test_binding_names_the_inputs_where_it_refuses() -> None:
    found = ir.from_proto(graph("(float[N,4] x) => (float[N,4] y)", "y = Relu(x)"))
    with pytest.raises(RequestError, match="no input") as caught:
        bind_shapes(found, {"q": (1,)})
    assert "x [N,4]" in caught.value.hint


def test_branches_that_name_their_values_alike_get_names_of_their_own() -> None:
    """ONNX lets two scopes share names; QNN (2.7) refuses an If whose branches do."""
    branch = (
        "g{n} () => (float[2,4] o) {{ k = Constant<value = float[4,4] {{{ones}}}>()\nq = MatMul(m, k)\no = {op}(q) }}"
    )
    ones = ", ".join(["1"] * 16)
    branches = (branch.format(n=n, op=op, ones=ones) for n, op in enumerate(("Relu", "Tanh")))
    body = f"m = Neg(x)\ny = If (c) <then_branch = {next(branches)}, else_branch = {next(branches)}>"
    model = graph("(float[2,4] x, bool c) => (float[2,4] y)", body)
    found = normalized(model)
    inner = [
        value.name
        for part in found.graph.subgraphs()
        for value in (*part.initializers.values(), *(out for node in part for out in node.outputs))
    ]
    assert len(inner) == len(set(inner)) == 6
    for chosen in (True, False):
        feed = {"x": np.full((2, 4), 0.1, np.float32), "c": np.array(chosen)}
        np.testing.assert_array_equal(run(found, feed)[0], run(model, feed)[0])


def test_texts_that_are_folded_are_written() -> None:
    model = graph(
        "(float[1,4] x) => (float[1,4] y, string[2] l)", "y = Relu(x)\nl = Gather(labels, i)", {"i": np.array([0, 2])},
        check=False,
    )  # fmt: skip
    model.graph.initializer.append(onnx.helper.make_tensor("labels", onnx.TensorProto.STRING, [3], [b"q", b"r", b"s"]))
    found = normalized(model)
    assert [node.op_type for node in found.graph] == ["Relu"] and weight_bytes(found) == 2
    assert run(found, {"x": np.ones((1, 4), np.float32)})[1].tolist() == ["q", "s"]


def test_a_sequence_that_folding_makes_known_stays_one() -> None:
    body = "s = SplitToSequence<axis = 1>(x, parts)\nt = SequenceErase(s)\ny = ConcatFromSequence<axis = 1>(t)"
    model = graph("(float[2,8] x) => (float[2,4] y)", body, {"parts": np.array([4, 4])})
    found = normalized(model)
    assert all(
        isinstance(node.outputs[0].type, ir.SequenceType) for node in found.graph if "Sequence" in node.op_type[:8]
    )
    feed = {"x": np.arange(16, dtype=np.float32).reshape(2, 8)}
    np.testing.assert_array_equal(run(found, feed)[0], run(model, feed)[0])


def test_names_are_unique_and_the_users_own_come_first() -> None:
    found = ir.from_proto(graph("(float[2] x) => (float[2] y)", "a = Relu(x)\nb = Relu(a)\ny = Relu(b)"))
    for node, name in zip(found.graph, ("n", "n", None), strict=True):
        node.name = name
    name_nodes(found)
    assert [n.name for n in found.graph] == ["n", "n#2", "Relu:y"]


@pytest.mark.parametrize(
    ("op_type", "domain", "known"),
    [("Conv", "", True), ("Frobnicate", "", False), ("FusedMatMul", "com.microsoft", True), ("Conv", "acme", False)],
)
def test_known_operators(op_type: str, domain: str, known: bool) -> None:
    assert known_operator(op_type, domain) is known


def test_a_model_that_is_judged_as_it_is_keeps_its_opset_and_its_operators() -> None:
    model = graph(
        "(float[1,4] x) => (float[1,4] y)",
        "y = Scatter<axis = 1>(x, i, u)",
        {"i": np.array([[0]]), "u": f32([[1]])},
        opset=10,
    )
    found: ir.Model = ir.from_proto(model)
    assert normalize(found, {}, 21, frozenset(), as_stored=True) == []
    assert (operators(found), found.opset_imports[""]) == (["Scatter"], 10)
    assert operators(normalized(model)) == ["ScatterElements"]


@pytest.mark.parametrize("operator", ["Dropout", "Size"])
def test_what_the_runtime_does_not_fold_stays_in_a_model_that_is_judged_as_it_is(operator: str) -> None:
    result = "int64 y" if operator == "Size" else "float[2,4] y"
    found: ir.Model = ir.from_proto(graph(f"(float[2,4] x) => ({result})", f"y = {operator}(x)"))
    normalize(found, {}, 21, frozenset(), as_stored=True)
    assert operators(found) == [operator]


def test_the_spectrum_of_an_stft_is_one_sided_where_the_file_does_not_say(tmp_path: Path) -> None:
    model = graph(
        "(float[1,64] x) => (float[1,n,9,2] y)",
        "y = STFT(x, step, window)",
        {"step": np.array(16), "window": f32(np.hanning(16))},
        opset=17,
        check=False,
    )
    found = normalized(model)
    assert found.graph.node(0).outputs[0].shape == [1, 4, 9, 2]
    assert [tuple(a.shape) for a in run(found, random_feed(model))] == [(1, 4, 9, 2)]


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("o = com.microsoft.MultiHeadAttention<num_heads: int = 2>(x, x, x)", (1, 3, 8)),
        ("o = com.microsoft.QuickGelu(x)", (1, 3, 8)),
        ("o = com.microsoft.FusedMatMul<transB: int = 1>(x, w)", (1, 3, 8)),
        ("o = com.microsoft.BiasSoftmax(x, x)", None),
    ],
)
def test_onnxruntimes_own_operators_have_a_type_and_where_it_is_known_a_shape(
    body: str, shape: tuple[int, ...] | None, tmp_path: Path
) -> None:
    proto = graph(
        "(float[1,3,8] x) => (float[1,3,8] y)", f"{body}\ny = MatMul(o, w)", {"w": np.eye(8, dtype=np.float32)},
        domains=["com.microsoft"], check=False,
    )  # fmt: skip
    operand = read_model(save(proto, tmp_path)).nodes[-1].inputs[0]
    assert operand is not None and (operand.dtype, operand.shape) == ("float32", shape)
