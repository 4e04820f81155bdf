from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.middleware.histogram import Histogram

pytestmark = pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again

DURATIONS = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=400)


def filled(seconds: list[float]) -> Histogram:
    histogram = Histogram()
    for each in seconds:
        histogram.add(each)
    return histogram


@given(DURATIONS, st.floats(0, 1))
def test_a_percentile_is_at_most_one_percent_off(seconds: list[float], share: float) -> None:
    exact = sorted(seconds)[max(1, ceil(share * len(seconds))) - 1]
    assert filled(seconds).percentile(share) == pytest.approx(exact, rel=0.0101)


@given(DURATIONS)
def test_least_most_and_mean_are_exact(seconds: list[float]) -> None:
    shown = filled(seconds).snapshot()
    assert (shown["min"], shown["max"]) == (min(seconds), max(seconds))
    assert shown["mean"] == pytest.approx(sum(seconds) / len(seconds))
    assert shown["min"] <= shown["p50"] <= shown["p95"] <= shown["p99"] <= shown["max"]


@given(DURATIONS, DURATIONS)
def test_merged_is_as_if_counted_in_one(some: list[float], others: list[float]) -> None:
    merged = filled(some)
    merged.merge(filled(others))
    assert merged.snapshot() == pytest.approx(filled(some + others).snapshot())


def test_without_durations_all_is_zero() -> None:
    empty = Histogram()
    empty.merge(Histogram())
    assert empty.snapshot() == dict.fromkeys(("min", "max", "mean", "p50", "p95", "p99"), 0.0)


def test_no_duration_is_too_short_or_too_long() -> None:
    shown = filled([0.0, 1e12]).snapshot()
    assert shown["p50"] < 1e-6
    assert shown["max"] == 1e12


@given(DURATIONS, st.floats(1e-5, 1e5))
def test_a_spread_counts_what_is_below_a_bound_but_for_a_percent(seconds: list[float], bound: float) -> None:
    spread = filled(seconds).spread()
    [count] = spread.at_most((bound,))
    assert sum(each <= bound * 0.989 for each in seconds) <= count <= sum(each <= bound * 1.011 for each in seconds)
    assert spread.total == len(seconds)
    assert spread.seconds == pytest.approx(sum(seconds))


@given(DURATIONS, st.floats(1e-6, 1e6), st.integers(0, 200))
def test_many_of_one_duration_are_as_if_counted_one_by_one(seconds: list[float], same: float, count: int) -> None:
    many = filled(seconds)
    many.add_many(same, count)
    assert many.snapshot() == pytest.approx(filled([*seconds, *[same] * count]).snapshot())
