"""The report of one `planner target` run: what was tried, what was kept, and what the profile forbids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import planner
from planner.reporting import rows
from planner.reporting.data import Report, Row, unique_names
from planner.reporting.matrix import now
from planner.reporting.ranges import observed_ranges
from planner.reporting.write import FORMATS, write_report
from planner.resolve.choose import check_model
from planner.verification.floor import DEFAULT_FLOOR, Floor

if TYPE_CHECKING:
    from planner.calibrate.inputs import Inputs
    from planner.dtypes import Precision
    from planner.model.read import Model
    from planner.pipeline import Outcome
    from planner.resolve.choose import Resolution
    from planner.resolve.target import Target


def target_report(
    target: Target,
    model: Model,
    precision: Precision | None,
    judged: Resolution,
    outcome: Outcome | None = None,
    inputs: Inputs | None = None,
    floor: Floor | None = None,
    date: str | None = None,
) -> Report:
    """One row for each precision that was tried, the kept one recommended if it passed.

    With auto (``precision`` None), also a row for each precision of the profile that is not legal.

    Args:
        judged: by the profile, before anything ran. outcome: None where nothing was allowed to run.
    """
    (name,) = unique_names([model.path])
    shown = rows.model_of(model, name)
    found: dict[str, Row] = {}
    if outcome is not None and inputs is not None:
        quantized = any(attempt.plan.is_quantized for attempt in outcome.attempts)
        ranges = observed_ranges(model, inputs.calibration) if quantized else ()
        for attempt in outcome.attempts:
            row = rows.attempt_row(
                attempt, shown, target.identity, attempt.plan.precision,
                legal=judged.legal, inputs=inputs, floor=floor or DEFAULT_FLOOR,
                ranges=ranges if attempt.plan.is_quantized else (),
            )  # fmt: skip
            # A search that went on from a first mix replaces it, but nothing replaces what was kept.
            kept = outcome.kept is not None and attempt.plan is outcome.kept.plan
            if kept or not (row.precision in found and found[row.precision].recommended):
                found[row.precision] = replace(row, recommended=kept and attempt.passed)
    if precision is None:
        for preferred in target.profile.prefer[target.device]:
            resolution = check_model(target, model, preferred)
            if resolution.legal is False:
                found.setdefault(
                    str(preferred), rows.resolution_row(resolution, shown, target.identity, str(preferred))
                )
    if not found:
        asked = "auto" if precision is None else str(precision)
        found[asked] = rows.resolution_row(judged, shown, target.identity, asked)
    return Report(planner.__version__, date or now(), tuple(found.values()))


def write_target_report(
    directory: Path,
    target: Target,
    model: Model,
    precision: Precision | None,
    judged: Resolution,
    outcome: Outcome | None = None,
    inputs: Inputs | None = None,
    floor: Floor | None = None,
) -> tuple[Path, ...]:
    """Write target_report's report into ``directory``, in all formats, figures included; their paths."""
    report = target_report(target, model, precision, judged, outcome, inputs, floor)
    return write_report(report, directory, (*FORMATS, "svg"))
