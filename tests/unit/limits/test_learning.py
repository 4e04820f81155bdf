"""What is learned from reports: down at once, never twice, never falsely; up with care; limits that nobody stated."""

from __future__ import annotations

import heapq
import math
from functools import partial
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.core.call import Charge, LimitReport
from llm.limits.amounts import TOGETHER, summed
from llm.limits.base import DAY, GUARD
from llm.limits.bucket import TokenBucket
from llm.limits.memory import Account
from llm.limits.moments import amount_of
from llm.limits.window import SlidingWindow
from llm.testing.allowance import Allowance, BucketAllowance, SlidingAllowance

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.limits.base import Hold, Holds, Limit

MINUTE = 60.0


def report(
    remaining: float, *, limit: float = 60.0, reset: float | None = None, rounding: float = 0.0, refused: bool = False
) -> LimitReport:
    return LimitReport("requests", limit, remaining, reset, rounding, refused)


def bucket(capacity: float = 60.0) -> TokenBucket:
    return TokenBucket("requests_per_minute", "requests", capacity, MINUTE)


def window(capacity: float = 60.0) -> SlidingWindow:
    return SlidingWindow("requests_per_minute", "requests", capacity, MINUTE)


def free(limit: TokenBucket | SlidingWindow, now: float) -> float:
    """What is left, without what is kept back for others."""
    return limit.capacity * (1.0 - limit.saturation(now))


def room(limit: Limit, now: float) -> float:
    """How much could be taken now."""
    return max((amount for amount in range(1, 61) if limit.wait(now, float(amount)) == 0.0), default=0)


# --- one limit, one report ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [bucket, window])
def test_what_somebody_else_took_is_gone_at_once(make: Callable[[], TokenBucket | SlidingWindow]) -> None:
    limit = make()
    hold = limit.take(0.0, 1.0)
    limit.learn(0.05, hold, report(39.0))
    assert free(limit, 0.05) == pytest.approx(39.0, abs=1.2)  # a bucket's 39 may be 39.99


@pytest.mark.parametrize("make", [bucket, window])
def test_thirty_answers_that_show_the_same_use_lower_it_once(make: Callable[[], TokenBucket | SlidingWindow]) -> None:
    limit = make()
    holds = [limit.take(0.0, 1.0) for _ in range(30)]
    for place, hold in enumerate(holds):
        limit.learn(0.05, hold, report(60.0 - 10.0 - place - 1.0))
    assert free(limit, 0.05) == pytest.approx(20.0, abs=1.2)


def test_an_old_report_is_carried_forward_by_what_came_back_since() -> None:
    limit = bucket()
    hold = limit.take(0.0, 60.0)
    limit.learn(30.0, hold, report(0.0))
    assert free(limit, 30.0) == pytest.approx(30.0, abs=2 * GUARD)


@pytest.mark.parametrize("make", [bucket, window])
def test_an_old_report_is_carried_forward_by_what_we_drew_since(
    make: Callable[[], TokenBucket | SlidingWindow],
) -> None:
    limit = make()
    hold = limit.take(0.0, 1.0)
    for now in (1.0, 2.0, 3.0):
        limit.take(now, 10.0)
    limit.learn(3.5, hold, report(39.0))
    assert free(limit, 3.5) == pytest.approx(9.0 if make is window else 9.0 + 3.5, abs=1.2)


def test_requests_that_may_have_overtaken_each_other_lower_nothing() -> None:
    for make in (bucket, window):
        limit = make()
        first = limit.take(0.0, 1.0)
        limit.take(GUARD, 5.0)  # arrived first
        limit.learn(0.3, first, report(54.0))
        assert free(limit, 0.3) >= 54.0


def test_a_fraction_that_a_report_rounds_away_is_nobodys_use() -> None:
    limit = bucket()
    hold = limit.take(0.0, 1.5)
    limit.learn(0.05, hold, report(58.0))
    assert free(limit, 0.05) == 58.5


def test_rounded_tokens_are_not_taken_for_use() -> None:
    for make in (bucket, window):
        limit = make(100_000.0)
        hold = limit.take(0.0, 1400.0)
        limit.learn(0.05, hold, report(98_000.0, limit=100_000.0, rounding=1000.0))
        assert free(limit, 0.05) == 98_600.0


def test_a_buckets_reset_tells_the_fraction() -> None:
    limit = bucket()
    hold = limit.take(0.0, 1.0)
    limit.learn(0.05, hold, report(57.0, reset=2.9))  # 57.1 are there
    assert free(limit, 0.05) == pytest.approx(57.15, abs=0.01)


