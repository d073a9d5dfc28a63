"""What quantizing costs in the task's own metric, on labelled data: float32, planner's plan, onnxruntime's own tools.

    python -m benchmarks.accuracy
    python -m benchmarks.accuracy --precision w8a16 --models magika cls

Each model is calibrated on every third sample and judged on the others. All models run as QDQ on the CPU EP, computed as the
file says (the runtime's own fusion of Q/DQ switched off): this is emulation, it shows what the types cost, not what an
EP adds to that.
"""

from __future__ import annotations

import argparse
import difflib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime import quantization as q

from examples import inputs as data
from examples.fetch import EXAMPLES, fetch
from planner.errors import RequestError
from planner.pipeline import Session, calibrate, parse_precision, quantize, save

Outputs = list[np.ndarray]
Metric = Callable[[Sequence[Outputs], Sequence[Any]], float]


def top1(outputs: Sequence[Outputs], labels: Sequence[Any]) -> float:
    """Percent of samples whose largest score is the label's."""
    return 100 * float(np.mean([int(o[0].argmax()) == int(label) for o, label in zip(outputs, labels, strict=True)]))


def half(outputs: Sequence[Outputs], labels: Sequence[Any]) -> float:
    """Percent of chunks on the right side of one half."""
    return 100 * float(np.mean([(o[0].item() > 0.5) == bool(label) for o, label in zip(outputs, labels, strict=True)]))


def magika_type(outputs: Sequence[Outputs], labels: Sequence[Any]) -> float:
    """Percent of files whose type is the label, by magika's own names of types."""
    config = json.loads(next(Path(".cache").glob("magika-*-config*.json")).read_text(encoding="utf-8"))
    names = config["target_labels_space"]
    return 100 * float(np.mean([names[o[0].argmax()] == label for o, label in zip(outputs, labels, strict=True)]))


def text(characters: Sequence[str]) -> Metric:
    """Percent of characters read right, by CTC: the best class of each step, repeats and blanks (class 0) dropped."""
    alphabet = ["", *characters, " "]

    def metric(outputs: Sequence[Outputs], labels: Sequence[Any]) -> float:
        alike = []
        for out, label in zip(outputs, labels, strict=True):
            steps = out[0][0].argmax(-1)
            kept = [c for i, c in enumerate(steps) if c and (i == 0 or c != steps[i - 1])]
            read = "".join(alphabet[c] for c in kept)
            alike.append(difflib.SequenceMatcher(None, read, str(label), autojunk=False).ratio())
        return 100 * float(np.mean(alike))

    return metric


def nearest(outputs: Sequence[Outputs], labels: Sequence[Any]) -> float:
    """Percent of sentences whose nearest other sentence is on the same topic."""
    vectors = np.stack([o[0].reshape(-1) if o[0].ndim <= 2 else o[0].mean(axis=1).reshape(-1) for o in outputs])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = vectors @ vectors.T - 2 * np.eye(len(vectors))
    return 100 * float(np.mean([labels[int(i)] == label for i, label in zip(likeness.argmax(1), labels, strict=True)]))


@dataclass(frozen=True)
class Pair:
    """A model, its labelled data, and its metric (higher is better)."""

    model: str
    labelled: Callable[[], Any]
    metric: Metric | None
    name: str


PAIRS = (
    Pair("magika", data.magika_labelled, magika_type, "file type, %"),
    Pair("rec", lambda: data.rec_labelled(64), None, "characters, %"),
    Pair("rec-v4", lambda: data.rec_labelled(64), None, "characters, %"),
    Pair("cls", lambda: data.cls_labelled(64), top1, "way up, %"),
    Pair("orientation", lambda: data.orientation_labelled(64), top1, "way up, %"),
    Pair("table-cls", lambda: data.table_cls_labelled(64), top1, "kind of table, %"),
    Pair("silero-static", lambda: data.silero_static_labelled(256), half, "voice, %"),
    Pair("minilm", data.minilm_labelled, nearest, "topic of the nearest, %"),
)


