"""How commands speak: exit statuses, tables, JSON, plain lines, progress. No heavy import at the top."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from planner.progress import Progress, silent

if TYPE_CHECKING:
    from rich.console import Console

# Seconds between two plain lines of progress about one step.
_SAY_EVERY = 5.0
YES, NO, WRONG_REQUEST, EP_FAILED, UNKNOWN = 0, 1, 2, 3, 4


def console() -> Console:
    """The console for people, on stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=False)


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, limit: int | None = None, whole: int = 0
) -> None:
    """A table on stdout; cells are plain text (names of nodes are never read as markup).

    Args:
        title: a line above it.
        columns: headers.
        rows: cells, one for each column; None is empty.
        limit: most rows to show.
        whole: that many first columns are short names, which are never broken.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=i < whole, ratio=None if i < len(columns) - 1 else 1)
    rows = list(rows)
    for row in rows[:limit]:
        table.add_row(*(Text("" if cell is None else printable(str(cell))) for cell in row))
    out = Console(highlight=False, width=None if sys.stdout.isatty() else shutil.get_terminal_size((160, 24)).columns)
    for line in title.splitlines():
        print(printable(line))
    with out.capture() as drawn:  # rich itself would end the program where the reader of its output is gone
        out.print(table)
    print(drawn.get(), end="")
    if limit is not None and len(rows) > limit:
        print(f"... and {len(rows) - limit} more (all of them with --json)")


def printable(text: str) -> str:
    """The text without control characters: a name in a hostile model could hold terminal commands."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


_documents: TextIO | None = None


@contextlib.contextmanager
def for_documents(alone: bool) -> Iterator[None]:
    """Where stdout is for a document alone, what else is printed (by a function of the user's, a library) goes to stderr."""
    global _documents
    if not alone:
        yield
        return
    _documents = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _documents = None


def print_document(document: Mapping[str, Any]) -> None:
    """Print one JSON document."""
    print(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=True), file=_documents or sys.stdout)


def say(message: str) -> None:
    """Plain lines on stderr; where nobody can be told, the exit status still tells."""
    with contextlib.suppress(OSError):
        for line in message.splitlines():
            print(printable(line), file=sys.stderr, flush=True)


class Listener(logging.Handler):
    """Says what the library logs, as lines on stderr: warnings and notes."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = "WARNING" if record.levelno >= logging.WARNING else "note"
        say(f"planner: {kind}: {record.getMessage()}")


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Warnings and notes of the library are said while this lasts."""
    log, listener = logging.getLogger("planner"), Listener()
    level, log.propagate = log.level, False
    log.addHandler(listener)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(listener)
        log.setLevel(level)
        log.propagate = True


@contextlib.contextmanager
def progress(enabled: bool = True) -> Iterator[Progress]:
    """A progress line on stderr while something long runs: ``update(what, done, total)``.

    Plain lines where stderr is no terminal: one for each new step, and one every few seconds for what a step says of itself
    behind a colon.
    """
    if not enabled:
        yield silent
        return
    if not sys.stderr.isatty():
        said: dict[str, float] = {}

        def plain(what: str, _done: int, _total: int) -> None:
            step, _, state = what.partition(": ")
            if step not in said or (state and time.monotonic() - said[step] > _SAY_EVERY):
                said[step] = time.monotonic()
                say(f"planner: {what} ...")

        yield plain
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def update(what: str, done: int, total: int) -> None:
            step = what.partition(": ")[0]
            if step not in tasks:
                tasks[step] = bar.add_task(what, total=total)
            bar.update(tasks[step], completed=done, total=total, description=what)

        yield update