@pytest.mark.parametrize("make", [bucket, window])
def test_a_refusal_takes_nothing_and_shows_that_nothing_is_left(
    make: Callable[[], TokenBucket | SlidingWindow],
) -> None:
    limit = make()
    hold = limit.take(0.0, 10.0)
    limit.learn(0.05, hold, report(7.0, refused=True))
    assert hold.amount == 0.0
    assert free(limit, 0.05) == pytest.approx(7.0, abs=0.1)


def test_a_refusal_shows_that_less_was_left_than_was_asked_for_where_the_number_is_rounded() -> None:
    def left_after(asked: float, told: float) -> float:
        limit = TokenBucket("input_tokens_per_minute", "input_tokens", 50_000.0, 60.0)
        limit.take(0.0, 48_000.0)
        hold = limit.take(0.0, asked)
        limit.learn(0.0, hold, LimitReport("input_tokens", 50_000.0, told, rounding=1000.0, refused=True))
        return 50_000.0 * (1.0 - limit.saturation(0.0))

    assert left_after(1_990.0, 2_000.0) == pytest.approx(1_990.0)  # told: 1,000 to 2,000
    assert left_after(500.0, 2_000.0) == pytest.approx(2_000.0)  # it was another limit that was short


def test_as_much_as_others_took_is_kept_back_for_them_and_comes_free_once_they_stop() -> None:
    for make in (bucket, window):
        limit = make()
        now = 0.0
        for _ in range(4):
            now += 2.0
            hold = limit.take(now, 1.0)
            left = free(limit, now) - 3.0
            limit.learn(now + 0.5, hold, report(math.floor(left)))
        assert room(limit, now + 1.0) <= free(limit, now + 1.0) - 3.0
        limit.take(now + 20 * MINUTE, 30.0)
        assert room(limit, now + 20 * MINUTE + 2.0) >= 29  # a window is careful for two seconds after a silence


@pytest.mark.parametrize("make", [bucket, window])
def test_what_rounding_may_hide_is_kept_back_too_once_others_are_found(
    make: Callable[[float], TokenBucket | SlidingWindow],
) -> None:
    limit = make(100_000.0)
    hold = limit.take(0.0, 100.0)
    limit.learn(0.05, hold, report(98_000.0, limit=100_000.0, rounding=1000.0))  # at least 900 are somebody else's
    left = free(limit, 0.05)
    assert limit.wait(0.05, left - 1001.0) == 0.0
    assert limit.wait(0.05, left - 999.0) > 0.0


def test_use_of_long_ago_is_no_reason_to_keep_much_back() -> None:
    limit = bucket()
    hold = limit.take(0.0, 1.0)
    limit.learn(0.5, hold, report(29.0))
    assert room(limit, 0.5) >= 25


def test_most_of_what_is_more_than_we_thought_is_believed_after_several_reports_over_a_second() -> None:
    limit = bucket()
    limit.take(0.0, 60.0)  # more than the vendor took, of which it never hears
    levels = list[float]()
    for place in range(5):
        now = 1.0 + place / 2
        hold = limit.take(now, 0.0)
        limit.learn(now + 0.01, hold, report(math.floor(30.0 + now)))
        levels.append(free(limit, now + 0.01) - now)
    assert max(levels[:4]) < 0.1
    assert levels[4] == pytest.approx(27.0, abs=1.0)


def test_what_may_be_rounding_is_not_believed_to_be_more() -> None:
    limit = bucket(100_000.0)
    limit.take(0.0, 50_000.0)
    for place in range(12):
        now = 1.0 + place / 4
        hold = limit.take(now, 0.0)
        ours = free(limit, now)
        limit.learn(now + 0.01, hold, report(ours + 900.0, limit=100_000.0, rounding=1000.0))
        assert free(limit, now + 0.01) == pytest.approx(ours, abs=20.0)


def test_refusals_together_hide_nobodys_use() -> None:
    limit = window()
    limit.take(0.0, 50.0)
    burst = [limit.take(1.0, 1.0) for _ in range(10)]  # somebody else took five: the half of them is refused
    for place, hold in enumerate(burst):
        limit.learn(1.1, hold, report(max(0.0, 4.0 - place), refused=place >= 5))
    assert free(limit, 1.1) == pytest.approx(0.0)


