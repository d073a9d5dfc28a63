"""A few inputs of each example model, enough for a report: `reports.samples:NAME` for --inputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from examples import inputs

COUNT = 8


def __getattr__(name: str) -> Callable[[], Iterator[Any]]:
    every = getattr(inputs, name)
    return lambda: itertools.islice(every(), COUNT)
