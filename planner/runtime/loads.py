"""Whether a model that was written can be loaded: asked before anybody is given it."""

from __future__ import annotations

from pathlib import Path

import onnx

from planner.errors import EPError, first_line
from planner.files import Snapshot
from planner.model.weights import parse, refer
from planner.runtime.client import EPMissing, SessionFailed, Worker
from planner.runtime.registry import CPU

# Weights stay in the file, mapped; packing would copy them all.
_FRUGAL = {"session.disable_prepacking": "1"}
# A file above this many bytes is not opened itself: onnxruntime would hold its weights twice.
_MOST_HELD = 1 << 25


def prove_loads(written: Path, source: Path) -> None:
    """Open the model in onnxruntime, in a worker; where that cannot judge it, ask ONNX's checker.

    Of a large file it opens a twin: the same model, whose weights it maps at their place in the file.

    Onnxruntime cannot judge a model whose source it does not open either: an operator of the user's own, or one without a
    kernel for the CPU.

    Args:
        written: the new model.
        source: the model that it was made from.

    Raises:
        EPError: it does not load.
    """
    problem: str | None
    try:
        with Worker(CPU) as worker:
            try:
                _open_written(worker, written)
                return
            except SessionFailed as error:
                problem = str(error)
            try:
                _open(worker, source)
            except SessionFailed:
                problem = _complaint(written)
    except EPMissing:
        problem = _complaint(written)
    if problem is not None:
        raise EPError(
            f"the model that planner made does not load: {problem}",
            "nothing was written; this is a defect of planner: try another precision, and report it",
        )


def _open(worker: Worker, model: Path) -> None:
    worker.open(model, {}, optimize=False, lean=True, session_config=_FRUGAL)


def _open_written(worker: Worker, written: Path) -> None:
    if written.stat().st_size <= _MOST_HELD:
        _open(worker, written)
        return
    twin = written.with_name(f"{written.name}.twin")
    try:
        twin.write_bytes(_by_reference(written).SerializeToString())
        _open(worker, twin)
    finally:
        twin.unlink(missing_ok=True)


def _by_reference(model: Path) -> onnx.ModelProto:
    """The model, its large weights as external data that lies in the model's own file."""
    proto, places = parse(Snapshot.of(model))
    for position, offset in places.items():
        tensor = proto.graph.initializer[position]
        length = next(int(entry.value) for entry in tensor.external_data if entry.key == "length")
        refer(tensor, model.name, offset, length)
    return proto


def _complaint(path: Path) -> str | None:
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:
        return first_line(error)
    return None