def test_one_report_that_has_no_more_starts_the_count_anew() -> None:
    limit = bucket()
    limit.take(0.0, 60.0)
    for place in range(12):
        now = 1.0 + place / 2
        hold = limit.take(now, 0.0)
        limit.learn(now + 0.01, hold, report(0.0 if place % 4 == 0 else 40.0))
    assert free(limit, 8.0) <= 8.0


# --- beside a vendor ------------------------------------------------------------------------------------------------


class Bench:
    """A limit of ours and a vendor's allowance, with a network between that delays and reorders."""

    def __init__(self, limit: TokenBucket | SlidingWindow, vendor: Allowance, seed: int) -> None:
        self.limit = limit
        self.vendor = vendor
        self.random = Random(seed)  # noqa: S311 - a network's delays
        self.refused = 0
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self.order = count()

    def at(self, when: float, do: Callable[[float], None]) -> None:
        heapq.heappush(self.events, (when, next(self.order), do))

    def delay(self) -> float:
        return self.random.uniform(0.0, GUARD)

    def send(self, now: float, amount: float, used: float) -> None:
        if self.limit.wait(now, amount) > 0.0:
            return
        hold = self.limit.take(now, amount)
        self.at(now + self.delay(), lambda then: self.arrive(then, hold, used))

    def arrive(self, now: float, hold: Hold, used: float) -> None:
        amount = amount_of(hold, self.limit.place)
        refused = self.vendor.wait(now, amount) > 0.0
        self.refused += refused
        taken = None if refused else self.vendor.take(now, amount)
        left, reset = math.floor(self.vendor.remaining(now)), self.vendor.reset(now)
        said = report(left, limit=self.vendor.limit, reset=reset, refused=refused)
        ends = now if refused else now + self.random.uniform(0.0, 3.0)
        if taken is not None:
            self.at(ends, lambda then: self.vendor.settle(then, taken, used))
        self.at(ends + self.delay(), lambda then: self.answer(then, hold, said, used))

    def answer(self, now: float, hold: Hold, said: LimitReport, used: float) -> None:
        before = free(self.limit, now)
        self.limit.learn(now, hold, said)
        if not said.refused:
            self.lowered(before - free(self.limit, now))
            self.limit.settle(now, hold, used)

    def lowered(self, amount: float) -> None:
        assert amount < 0.01

    def run(self) -> None:
        while self.events:
            when, _, do = heapq.heappop(self.events)
            do(when)


@pytest.mark.parametrize("kind", ["bucket", "window"])
@settings(max_examples=settings().max_examples, deadline=None)
@given(seed=st.integers(0, 10_000), pace=st.floats(0.01, 3.0))
def test_alone_it_is_never_lowered_and_never_refused(kind: str, seed: int, pace: float) -> None:
    limit, vendor = (
        (bucket(1000.0), BucketAllowance(1000.0, MINUTE, 0.0))
        if kind == "bucket"
        else (window(1000.0), SlidingAllowance(1000.0, MINUTE))
    )
    bench = Bench(limit, vendor, seed)
    now = 0.0
    for _ in range(150):
        now += bench.random.expovariate(1.0 / pace) * (bench.random.random() < 0.7)
        most = bench.random.randrange(1, 200)
        used = bench.random.randrange(1, most + 1)
        bench.at(now, partial(bench.send, amount=most, used=used))
    bench.run()
    assert bench.refused == 0


class Shared(Bench):
    """The same, with somebody else on the key."""

    def lowered(self, amount: float) -> None:
        pass


