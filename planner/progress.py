"""How long work tells of its progress."""

from __future__ import annotations

from collections.abc import Callable

# Called with what is being done, how many steps are done, of how many. What follows ": " is the step's present state.
Progress = Callable[[str, int, int], None]


def silent(_what: str, _done: int, _total: int) -> None:
    """No progress is shown."""
