"""The Python API: one function for each step of the road, the same that the commands take.

    import planner

    plan = planner.plan("model.onnx", "qnn", device="snapdragon-x-elite", inputs="calibration.npz")
    artifact = planner.quantize("model.onnx", plan, "model.qnn.onnx", inputs="calibration.npz")
    verification = planner.verify(artifact.path, "model.onnx", "qnn", inputs="calibration.npz")

Every function raises planner.errors.PlannerError (RequestError, EPError) with a message and a hint for people.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from planner.calibrate.inputs import Inputs, load_inputs
from planner.errors import RequestError
from planner.files import check_output
from planner.model.read import Model
from planner.model.write import save
from planner.pipeline import Artifact, Outcome, calibrate, requested_precision, run_target
from planner.pipeline import quantize as _apply
from planner.reporting import FORMATS, Report, write_report
from planner.reporting.matrix import Subject, make_report, open_targets, parse_precisions
from planner.reporting.write import check_directory
from planner.resolve.choose import Resolution
from planner.resolve.plan import Plan
from planner.resolve.target import Target
from planner.resolve.uncalibrated import without_unreached
from planner.verification.floor import DEFAULT_FLOOR, Floor
from planner.verification.verify import Verification
from planner.verification.verify import verify as _verify

Shapes = Mapping[str, Sequence[int]]


def planned_inputs(plan: Plan, model: Model, source: str | None = None) -> Inputs:
    """The inputs that a plan was made with, loaded again: from ``source``, or from the file or folder that the plan names.

    Raises:
        RequestError: they are not the same (their hash differs), or the plan names a function: only ``source`` may.
    """
    planned = plan.inputs or {"synthetic": True, "seed": 0}
    given = source is not None
    if source is None and not planned.get("synthetic"):
        source = str(planned.get("source"))
    method, seed = planned.get("calibration", "minmax"), planned.get("seed") or 0
    if not isinstance(method, str) or type(seed) is not int or seed < 0:
        raise RequestError("inputs of the plan: expected a method's name and a seed from 0 on", "make the plan anew")
    inputs = load_inputs(source, model, seed=seed, method=method, may_run=given)
    if plan.inputs is not None and inputs.sha256 != plan.inputs.get("sha256"):
        raise RequestError(
            "the inputs are not those that the plan was made with (their hash differs)",
            "make the plan anew with `planner plan --inputs`",
        )
    return inputs


def check(
    model: Path | str,
    ep: str,
    *,
    device: str | None = None,
    precision: str | None = None,
    shapes: Shapes | None = None,
    profiles: Sequence[Path] = (),
) -> Resolution:
    """Judge a precision by the profile, or, with none, the model as it is. Runs nothing.

    Args:
        ep: alias or full provider name. device: name from the profile; None for its default.
        precision: "auto", a shorthand such as "w8a16", or None for the model as it is.
        shapes: fixed dimensions of inputs, by name. profiles: files that add to or override the shipped ones.

    Returns:
        `legal` is True, False, or None where the profile has no evidence for a node; `violations` say why not.
    """
    target = Target.open(ep, device, profiles)
    read = target.read(Path(model), shapes, stored=precision is None)
    return target.check(read, requested_precision(precision, None, None), stored=precision is None)


def plan(
    model: Path | str,
    ep: str,
    *,
    device: str | None = None,
    precision: str = "auto",
    shapes: Shapes | None = None,
    inputs: str | None = None,
    profiles: Sequence[Path] = (),
) -> Plan:
    """Decide the precision of every node.

    Args:
        inputs: what will calibrate the plan, as for --inputs; None for synthetic data.

    Raises:
        RequestError: no legal plan; the message names the first violation.
    """
    target = Target.open(ep, device, profiles)
    read = target.read(Path(model), shapes)
    resolution = target.check(read, requested_precision(precision, None, None))
    if resolution.violations:
        first = resolution.violations[0]
        raise RequestError(
            f"{precision} is illegal on {target.ep}, {target.device}: "
            f"{first.node.op_type} {first.node.name!r}: {first.ruling.reason}",
            first.ruling.suggestion or "",
        )
    return target.plan(read, resolution, load_inputs(inputs, read))


def quantize(
    model: Path | str,
    plan: Plan,
    output: Path | str,
    *,
    inputs: str | None = None,
    overwrite: bool = False,
    profiles: Sequence[Path] = (),
) -> Artifact:
    """Apply a plan and write the model.

    Args:
        inputs: the source that the plan was made with; None for the plan's own.

    Raises:
        RequestError: the model or the inputs are not those of the plan, or the output exists.
    """
    target = Target.open(plan.target.ep, plan.target.device, profiles)
    check_output(Path(output), (Path(model),), overwrite=overwrite)
    read = target.read(Path(model), plan.shapes)
    if read.sha256 != plan.model.sha256:
        raise RequestError(f"{model} is not the model that the plan was made for (its hash differs)")
    ranges = {}
    if plan.is_quantized:
        loaded = planned_inputs(plan, read, inputs)
        ranges = calibrate(read, loaded.calibration, method=loaded.method)
        plan = without_unreached(read, target.profile, plan, ranges)
    return _apply(read, plan, ranges, Path(output))


def verify(
    candidate: Path | str,
    reference: Path | str,
    ep: str,
    *,
    device: str | None = None,
    shapes: Shapes | None = None,
    inputs: str | None = None,
    floor: Floor = DEFAULT_FLOOR,
    profiles: Sequence[Path] = (),
) -> Verification:
    """Run a candidate on the target and compare it with its float32 reference. See `Verification.kind` for what ran."""
    target = Target.open(ep, device, profiles)
    read = target.read(Path(reference), shapes)
    assert read.ir is not None
    loaded = load_inputs(inputs, read)
    with tempfile.TemporaryDirectory(prefix="planner-") as folder:
        normalized = Path(folder) / "reference.onnx"
        save(read.ir, normalized)
        return _verify(
            Path(candidate), Path(reference), target.identity, loaded.evaluation, floor=floor, normalized=normalized
        )


def target(
    model: Path | str,
    ep: str,
    output: Path | str,
    *,
    device: str | None = None,
    precision: str = "auto",
    shapes: Shapes | None = None,
    inputs: str | None = None,
    floor: Floor | None = None,
    overwrite: bool = False,
    profiles: Sequence[Path] = (),
) -> Outcome:
    """The whole job: plan, quantize, verify. `Outcome.kept` is the attempt that was written; None where none is legal."""
    target = Target.open(ep, device, profiles)
    check_output(Path(output), (Path(model),), overwrite=overwrite)
    read = target.read(Path(model), shapes)
    loaded = load_inputs(inputs, read)
    return run_target(target, read, requested_precision(precision, None, None), loaded, Path(output), floor=floor)


def report(
    models: Sequence[Path | str | Subject],
    eps: Sequence[str],
    output: Path | str | None = None,
    *,
    devices: Sequence[str] = (),
    precisions: Sequence[str] = (),
    run: bool = True,
    floor: Floor | None = None,
    formats: Sequence[str] = tuple(FORMATS),
    overwrite: bool = False,
    profiles: Sequence[Path] = (),
) -> Report:
    """The compatibility matrix of models, targets and precisions, written to the folder ``output`` if there is one.

    Args:
        models: paths, or `planner.reporting.matrix.Subject` for a model with shapes, inputs and a name of its own.
        eps: aliases or full names, or ["all"]. devices: names of the profiles, or ["all"]; none for their defaults.
        precisions: by name, "auto" among them; none for those that each profile prefers.
        run: False judges by the profiles alone. floor: what counts as faithful; None for 20 dB.
        formats: files to write: html, markdown, json, sarif, junit, svg.

    Raises:
        RequestError: anything that cannot be read. An EP that fails later makes a row with status "error".
    """
    if output is not None:
        check_directory(Path(output), formats, overwrite=overwrite)
    made = make_report(
        [model if isinstance(model, Subject) else Subject(Path(model)) for model in models],
        open_targets(eps, devices, profiles),
        parse_precisions(precisions),
        run=run,
        floor=floor,
    )
    if output is not None:
        write_report(made, Path(output), formats)
    return made
