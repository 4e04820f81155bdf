"""What people are told beside the numbers of a dry run, a sentence for each thing that they should know."""

# ruff: noqa: ANN401 - a forecast's fields
from __future__ import annotations

from typing import Any

from llm.batch.foretold import Forecast
from llm.limits.rehearsal import Brake

REQUESTS = Brake("requests_per_minute", "key", seconds=10.0, keys={"key-a"})


def forecast(**more: Any) -> Forecast:
    numbers: dict[str, Any] = dict.fromkeys(["invalid_rows", "cache_hits", "input_tokens", "output_tokens"], 0)
    fields: dict[str, Any] = {"rows": 9, **numbers, "cost": 0.0, "seconds": 10.0, "models": {}, "latency_known": True}
    return Forecast(**{**fields, **more})


def test_where_all_is_known_nothing_is_said() -> None:
    assert forecast().notes() == []


def test_what_bounds_the_time_is_named_with_whose_it_is() -> None:
    assert forecast(brakes=(REQUESTS,)).notes() == ["The time is bounded by requests_per_minute of key-a."]
    everything = Brake("requests_per_minute", "global")
    assert forecast(brakes=(everything,)).notes() == ["The time is bounded by requests_per_minute (level global)."]
    many = Brake("requests_per_minute", "key", keys={f"key-{letter}" for letter in "abcde"})
    assert forecast(brakes=(many,)).notes() == [
        "The time is bounded by requests_per_minute of key-a, key-b, key-c and 2 more keys."
    ]


def test_that_nothing_but_the_calls_at_once_bounds_it_is_said_and_what_is_assumed_then() -> None:
    (note,) = forecast(brakes=(Brake("concurrency"),)).notes()
    assert note == "The time is bounded by the number of calls at once (concurrency)."
    (unknown,) = forecast(brakes=(Brake("concurrency"),), latency_known=False).notes()
    assert unknown.startswith("No limit bounds it, and how long an answer takes is not known: 0.01 seconds are assumed")
    assert forecast(latency_known=False).notes() == [unknown]
    assert forecast(rows=0, latency_known=False).notes() == []
    assert len(forecast(brakes=(REQUESTS,), latency_known=False).notes()) == 1


def test_a_limit_that_refuses_is_told_with_how_far_it_reaches() -> None:
    daily = Brake("requests_per_day", "key", refuses=True, keys={"key-a"})
    told, _ = forecast(brakes=(daily,), refused_after=5).notes()
    assert told == (
        "requests_per_day of key-a is used up after 5 of the 9 rows to send, so one run cannot do it all; the time "
        "reaches to when it is renewed."
    )


def test_how_much_longer_it_may_take_is_told_where_it_is_much() -> None:
    assert forecast(seconds_at_most=10.2).notes() == []
    (told,) = forecast(seconds_at_most=60.4).notes()
    assert told.startswith("It may take up to 60 seconds: with answers as long as is reckoned with")


def test_where_the_lengths_of_answers_come_from_is_told() -> None:
    bounded, assumed = forecast(bases={"max_tokens": 3, "assumed": 4, "learned": 1}).notes()
    assert bounded.startswith("3 rows are reckoned with answers as long as max_tokens allows")
    assert assumed.startswith("4 rows have no max_tokens, and no answers of their model were seen: 512 tokens")


def test_what_has_no_price_is_named_and_what_the_semantic_cache_does_is_left_open() -> None:
    unpriced, semantic = forecast(unpriced=("one", "other"), semantic_cache=True).notes()
    assert unpriced == "The price of one, other is unknown and counts as nothing; state it under `prices:`."
    assert semantic.startswith("What the semantic cache would answer")
