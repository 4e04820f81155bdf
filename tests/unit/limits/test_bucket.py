"""The token bucket beside a vendor's: one that sees each request up to 100 ms after it left."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from llm.limits.base import GUARD, Hold
from llm.limits.bucket import TokenBucket

MINUTE = 60.0
SLACK = 1e-6  # relative: sums of floats


def bucket(capacity: float = 60.0, period: float = MINUTE) -> TokenBucket:
    return TokenBucket("tokens_per_minute", "total_tokens", capacity, period)


def test_starts_full_and_lets_all_of_it_through_at_once() -> None:
    limit = bucket(10.0)
    for _ in range(10):
        assert limit.wait(5.0, 1.0) == 0.0
        limit.take(5.0, 1.0)
    assert limit.wait(5.0, 1.0) > 0.0
    assert limit.saturation(5.0) == 1.0


def test_what_is_larger_than_the_bucket_waits_for_ever() -> None:
    assert bucket(10.0).wait(0.0, 10.5) == math.inf
    assert bucket(10.0).wait(0.0, 10.0) == 0.0


def test_refills_continuously_once_the_request_has_arrived() -> None:
    limit = bucket(60.0)
    limit.take(0.0, 60.0)
    assert limit.wait(0.0, 1.0) == pytest.approx(1.0 + GUARD)
    assert limit.saturation(GUARD + 30.0) == pytest.approx(0.5)
    assert limit.saturation(GUARD + 90.0) == 0.0


def test_a_nearly_full_bucket_is_guarded_as_a_full_one() -> None:
    limit = bucket(60.0)
    limit.take(0.0, 1.0)
    limit.take(1.0 + GUARD - 1e-3, 59.9)  # a thousandth is missing: the vendor's may be full when this arrives
    assert limit.wait(1.0 + GUARD, 60.0) >= 59.9 + GUARD - 0.01


def test_settling_puts_back_what_was_not_used_and_takes_what_was_used_beyond() -> None:
    limit = bucket(60.0)
    hold = limit.take(0.0, 40.0)
    limit.settle(0.0, hold, 10.0)
    assert limit.saturation(0.0) == pytest.approx(10 / 60)
    assert hold.amount == 10.0
    other = limit.take(0.0, 50.0)
    limit.settle(0.0, other, 80.0)
    assert limit.saturation(0.0) == 1.0
    assert limit.wait(0.0, 1.0) == pytest.approx(31.0 + GUARD)  # below zero, and it must come back first


def test_a_refund_gives_nothing_that_the_bucket_has_regained_already() -> None:
    limit = bucket(10.0, 10.0)
    unsent = limit.take(0.0, 5.0)
    limit.take(3.0 + GUARD, 8.0)  # the vendor, which never saw the first, holds 2 now
    limit.settle(3.0 + GUARD, unsent, 0.0)
    assert limit.wait(3.0 + GUARD, 2.01) > 0.0


def test_two_refunds_together_give_no_more_than_was_missing() -> None:
    limit = bucket(10.0, 10.0)
    unsent = [limit.take(0.0, 1.0) for _ in range(2)]
    limit.take(1.35, 9.25)  # the vendor was full, and holds 0.75 now
    for hold in unsent:
        limit.settle(1.35, hold, 0.0)
    assert limit.wait(1.35, 0.76) > 0.0


def test_a_refund_is_whole_while_the_bucket_was_far_from_full() -> None:
    limit = bucket(10.0, 10.0)
    limit.take(0.0, 4.0)
    unsent = limit.take(0.0, 5.0)
    limit.take(2.0 + GUARD, 2.0)
    before = limit.wait(2.0 + GUARD, 9.0)
    limit.settle(2.0 + GUARD, unsent, 0.0)
    assert before - limit.wait(2.0 + GUARD, 9.0) == pytest.approx(5.0)


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
def test_a_day_of_draws_takes_no_more_memory_than_a_few_thousand() -> None:
    limit = bucket(1e9, 86400.0)
    for place in range(10_000):
        limit.settle(place / 1000, limit.take(place / 1000, 100.0), 60.0)
    assert len(limit._peaks._drops) <= 2048  # pyright: ignore[reportPrivateUsage]
    assert limit.wait(10.0, 1e9 - 600_000.0) == 0.0
    assert limit.wait(10.0, 1e9 - 400_000.0) > 0.0


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@pytest.mark.parametrize("every", [1, 3, 700])
def test_refunds_after_thousands_of_draws_never_give_more_than_had_they_not_been_drawn(every: int) -> None:
    limit = bucket(1e4, 1e4)
    times = [place * 0.9 for place in range(5_000)]
    holds = [limit.take(now, 1.0) for now in times]
    for hold in holds[:4_000:every]:
        limit.settle(times[-1], hold, 0.0)
    level, before = 1e4, 0.0
    for now, hold in zip(times, holds, strict=True):
        level, before = min(1e4, level + now - before) - hold.amount, now
    left = (1.0 - limit.saturation(times[-1])) * 1e4
    assert level - 2.0 < left <= level + SLACK


@pytest.mark.parametrize("capacity", [1.0, 500.0, 30e6, 1e9])
@pytest.mark.parametrize("now", [0.0, 1e3, 3e6])
def test_after_the_wait_nothing_is_left_to_wait_whatever_the_sizes(capacity: float, now: float) -> None:
    limit = bucket(capacity)
    limit.take(now, capacity)
    now += limit.wait(now, capacity / 3)
    assert limit.wait(now, capacity / 3) == 0.0


AMOUNTS = st.floats(0.01, 10.0)
GAPS = st.one_of(st.just(0.0), st.floats(0.0, 0.3), st.floats(0.0, 15.0))


@given(takes=st.lists(st.tuples(GAPS, AMOUNTS), max_size=12), asked=AMOUNTS)
def test_wait_is_exact_payable_then_and_not_a_moment_earlier(takes: list[tuple[float, float]], asked: float) -> None:
    limit = bucket(10.0, 10.0)
    now = 100.0
    for gap, amount in takes:
        now += gap
        limit.take(now, amount)
    seconds = limit.wait(now, asked)
    assert limit.wait(now + seconds, asked) == 0.0
    if seconds > 1e-6:
        assert limit.wait(now + seconds - 1e-6, asked) > 0.0


@dataclass
class Sent:
    arrives: float
    reserved: float
    hold: Hold
    settled: float | None = None
    used: float | None = None


class AgainstVendor(RuleBasedStateMachine):
    """Pays as soon as it may, settles at any time to any part; at the end the vendor judges, by two ways of counting.

    One charges what was reserved and gives back the rest as the answer ends; the other charges only what was used,
    as it does with a request that never came.
    """

    @initialize(start=st.floats(0.0, 1e5))
    def begin(self, start: float) -> None:
        self.start = self.now = start
        self.limit = bucket(10.0, 10.0)
        self.sent: list[Sent] = []

    @rule(seconds=GAPS)
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(amount=AMOUNTS, lag=st.sampled_from([0.0, GUARD, GUARD / 3]), patient=st.booleans())
    def send(self, amount: float, lag: float, patient: bool) -> None:
        seconds = self.limit.wait(self.now, amount)
        if seconds and not patient:
            return
        self.now += seconds
        self.sent.append(Sent(self.now + lag, amount, self.limit.take(self.now, amount)))

    @precondition(lambda self: any(s.settled is None for s in self.sent))
    @rule(which=st.integers(0, 100), part=st.sampled_from([0.0, 0.0, 0.1, 0.5, 1.0]))
    def settle(self, which: int, part: float) -> None:
        unsettled = [s for s in self.sent if s.settled is None]
        sent = unsettled[which % len(unsettled)]
        sent.settled, sent.used = max(self.now, sent.arrives), part * sent.reserved
        self.limit.settle(self.now, sent.hold, sent.used)

    def teardown(self) -> None:
        if hasattr(self, "sent"):
            reserved = [(s.arrives, s.reserved) for s in self.sent]
            returned = [
                (s.settled - GUARD, s.used - s.reserved)  # the answer took up to as long to come back
                for s in self.sent
                if s.settled is not None and s.used is not None and s.settled - GUARD >= s.arrives
            ]
            if len(returned) == sum(s.settled is not None for s in self.sent):
                assert_never_empty([*reserved, *returned])
            assert_never_empty([(s.arrives, s.reserved if s.used is None else s.used) for s in self.sent])


def assert_never_empty(events: list[tuple[float, float]]) -> None:
    level, at = 10.0, 0.0
    # What came back in the instant of a charge came back after it: its own request went before it.
    for when, amount in sorted(events, key=lambda event: (event[0], event[1] < 0.0)):
        level = min(10.0, level + (when - at) * 1.0) - amount
        level, at = min(level, 10.0), when
        assert amount <= 0 or level >= -10.0 * SLACK, f"refused at {when}: {-level} too much"


def test_the_vendor_takes_a_request_in_before_it_gives_back_what_it_did_not_use() -> None:
    vendor = AgainstVendor()
    vendor.begin(0.0)
    vendor.send(1.0, GUARD, patient=False)
    vendor.pass_time(2 * GUARD)
    vendor.settle(0, 0.0)
    for amount in (3.0, 3.0, 4.0):
        vendor.send(amount, 0.0, patient=False)
    vendor.teardown()


AgainstVendor.TestCase.settings = settings(
    max_examples=3 * settings().max_examples, stateful_step_count=25, deadline=None
)
TestAgainstVendor = pytest.mark.no_cover(
    AgainstVendor.TestCase
)  # shorter tests reach the same lines, and being measured takes as long again
