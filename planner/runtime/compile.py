"""Compiling a model ahead of time for a chip, and seeing that what was written loads and computes the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from planner import limits
from planner.errors import EPError, RequestError
from planner.files import atomic
from planner.runtime.client import Worker
from planner.runtime.registry import launcher

# Seconds that one request may take, unless --time-limit says otherwise.
_SECONDS = 600


@dataclass(frozen=True)
class Compiled:
    """An EPContext model: the EP's own program for one chip, in an ONNX file.

    Attributes:
        soc: the chip, in the EP's own terms. seconds: to compile.
        equal: whether its outputs equal those of the model it was made from, bit by bit, on the sample.
        max_abs_error: largest difference where they do not; None where either is not finite.
    """

    path: str
    sha256: str
    bytes: int
    soc: str
    runtime: Mapping[str, str]
    seconds: float
    equal: bool
    max_abs_error: float | None


def require_compiler(ep: str) -> None:
    """RequestError where the EP writes nothing ahead of time, EPError where it cannot run here."""
    known = launcher(ep)
    if not known.compiles:
        raise RequestError(f"{ep} compiles nothing ahead of time here", "leave --compile out")
    available = known.availability()
    if not available.runs:
        raise EPError(f"{ep} can't compile here: {available.reason}", "see `planner eps`")


def compile_model(
    model: Path,
    output: Path,
    ep: str,
    options: Mapping[str, str],
    sample: Mapping[str, np.ndarray[Any, Any]],
    *,
    overwrite: bool = True,
) -> Compiled:
    """Compile the model for the chip, load what was written in a fresh session, and run one sample through both.

    Args:
        model: for the EP.
        output: where the compiled model is written.
        ep: full provider name.
        options: provider options of the device.
        sample: a feed of the model.
        overwrite: whether what lies at ``output`` in the end may be replaced.

    Raises:
        EPError: compiling, loading or running failed; nothing is left at ``output`` then.
        RequestError: as `require_compiler`.
    """
    require_compiler(ep)
    with (
        atomic(output, overwrite=overwrite) as temporary,
        Worker(ep, timeout=limits.current().seconds or _SECONDS) as worker,
    ):
        soc, seconds = worker.compile(model, temporary, options)
        opened = worker.open(temporary, options)
        elsewhere = [a for a in opened.assignment if a.ep != ep]
        if elsewhere and not any(a.ep == ep for a in opened.assignment):
            raise EPError(f"{ep} took nothing of what it compiled: {elsewhere[0].op_type} {elsewhere[0].name!r}")
        compiled = worker.run(sample).outputs
        worker.open(model, options)
        plain = worker.run(sample).outputs
        runtime = dict(opened.runtime)
    content = output.read_bytes()
    equal = all(np.array_equal(plain[name], compiled[name], equal_nan=True) for name in plain)
    largest = max((_difference(plain[name], compiled[name]) for name in plain), default=0.0)
    return Compiled(
        str(output),
        hashlib.sha256(content).hexdigest(),
        len(content),
        soc,
        runtime,
        seconds,
        equal,
        largest if np.isfinite(largest) else None,
    )


def _difference(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    if one.dtype.kind not in "fiu" or one.size == 0:
        return 0.0
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())


def try_compile(
    model: Path,
    output: Path,
    ep: str,
    options: Mapping[str, str],
    sample: Mapping[str, np.ndarray[Any, Any]],
    *,
    overwrite: bool = True,
) -> tuple[Compiled | None, str | None]:
    """As `compile_model`; what the EP fails at is told, not raised.

    Returns:
        The compiled model, or None and why there is none.
    """
    try:
        return compile_model(model, output, ep, options, sample, overwrite=overwrite), None
    except EPError as error:
        return None, str(error)
