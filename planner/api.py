"""The Python API: one function for each command, which parses its options, calls it, and shows what it returns.

    import planner

    plan = planner.plan("model.onnx", "qnn", device="snapdragon-x-elite", inputs="calibration.npz")
    made = planner.quantize("model.onnx", plan, "model.qnn.onnx", inputs="calibration.npz")
    planner.verify(made.path, "model.onnx", "qnn", inputs="calibration.npz").to_json()["verification"]["fidelity"]

Every function returns a frozen value whose ``to_json()`` is the document that the command prints with ``--json``. Every
function raises planner.errors.PlannerError (RequestError, EPError) with a message and a hint for people. What a result should
be read with goes to the logger "planner": warnings, such as synthetic data, and notes (INFO).
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from planner.calibrate.source import Source, blaming_synthetic, files_read, load_samples, planned_samples
from planner.dtypes import Precision, as_precision
from planner.errors import RequestError
from planner.files import check_output, temporary_folder, unchanged, write_text
from planner.model.binding import Dims
from planner.model.read import Model
from planner.progress import Progress, silent
from planner.resolve.choose import check_model, make_plan, predicted_placement, resolve_each
from planner.resolve.plan import ModelIdentity, Plan, read_plan
from planner.resolve.target import Target, open_planned
from planner.results import (
    CheckResult,
    EstimateResult,
    NotLegalError,
    QuantizeResult,
    ReportResult,
    TargetResult,
    VerifyResult,
)

# Each function imports what it alone needs: checking a model must not pay for running one.
if TYPE_CHECKING:
    from planner.reporting import Report
    from planner.reporting.matrix import Subject, Told
    from planner.verification.floor import Floor

Shapes = Mapping[str, Sequence[int]]
_log = logging.getLogger("planner")


def check(
    model: Path | str,
    ep: str,
    *,
    device: str | None = None,
    precision: str | Precision | None = None,
    shapes: Shapes | None = None,
    profiles: Sequence[Path] = (),
    evidence: Sequence[Path] = (),
) -> CheckResult:
    """Judge a precision by the profile, or the model as it is. Runs nothing.

    Args:
        model: an ONNX file.
        ep: alias ("qnn") or full provider name.
        device: name from the profile; None for its default.
        precision: a shorthand such as "w8a16", "auto", or a `Precision`; None for the model as it is.
        shapes: fixed dimensions of inputs, by name.
        profiles: files that add to or override the shipped profiles.
        evidence: files that `planner probe --from-model` wrote: what they saw stands above the profile's rules.

    Raises:
        RequestError: what was given cannot be read, or the model is quantized already and a precision is asked for.
    """
    target = _open(ep, device, profiles, evidence).asked(as_precision(precision))
    read = _read(target, model, shapes, stored=precision is None)
    resolution = check_model(target, read, as_precision(precision), stored=precision is None)
    _tell_notes(resolution.notes)
    return CheckResult.of(read, target, resolution)


def plan(
    model: Path | str,
    ep: str,
    *,
    device: str | None = None,
    precision: str | Precision = "auto",
    shapes: Shapes | None = None,
    inputs: str | Source | None = None,
    allow_unknown: bool = False,
    profiles: Sequence[Path] = (),
    evidence: Sequence[Path] = (),
) -> Plan:
    """Decide the precision of every node.

    Args:
        model: a float32 ONNX file.
        ep: alias ("qnn") or full provider name.
        device: name from the profile; None for its default.
        precision: a shorthand such as "w8a16", "auto", or a `Precision`.
        shapes: fixed dimensions of inputs, by name.
        inputs: what calibrates and judges: an .npz file, a folder of such files, or "package.module:function"; None for seeded
            synthetic data. A `Source` also gives the seed and how ranges are taken.
        allow_unknown: plan even where the profile has no evidence for a node.
        profiles: files that add to or override the shipped profiles.
        evidence: files that `planner probe --from-model` wrote: what they saw stands above the profile's rules.

    Raises:
        NotLegalError: there is no legal plan; it holds the verdict.
        RequestError: what was given cannot be read.
    """
    asked = as_precision(precision)
    target = _open(ep, device, profiles, evidence).asked(asked)
    read = _read(target, model, shapes, inputs)
    checked = CheckResult.of(read, target, check_model(target, read, asked))
    if checked.legal is False or (checked.legal is None and not allow_unknown):
        raise NotLegalError(checked)
    made = make_plan(target, read, checked.resolution)
    return make_plan(target, read, checked.resolution, load_samples(inputs, read)) if made.is_quantized else made


def quantize(
    model: Path | str,
    plan: Plan | Path | str,
    output: Path | str | None = None,
    *,
    inputs: str | None = None,
    float16_io: bool = False,
    overwrite: bool = False,
    profiles: Sequence[Path] = (),
    evidence: Sequence[Path] = (),
    progress: Progress = silent,
) -> QuantizeResult:
    """Apply a plan and write the model. The same plan, model and inputs give the same bytes.

    Args:
        model: the one that the plan was made for.
        plan: a plan, or the file that holds one.
        output: where to write; None for beside the model, named after precision and EP.
        inputs: where the plan's inputs lie now; None for where they lay when it was made.
        float16_io: let the graph's inputs and outputs be float16 where the plan is.
        overwrite: replace an existing output.
        profiles: files that add to or override the shipped profiles.
        evidence: where the plan's evidence lies now; none for where it lay when it was made.
        progress: told what is being done, how many steps are done, of how many.

    Raises:
        RequestError: model, inputs or evidence are not the plan's, or the output exists. EPError: calibrating failed.
    """
    from planner.calibrate.run import calibrate
    from planner.quantization.write import default_output, learned_rounding, write_quantized
    from planner.resolve.revise import without_uncalibrated

    source, plan_file = Path(model), None if isinstance(plan, Plan) else Path(plan)
    made = plan if isinstance(plan, Plan) else read_plan(Path(plan))
    target = open_planned(made, profiles, evidence)
    written = Path(output) if output is not None else default_output(source, made.precision, target.identity)
    stood = evidence or [Path(entry.path) for entry in made.evidence]
    given = (source, *filter(None, [plan_file]), *files_read(inputs or made.inputs, profiles, stood))
    check_output(written, given, overwrite=overwrite)
    read = _read(target, source, made.shapes)
    if read.sha256 != made.model.sha256:
        raise RequestError(
            f"{model} is not the model that {plan_file or 'the plan'} was made for (its hash differs)",
            "make the plan anew with `planner plan`",
        )
    ranges, rounding = {}, None
    with temporary_folder() as folder:
        if made.is_quantized:
            loaded = planned_samples(made.inputs, read, inputs)
            with blaming_synthetic(loaded):
                ranges = calibrate(read, loaded.calibration, progress, loaded.method)
            made = without_uncalibrated(target, read, made, ranges)
            rounding = learned_rounding(made, read, loaded.calibration, folder, progress)
        artifact = write_quantized(read, made, ranges, written, rounding, float16_io=float16_io, overwrite=overwrite)
    return QuantizeResult(ModelIdentity.of(read), made.target, made, artifact)


def verify(
    candidate: Path | str,
    reference: Path | str,
    ep: str,
    *,
    device: str | None = None,
    shapes: Shapes | None = None,
    inputs: str | Source | None = None,
    floor: Floor | None = None,
    allow_fallback: bool = False,
    bisect: bool = False,
    estimated: bool = True,
    profiles: Sequence[Path] = (),
    evidence: Sequence[Path] = (),
    progress: Progress = silent,
) -> VerifyResult:
    """Run a candidate on the target and compare it with its float32 reference, on every sample.

    `Verification.kind` says what it ran on.

    Args:
        candidate: the model to judge.
        reference: the float32 model that it was made from.
        ep: alias ("qnn") or full provider name.
        device: name from the profile; None for its default.
        shapes: fixed dimensions of inputs, by name.
        inputs: what calibrates and judges: an .npz file, a folder of such files, or "package.module:function"; None for seeded
            synthetic data. A `Source` also gives the seed and how ranges are taken.
        floor: what the candidate must reach; None for 20 dB.
        allow_fallback: nodes that are not on the EP do not fail it.
        bisect: find the inner tensors at which the EP's run leaves the reference, even if it passes.
        estimated: also estimate what a run costs, by the schedule of the chip's compiler.
        profiles: files that add to or override the shipped profiles.
        evidence: files that `planner probe --from-model` wrote: what they saw stands above the profile's rules.
        progress: told what is being done, how many steps are done, of how many.

    Raises:
        RequestError: what was given cannot be read, or does not fit together.
        EPError: the EP or its worker failed.
    """
    from planner.estimation.estimate import AS_IT_IS
    from planner.model.write import save
    from planner.verification.feed import shapes_of_candidate, warn_of_quantized
    from planner.verification.floor import DEFAULT_FLOOR
    from planner.verification.verify import Criteria
    from planner.verification.verify import verify as run_verification

    target = _open(ep, device, profiles, evidence)
    predicted = predicted_placement(target, Path(candidate))
    read = _read(target, reference, shapes_of_candidate(Path(candidate), Path(reference), shapes), inputs)
    warn_of_quantized(read)
    loaded = load_samples(inputs, read, calibrates=False)
    # Synthetic samples held apart suffice; a user's own are all looked at.
    every = loaded.held_apart and not loaded.synthetic
    samples = (*loaded.calibration, *loaded.evaluation) if every else loaded.evaluation
    assert read.ir is not None
    with temporary_folder() as folder, unchanged(read.sources), blaming_synthetic(loaded):
        normalized = Path(folder) / "reference.onnx"
        save(read.ir, normalized)
        verification = run_verification(
            Path(candidate),
            Path(reference),
            target.identity,
            samples,
            Criteria(floor or DEFAULT_FLOOR, allow_fallback, predicted),
            normalized=normalized,
            bisect=True if bisect else None,
            estimate_as=AS_IT_IS if estimated else None,
            progress=lambda done, total: progress(f"running on {target.ep}", done, total),
        )
    return VerifyResult(ModelIdentity.of(read), target.identity, verification, loaded)


def target(
    model: Path | str,
    ep: str,
    output: Path | str | None = None,
    *,
    device: str | None = None,
    precision: str | Precision = "auto",
    shapes: Shapes | None = None,
    inputs: str | Source | None = None,
    floor: Floor | None = None,
    allow_unknown: bool = False,
    allow_fallback: bool = False,
    float16_io: bool = False,
    time_budget: float | None = None,
    compiled: bool = False,
    estimated: bool = True,
    report_to: Path | str | None = None,
    overwrite: bool = False,
    profiles: Sequence[Path] = (),
    evidence: Sequence[Path] = (),
    progress: Progress = silent,
) -> TargetResult:
    """The whole job: plan, quantize, verify.

    Args:
        model: a float32 ONNX file.
        ep: alias ("qnn") or full provider name.
        output: where to write; None for beside the model, named after precision and EP.
        device: name from the profile; None for its default.
        precision: a shorthand such as "w8a16", "auto", or a `Precision`.
        shapes: fixed dimensions of inputs, by name.
        inputs: what calibrates and judges: an .npz file, a folder of such files, or "package.module:function"; None for seeded
            synthetic data. A `Source` also gives the seed and how ranges are taken.
        floor: what must be reached: the cheapest legal plan that does is searched for. None for the first of the profile's
            precisions with 20 dB.
        allow_unknown: go on where the profile has no evidence for a node: the EP itself decides.
        allow_fallback: let nodes run on the CPU EP where the target does not take them.
        float16_io: let the graph's inputs and outputs be float16 where the plan is.
        time_budget: seconds that planning and judging may take, about: a search stops in time, and its best plan is judged.
        compiled: also write the model compiled ahead of time for the chip, as OUTPUT_ctx.onnx.
        estimated: also estimate what a run costs, by the schedule of the chip's compiler, and compare plans by that.
        report_to: a folder for a report of what was tried, in all formats.
        overwrite: replace existing outputs.
        profiles: files that add to or override the shipped profiles.
        evidence: files that `planner probe --from-model` wrote: what they saw stands above the profile's rules.
        progress: told what is being done, how many steps are done, of how many.

    Returns:
        `kept` is None where nothing was allowed to run: `check` says why.

    Raises:
        RequestError: what was given cannot be read, or an output exists.
        EPError: the EP or its worker failed.
    """
    from planner.quantization.write import default_output
    from planner.runtime.client import prepare_comparison
    from planner.runtime.compile import require_compiler, try_compile
    from planner.search.run import select
    from planner.search.trials import Demands

    asked, source = as_precision(precision), Path(model)
    opened = _open(ep, device, profiles, evidence).asked(asked)
    named = "auto" if asked is None else asked.name
    written = Path(output) if output is not None else default_output(source, named, opened.identity)
    given = (source, *files_read(inputs, profiles, evidence))
    check_output(written, given, overwrite=overwrite)
    context = written.with_name(f"{written.stem}_ctx.onnx")
    if report_to is not None:
        from planner.reporting import FIGURES, FORMATS, check_directory, write_report
        from planner.reporting.single import target_report

        check_directory(Path(report_to), (*FORMATS, FIGURES), "--report-dir", (written, context), overwrite=overwrite)
    if compiled:
        require_compiler(opened.ep)
        check_output(context, given, overwrite=overwrite)
    prepare_comparison(opened.ep)
    read = _read(opened, source, shapes, inputs)
    resolutions = resolve_each(opened, read, asked)
    first = next(resolutions)
    result = TargetResult(CheckResult.of(read, opened, first))
    if first.legal or (first.legal is None and allow_unknown) or (first.legal is False and allow_fallback):
        loaded = load_samples(inputs, read, calibrates=asked is None or asked.flows is None)
        with blaming_synthetic(loaded):
            selection = select(
                opened, read, itertools.chain([first], resolutions), loaded, written,
                Demands(floor, allow_fallback, float16_io, estimated, time_budget, keeps=True),
                auto=asked is None, overwrite=overwrite, progress=progress,
            )  # fmt: skip
        result = TargetResult(result.check, selection, loaded)
        if compiled and selection.kept.passed:
            compiled_model, problem = try_compile(
                written, context, opened.ep, opened.options, loaded.evaluation[0], overwrite=overwrite
            )
            result = replace(result, compiled=compiled_model, compile_error=problem)
    if report_to is not None:
        made = target_report(opened, read, asked, first, result.selection, result.inputs)
        result = replace(result, report=tuple(map(str, write_report(made, Path(report_to), (*FORMATS, FIGURES)))))
    return result


def report(
    models: Sequence[Path | str | Subject],
    eps: Sequence[str],
    output: Path | str | None = None,
    *,
    devices: Sequence[str] = (),
    precisions: Sequence[str | Precision] = (),
    run: bool = True,
    floor: Floor | None = None,
    allow_unknown: bool = False,
    seed: int = 0,
    estimated: bool = True,
    gate: Sequence[str] = (),
    baseline: Report | Path | str | None = None,
    formats: Sequence[str] | None = None,
    overwrite: bool = False,
    profiles: Sequence[Path] = (),
    evidence: Sequence[Path] = (),
    told: Told | None = None,
) -> ReportResult:
    """The compatibility matrix of models, targets and precisions, written to the folder ``output`` if there is one.

    Args:
        models: paths, or `planner.reporting.matrix.Subject` for a model with shapes, inputs and a name of its own.
        eps: aliases or full names, or ["all"].
        output: folder of the report's files; None for none.
        devices: names of the profiles, or ["all"]; none for their defaults.
        precisions: by name, "auto" among them; none for those that each profile prefers.
        run: False judges by the profiles alone.
        floor: what counts as faithful; None for 20 dB.
        allow_unknown: run what the profile has no evidence for, and let the EP decide.
        seed: of synthetic data.
        estimated: also estimate what a run costs, by the schedule of the chip's compiler.
        gate: what more a release demands: no-fallback, floor=DB, max-size=BYTES, max-latency=MS (estimated), real-run.
        baseline: an earlier report: only what got worse since fails.
        formats: files to write; None for all but the figures: html, markdown, json, sarif, junit, svg.
        overwrite: replace the files of an earlier report.
        profiles: files that add to or override the shipped profiles.
        evidence: files that `planner probe --from-model` wrote: what they saw stands above the profile's rules.
        told: called with every finished row, how many are done, of how many.

    Raises:
        RequestError: anything that cannot be read. An EP that fails later makes a row with status "error".
    """
    from planner.reporting import FORMATS, Report, check_directory, compare, parse_gate, read_report, write_report
    from planner.reporting.gate import failing
    from planner.reporting.matrix import Subject, make_report, open_targets

    formats = tuple(FORMATS) if formats is None else formats
    demanded = parse_gate(gate)
    before = baseline if baseline is None or isinstance(baseline, Report) else read_report(baseline)
    if output is not None:
        check_directory(Path(output), formats, overwrite=overwrite)
    targets = open_targets(eps, devices, profiles, evidence)
    _tell_notes(note for opened in targets for note in opened.profile.notes)
    made = make_report(
        [model if isinstance(model, Subject) else Subject(Path(model)) for model in models],
        targets,
        [as_precision(name) for name in dict.fromkeys(precisions)],
        run=run,
        floor=floor,
        allow_unknown=allow_unknown,
        seed=seed,
        histograms=output is not None and "html" in formats,
        estimated=estimated,
        told=told,
    )
    if any(row.inputs is not None and row.inputs.synthetic for row in made.rows):
        _log.warning(
            "judged on synthetic data: the result says nothing about real inputs\n"
            "  give real ones with --inputs, or model by model in a YAML file (--models)"
        )
    difference = None if before is None else compare(before, made)
    files = [] if output is None else [*write_report(made, Path(output), formats)]
    if output is not None and difference is not None and "markdown" in formats:
        files.append(Path(output) / "baseline.md")
        write_text(files[-1], difference.to_markdown())
    failures = failing(made, demanded, before, allow_unknown=allow_unknown)
    return ReportResult(made, tuple(map(str, files)), failures, difference)


def estimate(
    model: Path | str,
    ep: str,
    *,
    device: str | None = None,
    precisions: Sequence[str | Precision] = (),
    shapes: Shapes | None = None,
    profiles: Sequence[Path] = (),
    evidence: Sequence[Path] = (),
    progress: Progress = silent,
) -> EstimateResult:
    """What a model costs on a chip, by the schedule of the chip's compiler. Runs nothing; estimated, not measured.

    Args:
        model: an ONNX file; one that is quantized already is estimated as it is.
        ep: alias ("qnn") or full provider name, of an EP whose compiler writes its schedule.
        device: name from the profile, or "all"; None for its default.
        precisions: shorthands such as "w8a16", or `Precision`; none for the model as it is.
        shapes: fixed dimensions of inputs, by name.
        profiles: files that add to or override the shipped profiles.
        evidence: files that `planner probe --from-model` wrote: what they saw stands above the profile's rules.
        progress: told what is being done, how many steps are done, of how many.

    Raises:
        RequestError: what was given cannot be read, or the EP's compiler writes no schedule.
        EPError: the EP cannot run here, or its compiler's text is of an unknown form.
    """
    from planner.estimation.run import estimates, questions_of
    from planner.reporting.matrix import open_targets
    from planner.runtime.registry import launcher

    asked: list[Precision | None] = [*map(as_precision, dict.fromkeys(precisions))] or [None]
    targets = open_targets([ep], [] if device is None else [device], profiles, evidence)
    if device == "all":
        targets = tuple(opened for opened in targets if not launcher(opened.ep).lacks(opened.options))
    questions = questions_of(Path(model), shapes, targets, asked)
    _tell_notes((*targets[0].profile.notes, *questions[0].model.notes))
    rows = tuple(estimates(targets[0].ep, questions, progress))
    return EstimateResult(ModelIdentity.of(questions[0].model), targets[0].ep, rows)


# -- what they share ----------------------------------------------------------------------------------------------------


def _open(ep: str, device: str | None, profiles: Sequence[Path], evidence: Sequence[Path]) -> Target:
    opened = Target.open(ep, device, profiles, evidence)
    _tell_notes(opened.profile.notes)
    return opened


def _read(
    target: Target, path: Path | str, shapes: Shapes | None, inputs: str | Source | None = None, *, stored: bool = False
) -> Model:
    def seen(opened: Mapping[str, Dims]) -> Mapping[str, Dims]:
        from planner.calibrate.peek import sample_shapes

        return sample_shapes(inputs.path if isinstance(inputs, Source) else inputs, opened)

    read = target.read(Path(path), shapes, stored=stored, seen=seen)
    _tell_notes(read.notes)
    return read


def _tell_notes(notes: Iterable[str]) -> None:
    for note in dict.fromkeys(notes):
        _log.info("%s", note)
