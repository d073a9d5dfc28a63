"""What the accuracy benchmarks share: tasks with labelled data and a metric, and onnxruntime's own recipe to compare with."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from examples import inputs
from examples.fetch import EXAMPLES, MAGIKA_CONFIG, Example, fetch, fetch_file
from planner.dtypes import DType
from planner.model.shapes import bind_shapes
from planner.model.write import save
from planner.runtime.client import Worker
from planner.runtime.registry import CPU
from planner.verification.feed import AS_WRITTEN, as_written, cast_feed, input_dtypes, load

Sample = Mapping[str, Any]
Run = Callable[[Sample], Mapping[str, Any]]


@dataclass(frozen=True)
class Task:
    """A model, labelled samples, and the share of them that it answers rightly.

    Attributes:
        labelled: yields (sample, label). answer: from a sample's outputs to something that equals the label where right.
    """

    name: str
    metric: str
    labelled: Callable[[], Iterable[tuple[Sample, Any]]]
    answer: Callable[[Mapping[str, Any]], Any] | None = None

    @property
    def example(self) -> Example | None:
        return EXAMPLES.get(self.name)

    @property
    def model(self) -> Path:
        if self.name == "digits":
            from examples import digits

            return digits.model()[0]
        return fetch(self.name)

    @property
    def inputs(self) -> str:
        return "examples.inputs:digits" if self.example is None else self.example.inputs

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {} if self.example is None else self.example.shapes

    def score(self, run: Run, part: slice = slice(None)) -> float:
        """The metric, 0 to 1, over all labelled samples or a part of them."""
        pairs = [(run(sample), label) for sample, label in islice(self.labelled(), part.start, part.stop)]
        if self.answer is None:
            return _retrieval(pairs)
        return sum(bool(self.answer(outputs) == label) for outputs, label in pairs) / len(pairs)


def _first(outputs: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(next(iter(outputs.values())))


def _top1(outputs: Mapping[str, Any]) -> int:
    return int(_first(outputs).reshape(-1).argmax())


def _speaks(outputs: Mapping[str, Any]) -> int:
    return int(outputs["output"].reshape(-1)[0] > 0.5)


def _file_type(outputs: Mapping[str, Any]) -> str:
    names = json.loads(fetch_file(MAGIKA_CONFIG).read_text())["target_labels_space"]
    return str(names[_top1(outputs)])


def _text(model: str) -> Callable[[Mapping[str, Any]], str]:
    """Greedy CTC decoding: code 0 is the blank, the characters follow, then the space."""

    def decode(outputs: Mapping[str, Any]) -> str:
        characters = _characters(model)
        codes = _first(outputs)[0].argmax(axis=-1)
        kept = [c for i, c in enumerate(codes) if c and (i == 0 or c != codes[i - 1])]
        return "".join(characters[c - 1] for c in kept if c <= len(characters))

    return decode


_CHARACTERS: dict[str, list[str]] = {}


def _characters(model: str) -> list[str]:
    if model not in _CHARACTERS:
        properties = onnx.load(fetch(model), load_external_data=False).metadata_props
        _CHARACTERS[model] = [*next(p.value for p in properties if p.key == "character").split("\n"), " "]
    return _CHARACTERS[model]


def _retrieval(pairs: Sequence[tuple[Mapping[str, Any], Any]]) -> float:
    """Share of samples whose nearest other one has the same label."""
    vectors = np.stack([_first(outputs).reshape(-1) for outputs, _ in pairs]).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    labels = [label for _, label in pairs]
    hits = sum(labels[int(n)] == label for n, label in zip(likeness.argmax(axis=1), labels, strict=True))
    return float(hits / len(pairs))


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("digits", "accuracy", inputs.digits_labelled, _top1),
        Task("magika", "accuracy", inputs.magika_labelled, _file_type),
        Task("cls", "accuracy", lambda: inputs.cls_labelled(100), _top1),
        Task("silero-static", "accuracy", lambda: inputs.silero_static_labelled(200), _speaks),
        Task("orientation", "accuracy", lambda: inputs.orientation_labelled(60), _top1),
        Task("table-cls", "accuracy", lambda: inputs.table_cls_labelled(60), _top1),
        Task("minilm", "retrieval", inputs.minilm_labelled),
        Task("rec", "exact match", lambda: inputs.rec_labelled(60), _text("rec")),
        Task("rec-v4", "exact match", lambda: inputs.rec_labelled(60), _text("rec-v4")),
    )
}


def score_on_cpu(task: Task, path: Path, part: slice = slice(None)) -> float:
    """The metric of a model on the CPU EP, computed as the file says."""
    model = load(path)
    dtypes = input_dtypes(model)
    with as_written(path, model) as plain, Worker(CPU) as worker:
        worker.open(plain, {}, session_config=AS_WRITTEN)
        return task.score(lambda sample: worker.run(cast_feed(sample, dtypes)).outputs, part)


def score_on_ep(task: Task, path: Path, ep: str, options: Mapping[str, str], part: slice) -> float:
    """The metric of a model on an EP."""
    dtypes = input_dtypes(load(path))
    with Worker(ep) as worker:
        worker.open(path, options)
        return task.score(lambda sample: worker.run(cast_feed(sample, dtypes)).outputs, part)


def onnxruntime_qnn(task: Task, output: Path, samples: Iterable[Sample], activation: DType) -> None:
    """onnxruntime's own recipe for QNN, at its defaults but for the activation type: shapes fixed, quant_pre_process,
    get_qnn_qdq_config, quantize."""
    from onnxruntime.quantization import QuantType, quantize
    from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

    with prepared(task) as ready:
        config = get_qnn_qdq_config(
            str(ready), _reader(samples), activation_type=_kind(activation), weight_type=QuantType.QUInt8
        )
        quantize(str(ready), str(output), config)


def onnxruntime_static(task: Task, output: Path, samples: Iterable[Sample], activation: DType) -> None:
    """onnxruntime's quantize_static (QDQ), at its defaults but for the activation type: shapes fixed, quant_pre_process."""
    from onnxruntime.quantization import quantize_static

    with prepared(task) as ready:
        quantize_static(str(ready), str(output), _reader(samples), activation_type=_kind(activation))


def _kind(activation: DType) -> Any:
    from onnxruntime.quantization import QuantType

    return {DType.UINT8: QuantType.QUInt8, DType.UINT16: QuantType.QUInt16}[activation]


def _reader(samples: Iterable[Sample]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.samples = iter(samples)

        def get_next(self) -> dict[str, Any] | None:
            sample = next(self.samples, None)
            return None if sample is None else dict(sample)

    return Reader()


@contextlib.contextmanager
def prepared(task: Task) -> Iterator[Path]:
    """The user's own model as onnxruntime's documentation asks for it: fixed shapes, quant_pre_process."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = load(task.model)
    bind_shapes(model, task.shapes)
    with tempfile.TemporaryDirectory(prefix="planner-") as folder:
        fixed, ready = Path(folder) / "fixed.onnx", Path(folder) / "ready.onnx"
        save(model, fixed)
        quant_pre_process(str(fixed), str(ready), skip_symbolic_shape=True)
        yield ready


def task_of(name: str) -> Task:
    """The task of that name, or one without a metric: the model and its shapes."""
    return TASKS.get(name) or Task(name, "", lambda: ())
