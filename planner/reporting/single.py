"""The report of one `planner target` run: what was tried, what was kept, and what the profile forbids."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import planner
from planner.reporting import rows
from planner.reporting.data import Report, Row, unique_names
from planner.reporting.matrix import now
from planner.reporting.ranges import observed_ranges
from planner.resolve.choose import check_model

if TYPE_CHECKING:
    from planner.calibrate.inputs import Inputs
    from planner.dtypes import Precision
    from planner.model.read import Model
    from planner.resolve.choose import Resolution
    from planner.resolve.target import Target
    from planner.search.run import Selection


def target_report(
    target: Target,
    model: Model,
    precision: Precision | None,
    resolution: Resolution,
    selection: Selection | None = None,
    inputs: Inputs | None = None,
    date: str | None = None,
) -> Report:
    """One row for each precision that was tried, the kept one recommended if it passed.

    With auto (``precision`` None), also a row for each precision of the profile that is not legal.

    Args:
        target: where the model must run.
        model: float32, in the form in which the target sees it.
        precision: what was asked for.
        resolution: of it, before anything ran.
        selection: what was tried and kept; None where nothing was allowed to run.
        inputs: what calibrated and judged it; None where nothing ran.
        date: of the report, ISO 8601; None for now.
    """
    (name,) = unique_names([model.path])
    shown, found = rows.model_of(model, name), dict[str, Row]()
    if selection is not None and inputs is not None:
        quantized = any(attempt.plan.is_quantized for attempt in selection.attempts)
        ranges = observed_ranges(model, inputs.calibration) if quantized else ()
        for attempt in selection.attempts:
            row = rows.attempt_row(
                attempt, shown, target.identity, attempt.plan.precision,
                legal=resolution.legal, inputs=inputs, ranges=ranges if attempt.plan.is_quantized else (),
            )  # fmt: skip
            # A search that went on from a first mix replaces it, but nothing replaces what was kept.
            kept = attempt.plan is selection.kept.plan
            if kept or not (row.precision in found and found[row.precision].recommended):
                found[row.precision] = replace(row, recommended=kept and attempt.passed)
        for failure in selection.failed:
            asked = failure.precision
            row = rows.error_row(
                str(failure.error), failure.error.hint, shown, target.identity, asked, resolution.legal
            )
            found.setdefault(asked, row)
    if precision is None:
        for preferred in target.preferred:
            other = check_model(target, model, preferred)
            if other.legal is False:
                found.setdefault(str(preferred), rows.resolution_row(other, shown, target.identity, str(preferred)))
    if not found:
        asked = "auto" if precision is None else str(precision)
        found[asked] = rows.resolution_row(resolution, shown, target.identity, asked)
    return Report(planner.__version__, date or now(), tuple(found.values()))
