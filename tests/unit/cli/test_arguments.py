"""What the options ask for."""

from __future__ import annotations

import argparse
from argparse import Namespace

import pytest

from planner.cli import arguments
from planner.dtypes import DType, Precision
from planner.errors import RequestError
from planner.reporting.write import FORMATS


def options(precision: str | None, weight_type: str | None, activation_type: str | None) -> Namespace:
    return Namespace(precision=precision, weight_type=weight_type, activation_type=activation_type)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((None, None, None), None),
        (("auto", None, None), "auto"),
        (("w8a16", None, None), "w8a16"),
        ((None, "uint8", "uint16"), Precision("w8a16", (DType.UINT8,), (DType.UINT16,))),
    ],
)
def test_a_precision_is_named_or_made_of_two_types(
    asked: tuple[str | None, str | None, str | None], expected: str | Precision | None
) -> None:
    assert arguments.precision(options(*asked)) == expected


def test_options_that_contradict_one_another_are_refused() -> None:
    for asked in (("fp16", "int8", "int8"), (None, "int8", None), (None, None, "int8")):
        with pytest.raises(RequestError):
            arguments.precision(options(*asked))


def test_a_list_with_commas_and_an_option_given_twice_are_the_same() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--precision", type=arguments.names, action="extend", default=[])
    assert parser.parse_args(["--precision", "fp16, w8a8,"]).precision == ["fp16", "w8a8"]
    assert parser.parse_args(["--precision", "fp16", "--precision", "w8a8"]).precision == ["fp16", "w8a8"]
    assert parser.parse_args([]).precision == []


def test_formats_add_up_and_all_but_figures_are_written_where_none_is_named() -> None:
    parser = argparse.ArgumentParser()
    arguments.add_formats_argument(parser)
    assert arguments.formats(parser.parse_args(["--formats", "json,svg", "--formats", "html"])) == (
        "json",
        "svg",
        "html",
    )
    assert arguments.formats(parser.parse_args([])) == tuple(FORMATS)
