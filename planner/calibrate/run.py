"""Calibration: the float32 model runs over the samples on the CPU EP, in a worker, and its tensors are observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from planner.calibrate.inputs import Inputs
from planner.calibrate.observe import Method, Observations, Run, collect
from planner.calibrate.ranges import Range
from planner.errors import RequestError
from planner.files import temporary_folder
from planner.model.read import Model
from planner.model.write import save
from planner.progress import Progress, silent
from planner.runtime.client import SessionFailed, Worker, model_refused
from planner.runtime.registry import CPU
from planner.runtime.worker import INVALID

# Weights that are not packed stay in the file, mapped; packing would copy them all. Threads that wait in loops for the next
# node would burn as much processor time as the model itself, between its small reductions.
_FRUGAL = {"session.disable_prepacking": "1", "session.intra_op.allow_spinning": "0"}


def calibrate(
    model: Model, samples: Sequence[Mapping[str, Any]], progress: Progress = silent, method: str = "minmax"
) -> dict[str, Range]:
    """The range of each float tensor of the float32 model over the samples, by name. See `observe`."""
    return observe(model, samples, progress, method).ranges()


def observe(
    model: Model, samples: Sequence[Mapping[str, Any]], progress: Progress = silent, method: str = "minmax"
) -> Observations:
    """What each float tensor of the float32 model holds over the samples.

    One pass, whose memory does not grow with the number of samples.

    Args:
        model: float32, in the form that the plan speaks of.
        samples: feeds of the model.
        progress: told of each sample.
        method: minmax, average, percentile, entropy or mse: how ranges for 8-bit codes are cut.

    Raises:
        RequestError: an unknown method, or NaN somewhere in the model, with the name of the node.
    """
    if method not in list(Method):
        raise RequestError(f"unknown calibration method {method!r}", f"known: {', '.join(Method)}")
    assert model.ir is not None
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress("calibrating", done, len(samples))

    with temporary_folder() as folder, Worker(CPU) as worker:

        def start(extended: ir.Model) -> Run:
            path = Path(folder) / "observed.onnx"
            save(extended, path, embed=False)
            try:
                worker.open(path, {}, lean=True, session_config=_FRUGAL)
            except SessionFailed:
                _blame_model(worker, Path(model.path))
                raise
            return lambda sample: worker.run(sample).outputs

        progress("calibrating", 0, len(samples))
        return collect(model.ir, start, samples, Method(method), step)


def _blame_model(worker: Worker, path: Path) -> None:
    """Ask onnxruntime about the user's own file where the one made of it does not run.

    Raises:
        RequestError: it is no model.
    """
    try:
        worker.open(path, {})
    except SessionFailed as error:
        if error.code in (INVALID, "Fail"):  # not for want of a kernel
            raise model_refused(error) from None


class Calibrations:
    """What calibration saw, kept for every later plan of the same model in the same form, on the same inputs."""

    def __init__(self) -> None:
        self._known: dict[object, Observations] = {}
        self._ranges: dict[object, dict[str, Range]] = {}

    def of(
        self, model: Model, inputs: Inputs, progress: Progress = silent, *, without: int | None = None
    ) -> dict[str, Range]:
        """As `calibrate`, once; by the samples of all folds, or of all but one (see `Observations`)."""
        # Targets see a model in different forms: which operators are fused hangs on what they take.
        form = tuple((node.name, node.op_type, node.outputs) for node in model.nodes)
        key = (model.sha256, tuple(model.shapes.items()), form, inputs.sha256, inputs.method)
        if key not in self._known:
            self._known[key] = observe(model, inputs.calibration, progress, inputs.method)
        if (key, without) not in self._ranges:
            self._ranges[key, without] = self._known[key].ranges(without)
        return self._ranges[key, without]
