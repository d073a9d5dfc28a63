"""Reading: weights wherever they are, names the user knows, and hostile or broken files that give one clear error."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from planner.dtypes import PER_CHANNEL, PER_TENSOR, DType, QuantConfig
from planner.errors import RequestError
from planner.model.load import load
from planner.model.node import Node
from planner.model.read import Model, read_model
from planner.model.write import save as write
from planner.operators import Role
from tests.unit.small_models import f32, graph, run, save, sqnr

WEIGHT = f32(np.random.default_rng(0).normal(size=(4, 8)))


def only(model: Model, op_type: str) -> Node:
    (node,) = [n for n in model.nodes if n.op_type == op_type]
    return node


# -- where weights are --------------------------------------------------------------------------------------------------

_PLACES: dict[str, tuple[str, dict[str, np.ndarray]]] = {
    "an initializer": ("y = MatMul(x, w)", {"w": WEIGHT}),
    "behind Identity": ("v = Identity(w)\ny = MatMul(x, v)", {"w": WEIGHT}),
    "behind Transpose": ("v = Transpose<perm = [1, 0]>(w)\ny = MatMul(x, v)", {"w": WEIGHT.T}),
    "behind Reshape": ("v = Reshape(w, s)\ny = MatMul(x, v)", {"w": WEIGHT.reshape(2, 16), "s": np.array([4, 8])}),
    "behind Cast": ("v = Cast<to = 1>(w)\ny = MatMul(x, v)", {"w": WEIGHT.astype(np.float64)}),
    "behind several": (
        "a = Identity(w)\nb = Transpose<perm = [1, 0]>(a)\nv = Reshape(b, s)\ny = MatMul(x, v)",
        {"w": WEIGHT.T, "s": np.array([4, 8])},
    ),
    "made by arithmetic": ("v = Mul(w, k)\ny = MatMul(x, v)", {"w": WEIGHT, "k": f32(2)}),
}


@pytest.mark.parametrize("place", _PLACES)
def test_a_weight_is_found(place: str, tmp_path: Path) -> None:
    body, constants = _PLACES[place]
    proto = graph("(float[2,4] x) => (float[2,8] y)", body, constants)
    model = read_model(save(proto, tmp_path))
    node = only(model, "MatMul")
    assert node.weight is not None and node.weight.constant and node.weight.shape == (4, 8)
    assert node.stored == QuantConfig(DType.FLOAT32, DType.FLOAT32)
    assert [n.op_type for n in model.nodes] == ["MatMul"]
    feed = {"x": f32(np.random.default_rng(1).normal(size=(2, 4)))}
    assert model.ir is not None and sqnr(run(proto, feed)[0], run(model.ir, feed)[0]) > 100


def test_a_weight_in_a_constant_node_is_found(tmp_path: Path) -> None:
    proto = graph("(float[2,4] x) => (float[2,8] y)", "y = MatMul(x, w)", {"w": WEIGHT})
    del proto.graph.initializer[:]
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(WEIGHT, "w")))
    assert only(read_model(save(proto, tmp_path)), "MatMul").weight is not None


def test_a_constant_without_elements_is_no_weight(tmp_path: Path) -> None:
    """A sum of no products: there is nothing to quantize offline, and a kernel of quantized weights gives anything at all (ONNX Runtime 1.32)."""
    body = "e = Slice(x, zero, zero, one)\nz = MatMul(e, none)\na = MatMul(x, w)\ny = Add(a, z)"
    constants = {"zero": np.array([0]), "one": np.array([1]), "none": np.zeros((0, 8), np.float32), "w": WEIGHT}
    model = read_model(save(graph("(float[2,4] x) => (float[2,8] y)", body, constants), tmp_path))
    assert [node.weight.name if node.weight else None for node in model.nodes if node.op_type == "MatMul"] == [
        None,
        "w",
    ]


def test_a_shared_weight_is_a_weight_of_each(tmp_path: Path) -> None:
    body = "a = MatMul(x, w)\nb = MatMul(x, w)\ny = Add(a, b)"
    model = read_model(save(graph("(float[2,4] x) => (float[2,8] y)", body, {"w": WEIGHT}), tmp_path))
    assert [n.weight.name for n in model.nodes if n.op_type == "MatMul" and n.weight] == ["w", "w"]


@pytest.mark.parametrize("inside", [True, False], ids=["its own initializer", "one of the graph around it"])
def test_weights_in_the_branches_of_an_if(inside: bool, tmp_path: Path) -> None:
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, [2, 8])
    weight = numpy_helper.from_array(WEIGHT, "w")

    def branch(name: str) -> onnx.GraphProto:
        node = helper.make_node("MatMul", ["x", "w"], ["r"], name=f"{name}_matmul")
        return helper.make_graph([node], name, [], [result], [weight] if inside else [])

    choice = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch("yes"), else_branch=branch("no"))
    proto = helper.make_model(
        helper.make_graph(
            [choice],
            "g",
            [
                helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4]),
                helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            ],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 8])],
            [] if inside else [weight],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    model = read_model(save(proto, tmp_path))
    found = [n for n in model.nodes if n.op_type == "MatMul"]
    assert {n.name for n in found} == {"yes_matmul", "no_matmul"}
    for node in found:
        assert node.scope == ("choice",) and node.weight is not None
    assert model.node_count == 3


def test_a_weight_in_the_body_of_a_loop(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "w"], ["next"], name="step"),
            helper.make_node("Identity", ["go"], ["again"]),
        ],
        "body",
        [
            info("i", TensorProto.INT64, []),
            info("go", TensorProto.BOOL, []),
            info("state", TensorProto.FLOAT, [2, 4]),
        ],
        [info("again", TensorProto.BOOL, []), info("next", TensorProto.FLOAT, [2, 4])],
        [numpy_helper.from_array(f32(np.eye(4) / 2), "w")],
    )
    proto = helper.make_model(
        helper.make_graph(
            [helper.make_node("Loop", ["n", "", "x"], ["y"], name="loop", body=body)],
            "g",
            [info("x", TensorProto.FLOAT, [2, 4]), info("n", TensorProto.INT64, [])],
            [info("y", TensorProto.FLOAT, [2, 4])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    node = only(read_model(save(proto, tmp_path)), "MatMul")
    assert node.scope == ("loop",) and node.weight is not None


def test_two_activations_multiplied_have_no_weight(tmp_path: Path) -> None:
    proto = graph("(float[2,4] x, float[4,8] z) => (float[2,8] y)", "y = MatMul(x, z)")
    node = only(read_model(save(proto, tmp_path)), "MatMul")
    assert node.weight is None
    assert [o.role for o in node.inputs if o] == [Role.ACTIVATION, Role.ACTIVATION]


def test_an_initializer_that_callers_may_override_counts_as_the_weight_it_is_shipped_with(tmp_path: Path) -> None:
    """Before IR version 4 every initializer had to be listed among the inputs."""
    proto = graph("(float[2,4] x, float[4,8] w) => (float[2,8] y)", "y = MatMul(x, w)", {"w": WEIGHT})
    assert only(read_model(save(proto, tmp_path)), "MatMul").weight is not None


# -- external data ------------------------------------------------------------------------------------------------------


def external(folder: Path, location: str = "weights.bin", *, length: int | None = None) -> Path:
    proto = graph("(float[2,4] x) => (float[2,8] y)", "y = MatMul(x, w)", {"w": WEIGHT})
    tensor = proto.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(length or len(data))}.items():
        tensor.external_data.add(key=key, value=value)
    (folder / "weights.bin").write_bytes(data)
    return save(proto, folder)


def test_weights_in_external_data(tmp_path: Path) -> None:
    path = external(tmp_path)
    model = read_model(path)
    assert only(model, "MatMul").weight is not None
    before = model.sha256
    (tmp_path / "weights.bin").write_bytes(f32(WEIGHT + 1).tobytes())
    assert read_model(path).sha256 != before, "the hash covers the external data"


@pytest.mark.parametrize(
    "location", ["../secret.bin", "sub/../../secret.bin", "ABSOLUTE", "link.bin", "linked/secret.bin"]
)
def test_external_data_outside_the_models_folder_is_refused(location: str, tmp_path: Path) -> None:
    folder, secret = tmp_path / "models", tmp_path / "secret.bin"
    folder.mkdir()
    secret.write_bytes(WEIGHT.tobytes())
    (folder / "link.bin").symlink_to(secret)
    (folder / "linked").symlink_to(tmp_path, target_is_directory=True)
    path = external(folder, str(secret) if location == "ABSOLUTE" else location)
    with pytest.raises(RequestError, match="outside the model's own folder"):
        read_model(path)


def in_every_place(tensor: onnx.TensorProto) -> dict[str, onnx.ModelProto]:
    """Small models that hold the tensor, of four floats, in each place where a model can hold one."""

    def of(*nodes: onnx.NodeProto, functions: tuple[onnx.FunctionProto, ...] = (), **graph: object) -> onnx.ModelProto:
        ends = ([helper.make_tensor_value_info("x", 1, [4])], [helper.make_tensor_value_info("y", 1, [4])])
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        return helper.make_model(
            helper.make_graph(list(nodes), "g", *ends, **graph),
            opset_imports=opsets,
            ir_version=9,
            functions=list(functions),
        )

    add, constant = helper.make_node("Add", ["x", "w"], ["y"]), helper.make_node("Constant", [], ["w"], value=tensor)
    then = [helper.make_node("Add", ["x", "w"], ["z"])]
    z = [helper.make_tensor_value_info("z", 1, [4])]
    own = tensor.__class__()
    own.CopyFrom(tensor)
    own.name = "w"
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])

    def branch(body: onnx.GraphProto) -> onnx.NodeProto:
        return helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body)

    def function(*nodes: onnx.NodeProto) -> onnx.FunctionProto:
        return helper.make_function("own", "f", ["x"], ["z"], list(nodes), [helper.make_opsetid("", 17)])

    call = helper.make_node("f", ["x"], ["y"], domain="own")
    inner = helper.make_graph(then, "body", [], z, initializer=[own])
    sparse = helper.make_sparse_tensor(own, helper.make_tensor("i", TensorProto.INT64, [4], [0, 1, 2, 3]), [4])
    return {
        "an initializer": of(add, initializer=[own]),
        "a Constant node": of(constant, add),
        "a branch's initializer": of(branch(inner), initializer=[yes]),
        "a branch's Constant node": of(branch(helper.make_graph([constant, *then], "body", [], z)), initializer=[yes]),
        "a function's Constant node": of(call, functions=(function(constant, *then),)),
        "a branch in a function": of(
            call,
            functions=(
                function(
                    helper.make_node("Constant", [], ["yes"], value=yes),
                    helper.make_node("If", ["yes"], ["z"], then_branch=inner, else_branch=inner),
                ),
            ),
        ),
        "a sparse attribute": of(helper.make_node("Constant", [], ["w"], sparse_value=sparse), add),
        "a sparse initializer": of(add, sparse_initializer=[sparse]),
    }


PLACES = tuple(in_every_place(helper.make_tensor("w", 1, [4], [0] * 4)))


def with_external(folder: Path, place: str, location: str, **entries: str) -> Path:
    """A model whose tensor of four floats in that place says that its data lies in the file of that name."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "model.onnx"
    onnx.save(in_every_place(tensor)[place], path)
    return path


