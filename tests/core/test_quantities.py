"""Numbers as people write them are read back, and what is none is refused with how one is written."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimix_tracking.messages import Said
from bimix_tracking.quantities import count, parameters, parse_parameters, parse_share, parse_tokens, tokens


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("100B", 100e9), ("100b", 100e9), ("5e9", 5e9), ("1.2T", 1.2e12), ("500k", 500e3), ("20M", 20e6),
        ("1_000_000", 1e6), ("19,680", 19680.0), ("1,000,000.5", 1000000.5), ("2.5e-1", 0.25), (".5k", 500.0),
        ("50万", 500e3), ("1.2兆", 1.2e12), (" 3 B ", 3e9), ("1.1B", 1.1e9),
    ],
)  # fmt: skip
def test_tokens_are_read_as_people_write_them(text: str, number: float) -> None:
    assert parse_tokens(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "many", "0", "-5", "0B", "nan", "inf", "1e999", "1e-999", "5e3B", "B", "1.2.3B", "1,5B", "1,0000",
        "_1", "1__0", "100GB", "5 000", "0x10", "1e", "k5", "1" * 400, "٣x",
    ],
)  # fmt: skip
def test_what_is_no_number_of_tokens_is_refused_with_how_one_is_written(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number of tokens, such as 100B, 5e9 or 1_000_000"):
        parse_tokens(text)


@given(st.floats(min_value=1e-3, max_value=1e18, allow_nan=False))
def test_what_is_printed_is_read_back_to_its_three_digits(number: float) -> None:
    printed = tokens(number)
    assert isinstance(printed, Said)
    for text in (str(printed), str(printed.values["myriads"])):
        assert parse_tokens(text) == pytest.approx(number, rel=0.005001)
    assert tokens(parse_tokens(printed)) == printed  # three digits are three digits again


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7B", 7e9),
        ("7b", 7e9),
        ("122M", 122e6),
        ("1.2e9", 1.2e9),
        ("60k", 60e3),
        ("1,300,000,000", 1.3e9),
        ("1000", 1e3),
    ],
)
def test_model_sizes_are_read_as_people_write_them(text: str, number: float) -> None:
    assert parse_parameters(text) == number


@pytest.mark.parametrize(
    ("text", "meant"),
    [("7", "7B (7e9)"), ("0.5", "500M (5e8)"), ("1.3", "1.3B (1.3e9)"), ("70", "70B (7e10)"), ("122", "122M (1.22e8)")],
)
def test_a_size_in_billions_is_refused_with_what_was_meant(text: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"^'{text}' is not a number of parameters; did you mean {re.escape(meant)}"):
        parse_parameters(text)
    assert parse_parameters(meant.partition(" ")[0]) == parse_parameters(meant.partition("(")[2].rstrip(")"))


@pytest.mark.parametrize("text", ["", "large", "0", "-7", "nan", "inf", "7GB", "0.0001"])
def test_what_is_no_model_size_is_refused_with_how_one_is_written(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a number of parameters, such as 7B, 122M or 1\.2e9"):
        parse_parameters(text)


@given(st.floats(min_value=1e3, max_value=1e14))
def test_a_printed_model_size_is_read_back_in_every_language(number: float) -> None:
    printed = parameters(number)
    assert not isinstance(printed, Said)  # nothing for a catalogue to change
    assert parse_parameters(printed) == pytest.approx(number, rel=0.005001)
    assert parameters(parse_parameters(printed)) == printed


@given(st.integers(1, 10**15))
def test_a_count_is_read_back_whole(number: int) -> None:
    assert parse_tokens(str(number)) == parse_tokens(f"{number:_}") == parse_tokens(f"{number:,}") == number
    assert number < 100 or parse_tokens(count(number)) == number


@pytest.mark.parametrize(
    ("text", "share"),
    [("0.2", 0.2), ("20%", 0.2), ("20 %", 0.2), ("1", 1.0), ("100%", 1.0), ("0", 0.0), ("1e-3", 1e-3)],
)
def test_shares_are_parts_or_percents(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share, abs=1e-15)


@pytest.mark.parametrize("text", ["", "%", "20", "120%", "-0.1", "nan", "high", "0.2%%", "1.0001"])
def test_what_is_no_share_is_refused_with_how_one_is_written(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a proportion from 0 to 1, such as 0\.2 or 20%"):
        parse_share(text)
