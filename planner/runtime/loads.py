"""Whether a model that was written can be loaded: asked before anybody is given it."""

from __future__ import annotations

from pathlib import Path

import onnx

from planner.errors import EPError
from planner.runtime.client import EPMissing, SessionFailed, Worker
from planner.runtime.registry import CPU

# Weights stay in the file, mapped; packing would copy them all.
_FRUGAL = {"session.disable_prepacking": "1"}


def prove_loads(written: Path, source: Path) -> None:
    """Open the model in onnxruntime, in a worker; where that cannot judge it, ask ONNX's checker.

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
                worker.open(written, {}, optimize=False, lean=True, session_config=_FRUGAL)
                return
            except SessionFailed as error:
                problem = str(error)
            try:
                worker.open(source, {}, optimize=False, lean=True, session_config=_FRUGAL)
            except SessionFailed:
                problem = _complaint(written)
    except EPMissing:
        problem = _complaint(written)
    if problem is not None:
        raise EPError(
            f"the model that planner made does not load: {problem}",
            "nothing was written; this is a defect of planner: try another precision, and report it",
        )


def _complaint(path: Path) -> str | None:
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:
        return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return None
