"""Real models, normalized: the same numbers as the file gives, the user's own names, the fused operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from examples.inputs import of_example
from planner.model.read import Model, read_model

pytestmark = pytest.mark.models

# Example to the shapes it is bound to, and what normalizing must fuse or keep out.
_MODELS: dict[str, dict[str, tuple[int, ...]]] = {
    "magika": {"bytes": (1, 2048)},
    "rec": {"x": (1, 3, 48, 320)},
    "det": {"x": (1, 3, 480, 480)},
    "cls": {"x": (1, 3, 48, 192)},
    "table": {},
    "silero": {},
}


def _outputs(source: str | bytes, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    outputs: list[np.ndarray] = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"]).run(
        None, feed
    )
    return outputs


def _feed(name: str, model: ir.Model) -> dict[str, np.ndarray]:
    sample = dict(next(iter(of_example(name)())))
    for value in model.graph.inputs:
        array = sample[value.name or ""]
        assert value.shape is None or len(value.shape) == array.ndim
    return sample


def _read(name: str, path: Path) -> Model:
    return read_model(path, _MODELS[name])


@pytest.mark.parametrize("name", _MODELS)
def test_a_normalized_model_computes_what_the_file_does(name: str, example: Callable[[str], Path]) -> None:
    path = example(name)
    model = _read(name, path)
    assert model.ir is not None
    feed = _feed(name, model.ir)
    reference = _outputs(str(path), feed)
    found = _outputs(ir.to_proto(model.ir).SerializeToString(), feed)
    for a, b in zip(reference, found, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = a.astype(np.float64), b.astype(np.float64)
        noise = np.sum((a - b) ** 2)
        assert noise == 0 or 10 * np.log10(np.sum(a**2) / noise) > 90


@pytest.mark.parametrize("name", _MODELS)
def test_every_node_is_traced_to_the_users_own(name: str, example: Callable[[str], Path]) -> None:
    path = example(name)
    model = _read(name, path)
    own = set()
    for node in ir.from_proto(onnx.load(path)).graph.all_nodes():
        outputs = [o.name for o in node.outputs if o.name]
        own.add(node.name or f"{node.op_type}:{outputs[0] if outputs else 'unnamed'}")
    assert len({n.name for n in model.nodes}) == len(model.nodes)
    for node in model.nodes:
        assert set(node.origins) <= own
        if node.has_precision:
            assert node.origins, f"{node.op_type} {node.name!r} stands for none of the user's nodes"


def test_magika_is_brought_to_gelu_layer_normalization_and_softmax(example: Callable[[str], Path]) -> None:
    operators = Counter(n.op_type for n in _read("magika", example("magika")).nodes)
    assert operators["LayerNormalization"] == 2 and operators["Softmax"] == 1
    assert not {"Erf", "Sqrt", "Exp", "Pow"} & set(operators)


def test_rec_has_no_decomposed_gelu_or_normalization_left(example: Callable[[str], Path]) -> None:
    operators = Counter(n.op_type for n in _read("rec", example("rec")).nodes)
    assert not {"Erf", "Sqrt", "BatchNormalization"} & set(operators)
