"""How faithful a candidate is by emulation alone: on the CPU EP, computed as the file says. Cheap enough for every sample."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from planner.calibrate.inputs import Sample
from planner.runtime.client import Worker
from planner.runtime.registry import CPU
from planner.verification.feed import AS_WRITTEN, as_written, cast_feed, input_dtypes, load
from planner.verification.fidelity import Comparison, Fidelity
from planner.verification.parts import read_parts


def emulated_fidelity(
    candidate: Path, reference: Path, samples: Iterable[Sample], *, timeout: float | None = None
) -> tuple[Fidelity, ...]:
    """Each output of the candidate against the reference's, one sample at a time.

    Args:
        candidate: a model of the reference's inputs and outputs.
        reference: float32.
        samples: feeds of the reference.
        timeout: seconds that one request to a worker may take; None for what `planner.limits` says.

    Raises:
        EPError: the CPU EP does not run one of them.
    """
    model = load(candidate)
    dtypes, comparison = input_dtypes(model), Comparison(read_parts(reference))
    with (
        as_written(candidate, model) as plain,
        Worker(CPU, timeout=timeout) as one,
        Worker(CPU, timeout=timeout) as other,
    ):
        one.open(reference, {})
        other.open(plain, {}, session_config=AS_WRITTEN)
        for sample in samples:
            comparison.add(one.run(sample).outputs, other.run(cast_feed(sample, dtypes)).outputs)
    return comparison.results()
