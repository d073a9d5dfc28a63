"""The compatibility matrix: models x targets x precisions, each judged by the profile and then by running it.

One cell at a time, each step in a worker: an EP that crashes costs its own cell, and the others are still judged.
"""

from __future__ import annotations

import datetime
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec

import planner
from planner.calibrate.inputs import Inputs, data_beside, load_inputs
from planner.calibrate.peek import sample_shapes
from planner.calibrate.run import Calibrations
from planner.document import read_yaml
from planner.dtypes import Precision
from planner.errors import PlannerError, RequestError
from planner.files import temporary_folder
from planner.model.read import Model as ReadModel
from planner.profiles import learned
from planner.profiles.load import load_profiles
from planner.reporting import rows
from planner.reporting.data import Range, Report, Row, unique_names
from planner.reporting.ranges import observed_ranges
from planner.resolve.choose import Resolution, resolve_each
from planner.resolve.target import Target, forms
from planner.search.attempt import Attempt
from planner.search.run import select
from planner.search.trials import Demands
from planner.verification.floor import Floor

ALL = "all"
Told = Callable[[Row, int, int], None]


@dataclass(frozen=True)
class Subject:
    """A model to report on.

    Attributes:
        shapes: fixed dimensions by input name. inputs: as for --inputs; None for synthetic data.
        name: what the report calls it; empty for the name of its file.
    """

    path: Path
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    inputs: str | None = None
    name: str = ""


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    path: str
    shapes: dict[str, list[Annotated[int, msgspec.Meta(ge=1)]]] = {}
    inputs: str | None = None
    name: str = ""


class _Manifest(msgspec.Struct, forbid_unknown_fields=True):
    models: Annotated[list[_Entry], msgspec.Meta(min_length=1)]


def read_subjects(path: Path) -> tuple[Subject, ...]:
    """The models that a YAML file lists; paths in it are relative to it.

        models:
          - path: recogniser.onnx
            shapes: {x: [1, 3, 48, 320]}
            inputs: lines.npz            # or a folder of .npz files
          - path: detector.onnx
            name: detector v2

    Raises:
        RequestError: it cannot be read, or is malformed (named by its path inside the file).
    """
    manifest, document = read_yaml(
        _Manifest, path, "a list of models", "give a YAML file with a list `models`, each with a `path`"
    )
    found = []
    for i, entry in enumerate(manifest.models):
        with document.at("models", i, "inputs"):
            inputs = None if entry.inputs is None else data_beside(path.parent, entry.inputs)
        found.append(Subject(path.parent / entry.path, entry.shapes, inputs, entry.name))
    return tuple(found)


def open_targets(
    eps: Sequence[str], devices: Sequence[str] = (), profiles: Sequence[Path] = (), evidence: Sequence[Path] = ()
) -> tuple[Target, ...]:
    """The targets that lists of EPs and devices span.

    Args:
        eps: aliases or full names, or "all".
        devices: names of the profiles, or "all"; none for each profile's default. Every EP takes those of the list that its
            profile has. With all EPs, one that has none of them is left out.
        profiles: files that add to or override the shipped profiles.
        evidence: files that `planner probe --from-model` wrote; each stands above the rules of the EP it is about.

    Raises:
        RequestError: an unknown EP, a device that no EP has, an EP named that has none of the devices, or evidence about
            none of the EPs.
    """
    known = load_profiles(profiles)
    everything = ALL in eps
    chosen = list(known.by_ep.values()) if everything else [known.find(ep) for ep in dict.fromkeys(eps)]
    taught: dict[str, list[Path]] = {}
    for path in evidence:
        about = learned.load(path).ep
        if about not in {profile.ep for profile in chosen}:
            raise RequestError(f"{path} is about {about}, which is not asked for")
        taught.setdefault(about, []).append(path)
    wanted = list(dict.fromkeys(devices))
    targets: dict[tuple[str, str], Target] = {}
    for profile in chosen:
        if ALL in wanted:
            names = list(profile.devices)
        else:
            names = [d for d in wanted if d in profile.devices] if wanted else [profile.file.default_device]
        if not names and not everything:
            raise RequestError(
                f"{profile.ep} has none of the devices {', '.join(wanted)}",
                f"it has: {', '.join(profile.devices)}",
            )
        for name in names:
            targets.setdefault((profile.ep, name), Target.on(profile, name, taught.get(profile.ep, ())))
    for device in wanted:
        if device != ALL and not any(device in profile.devices for profile in chosen):
            there = dict.fromkeys(name for profile in chosen for name in profile.devices)
            raise RequestError(f"no EP asked for has a device {device!r}", f"there are: {', '.join(there)}")
    return tuple(targets.values())