@pytest.mark.parametrize("place", PLACES[:-2])
def test_small_external_data_is_read_wherever_it_is_kept_and_written_with_the_model(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere, out = tmp_path / "models", tmp_path / "elsewhere", tmp_path / "out"
    for made in (folder, elsewhere, out):
        made.mkdir()
    (folder / "w.bin").write_bytes(f32([0, 0, 1, 2, 3, 4]).tobytes())
    (elsewhere / "w.bin").write_bytes(f32([9] * 6).tobytes())
    monkeypatch.chdir(elsewhere)
    path = with_external(folder, place, "w.bin", offset="8", length="16")
    for as_stored in (False, True):
        model = read_model(path, as_stored=as_stored)
        assert model.ir is not None
        write(model.ir, out / "m.onnx")
        session = ort.InferenceSession(out / "m.onnx", providers=["CPUExecutionProvider"])
        np.testing.assert_array_equal(session.run(None, {"x": f32([0] * 4)})[0], [1, 2, 3, 4])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("../secret.bin", "outside the model's own folder"),
        ("sub/../../secret.bin", "outside the model's own folder"),
        ("..\\secret.bin", "outside the model's own folder"),
        ("/dev/zero", "outside the model's own folder"),
        ("*/_ORT_MEM_ADDR_/*", "outside the model's own folder"),
        ("link.bin", "symbolic link"),
        ("inside.bin", "symbolic link"),
        ("linked/secret.bin", "symbolic link"),
        ("hard.bin", "hard link"),
        ("pipe", "not a plain file"),
        ("sub", "is a directory"),
        ("short.bin", "truncated"),
        ("none.bin", "missing"),
        ("a" * 5000, "missing"),
        ("sub/" * 2000 + "w.bin", "missing"),
        ("none.bin\0", "outside the model's own folder"),
        ("", "does not say where"),
    ],
)
def test_external_data_in_no_plain_file_of_the_models_folder_is_refused(
    place: str, location: str, problem: str, tmp_path: Path
) -> None:
    folder, secret = tmp_path / "models", tmp_path / "secret.bin"
    (folder / "sub").mkdir(parents=True)
    secret.write_bytes(bytes(64))
    (folder / "short.bin").write_bytes(bytes(15))
    (folder / "plain.bin").write_bytes(bytes(64))
    (folder / "link.bin").symlink_to(secret)
    (folder / "inside.bin").symlink_to(folder / "plain.bin")
    (folder / "linked").symlink_to(tmp_path, target_is_directory=True)
    (folder / "hard.bin").hardlink_to(secret)
    os.mkfifo(folder / "pipe")
    with pytest.raises(RequestError, match=problem):
        read_model(with_external(folder, place, location))


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": "-8"},
        {"offset": "1e3"},
        {"offset": "9" * 30},
        {"offset": "60"},
        {"length": "4"},
        {"length": "-16"},
        {"length": "x"},
        {"length": "\u0661\u0666"},
    ],
)
def test_external_data_at_no_place_of_its_file_is_refused(entries: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64))
    with pytest.raises(RequestError, match=r"external data|truncated"):
        read_model(with_external(tmp_path, "a Constant node", "w.bin", **entries))


