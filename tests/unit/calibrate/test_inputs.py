"""Inputs: what is accepted from where, how it is split, that memory stays flat, and what is refused in which words."""

from __future__ import annotations

import gc
import io
import sys
import tracemalloc
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from planner.calibrate.inputs import Inputs, load_inputs
from planner.errors import RequestError
from planner.model.read import Model, read_model
from tests.unit.small_models import graph
from tests.unit.small_models import save as write


def make(folder: Path, *inputs: tuple[str, list[int | str]], dtype: int = TensorProto.FLOAT) -> Model:
    nodes = [helper.make_node("Identity", [n], [f"{n}_out"]) for n, _ in inputs]
    graph = helper.make_graph(
        [*nodes, *(helper.make_node("Shape", [n], [f"{n}_shape"]) for n, _ in inputs)],
        "g",
        [helper.make_tensor_value_info(n, dtype, s) for n, s in inputs],
        [helper.make_tensor_value_info(f"{n}_out", dtype, s) for n, s in inputs],
    )
    path = folder / "m.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return read_model(path)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return make(tmp_path, ("x", [1, 3]))


def rows(count: int) -> np.ndarray:
    return np.arange(3 * count, dtype=np.float32).reshape(count, 3)


def firsts(samples: Iterable[Mapping[str, np.ndarray]]) -> list[float]:
    return [float(s["x"].flat[0]) for s in samples]


def test_every_fourth_sample_is_held_apart(model: Model, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=rows(8))
    found = load_inputs(str(tmp_path / "a.npz"), model)
    assert firsts(found.evaluation) == [9, 21]
    assert firsts(found.calibration) == [0, 3, 6, 12, 15, 18]
    assert found.calibration[0]["x"].shape == (1, 3) and found.held_apart and not found.synthetic


@pytest.mark.parametrize("count, calibration, evaluation", [(1, 1, 1), (2, 1, 1), (3, 2, 1), (64, 56, 8)])
def test_how_many_go_where(model: Model, tmp_path: Path, count: int, calibration: int, evaluation: int) -> None:
    np.savez(tmp_path / "a.npz", x=rows(count))
    found = load_inputs(str(tmp_path / "a.npz"), model)
    assert (len(found.calibration), len(found.evaluation)) == (calibration, evaluation)
    assert found.held_apart == (count > 1)


def test_a_folder_a_file_and_a_function_give_the_same(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = rows(6)
    np.savez(tmp_path / "all.npz", x=data)
    np.savez(tmp_path / "fortran.npz", x=np.asfortranarray(data))
    np.savez_compressed(tmp_path / "packed.npz", x=data)
    folder = tmp_path / "folder"
    folder.mkdir()
    for i in range(3):
        np.savez(folder / f"{i}.npz", x=data[2 * i : 2 * i + 2])
    (tmp_path / "given_inputs.py").write_text(
        "import numpy as np\ndef samples():\n"
        "    for row in np.arange(18, dtype=np.float32).reshape(6, 1, 3):\n        yield {'x': row}\n"
    )
    monkeypatch.chdir(tmp_path)
    sources = [str(tmp_path / n) for n in ("all.npz", "fortran.npz", "packed.npz", "folder")]
    hashes = {load_inputs(s, model).sha256 for s in (*sources, "given_inputs:samples")}
    assert len(hashes) == 1
    assert str(tmp_path) not in sys.path


def test_a_leading_axis_more_than_the_model_has_counts_samples(tmp_path: Path) -> None:
    model = make(tmp_path, ("x", ["n", 2]))
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 5, 2), np.float32))
    found = load_inputs(str(tmp_path / "a.npz"), model)
    assert len(found.calibration) == 3 and found.calibration[0]["x"].shape == (5, 2)


def test_a_models_own_batch_is_a_sample(tmp_path: Path) -> None:
    model = make(tmp_path, ("x", [2, 3]))
    np.savez(tmp_path / "a.npz", x=rows(8))
    assert firsts(load_inputs(str(tmp_path / "a.npz"), model).calibration) == [0, 6, 12]


def test_samples_can_be_read_again_and_sliced(model: Model, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=rows(8))
    found = load_inputs(str(tmp_path / "a.npz"), model)
    assert firsts(found.calibration) == firsts(found.calibration)
    assert firsts(found.calibration[1:3]) == [3, 6] and firsts([found.calibration[-1]]) == [18]


def test_a_store_closes_its_file(model: Model, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=rows(4))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        loaded: Inputs | None = load_inputs(str(tmp_path / "a.npz"), model)
        del loaded
        gc.collect()
    assert not [w for w in told if "SpooledTemporaryFile" in str(w.message)]