def make_report(
    subjects: Sequence[Subject],
    targets: Sequence[Target],
    precisions: Sequence[Precision | None] = (),
    *,
    run: bool = True,
    floor: Floor | None = None,
    allow_unknown: bool = False,
    seed: int = 0,
    date: str | None = None,
    histograms: bool = True,
    estimated: bool = False,
    told: Told | None = None,
) -> Report:
    """Judge every model on every target at every precision.

    Args:
        subjects: the models.
        targets: where they are to run.
        precisions: None stands for auto; without any, those that the profile of each target prefers.
        run: False judges by the profiles alone.
        floor: what counts as faithful; None for 20 dB.
        allow_unknown: run what the profile has no evidence for, and let the EP decide.
        seed: of synthetic data.
        date: of the report; None for now.
        histograms: also observe what the float32 tensors hold (one more run for each model that is quantized).
        estimated: also estimate what a run costs, where the EP's compiler writes its schedule.
        told: called with every finished row, how many are done, of how many.

    Raises:
        RequestError: a model or inputs that cannot be read. What fails later is a row with status "error".
    """
    if not subjects or not targets:
        raise RequestError("nothing to report on", "give at least one model and one EP")
    names = _names(subjects)
    # Everything that the user gave is read before the first long run.
    loaded: list[Inputs | None] = []
    for subject in subjects:
        model = targets[0].read(subject.path, subject.shapes, seen=partial(sample_shapes, subject.inputs))
        loaded.append(load_inputs(subject.inputs, model, seed=seed) if run else None)
    asked = [(t, tuple(precisions) or t.preferred) for t in targets]
    total = len(subjects) * sum(len(wanted) for _, wanted in asked)
    found: list[Row] = []
    for subject, name, inputs in zip(subjects, names, loaded, strict=True):
        seen = _Histograms(inputs if histograms else None)
        judging = Judging(subject, name, inputs, floor, allow_unknown, estimated, seen)
        for target, wanted in asked:
            cell: list[Row] = []
            for row in judging.cell(target, wanted):
                cell.append(row)
                if told is not None:
                    told(row, len(found) + len(cell), total)
            found += rows.recommend(cell, map(str, target.preferred))
    return Report(planner.__version__, date or now(), tuple(found))


class _Histograms:
    """What the tensors of a model hold, observed once for each form in which targets see it."""

    def __init__(self, inputs: Inputs | None) -> None:
        self.inputs = inputs
        self.known: dict[tuple[tuple[str, str], ...], tuple[Range, ...]] = {}

    def of(self, model: ReadModel) -> tuple[Range, ...]:
        if self.inputs is None:
            return ()
        form = tuple((node.name, node.op_type) for node in model.nodes)
        if form not in self.known:
            self.known[form] = observed_ranges(model, self.inputs.calibration)
        return self.known[form]


@dataclass(frozen=True)
class Judging:
    """How the cells of one model are judged."""

    subject: Subject
    name: str
    inputs: Inputs | None
    floor: Floor | None
    allow_unknown: bool
    estimated: bool
    seen: _Histograms
    calibrations: Calibrations = field(default_factory=Calibrations)

    @classmethod
    def of(
        cls,
        subject: Subject,
        name: str,
        target: Target,
        *,
        run: bool,
        floor: Floor | None,
        allow_unknown: bool,
        seed: int,
        estimated: bool,
        calibrations: Calibrations,
    ) -> Judging:
        """How a single model is judged, its inputs loaded.

        Args:
            subject: the model.
            name: what the report calls it.
            target: any that the model can be read for.
            run: False judges by the profiles alone.
            floor: what counts as faithful; None for 20 dB.
            allow_unknown: run what the profile has no evidence for.
            seed: of synthetic data.
            estimated: also estimate what a run costs.
            calibrations: shared with other calls about the same model.

        Raises:
            RequestError: a model or inputs that cannot be read.
        """
        inputs = load_inputs(subject.inputs, target.read(subject.path, subject.shapes), seed=seed) if run else None
        return cls(subject, name, inputs, floor, allow_unknown, estimated, _Histograms(None), calibrations)

    def read(self, target: Target) -> ReadModel:
        """The model as the target sees it."""
        return target.read(self.subject.path, self.subject.shapes, seen=partial(sample_shapes, self.subject.inputs))

    def cell(
        self, target: Target, precisions: Sequence[Precision | None], model: ReadModel | None = None
    ) -> Iterator[Row]:
        """The rows of the model on one target; ``model`` as it was read for it, None to read it now."""
        usual = model or self.read(target)
        shown = rows.model_of(usual, self.name, str(self.subject.path))
        form = forms(target, lambda asked: usual if asked is target else self.read(asked))
        for precision in precisions:
            asked = "auto" if precision is None else str(precision)
            legal: bool | None = None
            try:
                of_it, model = form(precision)
                resolutions = resolve_each(of_it, model, precision)
                first = next(resolutions)
                legal = first.legal
                if self.inputs is None or legal is False or (legal is None and not self.allow_unknown):
                    yield rows.resolution_row(first, shown, target.identity, asked)
                    continue
                kept = self._kept(of_it, model, itertools.chain([first], resolutions), auto=precision is None)
                yield rows.attempt_row(
                    kept, shown, target.identity, asked, legal=legal, inputs=self.inputs,
                    ranges=self.seen.of(model) if kept.plan.is_quantized else (),
                )  # fmt: skip
            except PlannerError as error:
                yield rows.error_row(str(error), error.hint, shown, target.identity, asked, legal)
            except Exception as error:
                # One cell's defect must not cost an hour of the others; it stands in the cell, and fails every gate.
                if os.environ.get("PLANNER_DEBUG"):
                    raise
                message = f"internal error: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                hint = "This is a defect of planner; PLANNER_DEBUG=1 shows where."
                yield rows.error_row(message, hint, shown, target.identity, asked, legal)

    def _kept(self, target: Target, model: ReadModel, resolutions: Iterator[Resolution], *, auto: bool) -> Attempt:
        assert self.inputs is not None
        with temporary_folder() as folder:
            output = Path(folder) / "candidate.onnx"
            return select(
                target, model, resolutions, self.inputs, output, Demands(self.floor, estimated=self.estimated),
                auto=auto, calibrations=self.calibrations,
            ).kept  # fmt: skip


def _names(subjects: Sequence[Subject]) -> list[str]:
    short = unique_names([str(subject.path) for subject in subjects])
    names = [subject.name or name for subject, name in zip(subjects, short, strict=True)]
    for name in names:
        if names.count(name) > 1:
            raise RequestError(f"two models are called {name!r}", "give each a `name` of its own")
    return names


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
