"""Small histograms of what the float32 tensors of a model hold: where a range is wide for the sake of a few values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.calibrate.extend import extend
from planner.errors import EPError
from planner.files import temporary_folder
from planner.model.read import Model
from planner.model.write import save
from planner.reporting.data import Range
from planner.runtime.client import Worker
from planner.runtime.registry import CPU

BINS = 24
MOST_SAMPLES = 4


def observed_ranges(model: Model, samples: Sequence[Mapping[str, Any]]) -> tuple[Range, ...]:
    """Range and histogram of each float tensor that was computed over the first few samples, run on the CPU EP.

    The ends are exact over these samples; the counts are of some thousand values a tensor. A worker that fails costs
    the pictures, not the report: nothing is returned then.
    """
    try:
        return _observe(model, samples)
    except EPError:
        return ()


def _observe(model: Model, samples: Sequence[Mapping[str, Any]]) -> tuple[Range, ...]:
    assert model.ir is not None
    observed = extend(model.ir, sample=True)
    seen: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in observed.sampled}
    ends: dict[str, tuple[float, float]] = {}
    with temporary_folder() as folder, Worker(CPU) as worker:
        path = Path(folder) / "observed.onnx"
        save(observed.model, path)
        worker.open(path, {})
        for sample in samples[:MOST_SAMPLES]:
            outputs = worker.run(sample).outputs
            for name, output in observed.sampled.items():
                values = np.asarray(outputs[output], np.float64).ravel()
                seen[name].append(values[np.isfinite(values)])
                lows, highs = (outputs[extreme] for extreme in observed.outputs[name][:2])
                low, high = float(lows.min(initial=np.inf)), float(highs.max(initial=-np.inf))
                if low > high:
                    continue  # the other branch of an If, a Loop without iterations, or an empty tensor
                before = ends.get(name, (low, high))
                ends[name] = min(before[0], low), max(before[1], high)
    found = []
    for name, parts in seen.items():
        if name not in ends:
            continue
        low, high = ends[name]
        values = np.concatenate(parts) if parts else np.zeros(0)
        if not (np.isfinite(low) and np.isfinite(high)) or low >= high or not values.size:
            found.append(Range(name, low if np.isfinite(low) else None, high if np.isfinite(high) else None))
            continue
        counts, _ = np.histogram(values, BINS, (low, high))
        found.append(Range(name, low, high, tuple(int(n) for n in counts)))
    return tuple(found)
