"""Precisions as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.dtypes import SHORTHANDS, DType, QuantConfig, parse_dtype, parse_precision, precision_by_name
from planner.errors import RequestError


@pytest.mark.parametrize(
    ("text", "name", "weights", "activations"),
    [
        ("fp32", "fp32", {"float32"}, {"float32"}),
        ("fp16", "fp16", {"float16"}, {"float16"}),
        ("w8a8", "w8a8", {"int8", "uint8"}, {"uint8", "int8"}),
        ("int8", "w8a8", {"int8", "uint8"}, {"uint8", "int8"}),
        ("w8a16", "w8a16", {"int8", "uint8"}, {"uint16", "int16"}),
        ("w16a16", "w16a16", {"int16", "uint16"}, {"uint16", "int16"}),
        ("int16", "w16a16", {"int16", "uint16"}, {"uint16", "int16"}),
        ("w4a16", "w4a16", {"int4", "uint4"}, {"uint16", "int16"}),
        ("w4a8", "w4a8", {"int4", "uint4"}, {"uint8", "int8"}),
        ("w4", "w4", {"int4", "uint4"}, {"float32"}),
        ("w8-fp16", "w8-fp16", {"int8", "uint8"}, {"float16"}),
        ("dynamic", "w8a8-dynamic", {"int8", "uint8"}, {"uint8"}),
        (" W8A16 ", "w8a16", {"int8", "uint8"}, {"uint16", "int16"}),
    ],
)
def test_a_shorthand_leaves_signedness_open(text: str, name: str, weights: set[str], activations: set[str]) -> None:
    precision = parse_precision(text)
    assert str(precision) == name and set(precision.weights) == weights and set(precision.activations) == activations


@pytest.mark.parametrize(
    ("text", "flows"),
    [
        ("w4", "float32"),
        ("w8-fp16", "float16"),
        ("dynamic", "float32"),
        ("w4a16", None),
        ("fp32", None),
        ("w8a8", None),
    ],
)
def test_weight_only_and_dynamic_precisions_keep_float_between_nodes(text: str, flows: str | None) -> None:
    assert parse_precision(text).flows == flows


def test_a_mix_with_weights_alone_is_none() -> None:
    for text in ("w4+fp16", "w8a8+w4", "dynamic+fp16"):
        with pytest.raises(RequestError, match="is no mix"):
            parse_precision(text)


def test_a_mix_quantizes_what_has_weights() -> None:
    mixed = parse_precision("w8a16+fp16")
    assert str(mixed) == "w8a16+fp16" and mixed.activations == parse_precision("w8a16").activations
    assert mixed.rest == parse_precision("fp16")


@pytest.mark.parametrize(
    "text", ["", "w3a3", "w2", "a8", "w8a16+", "+fp16", "w8a16+x", "fp64", "w8a16+fp16+fp32+", "auto "]
)
def test_an_unknown_precision_lists_the_known(text: str) -> None:
    with pytest.raises(RequestError, match="unknown precision") as caught:
        parse_precision(text)
    for name in ("auto", "fp16", "w8a16", "w4a8", "--weight-type"):
        assert name in caught.value.hint


@given(st.text(max_size=30))
def test_any_text_is_a_precision_or_refused(text: str) -> None:
    try:
        parse_precision(text)
    except RequestError:
        return
    assert text.strip().lower().split("+")[0].strip() in SHORTHANDS


def test_a_mix_of_three_is_no_mix_of_two() -> None:
    with pytest.raises(RequestError):
        parse_precision("w8a16+fp16+fp32")


def test_dtypes_by_name_and_their_aliases() -> None:
    for dtype in DType:
        assert parse_dtype(dtype.value) is dtype and parse_dtype(f" {dtype.value.upper()} ") is dtype
    assert parse_dtype("fp16") is parse_dtype("half") is DType.FLOAT16
    assert parse_dtype("fp32") is parse_dtype("float") is DType.FLOAT32
    with pytest.raises(RequestError, match="unknown dtype 'int7'") as caught:
        parse_dtype("int7")
    assert "uint16" in caught.value.hint


@pytest.mark.parametrize(
    ("weight", "activation", "name"),
    [
        ("uint8", "uint16", "w8a16"),
        ("int16", "int16", "w16a16"),
        ("int8", "float32", "w8"),
        ("int4", "float16", "w4-fp16"),
        ("int16", "float32", "int16/float32"),
    ],
)
def test_a_precision_by_its_two_types_is_exactly_those(weight: str, activation: str, name: str) -> None:
    precision = precision_by_name(DType(weight), DType(activation))
    assert (precision.name, precision.weights, precision.activations) == (name, (weight,), (activation,))


@pytest.mark.parametrize(
    ("dtype", "bits", "signed", "codes"),
    [
        (DType.UINT4, 4, False, (0, 15)),
        (DType.INT4, 4, True, (-8, 7)),
        (DType.UINT8, 8, False, (0, 255)),
        (DType.INT8, 8, True, (-128, 127)),
        (DType.UINT16, 16, False, (0, 65535)),
        (DType.INT16, 16, True, (-32768, 32767)),
    ],
)
def test_integer_types(dtype: DType, bits: int, signed: bool, codes: tuple[int, int]) -> None:
    assert (dtype.bits, dtype.is_signed, dtype.integer_range, dtype.is_float) == (bits, signed, codes, False)


def test_floats_have_bits_and_no_integer_range() -> None:
    assert DType.FLOAT16.bits == 16 and DType.FLOAT16.is_float and DType.FLOAT16.is_signed
    with pytest.raises(ValueError, match="no integer range"):
        _ = DType.FLOAT32.integer_range


def test_a_pair_in_words() -> None:
    assert str(QuantConfig(DType.INT8, DType.UINT16)) == "int8/uint16"
    assert str(QuantConfig(None, DType.UINT16)) == "uint16"
    assert str(QuantConfig(None, None)) == "as is"
