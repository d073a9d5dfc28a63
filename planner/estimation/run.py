"""Estimating a model on the chips of an EP: it is quantized where asked, compiled for each chip, and its schedule priced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from planner.calibrate.inputs import load_inputs
from planner.calibrate.run import calibrate
from planner.dtypes import Precision
from planner.errors import EPError, RequestError
from planner.estimation.compile import Compiled, Compiler
from planner.estimation.estimate import AS_IT_IS, Estimate, price
from planner.estimation.file import node_names
from planner.estimation.latency import latency_model
from planner.files import temporary_folder
from planner.model.read import Model
from planner.model.write import save
from planner.progress import Progress, silent
from planner.quantization.write import with_data, write_quantized
from planner.resolve.choose import check_model, make_plan
from planner.resolve.revise import without_uncalibrated
from planner.resolve.target import Target, forms


@dataclass(frozen=True)
class _Form:
    """A file to compile, and the names of its nodes."""

    path: Path
    bytes: int
    nodes: frozenset[str]


@dataclass(frozen=True)
class Question:
    """What is to be estimated: a model as a target reads it, at a precision; None for the model as it is."""

    target: Target
    model: Model
    precision: Precision | None


def estimates(ep: str, questions: Sequence[Question], progress: Progress = silent) -> Iterator[Estimate]:
    """An estimate for each question.

    Args:
        ep: full name of the EP that all of the targets have.
        questions: see `questions_of`.
        progress: told of each.

    Raises:
        EPError: the EP cannot run here, or its compiler's text is of an unknown form.
    """
    from planner.runtime.client import EPMissing, SessionFailed

    rates = latency_model(ep)
    with temporary_folder() as folder, Compiler(ep) as compiler:
        forms, known = _Forms(folder, progress), dict[object, Compiled]()
        for done, question in enumerate(questions):
            progress("estimating", done, len(questions))
            target, name = question.target, AS_IT_IS if question.precision is None else question.precision.name
            form = forms.of(target, question.model, question.precision)
            if isinstance(form, str):
                yield Estimate.without(target.device, name, form)
                continue
            # Several devices may be one chip.
            chip = (form.path, tuple(sorted(target.options.items())))
            try:
                compiled = known.get(chip) or compiler.compile(form.path, target.options)
            except EPMissing:
                raise
            except (SessionFailed, EPError) as error:
                yield Estimate.without(target.device, name, f"no schedule: {error}")
                continue
            known[chip] = compiled
            yield price(target.device, target.options, name, compiled, form.nodes, form.bytes, rates)


def questions_of(
    path: Path,
    shapes: Mapping[str, Sequence[int]] | None,
    targets: Sequence[Target],
    precisions: Sequence[Precision | None],
) -> list[Question]:
    """Every precision on every target, the model in the form that each would run.

    Args:
        path: an ONNX file. One that is quantized already is read as it is stored, where it alone is asked for.
        shapes: fixed dimensions of inputs, by name.
        targets: where it is to run.
        precisions: None for the model as it is.

    Raises:
        RequestError: it cannot be read.
    """
    read = partial(_read, path=path, shapes=shapes, as_it_is=[*precisions] == [None])
    found = []
    for target in targets:
        form = forms(target, read)
        found += [Question(*form(precision), precision) for precision in precisions]
    return found


def _read(target: Target, path: Path, shapes: Mapping[str, Sequence[int]] | None, *, as_it_is: bool) -> Model:
    try:
        return target.read(path, shapes)
    except RequestError:
        if not as_it_is:
            raise
        return target.read(path, shapes, stored=True)


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
            return self._once(("", _shape_of(model)), model, lambda path: self._save(model, path), Path(model.path))
        resolution = check_model(target, model, precision)
        if resolution.legal is False:
            first = resolution.violations[0]
            return f"illegal: {first.node.op_type} {first.node.name!r}: {first.ruling.reason}"
        plan = make_plan(target, model, resolution)
        if plan.is_quantized:
            plan = make_plan(target, model, resolution, load_inputs(None, model, seed=0))
        key = (precision.name, _shape_of(model), plan.nodes)

        def write(path: Path) -> None:
            ranges, made = {}, plan
            if plan.is_quantized:
                # One synthetic sample: a schedule hangs on shapes and types, not on ranges.
                ranges = self._observed(model)
                made = without_uncalibrated(target, model, plan, ranges)
            write_quantized(model, made, ranges, path)

        return self._once(key, model, write)

    def _observed(self, model: Model) -> Any:
        key = _shape_of(model)
        if key not in self._ranges:
            samples = load_inputs(None, model, seed=0).calibration[:1]
            self._ranges[key] = calibrate(model, samples, self._progress)
        return self._ranges[key]

    def _once(self, key: object, model: Model, write: Any, sized_as: Path | None = None) -> _Form | str:
        """Write the file where it is not written yet; it is told to be as large as it is, or as another."""
        if key not in self._made:
            path = self._folder / f"{len(self._made)}.onnx"
            write(path)
            # Casts and what else planner added are none of the user's nodes.
            nodes = node_names(path) & {node.name for node in model.nodes}
            size = sum(f.stat().st_size for f in with_data(sized_as or path))
            self._made[key] = _Form(path, size, nodes)
        return self._made[key]

    def _save(self, model: Model, path: Path) -> None:
        assert model.ir is not None
        save(model.ir, path)


def _shape_of(model: Model) -> object:
    """Two targets may see a model in different forms: which operators are fused hangs on what they take."""
    return tuple((node.name, node.op_type) for node in model.nodes)
