"""Estimating a model on the chips of an EP: it is quantized where asked, compiled for each chip, and its schedule priced."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner import codec
from planner.calibrate.inputs import load_inputs
from planner.calibrate.run import calibrate
from planner.dtypes import Precision
from planner.errors import EPError
from planner.estimate.compile import Compiled, Compiler
from planner.estimate.latency import Interval, LatencyModel, Rates, latency_model
from planner.estimate.nodes import Finding, NodeCost, findings, node_costs
from planner.model.read import Model
from planner.model.write import save
from planner.progress import Progress, silent
from planner.quantization.write import with_data, write_quantized
from planner.resolve.choose import check_model, make_plan
from planner.resolve.revise import without_uncalibrated
from planner.resolve.target import Target

AS_IT_IS = "as it is"


@dataclass(frozen=True)
class Row:
    """What a model costs on a chip at a precision, by the schedule of the chip's compiler. Estimated, never measured.

    Attributes:
        device: name from the profile.
        precision: what was asked for, or `AS_IT_IS`.
        ms: None where the chip was never measured, or there is no schedule.
        dram_bytes: moved from and to DRAM in a run; None where there is no schedule.
        vtcm_bytes: moved from and to VTCM.
        spilled_bytes: of the former, tensors that did not fit VTCM.
        operators: scheduled. untraced: of those, the ones that no node of the model is named after.
        bytes: size of the model file.
        elsewhere: operators that the EP left to another one: not in the estimate.
        evidence: where the numbers come from, and how far they may be off; or why there are none.
        nodes: cost by node, the largest first. findings: what would make it faster.
    """

    device: str
    precision: str
    ms: Interval | None
    dram_bytes: int | None
    vtcm_bytes: int | None
    spilled_bytes: int | None
    operators: int | None
    untraced: int | None
    bytes: int | None
    elsewhere: tuple[str, ...]
    evidence: str
    nodes: tuple[NodeCost, ...] = ()
    findings: tuple[Finding, ...] = ()

    def to_json(self, *, by_node: bool = True) -> dict[str, Any]:
        """A row of `planner estimate --json`."""
        document = codec.to_json(self)
        if not by_node:
            document.pop("nodes")
        return document

    @classmethod
    def without(cls, device: str, precision: str, reason: str) -> Row:
        """A row that says why there is no estimate."""
        return cls(device, precision, None, None, None, None, None, None, None, (), reason)


@dataclass(frozen=True)
class _Form:
    """A file to compile, and the names of its nodes."""

    path: Path
    bytes: int
    nodes: frozenset[str]


def estimate(
    targets: Sequence[Target],
    models: Sequence[Model],
    precisions: Sequence[Precision | None],
    progress: Progress = silent,
) -> Iterator[Row]:
    """A row for each target and precision.

    Args:
        targets: of one EP.
        models: the model as each of the targets reads it.
        precisions: None for the model as it is.
        progress: told of each row.

    Raises:
        EPError: the EP cannot run here, or its compiler's text is of an unknown form.
    """
    from planner.runtime.client import EPMissing, SessionFailed

    ep, done, total = targets[0].ep, 0, len(targets) * len(precisions)
    rates = latency_model(ep)
    with tempfile.TemporaryDirectory(prefix="planner-") as folder, Compiler(ep) as compiler:
        forms = _Forms(Path(folder), progress)
        for target, model in zip(targets, models, strict=True):
            for precision in precisions:
                progress("estimating", done, total)
                done += 1
                name = AS_IT_IS if precision is None else precision.name
                form = forms.of(target, model, precision)
                if isinstance(form, str):
                    yield Row.without(target.identity.device, name, form)
                    continue
                try:
                    compiled = compiler.compile(form.path, target.identity.options)
                except EPMissing:
                    raise
                except (SessionFailed, EPError) as error:
                    yield Row.without(target.identity.device, name, f"no schedule: {error}")
                    continue
                device, options = target.identity.device, target.identity.options
                yield row(device, options, name, compiled, form.nodes, form.bytes, rates)


def row(
    device: str,
    options: Mapping[str, str],
    precision: str,
    compiled: Compiled,
    nodes: frozenset[str],
    size: int,
    model: LatencyModel | None,
) -> Row:
    """Price a compiled schedule.

    Args:
        device: name from the profile.
        options: its provider options; they name the chip.
        precision: for the row.
        compiled: what the compiler made.
        nodes: names of the model's nodes.
        size: of the model file in bytes.
        model: fitted rates; None where an EP has none.
    """
    rates, evidence = _rates(compiled, options, model)
    schedule = compiled.schedule
    return Row(
        device,
        precision,
        None if rates is None else rates.interval(schedule),
        schedule.dram,
        schedule.vtcm,
        schedule.spilled,
        len(schedule.operators),
        schedule.untraced,
        size,
        compiled.elsewhere,
        evidence,
        node_costs(schedule, nodes, rates),
        findings(schedule, nodes, rates),
    )


def _rates(compiled: Compiled, options: Mapping[str, str], model: LatencyModel | None) -> tuple[Rates | None, str]:
    """The rates that may be used for a schedule, and the evidence in words."""
    runtime = ", ".join(f"{name} {version}" for name, version in compiled.runtime.items() if name != "onnxruntime")
    schedule = f"schedule of {runtime}"
    rates = None if model is None else model.of(options)
    if model is None or rates is None:
        return None, f"{schedule}; no milliseconds: this chip was never measured"
    if model.runtime != runtime:
        return None, f"{schedule}; no milliseconds: the rates are for schedules of {model.runtime}"
    error = rates.error_of(compiled.schedule)
    if error is None:
        return None, f"{schedule}; no milliseconds: too few models of this precision were measured on this chip"
    note = " (what runs elsewhere is not in it)" if compiled.elsewhere else ""
    return rates, (
        f"estimated from the {schedule}{note}; rates from published measurements on {rates.measured_on}: median error "
        f"{error.median:.0%}, {error.within_35:.0%} within 35 %, on {error.n} models of this kind whose architecture "
        "the fit had not seen"
    )


class _Forms:
    """The files to compile, each made once: devices mostly share them."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._folder = folder
        self._progress = progress
        self._made: dict[object, _Form | str] = {}
        self._ranges: dict[object, Any] = {}

    def of(self, target: Target, model: Model, precision: Precision | None) -> _Form | str:
        """The model at a precision as a file, or why it is not legal there."""
        if precision is None:
            return self._once(("", _shape_of(model)), lambda path: self._save(model, path))
        resolution = check_model(target, model, precision)
        if resolution.legal is False:
            first = resolution.violations[0]
            return f"illegal: {first.node.op_type} {first.node.name!r}: {first.ruling.reason}"
        plan = make_plan(target, model, resolution)
        if plan.is_quantized:
            plan = make_plan(target, model, resolution, load_inputs(None, model, seed=0))
        key = (precision.name, _shape_of(model), tuple(node.config for node in plan.nodes))

        def write(path: Path) -> None:
            ranges, made = {}, plan
            if plan.is_quantized:
                # One synthetic sample: a schedule hangs on shapes and types, not on ranges.
                ranges = self._observed(model)
                made = without_uncalibrated(target, model, plan, ranges)
            write_quantized(model, made, ranges, path)

        return self._once(key, write)

    def _observed(self, model: Model) -> Any:
        key = _shape_of(model)
        if key not in self._ranges:
            samples = load_inputs(None, model, seed=0).calibration[:1]
            self._ranges[key] = calibrate(model, samples, self._progress)
        return self._ranges[key]

    def _once(self, key: object, write: Any) -> _Form | str:
        if key not in self._made:
            path = self._folder / f"{len(self._made)}.onnx"
            write(path)
            self._made[key] = _Form(path, sum(f.stat().st_size for f in with_data(path)), _names(path))
        return self._made[key]

    def _save(self, model: Model, path: Path) -> None:
        assert model.ir is not None
        save(model.ir, path)


def _shape_of(model: Model) -> object:
    """Two targets may see a model in different forms: which operators are fused hangs on what they take."""
    return tuple((node.name, node.op_type) for node in model.nodes)


def _names(path: Path) -> frozenset[str]:
    import onnx

    return frozenset(node.name for node in _nodes(onnx.load(path, load_external_data=False).graph))


def _nodes(graph: Any) -> Iterable[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)
