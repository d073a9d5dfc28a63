"""How faithful candidates are by emulation alone: on the CPU EP, computed as they say. Cheap enough for every sample."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx_ir as ir

from planner.calibrate.inputs import Sample, Store
from planner.files import temporary_folder
from planner.model.write import save
from planner.runtime.client import Worker
from planner.runtime.registry import CPU
from planner.verification.emulation import emulate_float16, uses_float16
from planner.verification.feed import AS_WRITTEN, cast_feed, input_dtypes
from planner.verification.fidelity import Comparison, Fidelity
from planner.verification.parts import Parts, read_parts

# A model, and the places of the samples that it runs on.
Candidate = tuple[ir.Model, Sequence[int]]


class Emulation:
    """A float32 model and its samples, against which candidates are emulated; it runs on each sample once."""

    def __init__(self, reference: Path, samples: Sequence[Sample], *, timeout: float | None = None) -> None:
        """Nothing runs before the first candidate.

        Args:
            reference: float32.
            samples: its feeds.
            timeout: seconds that one request to a worker may take; None for what `planner.limits` says.
        """
        self._reference = reference
        self._samples = samples
        self._timeout = timeout
        self._expected = Store()
        # By the place of a sample, that of its outputs in the store.
        self._known: dict[int, int] = {}

    @functools.cached_property
    def parts(self) -> Mapping[str, Parts]:
        """Of the outputs that join several tensors, by name."""
        return read_parts(self._reference)

    def fidelity(self, candidate: ir.Model, places: Sequence[int]) -> tuple[Fidelity, ...]:
        """Each output of a candidate against the reference's, one sample at a time.

        Args:
            candidate: a model of the reference's inputs and outputs.
            places: of the samples that it runs on.

        Raises:
            EPError: the CPU EP does not run one of them.
        """
        return self.fidelity_of_all([(candidate, places)])

    def fidelity_of_all(self, candidates: Iterable[Candidate]) -> tuple[Fidelity, ...]:
        """The same over several candidates, each on samples of its own, as if they were one."""
        comparison = Comparison(self.parts)
        for expected, outputs in self._outputs(candidates):
            comparison.add(expected, outputs)
        return comparison.results()

    def fidelity_of_each(self, candidate: ir.Model, groups: Sequence[Sequence[int]]) -> list[tuple[Fidelity, ...]]:
        """The same for each group of places by itself."""
        comparisons = [Comparison(self.parts) for _ in groups]
        asked = [(comparison, place) for comparison, group in zip(comparisons, groups, strict=True) for place in group]
        ran = self._outputs([(candidate, [place for _, place in asked])])
        for (comparison, _), (expected, outputs) in zip(asked, ran, strict=True):
            comparison.add(expected, outputs)
        return [comparison.results() for comparison in comparisons]

    def _outputs(self, candidates: Iterable[Candidate]) -> Iterator[tuple[Sample, Sample]]:
        """What the reference and each candidate make of each sample."""
        float32 = None
        with (
            temporary_folder() as folder,
            Worker(CPU, timeout=self._timeout) as worker,
            contextlib.ExitStack() as stack,
        ):
            path = folder / "emulated.onnx"
            for candidate, places in _made_ahead(candidates):
                if unknown := [place for place in places if place not in self._known]:
                    float32 = float32 or self._open_reference(stack)
                    for place in unknown:
                        self._expected.append(float32.run(self._samples[place]).outputs)
                        self._known[place] = len(self._expected) - 1
                dtypes = input_dtypes(candidate)
                save(emulate_float16(candidate) if uses_float16(candidate) else candidate, path)
                worker.open(path, {}, session_config=AS_WRITTEN)
                for place in places:
                    ran = worker.run(cast_feed(self._samples[place], dtypes))
                    yield self._expected.read(self._known[place]), ran.outputs

    def _open_reference(self, stack: contextlib.ExitStack) -> Worker:
        worker = stack.enter_context(Worker(CPU, timeout=self._timeout))
        worker.open(self._reference, {}, session_config=AS_WRITTEN)
        return worker


def _made_ahead(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """The candidates in their order, each of which is made while the one before it runs in its worker."""
    iterator, context = iter(candidates), contextvars.copy_context()

    def following() -> Candidate | None:
        return next(iterator, None)

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(context.run, following)
        while (candidate := coming.result()) is not None:
            coming = pool.submit(context.run, following)
            yield candidate
