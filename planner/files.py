"""Writing outputs: whole or not at all, and never over something by surprise."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from planner.errors import RequestError


def check_output(path: Path, inputs: tuple[Path, ...] = (), *, overwrite: bool = False) -> None:
    """Refuse an output path early, before any long work.

    Raises:
        RequestError: the path is one of the inputs, exists without ``overwrite``, is a directory or a device, or its
            folder is missing.
    """
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise RequestError(f"{path}: the output would overwrite the input", "give another --output")
    if path.is_dir():
        raise RequestError(f"{path}: is a directory", "give the path of a file")
    if path.exists() and not path.is_file():
        raise RequestError(f"{path}: not a regular file", "give the path of a file")
    if path.exists() and not overwrite:
        raise RequestError(f"{path}: exists already", "give another --output, or --overwrite")
    if not path.parent.is_dir():
        raise RequestError(f"{path.parent}: no such folder", "create it first")
    if not os.access(path.parent, os.W_OK):
        raise RequestError(f"{path.parent}: no permission to write there")


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path in a folder beside ``path``; what was written there takes its place at the end, or nothing does.

    Further files written in the temporary folder (external data) move along, under their own names.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".planner-", dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            yield temporary
            for extra in sorted(Path(folder).iterdir()):
                if extra != temporary:
                    extra.replace(path.parent / extra.name)
            temporary.replace(path)
    except OSError as error:
        raise RequestError(f"{path}: cannot be written: {error.strerror or error}") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