def test_the_hash_sees_every_byte(model: Model, tmp_path: Path) -> None:
    data = rows(4)
    hashes = set()
    for i in range(2):
        data[3, 2] += i
        np.savez(tmp_path / "a.npz", x=data)
        hashes.add(load_inputs(str(tmp_path / "a.npz"), model).sha256)
    assert len(hashes) == 2


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(tmp_path, ("x", [1, 1 << 16]))
    monkeypatch.setattr("planner.calibrate.inputs._IN_MEMORY", 1 << 20)
    peaks = []
    for count in (16, 256):
        np.savez(tmp_path / "a.npz", x=np.zeros((count, 1 << 16), np.float32))
        tracemalloc.start()
        found = load_inputs(str(tmp_path / "a.npz"), model)
        assert sum(1 for _ in found.calibration) == count - len(found.evaluation)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] < 16e6


def test_synthetic_data_is_seeded_and_says_so(model: Model) -> None:
    def of(seed: int) -> Inputs:
        return load_inputs(None, model, seed=seed)

    assert of(1).sha256 == of(1).sha256 != of(2).sha256
    assert of(1).synthetic and of(1).to_json()["seed"] == 1


def wrong(model: Model, path: Path, **arrays: np.ndarray) -> str:
    np.savez(path / "a.npz", allow_pickle=True, **arrays)
    with pytest.raises(RequestError) as caught:
        load_inputs(str(path / "a.npz"), model)
    return str(caught.value)


def test_refusals_name_what_is_wrong(model: Model, tmp_path: Path) -> None:
    assert "no array for model input 'x'" in wrong(model, tmp_path, y=rows(2))
    assert "'y' is no input of the model" in wrong(model, tmp_path, x=rows(2), y=rows(2))
    assert "dimensions" in wrong(model, tmp_path, x=np.zeros(3, np.float32))
    assert "shape (1, 4)" in wrong(model, tmp_path, x=np.zeros((2, 4), np.float32))
    assert "holds NaN" in wrong(model, tmp_path, x=rows(2) * np.nan)
    assert "sample 1" in wrong(model, tmp_path, x=np.concatenate([rows(1), rows(1) * np.nan]))
    assert "no samples" in wrong(model, tmp_path, x=np.zeros((0, 3), np.float32))
    assert "not a readable" in wrong(model, tmp_path, x=np.array([{}, {}], object))
    assert "dtype" in wrong(model, tmp_path, x=np.array([["a"] * 3]))


def test_different_numbers_of_samples_are_refused(tmp_path: Path) -> None:
    model = make(tmp_path, ("x", [1, 3]), ("z", [1, 3]))
    assert "different numbers" in wrong(model, tmp_path, x=rows(2), z=rows(3))


@pytest.mark.parametrize("keep", [0, 10, 100, 200])
def test_a_truncated_file_is_refused(model: Model, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=rows(100))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RequestError, match="not a readable"):
        load_inputs(str(path), model)


@pytest.mark.parametrize(
    "body, says",
    [
        ("raise OSError('gone')", "OSError: gone"),
        ("return 3", "TypeError"),
        ("return [1]", "a int"),
        ("yield {'x': [[1.0], [1.0, 2.0]]}", "sample 0: 'x' is no array"),
        ("yield {1: 2}", "no array for model input 'x'"),
        ("raise SystemExit(0)", "ended the program"),
    ],
)
def test_a_function_that_fails_is_named(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, says: str
) -> None:
    (tmp_path / "bad_inputs.py").write_text(f"def f():\n    {body}\n")
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("bad_inputs", None)
    with pytest.raises(RequestError, match=says):
        load_inputs("bad_inputs:f", model)


@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        (TensorProto.INT32, np.array([[1, 2, 2**31]], np.int64)),
        (TensorProto.INT8, np.array([[1, 2, 200]], np.uint8)),
        (TensorProto.FLOAT16, np.array([[1, 2, 70000]], np.float32)),
        (TensorProto.FLOAT, np.array([[1, 2, 1e39]], np.float64)),
    ],
)
def test_numbers_that_the_models_type_cannot_hold_are_refused(
    dtype: TensorProto.DataType, given: np.ndarray, tmp_path: Path
) -> None:
    model = make(tmp_path, ("x", [1, 3]), dtype=dtype)
    np.savez(tmp_path / "a.npz", x=given)
    with pytest.raises(RequestError, match=r"sample 0: 'x' holds .*, which .* cannot hold"):
        load_inputs(str(tmp_path / "a.npz"), model)
    np.savez(tmp_path / "a.npz", x=given[:, [0, 1, 1]])
    assert load_inputs(str(tmp_path / "a.npz"), model).calibration[0]["x"].tolist() == [[1, 2, 2]]


def test_no_such_source(model: Model, tmp_path: Path) -> None:
    for name in ("a" * 5000, "a\0.npz"):
        with pytest.raises(RequestError, match="no such file"):
            load_inputs(name, model)
    with pytest.raises(RequestError, match="no such file"):
        load_inputs(str(tmp_path / "nothing.npz"), model)
    with pytest.raises(RequestError, match=r"holds no \.npz"):
        load_inputs(str(tmp_path), model)