def test_a_location_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64))
    path = with_external(tmp_path, "an initializer", "w.bin")
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(RequestError, match="does not say where"):
        read_model(path)


@pytest.mark.parametrize("change", ["cut", "rewritten", "replaced", "deleted"])
@pytest.mark.parametrize("where", ["own", "external"])
def test_a_file_that_is_another_one_by_now_is_said(change: str, where: str, tmp_path: Path) -> None:
    weight = f32(np.ones((64, 64)))
    path = save(graph("(float[2,64] x) => (float[2,64] y)", "y = MatMul(x, w)", {"w": weight}), tmp_path)
    if where == "external":
        onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    model = read_model(path)
    assert model.ir is not None
    model.check_unchanged()
    file = tmp_path / "w.bin" if where == "external" else path
    content = file.read_bytes()
    if change == "deleted":
        file.unlink()
    elif change == "replaced":
        (tmp_path / "new").write_bytes(content)
        (tmp_path / "new").replace(file)
    else:
        file.write_bytes(content[:100] if change == "cut" else bytes(len(content)))
        os.utime(file, ns=(1, 1))
    with pytest.raises(RequestError, match="planner"):
        model.check_unchanged()
    with pytest.raises(RequestError, match="planner"):
        write(model.ir, tmp_path / "out.onnx")


