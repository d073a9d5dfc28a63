"""A written model gets its name only if it loads; of a large one, a twin is opened that maps its weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from planner.errors import EPError
from planner.runtime import loads
from planner.runtime.loads import prove_loads


def model(op: str = "MatMul") -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("most_held", [0, 1 << 25], ids=["large", "small"])
def test_what_loads_passes_and_nothing_is_left_beside_it(
    most_held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loads, "_MOST_HELD", most_held)
    written = tmp_path / "written.onnx"
    onnx.save(model(), written)
    prove_loads(written, written)
    assert [p.name for p in tmp_path.iterdir()] == ["written.onnx"]


@pytest.mark.parametrize("most_held", [0, 1 << 25], ids=["large", "small"])
def test_what_does_not_load_is_refused(most_held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file whose weight is shorter than its shape says, as a fault of the writer would leave it."""
    monkeypatch.setattr(loads, "_MOST_HELD", most_held)
    source, written = tmp_path / "source.onnx", tmp_path / "written.onnx"
    onnx.save(model(), source)
    broken = model()
    broken.graph.initializer[0].raw_data = broken.graph.initializer[0].raw_data[:-4]
    onnx.save(broken, written)
    with pytest.raises(EPError, match="does not load"):
        prove_loads(written, source)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source.onnx", "written.onnx"]
