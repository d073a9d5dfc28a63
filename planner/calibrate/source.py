"""Where samples come from: as a user asks for them, or as a plan remembers them. Says loudly where they prove little."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import RequestError
from planner.files import exists
from planner.model.read import Model

if TYPE_CHECKING:
    from planner.calibrate.inputs import Inputs

_log = logging.getLogger("planner")


@dataclass(frozen=True)
class Source:
    """Where samples come from.

    Attributes:
        path: as for --inputs; None for synthetic data.
        seed: of the synthetic data.
        method: how ranges of 8-bit activations are taken: minmax, average, percentile, entropy or mse.
    """

    path: str | None = None
    seed: int = 0
    method: str = "minmax"


def load_samples(inputs: str | Source | None, model: Model, *, calibrates: bool = True, may_run: bool = True) -> Inputs:
    """Load samples.

    Args:
        inputs: where they come from.
        model: that they are fed to.
        calibrates: whether they calibrate it, and not only judge.
        may_run: whether a function may be named, which runs the user's code.

    Raises:
        RequestError: nothing found, or samples that do not fit the model.
    """
    from planner.calibrate.inputs import load_inputs

    source = inputs if isinstance(inputs, Source) else Source(inputs)
    loaded = load_inputs(source.path, model, seed=source.seed, method=source.method, may_run=may_run)
    if loaded.synthetic:
        _log.warning(
            "%s on synthetic data: the result says nothing about real inputs\n  give real ones with --inputs",
            "calibrated and judged" if calibrates else "judged",
        )
    elif calibrates and not loaded.held_apart:
        _log.warning("a single sample: the result is judged on what calibrated it; give more with --inputs")
    return loaded


def planned_samples(inputs: Mapping[str, Any] | None, model: Model, path: str | None) -> Inputs:
    """The samples that a plan was made with, loaded again.

    Args:
        inputs: what the plan says of them; None where it was made without any.
        model: of the plan.
        path: where they lie now; None for the file or folder that the plan names.

    Raises:
        RequestError: they are not the same (their hash differs), or the plan names a function: only ``path`` may.
    """
    planned = inputs or {"synthetic": True, "seed": 0}
    given = path is not None
    if path is None:
        path = planned_source(inputs)
    method, seed = planned.get("calibration", "minmax"), planned.get("seed") or 0
    if not isinstance(method, str) or type(seed) is not int or seed < 0:
        raise RequestError("inputs of the plan: expected a method's name and a seed from 0 on", "make the plan anew")
    loaded = load_samples(Source(path, seed, method), model, may_run=given)
    if inputs is not None and loaded.sha256 != inputs.get("sha256"):
        raise RequestError(
            "the inputs are not those that the plan was made with (their hash differs)",
            "make the plan anew with `planner plan --inputs`",
        )
    return loaded


def planned_source(inputs: Mapping[str, Any] | None) -> str | None:
    """Where the samples of a plan lay when it was made; None where it was made without any, or with synthetic ones."""
    return None if inputs is None or inputs.get("synthetic") else str(inputs.get("source"))


@contextlib.contextmanager
def blaming_synthetic(loaded: Inputs) -> Iterator[None]:
    """A model that does not run on made-up inputs is not the EP's fault."""
    from planner.runtime.client import RunFailed
    from planner.runtime.registry import CPU

    try:
        yield
    except RunFailed as error:
        if loaded.synthetic and error.ep == CPU:
            raise RequestError(
                f"the model does not run on the synthetic inputs that planner made up: {error}",
                "give real ones with --inputs",
            ) from None
        raise


def files_read(
    inputs: str | Source | Mapping[str, Any] | None, profiles: Sequence[Path], evidence: Sequence[Path]
) -> tuple[Path, ...]:
    """The files that are read beside the model: no output may take their place.

    Args:
        inputs: where samples come from, or what a plan says of them.
        profiles: of the user's own.
        evidence: of the user's own.
    """
    if isinstance(inputs, Mapping):
        inputs = planned_source(inputs)
    named = inputs.path if isinstance(inputs, Source) else inputs
    source = Path(named) if named is not None and "\0" not in named else None
    data = () if source is None else tuple(source.glob("*.npz")) if exists(source) and source.is_dir() else (source,)
    return (*data, *map(Path, profiles), *map(Path, evidence))