def test_nothing_is_held_open_between_readings(tmp_path: Path) -> None:
    path = save(
        graph("(float[2,64] x) => (float[2,64] y)", "y = MatMul(x, w)", {"w": f32(np.ones((64, 64)))}), tmp_path
    )
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("the platform does not tell")
    before = len(list(descriptors.iterdir()))
    models = [read_model(path) for _ in range(5)]
    assert all(m.ir is not None for m in models)
    assert len(list(descriptors.iterdir())) <= before


@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "/dev/null", "a\0b"])
def test_what_is_no_plain_file_is_no_model(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RequestError, match=r"not a plain file|cannot be read"):
        read_model(tmp_path / name)


def test_external_data_that_is_missing_or_too_short_is_named(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"\0" * 16)
    with pytest.raises(RequestError, match=r"weights\.bin.*truncated"):
        read_model(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(RequestError, match=r"weights\.bin.*missing"):
        read_model(path)


@pytest.mark.parametrize("length", [-1, 8, 1 << 62])
def test_external_data_of_another_length_than_the_shape_is_refused(length: int, tmp_path: Path) -> None:
    with pytest.raises(RequestError):
        read_model(external(tmp_path, length=length))


# -- files that are no model --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"hello world\n" * 50, b"\x89PNG\r\n\x1a\n" + b"\0" * 64, b"PK\x03\x04" + b"\1" * 64, b"\xff" * 4096],
    ids=["empty", "a zero", "text", "PNG", "ZIP", "ones"],
)
def test_a_file_that_is_no_model(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(RequestError, match="not an ONNX model"):
        read_model(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such file"):
        read_model(tmp_path / "none.onnx")
    with pytest.raises(RequestError, match="is a directory"):
        read_model(tmp_path)


def _small() -> bytes:
    body = "h = MatMul(x, w)\ng = Relu(h)\ns = Shape(g)\nr = Reshape(g, s)\ny = Softmax(r)"
    proto = graph("(float[2,4] x) => (float[2,8] y)", body, {"w": WEIGHT[:, :8]})
    for node in proto.graph.node:
        node.name = f"user_{node.op_type}"
    return bytes(proto.SerializeToString())


SMALL = _small()


def _model_or_request_error(content: bytes, folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert isinstance(read_model(path), Model)
    except RequestError as error:
        assert str(error) and len(str(error)) < 1000


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(end=st.integers(0, len(SMALL) - 1))
def test_any_prefix_of_a_model_is_read_or_refused(end: int, tmp_path: Path) -> None:
    _model_or_request_error(SMALL[:end], tmp_path)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(SMALL) - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_model_is_read_or_refused(position: int, bit: int, tmp_path: Path) -> None:
    content = bytearray(SMALL)
    content[position] ^= 1 << bit
    _model_or_request_error(bytes(content), tmp_path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
@example(content=b"\x08\x08\x3a\x00")
def test_any_bytes_are_read_or_refused(content: bytes, tmp_path: Path) -> None:
    _model_or_request_error(content, tmp_path)


# -- graphs that are no graph -------------------------------------------------------------------------------------------


def test_a_value_that_nobody_computes_is_named(tmp_path: Path) -> None:
    proto = graph("(float[2,4] x) => (float[2,4] y)", "y = Add(x, ghost)", check=False)
    with pytest.raises(RequestError, match="'ghost' is used but never computed"):
        read_model(save(proto, tmp_path))


def test_a_cycle_is_refused(tmp_path: Path) -> None:
    proto = graph("(float[2,4] x) => (float[2,4] y)", "a = Add(x, b)\nb = Relu(a)\ny = Relu(b)", check=False)
    with pytest.raises(RequestError, match=r"(?i)cycle|order"):
        read_model(save(proto, tmp_path))


def test_nodes_out_of_order_are_read(tmp_path: Path) -> None:
    proto = graph("(float[2,4] x) => (float[2,4] y)", "y = Relu(a)\na = Neg(x)", check=False)
    assert [n.op_type for n in read_model(save(proto, tmp_path)).nodes] == ["Neg", "Relu"]


def test_one_value_computed_twice_is_refused(tmp_path: Path) -> None:
    proto = graph("(float[2,4] x) => (float[2,4] y)", "a = Relu(x)\na = Neg(x)\ny = Relu(a)", check=False)
    with pytest.raises(RequestError, match="'a'"):
        read_model(save(proto, tmp_path))


@pytest.mark.parametrize("what", ["input", "initializer"])
def test_two_values_of_one_name_are_refused(what: str, tmp_path: Path) -> None:
    model = graph("(float[2,4] x) => (float[2,4] y)", "y = Add(x, w)", {"w": f32(np.ones(4))})
    values = getattr(model.graph, what)
    values.append(values[0])
    with pytest.raises(RequestError, match=f"{what} '[xw]' is there twice"):
        read_model(save(model, tmp_path))


@pytest.mark.parametrize("name", ["x", "w"])
def test_a_value_that_is_given_and_computed_is_refused(name: str, tmp_path: Path) -> None:
    body, constants = f"{name} = Add(x, w)", {"w": f32(np.ones(4))}
    model = graph(f"(float[2,4] x) => (float[2,4] {name})", body, constants, check=False)
    with pytest.raises(RequestError, match=f"'{name}' is given, as an input or initializer, and computed"):
        read_model(save(model, tmp_path))


def test_what_onnxruntime_takes_and_planner_does_not_read_is_said(tmp_path: Path) -> None:
    values = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    sparse = helper.make_sparse_tensor(values, helper.make_tensor("i", TensorProto.INT64, [1], [1]), [2, 4])
    model = graph("(float[2,4] x) => (float[2,4] y)", "y = Add(x, w)", check=False)
    model.graph.sparse_initializer.append(sparse)
    with pytest.raises(RequestError, match="initializer 'w' is sparse"):
        read_model(save(model, tmp_path))
    model = graph("(float[2,4] x, float[1] m) => (float[2,4] y)", "y = Relu(x)")
    kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    model.graph.input[1].type.CopyFrom(kind)
    with pytest.raises(RequestError, match="input 'm' is a map"):
        read_model(save(model, tmp_path))


def test_repeated_and_missing_node_names_become_unique(tmp_path: Path) -> None:
    proto = graph("(float[2,4] x) => (float[2,4] y)", "a = Relu(x)\nb = Neg(a)\nc = Exp(b)\ny = Abs(c)")
    for node, name in zip(proto.graph.node, ["same", "same", "", ""], strict=True):
        node.name = name
    names = [n.name for n in read_model(save(proto, tmp_path)).nodes]
    assert names == ["same", "same#2", "Exp:c", "Abs:y"]


def test_no_outputs_and_no_nodes_are_refused(tmp_path: Path) -> None:
    proto = graph("(float[2,4] x) => (float[2,4] y)", "y = Relu(x)")
    without = onnx.ModelProto()
    without.CopyFrom(proto)
    del without.graph.output[:]
    with pytest.raises(RequestError, match="no output"):
        read_model(save(without, tmp_path))
    del proto.graph.node[:]
    with pytest.raises(RequestError, match="no nodes"):
        read_model(save(proto, tmp_path))


def test_an_output_that_is_never_computed_is_named(tmp_path: Path) -> None:
    proto = graph("(float[2,4] x) => (float[2,4] y)", "z = Relu(x)", check=False)
    with pytest.raises(RequestError, match="'y' is never computed"):
        read_model(save(proto, tmp_path))


@pytest.mark.parametrize("dims", [[1 << 31], [1 << 40, 1 << 40], [-4, 8], [1 << 62, 4]], ids=str)
def test_an_initializer_whose_shape_does_not_fit_its_bytes_is_refused(dims: list[int], tmp_path: Path) -> None:
    proto = graph("(float[2,4] x) => (float[2,8] y)", "y = MatMul(x, w)", {"w": WEIGHT})
    del proto.graph.initializer[0].dims[:]
    proto.graph.initializer[0].dims.extend(dims)
    with pytest.raises(RequestError, match="'w'"):
        read_model(save(proto, tmp_path))


def test_an_initializer_of_another_type_than_its_bytes_is_refused(tmp_path: Path) -> None:
    proto = graph("(float[2,4] x) => (float[2,8] y)", "y = MatMul(x, w)", {"w": WEIGHT})
    proto.graph.initializer[0].data_type = TensorProto.DOUBLE
    with pytest.raises(RequestError, match="'w'"):
        read_model(save(proto, tmp_path))


def test_a_tensor_of_a_huge_declared_shape_is_not_made(tmp_path: Path) -> None:
    body = "z = ConstantOfShape(s)\nr = ReduceSum<keepdims = 0>(z)\ny = Add(x, r)"
    proto = graph("(float[2] x) => (float[2] y)", body, {"s": np.array([1 << 31])})
    assert "ConstantOfShape" in [n.op_type for n in read_model(save(proto, tmp_path)).nodes]


def test_a_huge_input_is_a_shape_like_any_other(tmp_path: Path) -> None:
    proto = graph("(float[2147483648,2] x) => (float[2147483648,2] y)", "y = Relu(x)")
    assert only(read_model(save(proto, tmp_path)), "Relu").output_shapes == ((1 << 31, 2),)


def test_an_operator_that_nobody_knows_is_read_and_marked(tmp_path: Path) -> None:
    proto = graph("(float[2] x) => (float[2] y)", "y = acme.Frobnicate(x)", domains=["acme"], check=False)
    node = only(read_model(save(proto, tmp_path)), "Frobnicate")
    assert not node.known and node.domain == "acme"
    proto = graph("(float[2] x) => (float[2] y)", "y = Frobnicate(x)", check=False)
    assert not only(read_model(save(proto, tmp_path)), "Frobnicate").known


def test_deeply_nested_branches_are_read_or_refused(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info("r", TensorProto.FLOAT, [2])
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["r"])], "leaf", [], [info])
    for depth in range(24):
        node = helper.make_node("If", ["c"], ["r"], then_branch=inner, else_branch=helper.make_graph(
            [helper.make_node("Neg", ["x"], ["r"])], "other", [], [info]
        ))  # fmt: skip
        inner = helper.make_graph([node], f"level{depth}", [], [info])
    inner.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]))
    inner.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    proto = helper.make_model(inner, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    _model_or_request_error(proto.SerializeToString(), tmp_path)


def test_an_attribute_with_a_broken_graph_is_refused(tmp_path: Path) -> None:
    proto = graph("(float[2,4] x) => (float[2,4] y)", "y = Relu(x)")
    attribute = proto.graph.node[0].attribute.add(name="alpha", type=999 % 15)
    attribute.ref_attr_name = "nowhere"
    _model_or_request_error(proto.SerializeToString(), tmp_path)


@pytest.mark.parametrize("opset", [*range(7, 27), 99])
def test_every_opset_is_read(opset: int, tmp_path: Path) -> None:
    proto = graph(
        "(float[2,4] x) => (float[2,8] y)", "h = MatMul(x, w)\ny = Relu(h)", {"w": WEIGHT}, opset=opset, check=False
    )
    model = read_model(save(proto, tmp_path))
    assert model.opset == opset and model.normalized_opset == max(opset, 21)
    assert [n.op_type for n in model.nodes] == ["MatMul", "Relu"]


def test_an_opset_that_cannot_be_raised_is_a_note(tmp_path: Path) -> None:
    proto = graph("(float[1,1,2,2] x) => (float[1,1,4,4] y)", "y = acme.Up(x)", opset=7, domains=["acme"], check=False)
    model = read_model(save(proto, tmp_path))
    assert model.normalized_opset in (7, 21)
    assert model.normalized_opset == 21 or any("could not be raised" in note for note in model.notes)


# -- shapes -------------------------------------------------------------------------------------------------------------

_DYNAMIC = "(float[N,4] x) => (float[N,8] y)"


def test_dynamic_inputs_are_listed_and_bound_by_shape(tmp_path: Path) -> None:
    path = save(graph(_DYNAMIC, "y = MatMul(x, w)", {"w": WEIGHT}), tmp_path)
    assert read_model(path).dynamic_inputs == ("x=N,4",)
    for shapes in ({"x": (3, 4)}, {"": (3, 4)}):
        model = read_model(path, shapes)
        assert model.dynamic_inputs == () and model.shapes == {"x": (3, 4)}
        assert only(model, "MatMul").output_shapes == ((3, 8),)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"z": (3, 4)}, "no input of the model"),
        ({"x": (3, 5)}, "contradicts"),
        ({"x": (3,)}, "1 dimensions, the model has 2"),
    ],
)  # fmt: skip
def test_a_shape_that_does_not_fit_is_refused_with_the_inputs(
    shapes: dict[str, tuple[int, ...]], words: str, tmp_path: Path
) -> None:
    path = save(graph(_DYNAMIC, "y = MatMul(x, w)", {"w": WEIGHT}), tmp_path)
    with pytest.raises(RequestError, match=words) as caught:
        read_model(path, shapes)
    assert "x [N,4]" in caught.value.hint


