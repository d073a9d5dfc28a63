"""Small models written as text, for tests: built, saved, run on the CPU EP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import numpy_helper, parser

from planner.profiles.load import load_profiles
from planner.profiles.schema import Profile
from planner.resolve.plan import TargetIdentity
from planner.resolve.target import Target

Array = np.ndarray


def graph(
    signature: str,
    body: str,
    constants: Mapping[str, object] | None = None,
    *,
    opset: int = 20,
    domains: Sequence[str] = (),
    check: bool = True,
) -> onnx.ModelProto:
    """A model from ONNX's text syntax: ``signature`` such as "(float[2,3] x) => (float[2,3] y)", and the nodes."""
    imports = ", ".join([f'"" : {opset}', *(f'"{d}" : 1' for d in domains)])
    model = parser.parse_model(f"<ir_version: 8, opset_import: [{imports}]>\ng {signature} {{\n{body}\n}}")
    for name, array in (constants or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    if check:
        onnx.checker.check_model(model)
    return model


def save(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def f32(value: object) -> Array:
    return np.asarray(value, np.float32)


def run(model: onnx.ModelProto | ir.Model | Path, feed: Mapping[str, Array], *, optimize: bool = False) -> list[Array]:
    """Outputs on onnxruntime's CPU EP, without its own graph rewriting unless ``optimize``.

    Without it Q and DQ are computed as they stand, with it they become integer kernels.
    """
    if isinstance(model, ir.Model):
        model = ir.to_proto(model)
    options = ort.SessionOptions()
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, dict(feed))
    return outputs


def random_feed(model: onnx.ModelProto, seed: int = 0) -> dict[str, Array]:
    """Seeded normal numbers for each float input; the model's input shapes must be fixed."""
    rng = np.random.default_rng(seed)
    return {
        i.name: rng.normal(0, 2, [d.dim_value for d in i.type.tensor_type.shape.dim]).astype(
            onnx.helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type)
        )
        for i in model.graph.input
    }


def sqnr(reference: Array, value: Array) -> float:
    """10 log10(sum ref^2 / sum (ref - value)^2) in dB, at most 200."""
    reference, value = reference.astype(np.float64), value.astype(np.float64)
    noise = float(np.sum((reference - value) ** 2))
    signal = float(np.sum(reference**2))
    return 200.0 if noise == 0 else min(200.0, 10 * float(np.log10(max(signal, 1e-300) / noise)))


def on_any_processor(profile: Profile | str, device: str = "cpu") -> Target:
    """A profile, or the shipped one of that name, on a device, without the traits of the processor at hand."""
    found = load_profiles().find(profile) if isinstance(profile, str) else profile
    return Target(found, TargetIdentity(found.ep, device, found.options(device)))