@settings(max_examples=settings().max_examples // 2, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_with_somebody_else_on_the_key_it_is_refused_almost_never(seed: int) -> None:
    bench = Shared(bucket(), BucketAllowance(60.0, MINUTE, 0.0), seed)

    def foreign(now: float) -> None:
        if bench.vendor.wait(now, 1.0) == 0.0:
            bench.vendor.take(now, 1.0)

    sent = 0
    for place in range(3000):  # as often as it may, for five minutes
        bench.at(place / 10, lambda now: bench.send(now, 1.0, 1.0))
    for place in range(90):
        bench.at(place / 0.3 + bench.random.random(), foreign)
    bench.run()
    sent = 60 + 300 - 90
    assert bench.refused <= 0.04 * sent


# --- an account -----------------------------------------------------------------------------------------------------


def account(*, bucket: bool = True, **stated: float | str) -> Account:
    made = Account()
    made.state(0.0, stated, level="key", bucket=bucket)
    return made


def tell(of: Account, now: float, *reports: LimitReport, amount: float = 1.0, age: float = 0.0) -> None:
    """Have a request sent `age` seconds ago, and answered now."""
    of.learn(now, paid(of, now - age, amount), reports)


def paid(of: Account, now: float, amount: float) -> Holds:
    """Take so much of each unit."""
    amounts = (*[amount] * TOGETHER, summed([amount] * TOGETHER))
    return [(payer, payer.take(now, amounts[payer.place])) for payer in of.payers]


def told(of: Account) -> dict[str, float]:
    return {limit.name: limit.capacity for limit in of.limits}


def test_a_lower_number_is_believed_at_once_and_a_higher_one_after_several_reports_up_to_what_is_stated() -> None:
    made = account(requests_per_minute=60, algorithm="token_bucket")
    version = made.version
    tell(made, 0.0, report(39.0, limit=40.0, reset=1.5))
    assert told(made) == {"requests_per_minute": 40.0}
    assert made.version > version
    for place in range(8):
        assert told(made) == {"requests_per_minute": 40.0}
        tell(made, 1.0 + place, report(90.0, limit=100.0, reset=6.0))
    assert told(made) == {"requests_per_minute": 60.0}


@pytest.mark.parametrize("make", [bucket, window])
def test_what_is_taken_stays_taken_when_the_number_changes(make: Callable[[], TokenBucket | SlidingWindow]) -> None:
    limit = make()
    limit.take(0.0, 30.0)
    limit.resize(0.0, 40.0)
    assert free(limit, 0.0) == pytest.approx(20.0 if make is bucket else 10.0)
    limit.resize(0.0, 60.0)
    assert free(limit, 0.0) == pytest.approx(20.0 if make is bucket else 30.0)


@pytest.mark.parametrize("bucket", [True, False])
def test_one_answer_with_a_number_far_too_low_holds_nobody_for_longer_than_its_period(*, bucket: bool) -> None:
    made = account(requests_per_minute=500, bucket=bucket)
    for place in range(250):
        tell(made, place / 100, report(499.0 - place, limit=500.0, reset=(place + 1) * 0.12))
    tell(made, 3.0, report(4.0, limit=5.0, reset=12.0))
    assert told(made) == {"requests_per_minute": 5.0}
    assert made.limits[0].wait(3.0, 1.0) <= MINUTE + GUARD


TOO_MUCH = Charge(0, 0, 50)
LOW = LimitReport("total_tokens", 10.0, 8.0, 12.0)


@pytest.mark.parametrize("stated", [{"tokens_per_minute": 1000}, {}])
def test_a_number_that_keeps_a_call_out_for_ever_is_doubted_once_nobody_told_it_for_a_period(
    stated: dict[str, Any],
) -> None:
    made = account(**stated)
    tell(made, 0.0, LOW)
    assert told(made) == {"tokens_per_minute": 10.0}
    assert not made.doubt(59.0, TOO_MUCH)
    assert not made.doubt(60.0, Charge(0, 0, 10))
    version = made.version
    assert made.doubt(60.0, TOO_MUCH)
    assert told(made) == stated
    assert made.version > version
    tell(made, 61.0, LOW)
    assert told(made) == {"tokens_per_minute": 10.0}
    assert not made.doubt(120.0, TOO_MUCH)


def test_a_number_that_is_stated_is_never_doubted() -> None:
    assert not account(tokens_per_minute=10).doubt(1e6, TOO_MUCH)
    made = account(tokens_per_minute=10)
    tell(made, 0.0, LOW)
    assert not made.doubt(1e6, TOO_MUCH)


def test_a_report_of_another_period_does_not_touch_the_limit_of_a_minute() -> None:
    made = account(requests_per_minute=60)
    tell(made, 0.0, report(9.0, limit=14400.0, reset=14391 * DAY / 14400))
    assert made.limits[0].name == "requests_per_minute"
    assert made.limits[0].capacity == 60.0
    assert made.limits[0].wait(0.0, 50.0) == 0.0
    assert told(made) == {"requests_per_minute": 60.0, "requests_per_day": 14400.0}


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "name"),
    [
        (50.0, 49.0, 1.2, "requests_per_minute"),
        (50.0, 40.0, 42.8, "requests_per_minute"),  # a window
        (3.0, 0.0, 60.0, "requests_per_minute"),
        (1000.0, 990.0, 36.0, "requests_per_hour"),
        (1000.0, 990.0, 1800.0, "requests_per_hour"),
        (14400.0, 14398.0, 12.0, "requests_per_day"),
        (100.0, 60.0, 40_000.0, "requests_per_day"),
    ],
)
def test_an_account_that_states_nothing_is_held_to_what_the_provider_tells(
    limit: float, remaining: float, reset: float, name: str
) -> None:
    made = account()
    tell(made, 1.0, report(remaining, limit=limit, reset=reset))
    assert told(made) == {name: limit}
    assert made.limits[0].level == "key"
    assert made.limits[0].wait(1.0, remaining + 2.0) > 0.0
    assert made.limits[0].wait(1.0, max(0.0, remaining - 1.0)) == 0.0


