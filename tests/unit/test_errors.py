"""Errors carry their exit status and what to do next."""

from __future__ import annotations

import pickle

from planner.errors import EPError, PlannerError, RequestError


def test_exit_statuses_are_those_of_the_contract() -> None:
    assert RequestError("x").exit_status == 2 and EPError("x").exit_status == 3
    assert issubclass(RequestError, PlannerError) and issubclass(EPError, PlannerError)


def test_an_error_says_what_happened_and_what_to_do() -> None:
    error = RequestError("no such file", "give another path")
    assert str(error) == "no such file" and error.hint == "give another path"
    assert EPError("crashed").hint == ""


def test_an_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(RequestError("no such file", "give another path")))
    assert str(error) == "no such file" and error.hint == "give another path"