def test_a_shape_without_a_name_needs_one_input(tmp_path: Path) -> None:
    path = save(graph("(float[N] x, float[N] z) => (float[N] y)", "y = Add(x, z)"), tmp_path)
    with pytest.raises(RequestError, match="exactly one input"):
        read_model(path, {"": (3,)})


# -- what a file already stores -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 8])
def test_quantized_neighbours_are_the_stored_pair(channels: int, tmp_path: Path) -> None:
    body = (
        "q = QuantizeLinear(x, s, z)\nd = DequantizeLinear(q, s, z)\n"
        "v = DequantizeLinear<axis = 1>(w, ws)\nh = MatMul(d, v)\n"
        "p = QuantizeLinear(h, s, z)\ny = DequantizeLinear(p, s, z)"
    )
    constants = {
        "s": f32(0.1), "z": np.uint16(7), "w": np.ones((4, 8), np.int8),
        "ws": f32(np.full(channels, 0.5)) if channels > 1 else f32(0.5),
    }  # fmt: skip
    proto = graph("(float[2,4] x) => (float[2,8] y)", body, constants, opset=21)
    node = only(read_model(save(proto, tmp_path)), "MatMul")
    assert node.stored == QuantConfig(DType.INT8, DType.UINT16, PER_CHANNEL if channels > 1 else PER_TENSOR)


