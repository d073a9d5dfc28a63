"""From a spec to its cells: every model on every target at every precision."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from planner.document import Document
from planner.errors import RequestError
from planner.reporting.data import unique_names
from planner.reporting.matrix import open_targets
from planner.resolve.target import Target
from planner.runtime.registry import CPU, launcher
from planner.sweeps.spec import Spec, SweptModel, find_models
from planner.sweeps.task import Task, depends_on, hash_of


def cells_of(spec: Spec, document: Document) -> tuple[Task, ...]:
    """The cells of a spec, model by model; everything it names is looked at before the first long run.

    Args:
        spec: as read.
        document: it as written.

    Raises:
        RequestError: a file that is missing, an unknown EP or device.
    """
    options, folder = spec.options, document.path.parent
    profiles = [folder / p for p in options.profiles]
    evidence = [folder / p for p in options.evidence]
    targets: dict[tuple[str, str], Target] = {}
    for i, entry in enumerate(spec.targets):
        with document.at("targets", i):
            opened = open_targets([entry.ep], entry.devices, profiles, evidence)
        for target in opened:
            targets.setdefault((target.ep, target.device), target)
    packages = {ep: _packages(ep) for ep, _ in targets}
    models = find_models(spec, document)
    with document.at("models"):
        names = _names(models)
    hashed = functools.cache(hash_of)  # each file once, however many cells it is in
    return tuple(
        Task(
            str(model.path), name, {k: tuple(v) for k, v in model.entry.shapes.items()}, model.inputs,
            target.ep, target.device, precision, _floor(model, spec), options.run, options.allow_unknown, options.seed,
            options.estimate, tuple(map(str, profiles)), tuple(map(str, evidence)),
            depends_on(
                target, hashed(str(model.path)), model.inputs and hashed(model.inputs), packages[target.ep]
            ),
        )
        for model, name in zip(models, names, strict=True)
        for target in targets.values()
        for precision in spec.precisions or [str(p) for p in target.preferred]
    )  # fmt: skip


def _floor(model: SweptModel, spec: Spec) -> str | None:
    floor = model.entry.floor if model.entry.floor is not None else spec.floor
    return None if floor is None else str(floor)


def _names(models: Sequence[SweptModel]) -> list[str]:
    short = unique_names([str(model.path) for model in models])
    names = [model.name or name for model, name in zip(models, short, strict=True)]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise RequestError(f"two models are called {double!r}", "give each a `name` of its own")
    return names


def _packages(ep: str) -> Mapping[str, str]:
    """Versions of what the EP comes from, and of what emulates and calibrates."""
    return {**launcher(CPU).availability().packages, **launcher(ep).availability().packages}