def run(path: Path, samples: Sequence[Any]) -> list[Outputs]:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [session.run(None, dict(sample)) for sample in samples]


class _Reader(q.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, samples: Sequence[Any]) -> None:
        self.samples = iter(samples)

    def get_next(self) -> Any:
        return next(self.samples, None)


def fixed(model: Path, shapes: Mapping[str, Sequence[int]], out: Path) -> Path:
    """The user's own model, its input shapes bound."""
    proto = onnx.load(model)
    for value in proto.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            dim.dim_value = size
    # qnn_preprocess_model fails on a model that has any.
    del proto.metadata_props[:]
    onnx.save(proto, out)
    return out


def by_onnxruntime(
    model: Path,
    shapes: Mapping[str, Sequence[int]],
    calibration: Sequence[Any],
    precision: str,
    folder: Path,
    *,
    qnn: bool,
) -> Path:
    """onnxruntime's recipe for QNN, or its static QDQ at its defaults (8-bit)."""
    out = folder / f"ort-{qnn}.onnx"
    model = fixed(model, shapes, folder / "fixed.onnx")
    if not qnn:
        q.quantize_static(str(model), str(out), _Reader(calibration))
        return out
    from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config, qnn_preprocess_model

    prepared = folder / "prepared.onnx"
    source = prepared if qnn_preprocess_model(str(model), str(prepared)) else model
    kind = q.QuantType.QUInt16 if precision == "w8a16" else q.QuantType.QUInt8
    config = get_qnn_qdq_config(str(source), _Reader(calibration), activation_type=kind, weight_type=q.QuantType.QUInt8)
    q.quantize(str(source), str(out), config)
    return out


def measure(pair: Pair, precision: str, method: str) -> tuple[str, ...]:
    """One row of the table."""
    example = EXAMPLES[pair.model]
    items = list(pair.labelled())
    calibration = [s for s, _ in items[::3]]
    judged = [(s, label) for i, (s, label) in enumerate(items) if i % 3]
    samples, labels = [s for s, _ in judged], [label for _, label in judged]
    for ep, device in (("qnn", "snapdragon-x-elite"), ("cpu", None)):
        session = Session.open(ep, device)
        model = session.read(fetch(pair.model), dict(example.shapes))
        resolution = session.check(model, parse_precision(precision))
        if resolution.legal is not False:
            break
    metric = pair.metric
    if metric is None:
        properties = ort.InferenceSession(str(fetch(pair.model))).get_modelmeta().custom_metadata_map
        metric = text(properties["character"].splitlines())
    with tempfile.TemporaryDirectory(prefix="accuracy-") as temporary:
        folder = Path(temporary)
        reference = folder / "float32.onnx"
        assert model.ir is not None
        save(model.ir, reference)
        candidate = folder / "planner.onnx"
        quantize(model, session.plan(model, resolution), calibrate(model, calibration, method=method), candidate)
        cells = [f"{metric(run(path, samples), labels):.1f}" for path in (reference, candidate)]
        for qnn in (True, False):
            try:
                path = by_onnxruntime(fetch(pair.model), example.shapes, calibration, precision, folder, qnn=qnn)
                cells.append(f"{metric(run(path, samples), labels):.1f}")
            except Exception as error:  # its failures are part of the comparison
                cells.append(f"fails: {type(error).__name__}")
    return (pair.model, pair.name, str(len(judged)), ep, *cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="w8a16", choices=("w8a16", "w8a8"))
    parser.add_argument("--calibration", default="minmax")
    parser.add_argument("--models", nargs="+", default=[p.model for p in PAIRS])
    args = parser.parse_args()
    print(
        f"| model | metric | samples | legal on | float32 | planner {args.precision} | ORT QNN recipe | ORT static int8 |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for pair in PAIRS:
        if pair.model in args.models:
            try:
                print("| " + " | ".join(measure(pair, args.precision, args.calibration)) + " |", flush=True)
            except RequestError as error:
                print(f"| {pair.model} | {pair.name} | {error} |", flush=True)


if __name__ == "__main__":
    main()