def test_a_node_with_dq_before_it_but_no_q_behind_it_computes_in_float(tmp_path: Path) -> None:
    body = "q = QuantizeLinear(x, s, z)\nd = DequantizeLinear(q, s, z)\nv = DequantizeLinear(w, s)\ny = MatMul(d, v)"
    constants = {"s": f32(0.1), "z": np.uint16(7), "w": np.ones((4, 8), np.int8)}
    proto = graph("(float[2,4] x) => (float[2,8] y)", body, constants, opset=21)
    assert only(read_model(save(proto, tmp_path)), "MatMul").stored == QuantConfig(DType.INT8, DType.FLOAT32)


@pytest.mark.parametrize(
    ("node", "operands", "pair"),
    [
        # A slope that onnxruntime's quantizer left float; a bias that it was told to (QuantizeBias).
        ("PRelu(d, wf)", {"wf": f32(np.ones((4, 1, 1)))}, "float32/float32"),
        ("InstanceNormalization(d, v, bf)", {"w": np.ones(4, np.int8), "bf": f32(np.ones(4))}, "int8/float32"),
        ("Conv(d, v, bf)", {"w": np.ones((4, 4, 1, 1), np.int8), "bf": f32(np.ones(4))}, "int8/uint8"),
        ("PRelu(d, v)", {"w": np.ones((4, 1, 1), np.int8)}, "int8/uint8"),
    ],
)
def test_a_node_that_reads_a_constant_without_dq_computes_in_float(
    node: str, operands: dict[str, Any], pair: str, tmp_path: Path
) -> None:
    dequantized = "v = DequantizeLinear(w, s)\n" if "w" in operands else ""
    body = (
        f"q = QuantizeLinear(x, s, z)\nd = DequantizeLinear(q, s, z)\n{dequantized}h = {node}\n"
        "p = QuantizeLinear(h, s, z)\ny = DequantizeLinear(p, s, z)"
    )
    constants = {"s": f32(0.1), "z": np.uint8(7), **operands}
    proto = graph("(float[1,4,3,3] x) => (float[1,4,3,3] y)", body, constants, opset=21)
    assert str(only(read_model(save(proto, tmp_path)), node.partition("(")[0]).stored) == pair


