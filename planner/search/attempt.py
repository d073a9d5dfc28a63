"""An attempt: one plan that was applied and verified, or that could not be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from planner.codec import plain
from planner.errors import PlannerError
from planner.estimation.estimate import Estimate
from planner.quantization.write import Artifact
from planner.resolve.plan import Plan
from planner.runtime.latency import Latency
from planner.verification.fidelity import WORST
from planner.verification.verify import Verification


@dataclass(frozen=True)
class Attempt:
    """One plan: applied, verified, and, on hardware, timed where it passed."""

    plan: Plan
    artifact: Artifact
    verification: Verification
    latency: Latency | None = None

    @property
    def passed(self) -> bool:
        """Whether it was verified."""
        return self.verification.passed

    @property
    def worst_db(self) -> float:
        """Least SQNR of any output or part of one; -200 where nothing ran."""
        return min((f.least_db for f in self.verification.fidelity), default=WORST)

    @property
    def estimate(self) -> Estimate | None:
        """What a run costs by the compiler's schedule; None where there is none."""
        return self.verification.estimate

    @property
    def speedup(self) -> float | None:
        """How many times as fast as float32 it is; None where it was not timed."""
        return None if self.latency is None else self.latency.speedup

    def to_json(self) -> dict[str, Any]:
        """A line of the contract's `attempts`: what was tried, and what came of it."""
        return {
            "precision": self.plan.precision,
            "passed": self.passed,
            "worst_sqnr_db": self.worst_db,
            "reasons": list(self.verification.reasons),
            "latency_ms": plain(self.latency),
            "speedup": self.speedup,
            "estimated_ms": None if self.estimate is None else plain(self.estimate.ms),
        }


@dataclass(frozen=True)
class FailedAttempt:
    """A plan that could not be applied, or whose model could not be run."""

    precision: str
    error: PlannerError

    def to_json(self) -> dict[str, Any]:
        """A line of the contract's `attempts`."""
        return {
            "precision": self.precision,
            "passed": False,
            "worst_sqnr_db": WORST,
            "reasons": [str(self.error)],
            "latency_ms": None,
            "estimated_ms": None,
            "speedup": None,
        }
