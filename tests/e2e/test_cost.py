"""What calibrating and quantizing costs: memory that grows neither with the samples nor with the model's weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.cost import Cost, big, measure, resnet

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc"),
]
PLANNER = [sys.executable, "-m", "planner"]


def quantize(model: Path, inputs: Path, precision: str, method: str = "minmax", ep: str = "cpu") -> Cost:
    """Plan and quantize by command; what the second one took."""
    plan = model.with_name("plan.json")
    measure(
        [*PLANNER, "plan", str(model), "--ep", ep, "--precision", precision, "--inputs", str(inputs), "-o", str(plan),
         "--calibration", method, "--overwrite"]
    )  # fmt: skip
    output = model.with_name("planned.onnx")
    return measure([*PLANNER, "quantize", str(model), "--plan", str(plan), "--output", str(output), "--overwrite"])


@pytest.mark.parametrize("precision", ["w8a16", "w8a8", "fp16"])
def test_weights_are_never_held_whole(tmp_path: Path, precision: str) -> None:
    """A model of 200 MB: beside what importing planner takes, a fraction of it; with the pages that the system mapped, the
    file once.
    """
    model = big(0.2, tmp_path)
    weights = (tmp_path / "big.onnx.data").stat().st_size / 2**20
    assert weights > 180
    np.savez(tmp_path / "inputs.npz", x=np.random.default_rng(0).standard_normal((2, 4096), np.float32))
    bare = measure([sys.executable, "-c", "import planner.api, planner.quantization.walk, planner.runtime.client"])
    cost = quantize(model, tmp_path / "inputs.npz", precision, ep="cpu" if precision != "fp16" else "qnn")
    assert cost.peak - bare.peak < 0.8 * weights
    assert cost.resident - bare.resident < 1.5 * weights
    made = sum(f.stat().st_size for f in tmp_path.glob("planned.onnx*")) / 2**20
    assert made == pytest.approx(weights / (2 if precision == "fp16" else 4), rel=0.05)


@pytest.mark.parametrize("method", ["minmax", "entropy"])
def test_memory_does_not_grow_with_the_samples(tmp_path: Path, method: str) -> None:
    pixels, costs = 64, []
    model = tmp_path / "model.onnx"
    onnx.save(resnet(pixels), model)
    for count in (8, 96):
        inputs = tmp_path / f"{count}.npz"
        np.savez(inputs, x=np.random.default_rng(1).standard_normal((count, 3, pixels, pixels), np.float32))
        costs.append(quantize(model, inputs, "w8a8", method))
    # Memory is read now and then: on a busy machine a short peak may be missed. The activations of the samples are 9 MB each.
    assert costs[1].peak < 1.3 * costs[0].peak