@pytest.mark.parametrize(
    ("move", "spreads"),
    [
        ("Reshape({}, n)", True), ("Transpose<perm = [1, 0]>({})", True), ("Unsqueeze({}, o)", True), ("Slice({}, o, n)", True),
        ("Flatten<axis = 0>({})", False), ("Relu({})", False), ("Concat<axis = 0>({}, x)", False),
    ],
)  # fmt: skip
def test_q_and_dq_spread_over_what_moves_values_as_onnxruntime_has_it(move: str, spreads: bool, tmp_path: Path) -> None:
    constants = {"s": f32(0.1), "z": np.uint8(7), "n": np.array([4, 2]), "o": np.array([0, 1])}
    start, end = (
        "q = QuantizeLinear(x, s, z)\nd = DequantizeLinear(q, s, z)",
        "p = QuantizeLinear(e, s, z)\ny = DequantizeLinear(p, s, z)",
    )
    before = f"{start}\na = {move.format('d')}\ne = Sqrt(a)\n{end}"
    behind = f"{start}\na = Sqrt(d)\ne = {move.format('a')}\n{end}"
    for body in (before, behind):
        proto = graph("(float[2,4] x) => (float[M,N] y)", body, constants, opset=13, check=False)
        stored = str(only(read_model(save(proto, tmp_path), as_stored=True), "Sqrt").stored)
        assert stored == ("uint8" if spreads else "float32")


