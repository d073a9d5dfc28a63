"""Errors that a user can act on: each knows its exit status (contract: 2 wrong request, 3 EP failure)."""

from __future__ import annotations


class PlannerError(Exception):
    """Base of every error that planner reports in plain words, without a traceback.

    Attributes:
        exit_status: the process exit status the command line ends with.
        hint: what to do next, one line; may be empty.
    """

    exit_status = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class RequestError(PlannerError):
    """The request is wrong: unreadable model, unknown EP or device, malformed profile, bad option."""

    exit_status = 2


class RangeMissingError(RequestError):
    """A plan stores a tensor over a range that calibration did not see."""


class EPError(PlannerError):
    """The execution provider or its worker failed: crash, time-out, package missing."""

    exit_status = 3


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its type where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def planner_error_in(error: BaseException) -> PlannerError | None:
    """The error of planner that another library wrapped into its own; None where there is none."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, PlannerError):
        seen = seen.__cause__ or seen.__context__
    return seen
