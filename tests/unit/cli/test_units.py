"""Ages and sizes as people write and read them."""

from __future__ import annotations

import pytest
import typer

from llm.cli.units import age_of, count_of, dollars_of, seconds_of, size_of, span_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), (" 30M ", 1800), ("1h30m", 5400), ("0.5d", 43200), ("2w", 1_209_600)],
)
def test_an_age_is_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1h", "1 h", "1x", "h", "1h-30m", "nan", "inf", "1e3"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="no age"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (60, "1m"), (7199, "1h"), (86400, "1d"), (1_209_600, "2w")]
)
def test_an_age_is_told_in_its_largest_unit(seconds: float, text: str) -> None:
    assert age_of(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (9_949, "9.9 kB"), (268_435_456, "268 MB"), (5e15, "5000 TB")],
)
def test_a_size_is_told_in_few_digits(number: float, text: str) -> None:
    assert size_of(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"),
        (0, "$0.00"),
        (2.34e-6, "$0.0000023"),
        (0.0123, "$0.0123"),
        (0.5, "$0.5000"),
        (1234.567, "$1,234.57"),
    ],
)
def test_us_dollars_have_as_many_digits_as_it_takes_to_see_them(number: float | None, text: str) -> None:
    assert dollars_of(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert span_of(seconds) == text


def test_a_number_comes_with_its_noun() -> None:
    assert (count_of(1, "row"), count_of(0, "row"), count_of(2000, "row")) == ("1 row", "0 rows", "2,000 rows")
