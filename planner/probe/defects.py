"""Asking an EP again whether it still gets wrong what the profile says it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from planner.calibrate.run import calibrate
from planner.dtypes import parse_precision
from planner.errors import RequestError
from planner.files import temporary_folder
from planner.model.write import save
from planner.profiles.conditions import names_of
from planner.profiles.schema import Defect
from planner.quantization.walk import apply_plan
from planner.resolve.choose import make_plan, resolve
from planner.resolve.target import Target
from planner.runtime.client import SessionFailed, Worker, WorkerCrashed, WorkerTimeout
from planner.runtime.registry import CPU
from planner.verification.feed import AS_WRITTEN, as_written, load
from planner.verification.fidelity import Comparison

_OPSET, _SEED, _SAMPLES = 21, 0, 3
# A file that the EP computes with less than this, compared with the CPU EP as written, is computed wrongly.
_WRONG_DB = 20.0


@dataclass(frozen=True)
class Asked:
    """A known defect, asked again.

    Attributes:
        id: of the defect. shows: whether the EP still has it.
        observed: what was seen.
    """

    id: str
    shows: bool
    observed: str


def ask_defects(target: Target, operators: Sequence[str] = ()) -> tuple[Asked, ...]:
    """Ask the EP about each known defect, or about those of some operators.

    Args:
        target: the EP on a device.
        operators: by name; none for all.

    Raises:
        EPError: the EP cannot be started here.
        RequestError: the model of a defect is none.
    """
    wanted = {name.lower() for name in operators}
    return tuple(
        _ask(target, defect)
        for defect in target.profile.defects(target.device)
        if not wanted or wanted & {n.lower() for node in (defect.first, defect.then) if node for n in names_of(node.op)}
    )


def _ask(target: Target, defect: Defect) -> Asked:
    # The plan that it warns of, not the one around it.
    unaware = target.unaware()
    with temporary_folder() as folder:
        source, written = Path(folder) / "defect.onnx", Path(folder) / "written.onnx"
        proto = build_defect(defect)
        source.write_bytes(proto.SerializeToString())
        samples = _samples(proto)
        if any(node.op_type == "QuantizeLinear" for node in proto.graph.node):
            return _compare(target, defect, source, samples)  # quantized as no plan would write it
        model = unaware.read(source, stored=True)
        plan = make_plan(unaware, model, resolve(unaware, model, parse_precision(defect.precision)))
        ranges = calibrate(model, samples) if plan.is_quantized else {}
        save(apply_plan(model, plan, ranges).model, written)
        return _compare(target, defect, written, samples)


def _compare(target: Target, defect: Defect, written: Path, samples: Sequence[Mapping[str, np.ndarray]]) -> Asked:
    """Run the file on the EP and, as it is written, on the CPU EP."""
    with Worker(target.ep) as worker, Worker(CPU) as reference:
        try:
            worker.open(written, target.options)
            outputs = [worker.run(sample).outputs for sample in samples]
        except (WorkerCrashed, WorkerTimeout) as error:
            return Asked(defect.id, True, str(error).partition("; it last said")[0])
        except SessionFailed as error:
            if defect.aborts:
                return Asked(defect.id, True, f"no session is built: {error}")
            return Asked(defect.id, False, f"no longer taken at all: {error}")
        comparison = Comparison()
        with as_written(written, load(written)) as plain:
            reference.open(plain, {}, session_config=AS_WRITTEN)
            for sample, got in zip(samples, outputs, strict=True):
                comparison.add(reference.run(sample).outputs, got)
    least = min(entry.sqnr_db for entry in comparison.results())
    return Asked(defect.id, least < _WRONG_DB, f"{least:.1f} dB from the CPU EP on the same file")


def build_defect(defect: Defect) -> onnx.ModelProto:
    """The model of a defect: its first input flows, the others are constants of seeded normal numbers.

    Raises:
        RequestError: its text is no model.
    """
    try:
        opset = min(_OPSET, defect.first.when.max_opset or _OPSET)
        proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>\ng {defect.model}')
    except onnx.parser.ParseError as error:
        raise RequestError(f"the model of defect {defect.id!r} cannot be read: {error}") from None
    rng = np.random.default_rng(_SEED)
    for value in list(proto.graph.input)[1:]:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = rng.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
        proto.graph.input.remove(value)
    return proto


def _samples(proto: onnx.ModelProto) -> list[dict[str, np.ndarray]]:
    value = proto.graph.input[0]
    shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    rng = np.random.default_rng(_SEED + 1)
    if dtype == np.float32:
        return [{value.name: rng.normal(size=shape).astype(np.float32)} for _ in range(_SAMPLES)]
    return [{value.name: rng.integers(0, 128, size=shape).astype(dtype)} for _ in range(_SAMPLES)]
