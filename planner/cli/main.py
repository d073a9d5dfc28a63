"""The `planner` command: parsing, and turning errors into plain lines and exit statuses."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence

import planner
from planner.cli.deferred import defer_imports
from planner.errors import PlannerError, planner_error_in

COMMANDS = ("target", "check", "plan", "quantize", "verify", "report", "explain", "eps", "probe")

_EPILOG = """\
examples:
  planner target model.onnx --ep qnn --device snapdragon-x-elite --inputs calibration.npz --output model.qnn.onnx
  planner check model.onnx --ep directml --precision fp16
  planner eps

exit status: 0 yes, 1 no, 2 wrong request, 3 the execution provider failed, 4 cannot tell
`planner COMMAND --help` explains each command with examples.
"""


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(
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
        sub.set_defaults(run=module.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status of contract.md."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is shown by its code, not by an error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        args = parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    if argv is None:
        _end_as_interrupted()
        defer_imports()
    try:
        status = int(args.run(args))
        sys.stdout.flush()
        return status
    except PlannerError as error:
        _complain(str(error), error.hint)
        return error.exit_status
    except BrokenPipeError:
        # The reader of our output is gone; nothing is left to tell it.
        _drop_output()
        return 141
    except KeyboardInterrupt as stop:
        _complain("interrupted", "")
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
    except OSError as error:
        _drop_output()
        where = f"{error.filename}: " if error.filename else ""
        _complain(f"{where}{error.strerror or error}", "check the disk, the permissions, and where the output goes")
        return 2
    except MemoryError:
        _complain("out of memory", "use fewer or smaller samples, or a machine with more memory")
        return 3
    except Exception as error:
        if (known := planner_error_in(error)) is not None:
            _complain(str(known), known.hint)
            return known.exit_status
        if os.environ.get("PLANNER_DEBUG"):
            raise
        _complain(
            f"internal error: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            "this is a defect of planner; PLANNER_DEBUG=1 shows where",
        )
        return 3


def _end_as_interrupted() -> None:
    """Let SIGTERM end a run as Ctrl-C does: with its temporary files and its worker gone."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    signal.signal(signal.SIGTERM, stop)


def _drop_output() -> None:
    """What stdout still holds would fail once more when the interpreter ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str, hint: str) -> None:
    from planner.cli.common import say

    lines = [line.strip() for line in message.splitlines() if line.strip()][:4]
    say(f"planner: {' / '.join(lines)}")
    if hint:
        say(f"  {hint}")
