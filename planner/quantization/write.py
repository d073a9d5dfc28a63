"""From a plan to a file: the plan is applied to its model, and what comes out is written whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.calibrate.inputs import Sample
from planner.calibrate.moments import collect_moments
from planner.calibrate.ranges import Range
from planner.files import atomic
from planner.model.read import Model
from planner.model.write import save
from planner.progress import Progress, silent
from planner.quantization.rounding import Rounding
from planner.quantization.walk import LEARNS, apply_plan
from planner.resolve.plan import Plan, TargetIdentity
from planner.resolve.revise import notes_on_revisions
from planner.runtime.loads import prove_loads


@dataclass(frozen=True)
class Artifact:
    """A written model.

    Attributes:
        path: the ONNX file.
        sha256: of the file and its external data.
        bytes: size of both.
        notes: what whoever uses it should know.
    """

    path: str
    sha256: str
    bytes: int
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path, notes: tuple[str, ...] = (), files: Sequence[Path] = ()) -> Artifact:
        """The model in a file, and in the files with its external data."""
        digest, size = hashlib.sha256(), 0
        for file in files or with_data(path):
            size += file.stat().st_size
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return cls(str(path), digest.hexdigest(), size, notes)


def with_data(path: Path) -> list[Path]:
    """The model's file, and that of its external data where there is one."""
    return [file for file in (path, path.with_name(f"{path.name}.data")) if file.exists()]


def learned_rounding(
    plan: Plan, model: Model, calibration: Sequence[Sample], folder: Path, progress: Progress = silent
) -> Rounding | None:
    """How the plan's weights are rounded, where it wants that learned.

    Args:
        plan: that is applied next.
        model: that it was made for.
        calibration: samples, of which some teach.
        folder: for what is learned from, as long as the result is used.
        progress: told of each run of the model.
    """
    if not (plan.inputs or {}).get(LEARNS):
        return None
    return Rounding(collect_moments(model, calibration, folder, progress))


def write_quantized(
    model: Model,
    plan: Plan,
    ranges: Mapping[str, Range],
    output: Path,
    rounding: Rounding | None = None,
    *,
    float16_io: bool = False,
    proven: bool = True,
    overwrite: bool = True,
) -> Artifact:
    """Apply the plan and write the model to ``output``.

    The same model, plan and inputs give the same bytes.

    Args:
        model: the one that the plan was made for, in the form in which its target sees it.
        plan: what each node is to be.
        ranges: what calibration saw, by tensor; empty where the plan quantizes no activation.
        rounding: how its weights are rounded, where the plan wants that learned.
        output: an ONNX file; large weights lie beside it in ``output``.data.
        float16_io: let the graph's inputs and outputs be float16 where the plan is.
        proven: open what was written before it gets its name; false where whoever calls runs it anyway.
        overwrite: whether what lies at ``output`` in the end may be replaced.

    Raises:
        RequestError: the model's file has changed meanwhile.
        EPError: what was written does not load; nothing is left of it.
    """
    applied = apply_plan(model, plan, ranges, rounding, float16_io=float16_io)
    with atomic(output, overwrite=overwrite) as temporary:
        save(applied.model, temporary)
        model.check_unchanged()
        if proven:
            prove_loads(temporary, Path(model.path))
        # Data of an earlier model may still lie beside the output.
        files = [output.with_name(file.name) for file in with_data(temporary)]
    notes = (*applied.notes, *notes_on_revisions(plan), *_notes_on_nan(ranges))
    if rounding is not None:
        notes = (*notes, "how its weights of 8 bits and fewer are rounded was learned on calibration samples")
    return Artifact.of(output, notes, files)


def _notes_on_nan(ranges: Mapping[str, Range]) -> list[str]:
    held = [name for name, seen in ranges.items() if seen.nan]
    if not held:
        return []
    return [
        f"{len(held)} tensors held NaN while calibrating, first {held[0]!r}; no output shows it, and ranges leave it out"
    ]


def default_output(model: Path, precision: str, target: TargetIdentity) -> Path:
    """`model.onnx` becomes `model.w8a16.qnn.onnx` beside it."""
    ep = target.ep.replace("ExecutionProvider", "").lower()
    return model.with_name(f"{model.stem}.{precision.replace('/', '-')}.{ep}.onnx")
