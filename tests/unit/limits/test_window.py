"""The sliding window beside a brute-force vendor: no span of the period's length holds more than allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llm.core.call import Charge, LimitReport
from llm.limits.amounts import amounts_of, summed
from llm.limits.base import GUARD, Hold
from llm.limits.concurrency import Concurrency
from llm.limits.moments import Drawn, Memory, amount_of
from llm.limits.own_window import OwnWindow
from llm.limits.together import Together, limits_of, payers
from llm.limits.told import ToldMemory
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
    assert len(limit.memory.moments) <= 6001
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


def test_what_others_take_is_known_by_an_earlier_time_too() -> None:
    limit = window(100.0)
    told(limit, limit.take(200.0, 1.0), 20.0, 200.1)
    told(limit, limit.take(100.0, 1.0), 60.0, 100.1)  # of a clock that was put back
    assert limit.saturation(100.2) == pytest.approx(0.6, abs=0.02)


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
    assert amount_of(hold, limit.place) == 1.0


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


@both
def test_what_is_settled_of_a_time_before_it_was_forgotten_is_not_given_back(make: Callable[..., OwnWindow]) -> None:
    limit = make()
    hold = limit.take(0.0, 8.0)
    assert limit.saturation(MINUTE + 2 * GUARD) == 0.0
    limit.settle(MINUTE, hold, 0.0)  # as another process's log tells late
    assert limit.free(MINUTE + 2 * GUARD) == 10.0


@both
def test_what_is_taken_at_a_time_that_was_forgotten_is_forgotten_as_well(make: Callable[..., OwnWindow]) -> None:
    limit = make()
    limit.take(0.0, 4.0)
    assert limit.saturation(MINUTE + 2 * GUARD) == 0.0
    limit.take(0.005, 4.0)
    assert limit.saturation(2 * MINUTE) == 0.0


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
    held: list[tuple[Drawn, list[Hold]]] = []
    now = 100.0
    for gap, asked, used in calls:
        now += gap
        amounts = summed(asked)
        seconds = together.wait(now, amounts)
        assert seconds == pytest.approx(max(window.wait(now, asked[window.place]) for window in apart))
        if seconds == 0.0:
            holds: list[Hold] = [window.take(now, asked[window.place]) for window in apart]
            held.append((together.take(now, amounts), holds))
        if used is not None and held:
            hold, holds = held.pop(0)
            together.settle(now, hold, summed(used))
            for window, each in zip(apart, holds, strict=True):
                window.settle(now, each, used[window.place])
        for one, other in zip(together.limits, apart, strict=True):
            assert one.saturation(now) == pytest.approx(other.saturation(now), abs=1e-9)
            assert one.free(now) == pytest.approx(other.free(now))


def test_windows_of_other_memories_and_other_limits_pay_by_themselves() -> None:
    minute, hour = Memory(MINUTE), Memory(3600.0)
    requests, *_ = windows(minute)
    of_hours = OwnWindow("requests_per_hour", "requests", 60.0, 3600.0, level="user", memory=hour)
    running = Concurrency("concurrent_requests", 2.0, level="user")
    paid = payers([requests, of_hours, running])
    assert [payer.level for payer in paid] == ["user"] * 3
    holds: Holds = [(payer, payer.take(0.0, amounts_of(Charge())[payer.place])) for payer in paid]
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


# --- windows of a provider with one memory --------------------------------------------------------------------------


def told_windows(memory: ToldMemory | None = None) -> list[SlidingWindow]:
    """Windows of one key: with one memory, or each with its own."""
    return [
        SlidingWindow("requests_per_minute", "requests", 30.0, MINUTE, memory=memory),
        SlidingWindow("tokens_per_minute", "total_tokens", 900.0, MINUTE, memory=memory),
        SlidingWindow("input_tokens_per_minute", "input_tokens", 600.0, MINUTE, memory=memory),
        SlidingWindow("output_tokens_per_minute", "output_tokens", 500.0, MINUTE, memory=memory),
        SlidingWindow("cost_per_minute", "cost", 2.0, MINUTE, memory=memory),
    ]


def of_key() -> tuple[Together, SlidingWindow, SlidingWindow]:
    """What pays for requests and tokens of one key, and both windows."""
    memory = ToldMemory(MINUTE)
    requests = SlidingWindow("requests_per_minute", "requests", 10.0, MINUTE, memory=memory)
    tokens = SlidingWindow("tokens_per_minute", "total_tokens", 100.0, MINUTE, memory=memory)
    (paid,) = payers([requests, tokens])
    assert isinstance(paid, Together)
    return paid, requests, tokens


def pay(payer: Together, now: float, tokens: int) -> Drawn:
    return payer.take(now, summed(Charge(total_tokens=tokens)))


def back_at(payer: Together, window: SlidingWindow, hold: Drawn, reset: float) -> None:
    """Have the provider say when all of a window is there again, and that nobody else took anything."""
    window.learn(hold.at, hold, LimitReport("total_tokens", window.capacity, window.capacity, reset))
    payer.level_up()


def shares(now: float, *windows: SlidingWindow) -> list[float]:
    return [window.saturation(now) for window in windows]


def test_one_unit_may_come_back_sooner_than_the_others_and_what_was_used_of_it_counts_no_more() -> None:
    payer, requests, tokens = of_key()
    hold = pay(payer, 0.0, 60)
    back_at(payer, tokens, hold, 5.5)
    assert shares(5.0, requests, tokens) == [0.1, 0.6]
    assert shares(6.0, requests, tokens) == [0.1, 0.0]
    payer.settle(6.0, hold, summed(Charge(total_tokens=90, requests=3)))
    assert shares(6.0, requests, tokens) == [0.3, 0.0]
    assert shares(MINUTE + 2 * GUARD, requests, tokens) == [0.0, 0.0]


def test_what_is_taken_in_a_moment_of_which_a_part_came_back_is_of_another() -> None:
    day = ToldMemory(86400.0)
    tokens = SlidingWindow("tokens_per_day", "total_tokens", 100.0, 86400.0, memory=day)
    (payer,) = payers([tokens])
    assert isinstance(payer, Together)
    back_at(payer, tokens, pay(payer, 0.0, 60), 1.5)
    late = pay(payer, 3.0, 40)  # within the 14 seconds of a moment of a day
    assert shares(3.0, tokens) == [0.4]
    payer.settle(4.0, late, summed(Charge(total_tokens=30)))
    assert shares(4.0, tokens) == [0.3]


def test_nothing_leaves_before_what_was_there_first() -> None:
    payer, _, tokens = of_key()
    first, second = pay(payer, 0.0, 50), pay(payer, GUARD / 2, 20)
    back_at(payer, tokens, second, 5.5)  # which says nothing of one that may have come later
    assert tokens.wait(1.0, 40.0) == pytest.approx(MINUTE + GUARD - 1.0)
    assert shares(10.0, tokens) == [0.7]
    back_at(payer, tokens, first, 7.5)
    assert shares(7.0, tokens) == [0.7]
    assert shares(8.0, tokens) == [0.0]


def test_what_waits_for_one_that_was_used_for_nothing_says_so() -> None:
    payer, _, tokens = of_key()
    pay(payer, 0.0, 0)
    back_at(payer, tokens, pay(payer, GUARD / 2, 100), 5.5)
    assert tokens.wait(10.0, 100.0) == pytest.approx(MINUTE + GUARD - 10.0)


def test_where_more_is_kept_back_than_there_is_a_further_look_is_taken() -> None:
    payer, _, tokens = of_key()
    hold, later = pay(payer, 0.0, 1), pay(payer, 1.0, 1)
    for now, each, left in ((0.1, hold, 99.0), (1.1, later, 70.0)):  # of which 28 are somebody else's
        tokens.learn(now, each, LimitReport("total_tokens", 100.0, left))
        payer.level_up()
    assert payer.wait(41.0, summed(Charge(total_tokens=30))) > 0.0


def test_what_others_took_when_all_has_come_back_counts_for_its_own_time() -> None:
    payer, _, tokens = of_key()
    hold = pay(payer, 0.0, 10)
    back_at(payer, tokens, hold, 5.5)
    tokens.learn(20.0, hold, LimitReport("total_tokens", 100.0, 40.0))
    assert shares(20.0, tokens) == pytest.approx([0.5])
    assert shares(MINUTE + 2 * GUARD, tokens) == [0.0]


def test_what_others_took_of_one_unit_is_waited_for_where_all_around_it_has_come_back() -> None:
    payer, _, tokens = of_key()
    for now in (0.0, 1.0):
        back_at(payer, tokens, pay(payer, now, 10), 5.5)
    assert shares(20.0, tokens) == [0.0]
    tokens.learn(20.0, Hold(0.5, 0.0), LimitReport("total_tokens", 100.0, 30.0))
    pay(payer, 21.0, 10)
    assert shares(21.0, tokens) == [0.8]
    assert tokens.wait(21.0, 40.0) == pytest.approx(MINUTE + GUARD + 0.5 - 21.0)


def test_what_others_took_of_one_unit_holds_up_no_other() -> None:
    payer, requests, tokens = of_key()
    first = pay(payer, 0.0, 60)
    requests.learn(0.5, first, LimitReport("requests", 10.0, 9.0, 1.5))
    assert shares(3.0, requests, tokens) == [0.0, 0.6]
    requests.learn(4.0, first, LimitReport("requests", 10.0, 4.0))
    assert shares(4.0, requests, tokens) == [0.5, 0.6]
    back_at(payer, tokens, pay(payer, 5.0, 10), 5.5)
    assert shares(11.0, requests, tokens) == [0.6, 0.0]


def test_what_was_refused_of_one_unit_is_given_back_once() -> None:
    payer, requests, tokens = of_key()
    hold = pay(payer, 0.0, 60)
    tokens.learn(0.5, hold, LimitReport("total_tokens", 100.0, 50.0, refused=True))
    assert shares(0.5, requests, tokens) == [0.1, 0.5]  # which somebody else has
    payer.settle(1.0, hold, summed(Charge(total_tokens=60)))
    assert shares(1.0, requests, tokens) == [0.1, 0.5]


def test_a_silence_is_seen_by_what_pays() -> None:
    payer, _, tokens = of_key()
    told(tokens, pay(payer, 0.0, 80), 80.0, 0.5)
    payer.level_up()
    now = MINUTE + GUARD
    pay(payer, now, 70)
    assert tokens.wait(now, 20.0) == pytest.approx(2.0)


def test_what_came_back_of_all_units_takes_no_memory() -> None:
    day = ToldMemory(86400.0)
    tokens = SlidingWindow("tokens_per_day", "total_tokens", 100.0, 86400.0, memory=day)
    (payer,) = payers([tokens])
    assert isinstance(payer, Together)
    holds: list[Drawn] = []
    for place in range(500):
        holds.append(pay(payer, place * 0.3, 1))
        back_at(payer, tokens, holds[-1], 0.0864)
    assert len(day.moments) < 5
    assert shares(151.0, tokens) == [0.0]
    for hold in holds:  # which run for long
        payer.settle(152.0, hold, summed(Charge(total_tokens=50)))
    assert shares(152.0, tokens) == [0.0]


def test_what_is_passed_over_is_passed_over_once(counting: Any) -> None:  # noqa: ANN401 - a fixture
    costs: list[int] = []
    for calls in (200, 2000):
        payer, requests, tokens = of_key()
        for place in range(calls):
            back_at(payer, tokens, pay(payer, place / 50, 1), 0.001)  # while all requests still count
        now = calls / 50 + 1.0
        assert shares(now, tokens) == [0.0]
        pay(payer, now, 100)
        with counting() as instructions:
            assert tokens.wait(now, 1.0) == pytest.approx(MINUTE + GUARD)
        costs.append(instructions.count)
        assert requests.saturation(now) == 1.0
    assert costs[1] < 1.1 * costs[0]


def test_to_have_many_moments_leave_sooner_costs_in_proportion_to_them(counting: Any) -> None:  # noqa: ANN401 - a fixture
    costs: list[int] = []
    for moments in (500, 1000):
        payer, _, tokens = of_key()
        holds = [pay(payer, place / 50, 1) for place in range(moments)]
        with counting() as instructions:
            back_at(payer, tokens, holds[-1], 5.5)
        assert shares(moments / 50 + 6.0, tokens) == pytest.approx([0.06], abs=0.011)  # those of one moment
        costs.append(instructions.count)
    assert costs[1] < 2.2 * costs[0]


def test_what_cannot_leave_yet_is_not_looked_at_with_every_call(counting: Any) -> None:  # noqa: ANN401 - a fixture
    payer, _, tokens = of_key()
    pay(payer, 0.0, 1)
    back_at(payer, tokens, pay(payer, GUARD / 2, 1), 5.5)  # which cannot leave before the first
    costs: list[int] = []
    for place in range(500):
        with counting() as instructions:
            pay(payer, 10.0 + place / 50, 0)
        costs.append(instructions.count)
    assert max(costs[400:]) <= 1.1 * max(costs[1:100])


@pytest.mark.parametrize("reverse", [False, True])
def test_what_is_heard_of_late_is_counted_at_its_time(reverse: bool) -> None:
    _, requests, tokens = of_key()
    heard = [(10.0, 1.0), (12.0, 2.0), (40.0, 3.0)]
    for at, amount in sorted(heard, reverse=reverse):
        requests.take(at, amount)
    for at, amount in heard:
        tokens.take(at, 10 * amount)
    assert list(requests.taken) == heard
    assert shares(70.0 + 2 * GUARD, requests, tokens) == [0.5, 0.5]
    assert shares(72.0 + 2 * GUARD, requests, tokens) == [0.3, 0.3]


class ToldOf(NamedTuple):
    """What a provider says of one window: what is left, as a share; when all is back; whether it refused."""

    window: int
    left: float
    reset: float | None
    refused: bool


SAYINGS = st.builds(
    ToldOf,
    st.integers(0, 4),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    st.none() | st.sampled_from([0.001, 7.0, 33.5, 59.0]),
    st.sampled_from([False] * 9 + [True]),
)


class TogetherOrApart(RuleBasedStateMachine):
    """The same calls, answers and reports for windows with one memory, and for windows that have each their own."""

    @initialize(start=st.floats(0.0, 1e5))
    def begin(self, start: float) -> None:
        self.now = start
        self.apart = told_windows()
        self.limits = told_windows(ToldMemory(MINUTE))
        (self.payer,) = payers(self.limits)
        self.held: list[tuple[Drawn, list[Drawn], set[int]]] = []

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.004, 0.05, 0.12, 0.5, 2.0]) | st.floats(0.0, 30.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(asked=CHARGES)
    def pay(self, asked: Charge) -> None:
        amounts = summed(asked)
        seconds = max(window.wait(self.now, asked[window.place]) for window in self.apart)
        assert self.payer.wait(self.now, amounts) == pytest.approx(seconds, abs=0.02)
        if seconds == 0.0:
            holds = [window.take(self.now, asked[window.place]) for window in self.apart]
            hold = self.payer.take(self.now, amounts)
            assert isinstance(hold, Drawn)
            self.held.append((hold, holds, set()))

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 100), used=CHARGES)
    def settle(self, which: int, used: Charge) -> None:
        hold, holds, told = self.held.pop(which % len(self.held))
        self.payer.settle(self.now, hold, summed(used))
        for place, (window, each) in enumerate(zip(self.apart, holds, strict=True)):
            if place not in told:
                window.settle(self.now, each, used[window.place])

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 100), said=SAYINGS)
    def tell(self, which: int, said: ToldOf) -> None:
        hold, holds, told = self.held[which % len(self.held)]
        if said.window in told:
            return
        together, apart = self.limits[said.window], self.apart[said.window]
        left = math.floor(said.left * apart.capacity)
        report = LimitReport(
            "requests" if apart.unit == "cost" else apart.unit, apart.capacity, left, said.reset, 0.0, said.refused
        )
        together.learn(self.now, hold, report)
        apart.learn(self.now, holds[said.window], report)
        if said.refused:
            told.add(said.window)
        assert isinstance(self.payer, Together)
        self.payer.level_up()

    @invariant()
    def is_the_same(self) -> None:
        for one, other in zip(getattr(self, "limits", ()), getattr(self, "apart", ()), strict=True):
            assert one.saturation(self.now) == pytest.approx(other.saturation(self.now), abs=1e-6)
            assert one.free(self.now) == pytest.approx(other.free(self.now), abs=1e-3)


TogetherOrApart.TestCase.settings = settings(
    max_examples=2 * settings().max_examples, stateful_step_count=40, deadline=None
)
TestTogetherOrApart = pytest.mark.no_cover(
    TogetherOrApart.TestCase
)  # shorter tests reach the same lines, and being measured takes as long again
