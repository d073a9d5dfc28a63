"""The `planner` command: parsing, and turning errors into plain lines and exit statuses."""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import planner
from planner import limits
from planner.cli import arguments, common, supervisor
from planner.cli.deferred import defer_imports
from planner.errors import EPError, PlannerError, RequestError, planner_error_in
from planner.runtime import spare

COMMANDS = (
    "target", "check", "plan", "quantize", "verify", "estimate", "report", "sweep", "diff", "explain", "eps", "env", "probe",
)  # fmt: skip

_EPILOG = """\
examples:
  planner target model.onnx --ep qnn --device snapdragon-x-elite --inputs calibration.npz --output model.qnn.onnx
  planner check model.onnx --ep directml --precision fp16
  planner eps

exit status: 0 yes, 1 no, 2 wrong request, 3 the execution provider failed, 4 cannot tell
`planner COMMAND --help` explains each command with examples.
"""


class _Parser(argparse.ArgumentParser):
    """Options that cannot be parsed are a RequestError like any other."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        raise RequestError(message, f"see `{self.prog} --help`")


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = _Parser(
        prog="planner",
        description="Which numeric precision is legal for a model on an execution provider, which is best, and is it proven?",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"planner {planner.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"planner.cli.{name}")
        sub = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP[0].upper() + module.HELP[1:] + ".",
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        arguments.add_limit_arguments(sub)
        sub.set_defaults(run=module.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status of contract.md."""
    status = _main(argv)
    if supervisor.is_working():
        supervisor.leave(status)
    return status


def _open_standard_streams() -> None:
    """Give closed standard streams somewhere to go, before another file takes their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - lives as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115


def _main(argv: Sequence[str] | None) -> int:
    if argv is None:
        _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is shown by its code, not by an error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(given, owns_process=argv is None)
    except supervisor.Worked as done:
        return done.status
    except BrokenPipeError:
        # The reader of our output is gone; nothing is left to tell it.
        _drop_output()
        return 141
    except KeyboardInterrupt as stop:
        if not supervisor.is_working():
            _complain("interrupted", "")
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
    except (Exception, SystemExit) as error:
        error = planner_error_in(error) or error
        if os.environ.get("PLANNER_DEBUG") and not isinstance(error, PlannerError | OSError):
            raise
        return _fail(error, as_json="--json" in given)


def _run(given: Sequence[str], *, owns_process: bool) -> int:
    try:
        args = parser().parse_args(given)
    except SystemExit as stop:  # --help, --version
        return stop.code if isinstance(stop.code, int) else 2
    if owns_process:
        if supervisor.available():
            supervisor.supervise()  # only the working process goes on from here
        else:
            _end_as_interrupted()
        defer_imports()
        # A model is tens of thousands of objects that stay: looking at them all again and again took a tenth of the time.
        gc.set_threshold(20_000)
    limited = limits.limited(seconds=args.time_limit, memory=args.memory_limit)
    with common.listening(), limited, spare.reused(), common.for_documents(args.json):
        status = int(args.run(args))
    sys.stdout.flush()
    return status


def _fail(error: BaseException, *, as_json: bool) -> int:
    """Say what went wrong, on stderr and, with --json, as the one document on stdout; returns the exit status."""
    if isinstance(error, OSError) and error.filename is None:
        _drop_output()  # it may be what failed: it has no name
    status, kind, message, hint = _told(error)
    _complain(message, hint)
    if as_json:
        with contextlib.suppress(OSError):
            error_json = {"status": status, "kind": kind, "message": message, "hint": hint}
            common.print_document({"schema": "planner/error/1", "error": error_json})
            sys.stdout.flush()
    return status


def _told(error: BaseException) -> tuple[int, str, str, str]:
    """Exit status, kind, message and hint."""
    if isinstance(error, PlannerError):
        return error.exit_status, "ep" if isinstance(error, EPError) else "request", str(error), error.hint
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        hint = "check the disk, the permissions, and where the output and TMPDIR lie"
        return 2, "system", f"{where}{error.strerror or error}", hint
    if isinstance(error, MemoryError):
        return 3, "memory", "out of memory", "use fewer or smaller samples, or a machine with more memory"
    first = (str(error).splitlines() or [""])[0]
    hint = "this is a defect of planner; PLANNER_DEBUG=1 shows where"
    return 3, "internal", f"internal error: {type(error).__name__}: {first}", hint


def _end_as_interrupted() -> None:
    """Let SIGTERM end a run as Ctrl-C does: with its temporary files and its worker gone."""

    def stop(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(number)

    signal.signal(signal.SIGTERM, stop)


def _drop_output() -> None:
    """What stdout still holds would fail once more when the interpreter ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str, hint: str) -> None:
    lines = [line.strip() for line in message.splitlines() if line.strip()][:4]
    common.say(f"planner: {' / '.join(lines)}")
    if hint:
        common.say(f"  {hint}")
