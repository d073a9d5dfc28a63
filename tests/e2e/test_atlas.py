"""The committed atlas is what the profiles say, on a sample: else run `python -m reports.atlas.generate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from planner.dtypes import parse_precision  # noqa: E402
from planner.profiles.load import load_profiles  # noqa: E402
from planner.reporting.matrix import Subject, make_report, open_targets  # noqa: E402
from reports.atlas import generate  # noqa: E402

ATLAS: dict[str, Any] = json.loads((generate.FOLDER / "atlas.json").read_text())
BY_NAME = {model["name"]: model for model in ATLAS["models"]}


@pytest.mark.models
def test_a_sample_of_the_atlas_is_current(digits: Path) -> None:
    committed = BY_NAME["digits"]
    precisions = list(next(iter(committed["fares"].values())))
    targets = [
        target
        for ep, profile in load_profiles().by_ep.items()
        if ep in ATLAS["profiles"]
        for target in open_targets([ep], list(generate.alike(profile)))
    ]
    report = make_report([Subject(digits, name="digits")], targets, [parse_precision(p) for p in precisions], run=False)
    (found,) = generate.atlas(report.rows, [generate.Source("digits", digits, {}, committed["origin"])])["models"]
    assert found == committed


def test_the_index_names_every_model_of_the_atlas() -> None:
    index = (generate.FOLDER / "index.md").read_text()
    assert BY_NAME and all(f"| {name} |" in index for name in BY_NAME)
