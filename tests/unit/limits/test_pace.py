"""The pace that refusals teach: one at a time after a rest, a rate once it is needed, and gone in the end."""

from __future__ import annotations

import pytest

from llm.core.call import LimitReport
from llm.limits.memory import Account
from llm.limits.pace import Count, Pace


def refused_twice(now: float = 0.0, admitted: float = 10.0) -> Pace:
    pace = Pace()
    pace.refused(now, 100.0)
    pace.refused(now, admitted)
    return pace


def send_all(pace: Pace, now: float) -> int:
    sent = 0
    while pace.wait(now, 1.0) == 0.0 and sent < 1000:
        pace.take(now, 1.0)
        sent += 1
    return sent


def test_after_a_refusal_calls_leave_as_a_ramp_by_what_succeeds() -> None:
    pace = Pace()
    pace.refused(0.0, 50.0)
    assert send_all(pace, 1.0) == 1
    pace.succeeded(1.1)
    assert send_all(pace, 1.1) == 2
    pace.succeeded(1.2)
    pace.succeeded(1.2)
    assert send_all(pace, 1.2) == 4


def test_answers_that_take_long_do_not_hold_up_the_next_for_ever() -> None:
    pace = Pace()
    pace.refused(0.0, 50.0)
    assert send_all(pace, 1.0) == 1
    assert pace.wait(1.0, 1.0) == pytest.approx(1.0)
    assert send_all(pace, 2.0) == 1


def test_a_second_refusal_sets_a_rate_below_what_was_admitted() -> None:
    pace = refused_twice(admitted=10.0)
    pace.succeeded(0.0)
    pace.take(0.0, 1.0)
    assert 6.0 < pace.wait(0.0, 1.0) <= 60.0 / 9.0


def test_a_refusal_long_after_the_last_one_sets_none() -> None:
    pace = Pace()
    pace.refused(0.0, 10.0)
    pace.refused(400.0, 10.0)
    pace.succeeded(400.0)
    assert send_all(pace, 400.0) == 3


def test_the_rate_rises_by_a_tenth_in_a_minute_and_faster_the_longer_nothing_is_refused() -> None:
    pace = refused_twice(admitted=10.0)
    rates = list[float]()
    now = before = 0.0
    for _ in range(5):
        end = now + 60.0
        while now < end:
            now += pace.wait(now, 1.0)
            pace.take(now, 1.0)
            before = now
            pace.succeeded(now)
            now += pace.wait(now, 1.0)
        rates.append(60.0 / (now - before))
    assert rates[0] == pytest.approx(10.0, rel=0.15)
    assert 1.05 < rates[1] / rates[0] < 1.4
    assert rates[4] / rates[3] > rates[1] / rates[0]


def test_it_is_full_while_it_makes_wait() -> None:
    pace = Pace()
    pace.refused(0.0, 10.0)
    assert pace.saturation(0.0) == 0.0
    hold = pace.take(0.0, 1.0)
    assert pace.saturation(0.0) == 1.0
    pace.settle(0.0, hold, 0.0)
    assert pace.saturation(0.0) == 1.0


def test_it_is_not_full_once_nobody_would_wait_any_more() -> None:
    pace = Pace()
    pace.refused(0.0, 50.0)
    pace.take(0.0, 1.0)
    assert pace.saturation(0.5) == 1.0
    assert pace.wait(3600.0, 1.0) == pace.saturation(3600.0) == 0.0


def test_the_last_minute_is_counted_about() -> None:
    count = Count()
    for tenth in range(1200):
        count.add(tenth / 10)
    assert count.last_minute(120.0) == pytest.approx(600, abs=10)
    assert count.last_minute(150.0) == pytest.approx(300, abs=10)
    assert count.last_minute(400.0) == 0.0


# --- in an account --------------------------------------------------------------------------------------------------


def names(of: Account) -> list[str]:
    return [limit.name for limit in of.limits]


def test_a_refusal_that_nothing_explains_slows_the_account_down() -> None:
    made = Account()
    made.state(0.0, {"requests_per_minute": 60, "concurrent_requests": 5}, level="key", bucket=True)
    version = made.version
    made.cool(1.0, 20.0)
    assert names(made) == ["requests_per_minute", "learned_pace", "concurrent_requests"]
    assert made.version > version
    assert made.limits[1].level == "key"


def test_a_refusal_that_its_reports_explain_does_not() -> None:
    made = Account()
    made.learn(1.0, [], [LimitReport("requests", 3.0, 0.0, 60.0, refused=True)])
    made.cool(1.0, 20.0)
    assert names(made) == ["requests_per_minute"]
    made.learn(30.0, [], [LimitReport("requests", 3.0, 1.0, 40.0, refused=True)])  # room enough: it was something else
    made.cool(30.0, 20.0)
    assert names(made) == ["requests_per_minute", "learned_pace"]


def test_calls_that_are_refused_together_slow_down_once() -> None:
    made = Account()
    for _ in range(50):
        made.succeeded(0.0)
    for _ in range(30):
        made.cool(1.0, 20.0)
    (pace,) = made.limits
    made.succeeded(21.0)
    pace.take(21.0, 1.0)
    assert pace.wait(21.0, 1.0) == 0.0  # a second refusal would have set a rate


def test_it_goes_once_it_made_nobody_wait_for_a_minute_and_stays_while_it_does() -> None:
    made = Account()
    made.cool(0.0, 1.0)
    (pace,) = made.limits
    pace.take(50.0, 1.0)
    assert pace.wait(50.0, 1.0) > 0.0
    made.succeeded(70.0)
    assert names(made) == ["learned_pace"]
    version = made.version
    made.succeeded(111.0)
    assert names(made) == []
    assert made.version > version


def test_a_success_ends_the_row_of_refusals() -> None:
    made = Account()
    for _ in range(4):
        made.cool(made.cooling_until, None)
    made.succeeded(100.0)
    assert made.cool(100.0, None) == 1.0
