"""Accounts: what a section states, how they rest, and what a reload leaves."""

from __future__ import annotations

import pytest

from llm.core.call import LimitReport
from llm.limits.auto import AutoLimit
from llm.limits.base import DAY, GUARD
from llm.limits.bucket import TokenBucket
from llm.limits.concurrency import Concurrency
from llm.limits.memory import Account, AccountBook
from llm.limits.own_window import OwnWindow
from llm.limits.stating import make_limits
from llm.limits.window import SlidingWindow


def stated(account: Account, now: float = 0.0, *, bucket: bool = True, **limits: float | str) -> Account:
    account.state(now, limits, level="key", bucket=bucket)
    return account


def test_each_field_becomes_a_limit_of_its_unit_and_period_concurrency_last() -> None:
    limits = make_limits(
        {
            "concurrent_requests": 3,
            "requests_per_minute": 60,
            "tokens_per_hour": 1000,
            "input_tokens_per_minute": 10,
            "output_tokens_per_day": 20,
            "cost_per_day": 5.0,
            "requests_per_day": 100,
            "cost_per_call": 0.5,
        },
        level="user",
        bucket=False,
    )
    assert [(limit.name, limit.unit, limit.capacity, limit.refuses) for limit in limits] == [
        ("requests_per_minute", "requests", 60, False),
        ("tokens_per_hour", "total_tokens", 1000, False),
        ("input_tokens_per_minute", "input_tokens", 10, False),
        ("output_tokens_per_day", "output_tokens", 20, True),
        ("cost_per_day", "cost", 5, True),
        ("requests_per_day", "requests", 100, True),
        ("cost_per_call", "cost", 0.5, False),
        ("concurrent_requests", "requests", 3, False),
    ]
    assert {limit.level for limit in limits} == {"user"}
    assert [getattr(limit, "period", None) for limit in limits] == [60.0, 3600.0, 60.0, DAY, DAY, DAY, None, None]


@pytest.mark.parametrize("bucket", [True, False])
def test_a_named_algorithm_is_itself_and_auto_is_decided_later(bucket: bool) -> None:
    for algorithm, kind in (("auto", AutoLimit), ("token_bucket", TokenBucket), ("sliding_window", SlidingWindow)):
        limits = make_limits({"requests_per_minute": 5, "algorithm": algorithm}, level="key", bucket=bucket)
        assert [type(limit) for limit in limits] == [kind]


def test_auto_is_what_the_host_does_where_nothing_is_ever_proved() -> None:
    for bucket, kinds in ((True, [TokenBucket, TokenBucket]), (False, [SlidingWindow, OwnWindow])):
        (of_a_day,) = make_limits({"requests_per_day": 5}, level="key", bucket=bucket)
        (of_a_user,) = make_limits({"requests_per_minute": 5}, level="user", bucket=bucket)
        assert [type(limit) for limit in (of_a_day, of_a_user)] == kinds


def test_it_rests_as_long_as_the_provider_asked_and_never_shorter_than_before() -> None:
    account = Account()
    assert account.cool(10.0, 7.0) == 7.0
    assert account.cooling_until == 17.0
    account.cool(11.0, 1.0)
    assert account.cooling_until == 17.0


def test_unasked_the_rest_doubles_from_a_second_to_a_minute() -> None:
    account, now, rests = Account(), 0.0, list[float]()
    for _ in range(2000):
        rests.append(account.cool(now, None))
        now = account.cooling_until
    assert rests[:8] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert set(rests[7:]) == {60.0}


def test_calls_that_were_under_way_together_count_as_one_refusal() -> None:
    account = Account()
    assert account.cool(0.0, None) == 1.0
    assert account.cool(0.25, None) == 0.75
    assert account.cooling_until == 1.0
    assert account.cool(1.0, None) == 2.0


@pytest.mark.parametrize("bucket", [True, False])
def test_a_changed_limit_keeps_the_share_that_is_taken(bucket: bool) -> None:
    account = stated(Account(), requests_per_minute=10, bucket=bucket)
    account.limits[0].take(0.0, 5.0)
    stated(account, 0.0, requests_per_minute=20, bucket=bucket)
    assert account.limits[0].capacity == 20
    assert account.limits[0].saturation(0.0) == pytest.approx(0.5)


@pytest.mark.parametrize("bucket", [True, False])
@pytest.mark.parametrize(("number", "room"), [(20, 15), (5, 0)])
def test_of_a_changed_budget_the_amount_stays_taken_so_that_raising_it_makes_room(
    number: int, room: int, *, bucket: bool
) -> None:
    account = stated(Account(), requests_per_day=10, bucket=bucket)
    account.limits[0].take(0.0, 5.0)
    stated(account, 0.0, requests_per_day=number, bucket=bucket)
    assert account.limits[0].wait(0.0, float(room)) == 0.0
    assert account.limits[0].wait(0.0, room + 1.0) > 0.0


