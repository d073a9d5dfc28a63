"""One other tool's quantization of a model, in an environment of its own; benchmarks/peers.py calls it.

    python peer_tools.py TOOL MODEL SAMPLES OUTPUT FLOOR

SAMPLES is an .npz of one array for each input, samples along a new leading axis. Imports nothing of planner. Each tool is
given what its own documentation tells for an NPU of Qualcomm's, and no more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

Sample = Mapping[str, "np.ndarray[Any, Any]"]
# Beyond this a difference from float32 counts for nothing: a metric must be finite where the outputs are equal.
_MOST_DB = 100.0


def _decibels(outputs: Sequence[Sequence[Any]], references: Sequence[Sequence[Any]]) -> float:
    """Of the worst output, over all samples."""
    found = []
    for got, wanted in zip(zip(*outputs, strict=True), zip(*references, strict=True), strict=True):
        pairs = [(np.asarray(g, np.float64), np.asarray(w, np.float64)) for g, w in zip(got, wanted, strict=True)]
        signal, noise = sum(float((w**2).sum()) for _, w in pairs), sum(float(((g - w) ** 2).sum()) for g, w in pairs)
        found.append(10 * np.log10(max(signal, 1e-30) / max(noise, 1e-30)))
    return float(min(*found, _MOST_DB))


def nncf_quantize(model: onnx.ModelProto, samples: Sequence[Sample], floor: float) -> onnx.ModelProto:
    """NNCF's post-training quantization at its defaults: uint8 activations, int8 weights."""
    import nncf

    return nncf.quantize(model, nncf.Dataset(list(samples)), subset_size=len(samples))


def nncf_accuracy(model: onnx.ModelProto, samples: Sequence[Sample], floor: float) -> onnx.ModelProto:
    """NNCF's quantize_with_accuracy_control: operators go back to float until the SQNR drops no further than to the floor."""
    import nncf
    import onnxruntime as ort

    references = _float32(model, samples)

    def validate(made: onnx.ModelProto, data: Any) -> tuple[float, list[float]]:
        session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
        given = list(data.get_data() if hasattr(data, "get_data") else data)
        known = {id(sample): reference for sample, reference in zip(samples, references, strict=True)}
        wanted = [known[id(sample)] for sample in given]
        outputs = [session.run(None, dict(sample)) for sample in given]
        each = [_decibels([got], [want]) for got, want in zip(outputs, wanted, strict=True)]
        return _decibels(outputs, wanted), each

    data = nncf.Dataset(list(samples))
    return nncf.quantize_with_accuracy_control(
        model,
        data,
        data,
        validate,
        max_drop=_MOST_DB - floor,
        drop_type=nncf.DropType.ABSOLUTE,
        subset_size=len(samples),
    )


def _float32(model: onnx.ModelProto, samples: Sequence[Sample]) -> list[Any]:
    """The outputs of the model as it is."""
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run(None, dict(sample)) for sample in samples]


def _simulated(model: onnx.ModelProto, activation: str) -> Any:
    from aimet_onnx import QuantizationSimModel

    return QuantizationSimModel(model, param_type="int8", activation_type=activation, config_file="htp_v73")


def aimet(
    model: onnx.ModelProto, samples: Sequence[Sample], activation: str, *, equalize: bool = False
) -> onnx.ModelProto:
    """AIMET-ONNX at the HTP's own configuration."""
    if equalize:
        from aimet_onnx.cross_layer_equalization import equalize_model

        equalize_model(model)
    sim = _simulated(model, activation)
    sim.compute_encodings([dict(sample) for sample in samples])
    return sim.to_onnx_qdq()


def aimet_amp(model: onnx.ModelProto, samples: Sequence[Sample], floor: float) -> onnx.ModelProto:
    """AIMET-ONNX's mixed precision: w8a8, w8a16 and w16a16, as few bits as the floor on the calibration samples bears."""
    import tempfile

    from aimet_onnx.common.defs import CallbackFunc, QuantizationDataType
    from aimet_onnx.mixed_precision import AMPSearchAlgo, choose_mixed_precision

    references = _float32(model, samples)
    sim = _simulated(model, "int16")

    def forward(session: Any, *_: Any) -> None:
        for sample in samples:
            session.run(None, dict(sample))

    def evaluate(session: Any, *_: Any) -> float:
        return _decibels([session.run(None, dict(sample)) for sample in samples], references)

    sim.compute_encodings([dict(sample) for sample in samples])
    kind = QuantizationDataType.int
    candidates = [((16, kind), (16, kind)), ((16, kind), (8, kind)), ((8, kind), (8, kind))]
    with tempfile.TemporaryDirectory() as folder:
        choose_mixed_precision(
            sim,
            candidates,
            CallbackFunc(evaluate, None),
            CallbackFunc(evaluate, None),
            allowed_accuracy_drop=max(_MOST_DB - floor, 0.0),
            results_dir=folder,
            clean_start=True,
            forward_pass_callback=CallbackFunc(forward, None),
            amp_search_algo=AMPSearchAlgo.Binary,
        )
    return sim.to_onnx_qdq()


TOOLS: dict[str, Callable[[onnx.ModelProto, Sequence[Sample], float], onnx.ModelProto]] = {
    "nncf": nncf_quantize,
    "nncf-accuracy": nncf_accuracy,
    "aimet-w8a8": lambda model, samples, floor: aimet(model, samples, "int8"),
    "aimet-w8a8-cle": lambda model, samples, floor: aimet(model, samples, "int8", equalize=True),
    "aimet-w8a16": lambda model, samples, floor: aimet(model, samples, "int16"),
    "aimet-amp": aimet_amp,
}


def main() -> None:
    tool, model, samples, output, floor = sys.argv[1:]
    with np.load(samples) as data:
        arrays = {name: data[name] for name in data.files}
    count = len(next(iter(arrays.values())))
    given = [{name: array[i] for name, array in arrays.items()} for i in range(count)]
    onnx.save(TOOLS[tool](onnx.load(model), given, float(floor)), output)


if __name__ == "__main__":
    main()
