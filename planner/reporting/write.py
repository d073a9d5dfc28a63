"""Writing a report: every format is rendered before any file changes, and each file appears whole or not at all."""

from __future__ import annotations

import json as stdlib_json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from planner.errors import RequestError
from planner.files import atomic, exists, read_text
from planner.reporting import html, json, junit, markdown, sarif, svg, text
from planner.reporting.data import Report, Row

# format name: (file name, renderer)
FORMATS: Mapping[str, tuple[str, Callable[[Report], str]]] = {
    "html": (html.FILE_NAME, html.render),
    "markdown": (markdown.FILE_NAME, markdown.render),
    "json": (json.FILE_NAME, json.render),
    "sarif": (sarif.FILE_NAME, sarif.render),
    "junit": (junit.FILE_NAME, junit.render),
}
_LONGEST_NAME = 255  # bytes, on all common file systems
FIGURES = "svg"  # the one format of many files: figures/*.svg
FIGURES_FOLDER = "figures"


def write_report(report: Report, directory: Path, formats: Iterable[str] = tuple(FORMATS)) -> tuple[Path, ...]:
    """Write ``report`` into ``directory`` (made if missing) in each of ``formats`` (FORMATS, and "svg"); their paths.

    Raises:
        RequestError: for an unknown format, a missing library, or a directory that cannot be written.
    """
    rendered: dict[str, str] = {}
    for name in dict.fromkeys(formats):
        if name == FIGURES:
            rendered |= {f"{FIGURES_FOLDER}/{file}": content for file, content in figures(report)}
        elif name in FORMATS:
            file, render = FORMATS[name]
            rendered[file] = render(report)
        else:
            raise _unknown(name)
    try:
        for file, content in rendered.items():
            _replace(directory / file, content)
    except OSError as error:
        raise RequestError(
            f"cannot write the report: {error}", "give another folder, or check the disk and the permissions"
        ) from error
    return tuple(directory / file for file in rendered)


def check_directory(
    directory: Path,
    formats: Iterable[str],
    option: str = "--output",
    beside: Sequence[Path] = (),
    *,
    overwrite: bool = False,
) -> None:
    """Refuse an output early, before any long work.

    Args:
        directory: of the report.
        formats: that are to be written.
        option: that names the directory, for the hint.
        beside: files that are written as well: the report cannot lie in one of them.
        overwrite: whether those of an earlier report may be replaced.

    Raises:
        RequestError: an unknown format, a path that is no folder or can't be one, or files of an earlier report there.
    """
    hint = f"give another {option}"
    for name in formats:
        if name != FIGURES and name not in FORMATS:
            raise _unknown(name)
        path = directory / (FIGURES_FOLDER if name == FIGURES else FORMATS[name][0])
        if exists(path) and not overwrite:
            raise RequestError(f"{path}: exists already", f"{hint}, or --overwrite")
    places = (directory.absolute(), *directory.absolute().parents)
    if taken := next((file for file in beside if file.absolute() in places), None):
        raise RequestError(f"{directory}: lies in {taken}, which becomes a file", hint)
    place = directory
    while not exists(place) and place != place.parent:
        if len(os.fsencode(place.name)) > _LONGEST_NAME:
            raise RequestError(f"{place}: too long a name for a folder", hint)
        place = place.parent
    if not place.is_dir():
        raise RequestError(f"{place}: is no folder", hint)
    if not os.access(place, os.W_OK):
        raise RequestError(f"{place}: no permission to write there", hint)


def _unknown(name: str) -> RequestError:
    return RequestError(f"unknown report format {name!r}", f"formats: {', '.join([*FORMATS, FIGURES])}")


def read_report(path: Path | str) -> Report:
    """The report in a JSON file that write_report made.

    Raises:
        RequestError: if it cannot be read or is no report.
    """
    path = Path(path)
    try:
        value = stdlib_json.loads(read_text(path))
    except (RequestError, ValueError, RecursionError) as error:
        raise RequestError(f"cannot read the report {path}: {error}", "a report.json of planner is wanted") from error
    try:
        return Report.from_json(value)
    except RequestError as error:
        raise RequestError(f"{path}: {error}", error.hint) from error


def figures(report: Report) -> Iterator[tuple[str, str]]:
    """(file name, SVG text) of every plan strip and depth chart, for a slide."""
    for index, row in enumerate(report.rows):
        stem = f"{index:03}-{_slug(row)}"
        if row.nodes:
            yield f"{stem}-plan.svg", svg.standalone(svg.plan_strip(row.nodes))
        if row.depth:
            yield f"{stem}-error.svg", svg.standalone(svg.depth_chart(row.nodes, row.depth, row.floor_db))


def _slug(row: Row) -> str:
    words = (row.model.name, text.short_ep(row.target.ep), row.target.device, row.precision)
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")[:80]


def _replace(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        temporary.write_text(content, encoding="utf-8", errors="backslashreplace", newline="\n")
