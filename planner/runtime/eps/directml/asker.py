"""The process that is asked: our program under Wine, on a display of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..log import Placed, read_placement
from .environment import Environment
from .tensors import pack, unpack
from .wine import TIED, Display, NoDisplay, variables


class NotDone(Exception):
    """The program says that it could not do what was asked."""


class Died(Exception):
    """The program ended in the middle of an answer, or did not start; the message says how."""


@dataclass(frozen=True)
class Answer:
    """What came of building a session.

    Attributes:
        placement: every node of the graph after partitioning; None where it was not logged as a whole.
        error: onnxruntime's message where the session was not built, else empty.
        seconds: that it took.
    """

    placement: tuple[Placed, ...] | None
    error: str
    seconds: float


class Asker:
    """A running program. It holds the libraries and the device, so that a question costs a session and no more."""

    def __init__(self, environment: Environment) -> None:
        """Start the display and the program, and wait until it is ready.

        Raises:
            Died: it does not start.
        """
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self.lost = False  # the device: then nothing more can be asked
        self._display: Display | None = None
        self._program: subprocess.Popen[bytes] | None = None
        try:
            self._display = Display()
            self._program = subprocess.Popen(
                [*TIED, "wine", str(environment.program), f"Z:{environment.libraries}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=variables(environment.prefix, self._display.name, environment.bridge),
            )
            self.version = str(self._read()["onnxruntime"])
        except (OSError, NoDisplay) as error:
            self.close()
            raise Died(str(error)) from None
        except BaseException:
            self.close()
            raise

    def ask(self, model: bytes, data: Path, *, optimize: bool) -> Answer:
        """Build a session of the model on DirectML, with the CPU EP behind it, and forget it. See `open`."""
        return self._build("ask", model, data, optimize)

    def open(self, model: bytes, data: Path, *, optimize: bool) -> Answer:
        """Build a session of the model on DirectML, with the CPU EP behind it, and keep it for `run`.

        Args:
            model: the bytes of an ONNX file.
            data: the folder of its external data.
            optimize: whether onnxruntime may rewrite the graph, as it does by default.

        Raises:
            Died: the session took the program with it, before the placement was known.
            OSError: there is no such folder, or no memory for the model.
        """
        return self._build("open", model, data, optimize)

    def run(self, feed: Mapping[str, np.ndarray[Any, Any]]) -> tuple[dict[str, np.ndarray[Any, Any]], float]:
        """Run the open session: its outputs by name, and the seconds that it took.

        Raises:
            NotDone: onnxruntime's message. Died: the run took the program with it.
        """
        with _in_memory(pack(feed)) as (_, inputs), _in_memory(b"") as (stream, outputs):
            try:
                said = self._ask(f"run\tZ:{inputs}\tZ:{outputs}\n", [])
            except BrokenPipeError as error:
                raise Died(str(error)) from None
            if not said["done"]:
                raise NotDone(str(said["error"]).strip())
            stream.seek(0)
            return unpack(stream.read()), float(said["seconds"])

    def _ask(self, request: str, lines: list[str]) -> Any:
        """The object that ends an answer; the strings before it are added to the lines."""
        assert self._program is not None and self._program.stdin is not None
        self._program.stdin.write(request.encode())
        self._program.stdin.flush()
        while isinstance(said := self._read(), str):
            lines.append(said)
        self.lost = bool(said["lost"])
        return said

    def _build(self, verb: str, model: bytes, data: Path, optimize: bool) -> Answer:
        lines: list[str] = []
        with _shown(model, data) as (file, folder):
            try:
                said = self._ask(f"{verb}\t{int(optimize)}\tZ:{file}\tZ:{folder}\n", lines)
            except (Died, BrokenPipeError) as error:
                placement = read_placement(lines)
                if placement is None:
                    raise Died(str(error)) from None
                return Answer(placement, f"the process died: {error}", 0.0)
        return Answer(read_placement(lines), str(said["error"]).strip(), float(said["seconds"]))

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return not self.lost and self._program is not None and self._program.poll() is None

    def close(self) -> None:
        """End the processes; safe to call again."""
        if self._program is not None:
            self._program.kill()
            self._program.wait()
        if self._display is not None:
            self._display.close()
        self._errors.close()

    def _read(self) -> Any:
        assert self._program is not None and self._program.stdout is not None
        line = self._program.stdout.readline()
        if not line.endswith(b"\n"):
            raise Died(self._last_words())
        return json.loads(line.decode(errors="replace"))

    def _last_words(self) -> str:
        assert self._program is not None
        code = self._program.wait()
        self._errors.seek(0)
        said = [line for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        how = f"exit status {code & 0xFFFFFFFF:#x}"
        if code < 0:
            with contextlib.suppress(ValueError):
                how = f"signal {signal.Signals(-code).name}"
        return f"{how}{': ' if said else ''}{' / '.join(said[-3:])}"


@contextlib.contextmanager
def _shown(model: bytes, data: Path) -> Iterator[tuple[str, str]]:
    """Paths of the model and of its data that hold no character which Windows does not allow, and leave nothing behind."""
    folder = os.open(data, os.O_PATH | os.O_DIRECTORY)
    try:
        with _in_memory(model) as (_, file):
            yield file, f"/proc/{os.getpid()}/fd/{folder}"
    finally:
        os.close(folder)


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[tuple[BinaryIO, str]]:
    """A file that lies nowhere, and a path by which the program reaches it."""
    with os.fdopen(os.memfd_create("planner"), "w+b") as stream:
        stream.write(content)
        stream.flush()
        yield stream, f"/proc/{os.getpid()}/fd/{stream.fileno()}"


__all__ = ["Answer", "Asker", "Died", "NotDone"]
