"""Who is to blame for a sample that does not run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from planner.runtime.client import RunFailed
from planner.runtime.registry import CPU
from planner.verification.runs import Runs

NPU = "QNNExecutionProvider"


class Failing:
    """A worker whose runs fail, or not."""

    def __init__(self, ep: str, *, fails: bool) -> None:
        self.ep, self.fails = ep, fails

    def run(self, _sample: Mapping[str, np.ndarray[Any, Any]]) -> object:
        if self.fails:
            raise RunFailed(f"{self.ep} failed", ep=self.ep)
        return object()


@pytest.mark.parametrize(("reference_fails", "blamed"), [(True, CPU), (False, NPU)])
def test_a_sample_that_the_float32_model_does_not_take_is_not_the_eps_fault(reference_fails: bool, blamed: str) -> None:
    reference, worker = Failing(CPU, fails=reference_fails), Failing(NPU, fails=True)
    nothing: Any = None
    runs = Runs(reference, worker, None, {}, nothing, nothing, NPU, "simulator", ())  # type: ignore[arg-type]
    with pytest.raises(RunFailed) as found:
        list(runs.ran(iter([{"x": np.zeros(1)}]), 1))
    assert found.value.ep == blamed
