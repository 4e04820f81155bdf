"""How fast targets are, and who is asked first because of that."""

from __future__ import annotations

from llm.core.routing import Target
from llm.core.speeds import Speeds

A, B, C = (Target(name, "m") for name in "abc")
ALL = (A, B, C)


def measured(**seconds: float) -> Speeds:
    speeds = Speeds()
    for name, took in seconds.items():
        speeds.answered(0.0, Target(name, "m"), took, stream=False)
    return speeds


def test_what_is_not_measured_goes_first_one_call_at_a_time_and_meanwhile_after_what_is() -> None:
    speeds = measured(b=2.0)
    for _ in range(2):
        assert speeds.order(0.0, ALL, stream=False) == (A, C, B)
    speeds.asked(0.0, A, stream=False)
    assert speeds.order(0.0, ALL, stream=False) == (C, B, A)
    speeds.asked(0.0, C, stream=False)
    assert speeds.order(0.0, ALL, stream=False) == (B, A, C)
    assert speeds.order(10.0, ALL, stream=False)[0] == A


def test_the_newest_answers_count_most() -> None:
    speeds = measured(a=1.0, b=2.0, c=3.0)
    assert speeds.order(1.0, ALL, stream=False) == (A, B, C)
    for at in range(5):
        speeds.answered(float(at), A, 5.0, stream=False)
    assert speeds.order(5.0, ALL, stream=False) == (B, C, A)


def test_one_slow_answer_of_many_changes_little() -> None:
    speeds = measured(a=1.0, b=2.0)
    speeds.answered(1.0, A, 5.0, stream=False)
    assert speeds.order(1.0, (A, B), stream=False) == (A, B)


def test_streams_are_measured_by_themselves() -> None:
    speeds = measured(a=1.0, b=2.0)
    speeds.answered(0.0, A, 2.0, stream=True)
    speeds.answered(0.0, B, 1.0, stream=True)
    assert speeds.order(0.0, (A, B), stream=True) == (B, A)
    assert speeds.order(0.0, (A, B), stream=False) == (A, B)


def test_a_measurement_of_five_minutes_ago_is_made_anew() -> None:
    speeds = measured(a=1.0, b=2.0)
    speeds.answered(200.0, A, 1.0, stream=False)
    assert speeds.order(299.0, (A, B), stream=False) == (A, B)
    assert speeds.order(300.0, (A, B), stream=False) == (B, A)
    speeds.answered(301.0, B, 0.5, stream=False)
    assert speeds.order(302.0, (A, B), stream=False) == (B, A)


def test_what_failed_stands_last_for_half_a_minute_or_until_it_answers() -> None:
    speeds = measured(a=1.0, b=2.0)
    speeds.failed(0.0, A, stream=False)
    assert speeds.order(29.0, ALL, stream=False) == (C, B, A)
    assert speeds.order(30.0, (A, B), stream=False) == (A, B)
    speeds.failed(30.0, A, stream=False)
    speeds.answered(31.0, A, 1.0, stream=False)
    assert speeds.order(31.0, (A, B), stream=False) == (A, B)


def test_a_call_that_ended_before_its_answer_tells_how_long_that_takes_at_least() -> None:
    speeds = measured(a=1.0, b=2.0)
    speeds.overran(1.0, A, 0.5, stream=False)
    assert speeds.order(1.0, (A, B), stream=False) == (A, B)
    speeds.overran(1.0, A, 9.0, stream=False)
    assert speeds.order(1.0, (A, B), stream=False) == (B, A)
    speeds.overran(1.0, C, 9.0, stream=False)
    assert speeds.order(1.0, ALL, stream=False)[0] == C