def test_a_changed_budget_frees_what_was_taken_when_it_would_have_and_settles_what_runs() -> None:
    account = stated(Account(), cost_per_day=10, bucket=False)
    (old,) = account.limits
    old.take(0.0, 4.0)
    running = old.take(0.0, 2.0)
    stated(account, 1000.0, cost_per_day=8, bucket=False)
    stated(account, 2000.0, cost_per_day=6, bucket=False)
    (new,) = account.limits
    assert new.wait(2000.0, 1.0) == pytest.approx(DAY + GUARD - 2000.0)
    old.settle(2000.0, running, 1.0)
    assert [new.saturation(2000.0), old.saturation(2000.0)] == pytest.approx([5 / 6, 0.5])
    late = old.take(2000.0, 2.0)  # by somebody who goes on with it: of the same key
    own = new.take(2000.0, 1.0)
    assert [new.saturation(2000.0), old.saturation(2000.0)] == pytest.approx([1.0, 0.8])
    new.settle(2000.0, own, 0.5)
    old.settle(2000.0, late, 1.0)
    after = DAY + GUARD + 1.0
    assert [new.saturation(after), old.saturation(after)] == pytest.approx([1.5 / 6, 0.15])
    assert new.saturation(DAY + 2001.0) == old.saturation(DAY + 2001.0) == 0.0


def test_a_budget_that_comes_back_counts_what_was_taken_meanwhile() -> None:
    first, second = (stated(Account(), cost_per_day=number, bucket=False) for number in (5, 10))
    first.limits[0].take(0.0, 1.0)
    second.limits[0].take(0.0, 4.0)
    first.catch_up(0.0, second)
    assert first.limits[0].saturation(0.0) == pytest.approx(0.8)


def test_an_unchanged_limit_goes_on_as_if_nothing_happened() -> None:
    account = stated(Account(), requests_per_minute=10, tokens_per_minute=100, bucket=False)
    requests, tokens = account.limits
    hold = requests.take(0.0, 10.0)
    stated(account, 50.0, requests_per_minute=10, tokens_per_minute=200, bucket=False)
    assert account.limits[0] is requests
    assert account.limits[1] is not tokens
    assert requests.wait(50.0, 1.0) == pytest.approx(10.0 + GUARD)
    requests.settle(50.0, hold, 0.0)
    assert account.limits[0].saturation(50.0) == 0.0


def test_the_same_statement_again_changes_nothing() -> None:
    account = stated(Account(), requests_per_minute=10)
    before = account.limits
    stated(account, 5.0, requests_per_minute=10)
    assert account.limits is before


def test_calls_that_run_through_a_reload_are_seen_to_end() -> None:
    account = stated(Account(), concurrent_requests=2)
    (limit,) = account.limits
    hold = limit.take(0.0, 1.0)
    stated(account, 1.0, concurrent_requests=1)
    assert isinstance(account.limits[0], Concurrency)
    assert account.limits[0].wait(1.0, 1.0) > 0.0
    limit.settle(2.0, hold, 1.0)
    assert account.limits[0].wait(2.0, 1.0) == 0.0


def test_a_number_that_is_changed_elsewhere_stays_what_it_is_here() -> None:
    here, there = stated(Account(), concurrent_requests=1), Account()
    there.hold_to(here.limits)
    stated(there, concurrent_requests=3)
    (one,), (three,) = here.limits, there.limits
    assert (one.capacity, three.capacity) == (1.0, 3.0)
    hold = three.take(0.0, 1.0)
    assert one.wait(0.0, 1.0) > 0.0
    assert one == three
    assert len({one, three}) == 1
    one.settle(0.0, hold, 1.0)
    assert (one.wait(0.0, 1.0), three.saturation(0.0)) == (0.0, 0.0)
    assert one != stated(Account(), concurrent_requests=1).limits[0]


def test_one_name_is_one_account() -> None:
    book = AccountBook()
    assert book.account(("key", "a")) is book.account(("key", "a"))
    assert book.account(("key", "a")) is not book.account(("key", "b"))


@pytest.mark.parametrize(("left", "seldom"), [(99.0, True), (70.0, False)])
def test_headers_are_read_often_where_a_limit_is_near_and_seldom_where_none_is(left: float, *, seldom: bool) -> None:
    account = stated(Account(), requests_per_minute=100, algorithm="token_bucket")
    assert account.listens(0.0)
    holds = [(limit, limit.take(0.0, 1.0)) for limit in account.limits]
    account.learn(0.0, holds, [LimitReport("requests", 100.0, left)])
    assert not account.listens(0.001)
    assert account.listens(0.003) is not seldom
    assert account.listens(0.02)
