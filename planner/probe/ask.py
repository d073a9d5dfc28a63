"""One whole interview: probe, then put date and versions on the answers."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from planner.probe.case import Case
from planner.probe.cases import PROBE_VERSION
from planner.probe.evidence import Evidence
from planner.probe.run import probe
from planner.runtime.registry import launcher


def ask(
    cases: Sequence[Case],
    ep: str,
    device: str,
    options: Mapping[str, str],
    *,
    workers: int = 2,
    partial: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evidence:
    """Put the cases to the EP and return its answers as evidence.

    Args:
        cases: what to ask.
        ep: full provider name.
        device: the profile's name of it.
        options: provider options of the device.
        workers: processes of the EP at a time.
        partial: a file that keeps outcomes as they come in.
        progress: called with the number of cases done and in all.

    Raises:
        EPError: the EP cannot be started here.
    """
    outcomes, runtime = probe(cases, ep, options, workers=workers, partial=partial, progress=progress)
    return Evidence(
        ep=ep,
        device=device,
        options=dict(options),
        runtime={**runtime, **vendor_sdk(ep)},
        date=datetime.date.today().isoformat(),
        probe=PROBE_VERSION,
        outcomes=outcomes,
    )


def vendor_sdk(ep: str) -> dict[str, str]:
    """Versions of the vendor's SDK that the EP's packages were built with, where they tell: {"qnn-sdk": "2.51.0"}."""
    found: dict[str, str] = {}
    start = launcher(ep)
    prefix = start.availability().python.parent.parent
    folders = [*prefix.glob("lib/python3*/site-packages"), prefix / "Lib" / "site-packages"]
    for folder, need in itertools.product(folders, start.needs):
        info = folder / need.replace("-", "_") / "build_and_package_info.py"
        if info.is_file():
            for line in info.read_text(encoding="utf-8").splitlines():
                name, _, value = (part.strip() for part in line.partition("="))
                if name.endswith("_version") and not name.startswith("_"):
                    found[f"{name.removesuffix('_version')}-sdk"] = value.strip("'\"")
    return found