def test_each_kind_of_tokens_has_a_limit_of_its_own() -> None:
    made = account(requests_per_minute=60)
    tell(
        made,
        1.0,
        LimitReport("input_tokens", 6000.0, 5000.0, 10.0, 1000.0),
        LimitReport("output_tokens", 600.0, 300.0, 30.0),
        LimitReport("total_tokens", 60.0, 59.0, 1.0),
    )
    assert told(made) == {
        "requests_per_minute": 60.0,
        "input_tokens_per_minute": 6000.0,
        "output_tokens_per_minute": 600.0,
        "tokens_per_minute": 60.0,
    }


def test_a_limit_that_turns_out_to_be_of_a_longer_period_is_known_anew() -> None:
    made = account()
    tell(made, 1.0, report(90.0, limit=100.0, reset=50.0))
    assert told(made) == {"requests_per_minute": 100.0}
    tell(made, 62.0, report(89.0, limit=100.0, reset=3500.0))
    assert "requests_per_hour" in told(made)


def test_without_a_reset_nothing_is_told_of_a_period_so_only_what_is_stated_is_levelled() -> None:
    made = account()
    tell(made, 1.0, report(3.0))
    assert made.limits == ()
    made = account(requests_per_minute=60, algorithm="token_bucket")
    tell(made, 1.0, report(3.0))
    assert made.limits[0].wait(1.0, 10.0) > 0.0


def test_what_pays_follows_what_was_learned() -> None:
    made = account(tokens_per_minute=100, algorithm="sliding_window")
    for now, left in ((1.0, 99.0), (2.0, 70.0)):  # of which 28 are somebody else's
        tell(made, now + 0.1, LimitReport("total_tokens", 100.0, left), age=0.1)
    (payer,) = made.payers
    assert made.limits[0].wait(41.0, 30.0) > 0.0  # for more is kept back the longer nothing is told
    assert payer.wait(41.0, summed([0.0, 0.0, 30.0])) > 0.0


def test_of_a_limit_that_is_learned_later_what_was_paid_with_the_others_is_known() -> None:
    made = account(bucket=False)
    tell(made, 1.0, report(59.0, reset=1.0))
    holds = paid(made, 2.0, 10.0)
    made.learn(2.5, holds, [LimitReport("total_tokens", 100.0, 70.0, 18.0)])
    assert told(made) == {"requests_per_minute": 60.0, "tokens_per_minute": 100.0}
    assert made.limits[1].saturation(2.5) == pytest.approx(0.3)


def test_what_was_learned_outlives_a_reload() -> None:
    made = account(requests_per_minute=60, algorithm="token_bucket")
    tell(made, 1.0, report(39.0, limit=40.0, reset=1.5), LimitReport("total_tokens", 600.0, 300.0, 30.0))
    made.state(2.0, {"requests_per_minute": 60, "requests_per_hour": 9, "algorithm": "token_bucket"}, level="key",
               bucket=True)  # fmt: skip
    assert told(made) == {"requests_per_minute": 40.0, "requests_per_hour": 9.0, "tokens_per_minute": 600.0}
    made.state(3.0, {"tokens_per_minute": 500}, level="key", bucket=True)
    assert told(made) == {"tokens_per_minute": 500.0}


def test_what_is_refused_leaves_nothing_to_settle() -> None:
    made = account(requests_per_minute=60, tokens_per_minute=100, algorithm="token_bucket")
    holds = [(limit, limit.take(1.0, 1.0)) for limit in made.limits]
    made.learn(1.1, holds, [report(0.0, reset=60.0, refused=True)])
    assert [limit.name for limit, _ in holds] == ["tokens_per_minute"]


def test_calls_paid_before_a_limit_was_known_level_it_too() -> None:
    made = account()
    made.learn(1.0, [], [report(2.0, limit=3.0, reset=20.0)])
    for left in (1.0, 0.0):
        made.learn(1.0, [], [report(left, limit=3.0, reset=60.0 - left * 20.0)])
    assert made.limits[0].wait(1.0, 1.0) > 10.0
