"""In which order cells go to the workers."""

from __future__ import annotations

import subprocess
import sys

from planner.sweeps.run import apart
from planner.sweeps.task import Task


def test_each_worker_gets_the_precisions_of_a_model_on_a_target_of_its_own() -> None:
    tasks = [
        Task("m.onnx", "m", {}, None, ep, "npu", precision) for ep in ("A", "B", "C") for precision in ("fp16", "w8a8")
    ]
    order = [f"{tasks[i].ep} {tasks[i].precision}" for i in apart(range(len(tasks)), tasks, 2)]
    assert order == ["A fp16", "B fp16", "A w8a8", "B w8a8", "C fp16", "C w8a8"]


def test_one_worker_gets_them_as_they_are_and_none_is_lost() -> None:
    tasks = [Task("m.onnx", "m", {}, None, ep, "npu", p) for ep in "AB" for p in ("fp32", "fp16", "w8a8")]
    assert apart(range(6), tasks, 1) == list(range(6))
    assert sorted(apart([0, 2, 5], tasks, 4)) == [0, 2, 5]


def test_what_a_scheduler_s_worker_imports_is_light() -> None:
    """Only a cell's own process needs what computes it: a cluster's workers would import that for nothing."""
    script = "import planner.sweeps.cluster, sys; print(sorted({'numpy', 'onnx', 'onnx_ir'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
