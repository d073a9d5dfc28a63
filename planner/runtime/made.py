"""The environments that `planner env create` made."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from planner.errors import RequestError
from planner.runtime.environment import made_folder
from planner.runtime.eps.launcher import Launcher
from planner.runtime.registry import LAUNCHERS


@dataclass(frozen=True)
class Made:
    """An environment of an EP.

    Attributes:
        alias: of the EP, with the version that was asked for (qnn@2.5).
        packages: installed distributions that the EP comes from, with their versions.
    """

    ep: str
    alias: str
    folder: str
    packages: Mapping[str, str]


def make(known: Launcher, say: Callable[[str], None]) -> Made:
    """Make the EP's environment.

    Args:
        known: the EP's launcher.
        say: told each step before it is taken.

    Raises:
        EPError: a step failed.
    """
    return _of(known, known.make_environment(made_folder(known.environment), say))


def made() -> tuple[Made, ...]:
    """All that are there."""
    folders = sorted(folder for folder in made_folder("").glob("*") if folder.is_dir())
    found = []
    for known in LAUNCHERS:
        for folder in folders:
            alias, _, version = folder.name.partition("@")
            if alias == known.alias:
                one = replace(known, version=version)
                found.append(_of(one, one.availability().packages))
    return tuple(found)


def remove(known: Launcher) -> None:
    """Delete the EP's environment.

    Raises:
        RequestError: there is none.
    """
    folder = made_folder(known.environment)
    if not folder.is_dir():
        raise RequestError(
            f"there is no environment of {known.environment} in {folder}", "`planner env list` shows them"
        )
    shutil.rmtree(folder)


def _of(known: Launcher, packages: Mapping[str, str]) -> Made:
    return Made(known.ep, known.environment, str(made_folder(known.environment)), packages)
