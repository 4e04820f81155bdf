"""The sliding window beside a brute-force vendor: no span of the period's length holds more than allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from llm.core.call import Charge, LimitReport
from llm.limits.base import GUARD, Hold
from llm.limits.concurrency import Concurrency
from llm.limits.own_window import Memory, OwnWindow, Together, limits_of, payers
from llm.limits.window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.limits.base import Holds

MINUTE = 60.0
AMOUNTS = st.one_of(st.integers(0, 10).map(float), st.floats(0.0, 10.0))
GAPS = st.one_of(st.just(0.0), st.floats(0.0, 0.3), st.floats(0.0, 70.0))


def window(capacity: float = 10.0) -> SlidingWindow:
    return SlidingWindow("tokens_per_minute", "total_tokens", capacity, MINUTE)


def own(capacity: float = 10.0) -> OwnWindow:
    return OwnWindow("tokens_per_minute", "total_tokens", capacity, MINUTE)


both = pytest.mark.parametrize("make", [window, own])


@both
def test_each_request_has_a_window_of_its_own(make: Callable[..., OwnWindow]) -> None:
    limit = make(2.0)
    limit.take(0.0, 1.0)
    limit.take(30.0, 1.0)
    assert limit.wait(30.0, 1.0) == pytest.approx(30.0 + GUARD)
    assert limit.wait(30.0, 2.0) == pytest.approx(60.0 + GUARD)
    assert limit.wait(60.0 + GUARD, 1.0) == 0.0
    assert limit.saturation(60.0 + GUARD) == 0.5


@both
def test_what_was_taken_in_one_moment_leaves_with_the_last_of_it(make: Callable[..., OwnWindow]) -> None:
    limit = make(2.0)
    limit.take(0.0, 1.0)
    limit.take(0.009, 1.0)
    assert limit.wait(MINUTE + GUARD, 1.0) == pytest.approx(0.009)


@both
def test_what_is_larger_than_the_limit_waits_for_ever(make: Callable[..., OwnWindow]) -> None:
    assert make().wait(0.0, 10.5) == math.inf
    assert make().wait(0.0, 10.0) == 0.0


@both
def test_settling_counts_from_when_it_was_taken_and_only_while_its_window_runs(make: Callable[..., OwnWindow]) -> None:
    limit = make()
    hold = limit.take(0.0, 8.0)
    limit.settle(30.0, hold, 3.0)
    assert limit.saturation(30.0) == pytest.approx(0.3)
    limit.settle(30.0, hold, 12.0)
    assert limit.saturation(30.0) == 1.0
    assert limit.wait(30.0, 1.0) == pytest.approx(30.0 + GUARD)
    limit.take(80.0, 6.0)
    limit.settle(80.0, hold, 0.0)  # long gone: gives nothing back
    assert limit.saturation(80.0) == pytest.approx(0.6)


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
def test_a_day_of_requests_takes_no_more_memory_than_six_thousand_moments() -> None:
    limit = SlidingWindow("tokens_per_day", "total_tokens", 1e9, 86400.0)
    for second in range(0, 100_000, 2):
        limit.take(float(second), 1.0)
    assert len(list(limit.grains)) <= 6001
    assert limit.saturation(99_998.0) * 1e9 == pytest.approx(43_200.0, abs=10.0)


def told(limit: SlidingWindow, hold: Hold, used: float, now: float) -> None:
    limit.learn(now, hold, LimitReport("total_tokens", limit.capacity, limit.capacity - used))


def test_after_a_silence_a_quarter_stays_back_until_all_have_told_what_was_left() -> None:
    limit = window(8.0)
    told(limit, limit.take(0.0, 8.0), 8.0, 1.0)
    assert limit.wait(0.5, 1.0) > 59.0
    silence_over = MINUTE + GUARD
    assert limit.wait(silence_over, 8.0) == 0.0
    first, second = limit.take(silence_over, 3.0), limit.take(silence_over, 3.0)
    assert limit.wait(silence_over, 2.0) == pytest.approx(2.0)
    told(limit, first, 3.0, silence_over + 0.5)
    assert limit.wait(silence_over + 0.5, 2.0) == pytest.approx(1.5)
    told(limit, second, 6.0, silence_over + 0.6)
    assert limit.wait(silence_over + 0.6, 2.0) == 0.0


def test_while_a_quarter_stays_back_what_leaves_the_window_makes_room_at_once() -> None:
    limit = window()
    told(limit, limit.take(0.0, 8.0), 8.0, 1.0)
    limit.take(59.5, 1.0)
    left = MINUTE + GUARD
    assert limit.wait(59.9, 1.0) == pytest.approx(left - 59.9)
    assert limit.wait(59.9, 9.0) == pytest.approx(1.6)  # more than three quarters hold
    assert limit.wait(left, 6.0) == 0.0
    assert limit.wait(left, 7.0) == pytest.approx(61.5 - left)


def test_after_a_silence_a_quarter_stays_back_for_two_seconds_where_nothing_is_told() -> None:
    limit = window(8.0)
    told(limit, limit.take(0.0, 8.0), 8.0, 1.0)
    limit.take(70.0, 6.0)
    assert limit.wait(71.0, 2.0) == pytest.approx(1.0)
    assert limit.wait(72.0, 2.0) == 0.0


def test_who_asks_after_some_were_told_of_is_waited_for_as_well() -> None:
    limit = window(8.0)
    told(limit, limit.take(0.0, 8.0), 8.0, 1.0)
    silence_over = MINUTE + GUARD
    first = limit.take(silence_over, 3.0)
    second = limit.take(silence_over, 1.0)
    told(limit, first, 3.0, silence_over + 0.5)
    limit.take(silence_over + 0.6, 2.0)
    told(limit, second, 4.0, silence_over + 0.7)
    assert limit.wait(silence_over + 0.7, 2.0) == pytest.approx(1.3)


def test_what_others_take_is_kept_back_the_more_the_longer_nothing_is_told() -> None:
    limit = window(100.0)
    told(limit, limit.take(0.0, 1.0), 1.0, 0.1)
    told(limit, limit.take(1.0, 9.0), 18.0, 1.1)
    assert limit.wait(2.0, 30.0) == 0.0
    assert limit.wait(41.0, 30.0) > 20.0
    told(limit, limit.take(41.0, 1.0), 19.0, 41.1)
    assert limit.wait(41.2, 30.0) == 0.0


def test_a_window_that_became_smaller_is_full_sooner() -> None:
    limit = window(100.0)
    limit.take(0.0, 60.0)
    assert limit.wait(1.0, 10.0) == 0.0
    limit.resize(1.0, 50.0)
    assert limit.wait(1.0, 10.0) > 59.0
    limit.resize(1.0, 100.0)
    assert limit.wait(1.0, 10.0) == 0.0


def test_where_nothing_was_ever_told_nothing_stays_back() -> None:
    limit = window(8.0)
    limit.take(0.0, 8.0)
    limit.take(70.0, 6.0)
    assert limit.wait(70.0, 2.0) == 0.0


def resets(limit: SlidingWindow, hold: Hold, left: float, reset: float, *, refused: bool = False) -> None:
    limit.learn(hold.at, hold, LimitReport("total_tokens", limit.capacity, left, reset, refused=refused))


def test_what_the_provider_will_have_again_sooner_is_there_sooner() -> None:
    limit = window(8.0)
    first = limit.take(0.0, 5.0)
    second = limit.take(1.0, 3.0)
    resets(limit, first, 3.0, 16.5)
    resets(limit, second, 0.0, 15.5)  # as the first told
    assert limit.wait(2.0, 1.0) == pytest.approx(14.5 + GUARD)
    assert limit.wait(16.5 + GUARD, 8.0) == 0.0
    late = limit.take(20.0, 8.0)
    assert limit.wait(20.0, 1.0) == pytest.approx(MINUTE + GUARD)
    resets(limit, late, 0.0, 56.0)  # in whole seconds, so that it may be almost one more
    assert limit.wait(20.0, 1.0) == pytest.approx(57.0 + GUARD)


def test_of_requests_of_one_moment_the_last_to_be_told_of_counts() -> None:
    limit = window(8.0)
    several = [limit.take(0.0, 2.0) for _ in range(4)]
    for hold, reset in zip(several, (15.5, 30.5, 45.5), strict=False):  # a bucket's
        resets(limit, hold, 0.0, reset)
    assert limit.wait(0.0, 1.0) == pytest.approx(MINUTE + GUARD)
    resets(limit, several[3], 0.0, 59.5)
    assert limit.wait(0.0, 1.0) == pytest.approx(59.5 + GUARD)


def test_a_request_of_a_moment_that_was_told_of_already_makes_it_open_again() -> None:
    limit = window(8.0)
    resets(limit, limit.take(0.0, 4.0), 4.0, 30.5)
    limit.take(0.0, 4.0)
    assert limit.wait(0.0, 1.0) == pytest.approx(MINUTE + GUARD)


def test_a_provider_whose_word_on_that_misleads_is_not_believed_any_more() -> None:
    limit = window(8.0)
    resets(limit, limit.take(0.0, 8.0), 0.0, 5.5)
    limit.wait(6.0, 8.0)
    misled = [limit.take(6.0, 0.5) for _ in range(8)]
    for hold in misled:
        resets(limit, hold, 0.0, 5.5, refused=True)
    now = 70.0
    resets(limit, limit.take(now, 8.0), 0.0, 5.5)
    assert limit.wait(now, 1.0) == pytest.approx(MINUTE + GUARD)


def test_the_longer_nothing_was_told_the_more_is_kept_back_for_others() -> None:
    limit = window(100.0)
    hold = limit.take(0.0, 1.0)
    told(limit, limit.take(10.0, 1.0), 2.0, 10.2)
    told(limit, limit.take(20.0, 1.0), 13.0, 20.2)  # ten are somebody else's, of ten seconds
    soon, late = (limit.capacity - limit.saturation(now) * 100.0 - fits(limit, now) for now in (21.0, 50.0))
    assert 5.0 < soon < 10.0
    assert late > 3 * soon
    assert hold.amount == 1.0


def fits(limit: SlidingWindow, now: float) -> float:
    """The most that it lets go now."""
    return max((tenth / 10 for tenth in range(1001) if limit.wait(now, tenth / 10) == 0.0), default=0.0)


@both
def test_times_out_of_order_from_another_thread_lose_nothing(make: Callable[..., OwnWindow]) -> None:
    limit = make()
    limit.take(10.0, 4.0)
    late = limit.take(9.0, 4.0)
    limit.settle(69.5 + GUARD, late, 0.0)
    assert limit.saturation(69.5 + GUARD) == pytest.approx(0.4)
    assert limit.saturation(70.0 + GUARD) == 0.0


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@both
def test_sums_of_dollars_do_not_drift(make: Callable[..., OwnWindow]) -> None:
    limit = make(1.0)
    for i in range(10_000):
        now = i * 7.0
        if not limit.wait(now, 0.1):
            limit.take(now, 0.1)
    assert limit.saturation(70_000.0 + MINUTE + GUARD) == 0.0


@both
@pytest.mark.parametrize("now", [0.1, 1e3, 3e6])
def test_after_the_wait_nothing_is_left_to_wait_however_late_it_is(make: Callable[..., OwnWindow], now: float) -> None:
    limit = make()
    limit.take(now, 10.0)
    later = now + 1 / 3
    later += limit.wait(later, 1.0)
    assert limit.wait(later, 1.0) == 0.0


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@given(make=st.sampled_from([window, own]), takes=st.lists(st.tuples(GAPS, AMOUNTS), max_size=12), asked=AMOUNTS)
def test_wait_is_exact_payable_then_and_not_a_moment_earlier(
    make: Callable[..., OwnWindow], takes: list[tuple[float, float]], asked: float
) -> None:
    limit = make()
    now = 100.0
    for gap, amount in takes:
        now += gap
        limit.take(now, amount)
    seconds = limit.wait(now, asked)
    assert seconds >= 0.0
    if seconds > 1e-6:
        assert limit.wait(now + seconds - 1e-6, asked) > 0.0
    assert limit.wait(now + seconds, asked) == 0.0


@dataclass
class Sent:
    arrives: float
    counted: float
    hold: Hold
    settled: bool = False


class AgainstVendor(RuleBasedStateMachine):
    """Pays as soon as it may and settles at any time; the vendor sees each request up to 100 ms later."""

    @initialize(start=st.floats(0.0, 1e5), make=st.sampled_from([window, own]))
    def begin(self, start: float, make: Callable[..., OwnWindow]) -> None:
        self.now = start
        self.limit = make()
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

    @precondition(lambda self: any(not s.settled for s in self.sent))
    @rule(which=st.integers(0, 100), part=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    def settle(self, which: int, part: float) -> None:
        unsettled = [s for s in self.sent if not s.settled]
        sent = unsettled[which % len(unsettled)]
        self.limit.settle(self.now, sent.hold, part * sent.counted)
        sent.settled, sent.counted = True, part * sent.counted

    def teardown(self) -> None:
        for first in getattr(self, "sent", []):
            span = [s.counted for s in self.sent if 0.0 <= s.arrives - first.arrives < MINUTE - 1e-6]
            assert sum(span) <= 10.0 + 1e-6


AgainstVendor.TestCase.settings = settings(
    max_examples=2 * settings().max_examples, stateful_step_count=25, deadline=None
)
TestAgainstVendor = pytest.mark.no_cover(
    AgainstVendor.TestCase
)  # shorter tests reach the same lines, and being measured takes as long again


@both
def test_what_was_refunded_is_passed_over(make: Callable[..., OwnWindow]) -> None:
    limit = make()
    limit.settle(0.0, limit.take(0.0, 5.0), 0.0)
    limit.take(10.0, 10.0)
    assert limit.wait(10.0, 1.0) == pytest.approx(60.0 + GUARD)


def windows(memory: Memory | None = None) -> list[OwnWindow]:
    """Windows of one account: with one memory, or each with its own."""
    return [
        OwnWindow("requests_per_minute", "requests", 6.0, MINUTE, level="user", memory=memory),
        OwnWindow("tokens_per_minute", "total_tokens", 90.0, MINUTE, level="user", memory=memory),
        OwnWindow("input_tokens_per_minute", "input_tokens", 50.0, MINUTE, level="user", memory=memory),
        OwnWindow("output_tokens_per_minute", "output_tokens", 60.0, MINUTE, level="user", memory=memory),
        OwnWindow("cost_per_minute", "cost", 1.0, MINUTE, level="user", memory=memory),
    ]


def charge(prompt: int, answer: int, cost: float) -> Charge:
    return Charge(prompt, answer, prompt + answer, cost)


CHARGES = st.builds(charge, st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.0, 0.25, 1.5]))


@given(st.lists(st.tuples(GAPS, CHARGES, st.none() | CHARGES), max_size=12))
def test_windows_with_one_memory_are_what_they_are_by_themselves(
    calls: list[tuple[float, Charge, Charge | None]],
) -> None:
    (together,), apart = payers(windows(Memory(MINUTE))), windows()
    assert isinstance(together, Together)
    held: list[tuple[Hold, list[Hold]]] = []
    now = 100.0
    for gap, asked, used in calls:
        now += gap
        seconds = together.wait(now, tuple(asked))
        assert seconds == pytest.approx(max(window.wait(now, asked[window.place]) for window in apart))
        if seconds == 0.0:
            holds: list[Hold] = [window.take(now, asked[window.place]) for window in apart]
            held.append((together.take(now, tuple(asked)), holds))
        if used is not None and held:
            hold, holds = held.pop(0)
            together.settle(now, hold, tuple(used))
            for window, each in zip(apart, holds, strict=True):
                window.settle(now, each, used[window.place])
        for one, other in zip(together.windows, apart, strict=True):
            assert one.saturation(now) == pytest.approx(other.saturation(now), abs=1e-9)
            assert one.free(now) == pytest.approx(other.free(now))


def test_windows_of_other_memories_and_other_limits_pay_by_themselves() -> None:
    minute, hour = Memory(MINUTE), Memory(3600.0)
    requests, *_ = windows(minute)
    of_hours = OwnWindow("requests_per_hour", "requests", 60.0, 3600.0, level="user", memory=hour)
    running = Concurrency("concurrent_requests", 2.0, level="user")
    paid = payers([requests, of_hours, running])
    assert [payer.level for payer in paid] == ["user"] * 3
    holds: Holds = [(payer, payer.take(0.0, Charge()[payer.place])) for payer in paid]
    assert limits_of(holds) == [requests, of_hours, running]
    assert [limit.saturation(0.0) for limit in (requests, of_hours, running)] == pytest.approx([1 / 6, 1 / 60, 1 / 2])


def test_what_goes_on_with_another_number_remembers_the_same() -> None:
    old = OwnWindow("cost_per_day", "cost", 10.0, 86400.0, level="user", refuses=True)
    running = old.take(0.0, 6.0)
    new = old.resized(1000.0, 8.0)
    old.settle(1000.0, running, 4.0)
    new.take(1000.0, 2.0)
    assert [window.saturation(1000.0) for window in (old, new)] == pytest.approx([0.6, 0.75])
    assert new.wait(1000.0, 3.0) == pytest.approx(86400.0 + GUARD - 1000.0)