def archive(path: Path, content: bytes, method: int = zipfile.ZIP_STORED, name: str = "x.npy") -> Path:
    with zipfile.ZipFile(path, "w", method) as made:
        made.writestr(name, content)
    return path


def array_bytes(array: np.ndarray, *, header: bytes | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    content = stream.getvalue()
    return content if header is None else content[:8] + len(header).to_bytes(2, "little") + header + array.tobytes()


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': " + b"(" * 3000 + b"}\n",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999, 3)}\n",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3)}\n",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 3)}\n",
        b"__import__('os').system('true')\n",
        b"{'descr'\n",
        b"\xff\n",
    ],
)
def test_an_array_whose_header_lies_is_refused(header: bytes, model: Model, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", array_bytes(rows(2), header=header))
    with pytest.raises(RequestError):
        load_inputs(str(path), model)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_archive_is_refused_however_it_was_packed(method: int, model: Model, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    content = bytearray(archive(tmp_path / "a.npz", array_bytes(noise), method).read_bytes())
    for at in range(150, 400, 7):
        content[at] ^= 0xFF
    (tmp_path / "b.npz").write_bytes(content)
    with pytest.raises(RequestError, match="not a readable"):
        load_inputs(str(tmp_path / "b.npz"), model)


def test_an_encrypted_archive_is_refused(model: Model, tmp_path: Path) -> None:
    content = bytearray(archive(tmp_path / "a.npz", array_bytes(rows(2))).read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + flags] |= 1
    (tmp_path / "b.npz").write_bytes(content)
    with pytest.raises(RequestError, match="encrypted"):
        load_inputs(str(tmp_path / "b.npz"), model)


@pytest.mark.parametrize("order", ["C", "F"])
def test_what_does_not_fit_is_refused_before_it_is_unpacked(
    order: Literal["C", "F"], model: Model, tmp_path: Path
) -> None:
    array = np.asarray(np.zeros((2, 20_000_000), np.float32), order=order)
    np.savez_compressed(tmp_path / "a.npz", x=array)
    del array
    tracemalloc.start()
    try:
        with pytest.raises(RequestError, match="has shape"):
            load_inputs(str(tmp_path / "a.npz"), model)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("hides", [False, True])
def test_made_up_masks_are_read_as_the_model_reads_them(hides: bool, tmp_path: Path) -> None:
    """PyTorch's key_padding_mask leaves out what is true, an attention_mask what is false; no row is left out whole."""
    operands = "low, x" if hides else "x, low"
    body = f"m = Where(mask, {operands})\ny = Softmax(m)"
    held = {"low": np.array(-np.inf, np.float32)}
    made = read_model(write(graph("(float[1,6] x, bool[1,6] mask) => (float[1,6] y)", body, held), tmp_path))
    found = load_inputs(None, made)
    masks = np.concatenate([sample["mask"] for sample in (*found.calibration, *found.evaluation)])
    shown = ~masks if hides else masks
    assert shown.any(axis=1).all() and shown.mean() > 0.6 and not shown.all()


@pytest.mark.parametrize("shape", [[1 << 20, 1 << 20], [0, 1 << 62]])
def test_no_synthetic_data_is_made_up_that_fills_the_memory(shape: list[int | str], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no synthetic data is made up"):
        load_inputs(None, make(tmp_path, ("x", shape)))


@pytest.mark.parametrize(
    "dtype", [TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2, TensorProto.BFLOAT16, TensorProto.INT4]
)
def test_an_input_of_a_type_that_cannot_be_fed_is_a_wrong_request(dtype: int, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be fed"):
        load_inputs(None, make(tmp_path, ("x", [1, 3]), dtype=dtype))


def test_a_source_that_a_file_names_is_no_function(model: Model, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="not run"):
        load_inputs("os:getcwd", model, may_run=False)
    np.savez(tmp_path / "a.npz", x=rows(8))
    assert load_inputs(str(tmp_path / "a.npz"), model, may_run=False).held_apart


@pytest.mark.parametrize("kind", ["U", "S"])
def test_texts_of_a_file_are_texts(kind: str, tmp_path: Path) -> None:
    proto = graph("(string[1,2] t) => (bool[1,2] y)", "y = Equal(t, t)")
    np.savez(
        tmp_path / "texts.npz",
        t=np.array([[["a", "bé"]], [["c", "d"]]]).astype("U2")
        if kind == "U"
        else np.char.encode(np.array([[["a", "bé"]], [["c", "d"]]]), "utf-8"),
    )
    inputs = load_inputs(str(tmp_path / "texts.npz"), read_model(write(proto, tmp_path)))
    samples = [*inputs.calibration, *inputs.evaluation]
    assert sorted(text for sample in samples for text in sample["t"].ravel()) == ["a", "bé", "c", "d"]
    assert all(sample["t"].dtype == object for sample in samples)
