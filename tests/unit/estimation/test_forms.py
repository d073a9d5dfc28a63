"""The files that are compiled for an estimate: each made once, and none for two plans that store something otherwise."""

from __future__ import annotations

from pathlib import Path

from planner.dtypes import parse_precision
from planner.estimation.run import _Forms
from planner.progress import silent
from planner.resolve.target import Target
from tests.unit.small_models import graph, save


def test_chips_share_a_file_only_where_their_plans_are_the_same(tmp_path: Path) -> None:
    path = save(graph("(float[3,4] a, float[4,5] b) => (float[3,5] y)", "y = MatMul(a, b)", {}), tmp_path)
    forms, precision = _Forms(tmp_path, silent), parse_precision("w8a16")
    made = {
        device: forms.of(target, target.read(path), precision)
        for device in ("snapdragon-x-elite", "snapdragon-8-gen3", "snapdragon-888")
        for target in (Target.open("qnn", device),)
    }
    # From v73 on the second factor is int16.
    assert made["snapdragon-x-elite"] is made["snapdragon-8-gen3"]
    assert made["snapdragon-888"] != made["snapdragon-x-elite"]
