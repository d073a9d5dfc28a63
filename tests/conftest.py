"""Fixtures that real models come from, and skips that cannot be overlooked.

A test may need the QNN package (marker ``qnn``) or example models (marker ``models``, or the fixture ``example``).
Where that is missing the test is skipped and the end of the run says what was not tested and why.
``PLANNER_REQUIRE=qnn,models`` makes the lack a failure.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from examples.fetch import EXAMPLES, FetchError, fetch, fetch_file
from planner.runtime.registry import launcher
from tests.capabilities import lacking

# How long an example takes depends on what else the machine does.
settings.register_profile("planner", deadline=None)
settings.load_profile("planner")

# What is started by nohup, or in the background of a shell, ignores these, and so would all that the tests start.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Enough to tell whether models can be had at all.
_SMALLEST = "cls"


@functools.cache
def _lack_of_qnn() -> str:
    absent = [name for name in ("onnxruntime", "onnxruntime_qnn") if importlib.util.find_spec(name) is None]
    return f"package {absent[0].replace('_', '-')} is not installed (pip install planner[qnn])" if absent else ""


@functools.cache
def _lack_of_directml() -> str:
    found = launcher("DmlExecutionProvider").availability()
    return "" if found.kind in ("placement", "software") else found.reason or "DirectML runs on a GPU here"


@functools.cache
def _lack_of_webgpu() -> str:
    return launcher("WebGpuExecutionProvider").availability().reason


@functools.cache
def _lack_of_model(name: str) -> str:
    try:
        fetch_file(EXAMPLES[name].file)
    except FetchError as error:
        return str(error)
    return ""


@pytest.fixture(autouse=True)
def _capabilities(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("qnn") and (reason := _lack_of_qnn()):
        lacking("qnn", reason)
    if request.node.get_closest_marker("directml") and (reason := _lack_of_directml()):
        lacking("directml", reason)
    if request.node.get_closest_marker("webgpu") and (reason := _lack_of_webgpu()):
        lacking("webgpu", reason)
    if request.node.get_closest_marker("models") and (reason := _lack_of_model(_SMALLEST)):
        lacking("models", reason)


@pytest.fixture(params=["", "no-vnni"], ids=["vnni", "no-vnni"])
def processor_traits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The test runs twice: plans are made as on a processor whose sums are exact, and as on one whose sums saturate.

    Only what is decided follows; kernels run on the processor that is there.
    """
    monkeypatch.setenv("PLANNER_PROCESSOR", request.param)
    return (request.param,) if request.param else ()


@pytest.fixture
def exact_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are made as on a processor whose sums are exact."""
    monkeypatch.setenv("PLANNER_PROCESSOR", "")


@pytest.fixture
def without_directml(monkeypatch: pytest.MonkeyPatch) -> None:
    """DirectML can only be emulated, whether or not its environment is on this machine."""
    monkeypatch.setenv("PLANNER_DIRECTML", os.devnull)


@pytest.fixture(scope="session")
def example() -> Callable[[str], Path]:
    """Path of an example model by its name in EXAMPLES; skips the test, by that name, where it cannot be had."""

    def path(name: str) -> Path:
        if reason := _lack_of_model(name):
            lacking("models", f"{name}: {reason}")
        return fetch(name)

    return path


@pytest.fixture(scope="session")
def rec(example: Callable[[str], Path]) -> Path:
    """PP-OCRv6 text recognition; bind x to 1,3,48,320."""
    return example("rec")


@pytest.fixture(scope="session")
def det(example: Callable[[str], Path]) -> Path:
    """PP-OCRv6 text detection; bind x to 1,3,480,480."""
    return example("det")


@pytest.fixture(scope="session")
def cls(example: Callable[[str], Path]) -> Path:
    """PP-OCR text-line direction; bind x to 1,3,48,192."""
    return example("cls")


@pytest.fixture(scope="session")
def magika(example: Callable[[str], Path]) -> Path:
    """magika's file-type classifier; bind bytes to 1,2048."""
    return example("magika")


@pytest.fixture(scope="session")
def digits() -> Path:
    """The digit classifier that examples/digits.py trains; its shapes are fixed."""
    from examples.digits import model

    return model()[0]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what this machine could not test."""
    # The reports of the skipped tests, since with xdist the tests ran in other processes.
    skipped = Counter(
        str(report.longrepr[2]).removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", [])
    )
    if skipped:
        terminalreporter.section("NOT TESTED HERE", sep="!", yellow=True, bold=True)
        for reason, count in sorted(skipped.items()):
            terminalreporter.write_line(f"{count} test{'s' if count > 1 else ''} skipped: {reason}")
