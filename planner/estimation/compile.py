"""Asking the EP's compiler for the schedule of a model: it builds a session in the worker, and runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from planner import limits
from planner.errors import EPError, RequestError
from planner.estimation.schedule import Schedule, joined, read_schedule
from planner.files import temporary_folder
from planner.runtime.client import Opened, Worker
from planner.runtime.registry import launcher

_PATTERN = "*_schematic.bin"


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a model for one chip.

    Attributes:
        schedule: of all graphs that the EP took. elsewhere: operators left to another EP: the schedule knows nothing of
            them. seconds: to compile. runtime: versions of the packages that the EP comes from.
    """

    schedule: Schedule
    elsewhere: tuple[str, ...]
    seconds: float
    runtime: Mapping[str, str]


class Compiler:
    """The EP's compiler in a worker of its own; use as a context manager."""

    def __init__(self, ep: str, *, timeout: float = 600) -> None:
        """Prepare to start the EP.

        Args:
            ep: full provider name.
            timeout: seconds that compiling one model may take.

        Raises:
            RequestError: the EP's compiler writes no schedule.
        """
        if not launcher(ep).schedules:
            raise RequestError(f"{ep} writes no schedule to estimate from", "estimate for --ep qnn")
        self.ep = ep
        self._worker = Worker(ep, timeout=limits.current().seconds or timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Be done with the worker."""
        self._worker.close()

    def abandon(self) -> None:
        """Make what another thread compiles fail at once."""
        self._worker.abandon()

    def compile(self, model: Path, options: Mapping[str, str]) -> Compiled:
        """Compile a model and read its schedule.

        Args:
            model: an ONNX file, as it would run: quantized where that is meant.
            options: provider options, as in a profile; they name the chip.

        Raises:
            EPError: the EP is not here, refuses the model, crashes, takes none of it, or writes an unknown form.
        """
        with temporary_folder() as folder:
            opened = self._worker.open(model, options, schedule=folder)
            compiled = read_compiled(self.ep, model, folder, opened)
        self._worker.close_session()
        return compiled


def read_compiled(ep: str, model: Path, folder: Path, opened: Opened) -> Compiled:
    """What the compiler wrote down while a session was built.

    Args:
        ep: full provider name.
        model: that the session was built for.
        folder: that the session was given for its schedules.
        opened: the session.

    Raises:
        EPError: the EP took none of the model, or the text is of an unknown form.
    """
    files = sorted(folder.glob(_PATTERN))
    if not files:
        raise EPError(
            f"{ep} took nothing of {model.name}: there is no schedule to estimate from",
            "`planner check` says what the profile knows of the model's nodes",
        )
    schedule = joined(read_schedule(file) for file in files)
    elsewhere = tuple(a.op_type for a in opened.assignment if a.ep != ep)
    return Compiled(schedule, elsewhere, opened.seconds, dict(opened.runtime))
