"""Write the compatibility reports of the example models: one JSON and one Markdown file each, and an index.

    python -m reports.generate                 all of them (needs onnxruntime-qnn; an hour on two cores)
    python -m reports.generate digits cls      these, and the index
    python -m reports.generate --ep directml   what ran on DirectML anew (needs `planner env create directml` for its placement)

Every model is judged on every device of every shipped profile at the precisions that the profile prefers. On the targets
in RUN it is also quantized and run on a few real inputs; elsewhere the profile alone speaks ("declared"). What differs
from one machine to the next (times, memory) is left out, and numbers are rounded.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from planner.files import write_text
from planner.profiles.load import load_profiles
from planner.reporting import Report, Row, read_report
from planner.reporting import markdown as page
from planner.reporting.data import SCHEMA
from planner.reporting.matrix import Subject, make_report, open_targets
from planner.reporting.text import group_violations
from planner.verification.verify import Verification

FOLDER = Path(__file__).resolve().parent
MODELS = ("digits", "cls", "magika", "rec", "det")
# EP and device of the targets on which models run, really or in emulation.
RUN = (("cpu", "cpu"), ("directml", "gpu"), ("qnn", "snapdragon-x-elite"))


def subject(name: str) -> Subject:
    """The example of that name, with its shapes and a few of its inputs."""
    from examples.fetch import EXAMPLES, fetch

    if name == "digits":
        from examples.digits import model

        return Subject(model()[0], {}, "reports.samples:digits", name)
    example = EXAMPLES[name]
    source = example.inputs.replace("examples.inputs:", "reports.samples:")
    return Subject(fetch(name), example.shapes, source, name)


def declared(name: str, date: str) -> Report:
    """What the profiles say of a model, on all their devices."""
    return tidy(make_report([subject(name)], open_targets(["all"], ["all"]), run=False, date=date))


def ran(name: str, date: str, eps: Sequence[str] = ()) -> Report:
    """What came of running a model on the targets in RUN, or on those of some EPs."""
    sessions = [open_targets([ep], [device])[0] for ep, device in RUN if not eps or ep in eps]

    def told(row: Row, done: int, total: int) -> None:
        where = f"{row.target.ep}, {row.target.device}, {row.precision}"
        print(f"{name} {done}/{total} {where}: {row.status} {row.reason}", file=sys.stderr, flush=True)

    return tidy(make_report([subject(name)], sessions, date=date, histograms=False, told=told))


def with_results(report: Report) -> Report:
    """The rows that ran, or failed to."""
    return replace(
        report, rows=tuple(row for row in report.rows if row.verification is not None or row.status == "error")
    )


def joined(said: Report, seen: Report) -> Report:
    """Rows that ran take the place of those that were only declared."""
    found = {row.key: row for row in seen.rows}
    return replace(said, rows=tuple(found.get(row.key, row) for row in said.rows))


def tidy(report: Report) -> Report:
    """The report without what is large or differs between machines."""
    return replace(report, rows=tuple(_tidy(row) for row in report.rows))


def _tidy(row: Row) -> Row:
    name = row.model.name
    verification = row.verification
    if verification is not None:
        fidelity = tuple(
            replace(
                f,
                sqnr_db=round(f.sqnr_db, 1),
                cosine=_round(f.cosine, 5),
                max_abs_error=None if f.max_abs_error is None else float(f"{f.max_abs_error:.2g}"),
                top1_agreement=_round(f.top1_agreement, 3),
            )
            for f in verification.fidelity
        )
        placement = replace(verification.placement, nodes={})
        verification = Verification(verification.ran_on, verification.kind, verification.runtime, placement, fidelity)
    model = replace(row.model, path=f"{name}.onnx")
    one_each = tuple(group.first for group in group_violations(row.violations))
    return replace(
        row, model=model, verification=verification, violations=one_each,
        nodes=(), ranges=(), latency_ms=None,
    )  # fmt: skip


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def to_text(report: Report) -> str:
    """The report as JSON, without fields that have their default; `read_report` reads it."""
    document = {"schema": SCHEMA, **compact(report)}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def compact(value: Any) -> Any:
    """Dataclasses as JSON objects without the fields that have their default."""
    if dataclasses.is_dataclass(value):
        return {
            f.name: compact(getattr(value, f.name))
            for f in dataclasses.fields(value)
            if f.name == "rows" or not _is_default(f, getattr(value, f.name))
        }
    if isinstance(value, tuple | list):
        return [compact(item) for item in value]
    return {k: compact(v) for k, v in value.items()} if isinstance(value, dict) else value


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return field.default is not dataclasses.MISSING and bool(value == field.default)


def index(reports: list[Report]) -> str:
    """The page that names all reports: a matrix of models and targets, each cell by its best precision."""
    versions: dict[str, str] = {}
    for row in (row for report in reports for row in report.rows if row.verification is not None):
        versions |= row.verification.runtime if row.verification else {}
    profiles = load_profiles().by_ep.values()
    lines = [
        "# Compatibility reports of the example models",
        "",
        "Written by `python -m reports.generate`; `tests/e2e/test_reports_current.py` fails when they no longer match.",
        "Where each model comes from is in `examples/fetch.py`; how to read the pages, in",
        "[docs/reading-a-report.md](../docs/reading-a-report.md).",
        "",
        *page.matrix([cell for report in reports for cell in report.cells]),
        "",
        "*declared*: the profile says so, nothing ran. *emulated*: another EP imitated the arithmetic. *simulated*: the EP's own",
        "simulator. *measured*: hardware, here the CPU. Times, memory and speeds differ between machines and are left out.",
        "",
        "Pages: " + ", ".join(f"[{r.rows[0].model.name}]({r.rows[0].model.name}.md)" for r in reports) + ".",
        "",
        "Judged by: "
        + ", ".join(f"{p.name} `{p.sha256[:12]}`" for p in profiles)
        + "; ran with "
        + ", ".join(f"{k} {v}" for k, v in sorted(versions.items()))
        + ".",
    ]
    return "\n".join(lines) + "\n"


def stored(name: str) -> Report:
    """The committed report of a model."""
    return read_report(FOLDER / f"{name}.json")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reports.generate", description="Write the reports.")
    parser.add_argument("names", nargs="*", help=f"which (all): {', '.join(MODELS)}")
    parser.add_argument("--declared-only", action="store_true", help="judge anew by the profiles, keep what ran")
    parser.add_argument(
        "--ep", nargs="+", default=[], choices=[ep for ep, _ in RUN], help="run on these alone, keep what ran elsewhere"
    )
    options = parser.parse_args(arguments)
    today = datetime.date.today().isoformat()
    for name in options.names or MODELS:
        said = declared(name, today)
        report = said
        if options.declared_only or options.ep:
            report = joined(report, with_results(stored(name)))
        if not options.declared_only:
            report = joined(report, with_results(ran(name, today, options.ep)))
        write_text(FOLDER / f"{name}.json", to_text(report))
        write_text(FOLDER / f"{name}.md", page.render(report))
    there = [stored(name) for name in MODELS if (FOLDER / f"{name}.json").exists()]
    write_text(FOLDER / "README.md", index(there))
    return 0


if __name__ == "__main__":
    sys.exit(main())