@pytest.mark.parametrize("quantized", [False, True])
def test_bounds_behind_dq_are_constants_of_a_quantized_node_alone(quantized: bool, tmp_path: Path) -> None:
    # Onnxruntime's quantizer puts one before a number that something else reads too.
    behind = "c = Clip(x, low, v)\nq = QuantizeLinear(c, s, w)\ny = DequantizeLinear(q, s, w)"
    body = f"v = DequantizeLinear(w, s)\n{behind if quantized else 'y = Clip(x, low, v)'}"
    constants = {"s": f32(0.1), "w": np.int8(3), "low": f32(0)}
    clip = only(read_model(save(graph("(float[2] x) => (float[2] y)", body, constants), tmp_path)), "Clip")
    assert [operand is not None and operand.constant for operand in clip.inputs] == [False, True, quantized]


def test_q_and_dq_of_onnxruntime_keep_the_shape(tmp_path: Path) -> None:
    body = "q = com.microsoft.QuantizeLinear(x, s, z)\nd = com.microsoft.DequantizeLinear(q, s, z)\ny = Relu(d)"
    constants = {"s": f32(0.1), "z": np.uint8(7)}
    proto = graph("(float[2,4] x) => (float[A,B] y)", body, constants, domains=["com.microsoft"])
    operand = only(read_model(save(proto, tmp_path)), "Relu").inputs[0]
    assert operand is not None and operand.shape == (2, 4)


def test_shape_and_index_arithmetic_has_no_precision(tmp_path: Path) -> None:
    body = "s = Shape(x)\na = ArgMax(x)\nm = Greater(x, k)\nb = Cast<to = 1>(m)\ny = Mul(x, b)"
    proto = graph("(float[N,4] x) => (float[N,4] y, int64[A,B] a, int64[2] s)", body, {"k": f32(0)})
    model = read_model(save(proto, tmp_path))
    assert {n.op_type: n.has_precision for n in model.nodes} == {
        "Shape": False, "ArgMax": False, "Greater": False, "Cast": False, "Mul": True,
    }  # fmt: skip


def test_loading_checks_and_reads_nothing_more(tmp_path: Path) -> None:
    assert [n.op_type for n in load(save(graph(_DYNAMIC, "y = MatMul(x, w)", {"w": WEIGHT}), tmp_path)).graph] == [
        "MatMul"
    ]


@pytest.mark.parametrize(
    ("head", "words"),
    [(b"\x30\0\0\0ORTM", "onnxruntime's own format"), (b"PK\x03\x04abcd", "zip"), (b"\x1f\x8babcdef", "gzip")],
)
def test_a_file_of_another_format_is_called_by_its_name(head: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(head + b"\xff" * 40)
    with pytest.raises(RequestError) as raised:
        read_model(path)
    assert words in str(raised.value.hint)


def test_an_attribute_that_onnx_does_not_define_at_the_opset_is_an_error(tmp_path: Path) -> None:
    made = graph(
        "(float[1,3,4,4] x) => (float[1,3,1,1] y)", "y = ReduceMean<axes: ints = [2, 3]>(x)", opset=21, check=False
    )
    with pytest.raises(
        RequestError, match=r"ReduceMean '.*' has an attribute 'axes', which ONNX does not define at opset 21"
    ):
        read_model(save(made, tmp_path))
