"""When a breaker opens, what it lets through, when it closes: against a model that keeps every attempt."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llm.core.exceptions import (
    LLMAuthenticationError,
    LLMConnectionError,
    LLMContentFilterError,
    LLMContextLengthError,
    LLMException,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMQuotaExceededError,
    LLMRateLimitError,
    LLMServerError,
    LLMStreamInterruptedError,
    LLMTimeoutError,
)
from llm.limits.breaker import Breaker, BreakerPolicy, BreakerState, Permit, verdict

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def attempt(breaker: Breaker, now: float, good: bool | None) -> BreakerState | None:
    """Make an attempt that takes no time; returns what the breaker changed to."""
    assert breaker.wait(now) == 0.0
    permit = breaker.permit(now)
    permit.good = good
    return permit.end(now)


def opened(now: float = 0.0, **policy: float) -> Breaker:
    breaker = Breaker(BreakerPolicy(min_calls=4, **policy), "m")  # type: ignore[arg-type]  # numbers of either kind
    changes = [attempt(breaker, now, good) for good in (True, True, False, False)]
    assert changes == [None, None, None, OPEN]
    return breaker


# --- closed and open --------------------------------------------------------------------------------------------------


def test_it_opens_at_its_threshold_and_not_before() -> None:
    breaker = Breaker(BreakerPolicy(failure_rate=0.5, min_calls=10), "m")
    for good in (True, False, True, False, True, True, True, False, False):
        assert attempt(breaker, 1.0, good) is None
    assert attempt(breaker, 1.0, good=False) is OPEN
    assert (breaker.failures, breaker.attempts) == (5, 10)


def test_it_opens_by_a_success_too_where_that_is_the_last_that_was_wanting() -> None:
    breaker = Breaker(BreakerPolicy(failure_rate=0.5, min_calls=3), "m")
    assert [attempt(breaker, 0.0, good) for good in (False, False, True)] == [None, None, OPEN]


def test_what_is_older_than_the_window_counts_no_more() -> None:
    breaker = Breaker(BreakerPolicy(window=30.0, min_calls=4), "m")
    for now in (0.0, 10.0, 20.0):
        attempt(breaker, now, good=False)
    assert attempt(breaker, 30.0, good=False) is None
    assert breaker.counts(30.0) == (3, 3)
    assert breaker.counts(49.9) == (1, 1)
    assert breaker.counts(1e9) == (0, 0)


def test_what_says_nothing_is_not_counted() -> None:
    breaker = Breaker(BreakerPolicy(min_calls=1), "m")
    assert attempt(breaker, 0.0, good=None) is None
    assert breaker.counts(0.0) == (0, 0)


def test_open_it_says_how_long_and_lets_nothing_through() -> None:
    breaker = opened(100.0, open_for=15.0)
    assert breaker.wait(100.0) == 15.0
    assert breaker.wait(114.5) == 0.5
    assert breaker.snapshot(110.0) == {"state": "open", "failure_rate": 0.5, "attempts": 4, "retry_after": 5.0}


def test_what_was_sent_before_a_change_says_nothing_after_it() -> None:
    breaker = Breaker(BreakerPolicy(min_calls=4, open_for=10.0, half_open_calls=1), "m")
    late = [breaker.permit(0.0) for _ in range(5)]
    for _ in range(4):
        attempt(breaker, 0.0, good=False)
    for permit, now in zip(late, (1.0, 5.0, 10.0, 11.0), strict=False):
        permit.good = now != 11.0
        assert permit.end(now) is None
    assert breaker.state(11.0) is HALF_OPEN
    assert attempt(breaker, 11.0, good=True) is CLOSED
    late[4].good = False
    assert late[4].end(12.0) is None
    assert breaker.counts(12.0) == (0, 0)


# --- half open --------------------------------------------------------------------------------------------------------


def test_half_open_lets_exactly_so_many_through_and_closes_when_all_succeed() -> None:
    breaker = opened(half_open_calls=3, open_for=15.0)
    probes = [probe(breaker, 15.0) for _ in range(3)]
    assert breaker.state(15.0) is HALF_OPEN
    assert breaker.wait(15.0) == 1.0
    assert [end(permit, 16.0, good=True) for permit in probes] == [None, None, CLOSED]
    assert breaker.wait(16.0) == 0.0
    assert breaker.snapshot(16.0) == {"state": "closed", "failure_rate": 0.0, "attempts": 0, "retry_after": 0.0}


def test_one_failure_opens_again_for_the_whole_time() -> None:
    breaker = opened(half_open_calls=3, open_for=15.0)
    probes = [probe(breaker, 15.0) for _ in range(2)]
    assert end(probes[0], 16.0, good=True) is None
    assert end(probes[1], 17.0, good=False) is OPEN
    assert (breaker.wait(17.0), breaker.again) == (15.0, True)
    for _ in range(3):
        probe(breaker, 32.0)
    assert breaker.wait(32.0) == 1.0


def test_a_probe_that_says_nothing_gives_its_place_back() -> None:
    breaker = opened(half_open_calls=1, open_for=0.5)
    assert end(probe(breaker, 1.0), 1.0, good=None) is None
    first = probe(breaker, 1.0)
    assert breaker.wait(1.0) == 0.5
    assert end(first, 1.0, good=True) is CLOSED


def test_a_probe_succeeds_with_its_first_chunk_and_may_break_later() -> None:
    breaker = opened(half_open_calls=2, open_for=15.0)
    probes = [probe(breaker, 15.0) for _ in range(2)]
    assert probes[0].answer(16.0) is None
    assert end(probes[0], 17.0, good=None) is None
    assert breaker.wait(17.0) == 1.0
    assert probes[1].answer(18.0) is CLOSED
    assert end(probes[1], 300.0, good=False) is None
    assert breaker.counts(300.0) == (0, 0)


def test_a_probe_that_breaks_after_its_first_chunk_while_others_try_opens_again() -> None:
    breaker = opened(half_open_calls=2, open_for=15.0)
    broken = probe(breaker, 15.0)
    broken.answer(16.0)
    assert end(broken, 17.0, good=False) is OPEN


def test_a_slow_first_chunk_is_no_success() -> None:
    breaker = opened(half_open_calls=1, open_for=15.0, slow_call=2.0)
    slow = probe(breaker, 15.0)
    assert slow.answer(18.0) is None
    assert end(slow, 90.0, good=True) is OPEN


def probe(breaker: Breaker, now: float) -> Permit:
    assert breaker.wait(now) == 0.0
    return breaker.permit(now)


def end(permit: Permit, now: float, *, good: bool | None) -> BreakerState | None:
    permit.good = good
    return permit.end(now)


# --- slow attempts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answered", "ended", "good", "late", "counted"),
    [
        (2.0, 2.0, True, False, (0, 1)),
        (2.1, 2.1, True, False, (1, 1)),
        (1.0, 90.0, True, False, (0, 1)),  # a long stream that began in time
        (None, 9.0, None, False, (0, 0)),  # a caller who had enough
        (None, 9.0, None, True, (1, 1)),  # a deadline that was longer than an answer may take
        (None, 1.0, None, True, (0, 0)),
        (1.0, 9.0, None, True, (0, 0)),
        (None, 1.0, False, False, (1, 1)),
    ],
)
def test_an_attempt_that_takes_longer_than_it_may_counts_as_failed(
    answered: float | None, ended: float, good: bool | None, late: bool, counted: tuple[int, int]
) -> None:
    breaker = Breaker(BreakerPolicy(slow_call=2.0), "m")
    permit = breaker.permit(0.0)
    permit.good, permit.late, permit.answered = good, late, answered
    permit.end(ended)
    assert breaker.counts(ended) == counted


# --- what counts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        LLMOverloadedError("529"),
        LLMServerError("500"),
        LLMConnectionError("no route", sent=False),
        LLMConnectionError("reset", sent=True),
        LLMStreamInterruptedError("cut"),
        LLMTimeoutError("no connection", phase="connect", sent=False),
        LLMTimeoutError("no chunk", phase="first_token", retryable=True),
        LLMTimeoutError("a stall", phase="idle"),
        LLMTimeoutError("timeouts.attempt", phase="total", retryable=True),
    ],
)
def test_overload_and_failures_of_the_provider_and_of_the_way_to_it_feed_the_breaker(error: LLMException) -> None:
    assert verdict(error) is False


@pytest.mark.parametrize(
    "error",
    [
        LLMRateLimitError("429"),
        LLMInvalidRequestError("400"),
        LLMContextLengthError("too long"),
        LLMAuthenticationError("401"),
        LLMQuotaExceededError("402"),
        LLMContentFilterError("no"),
        LLMTimeoutError("the call's time is over", phase="total"),
        LLMTimeoutError("no key", phase="pool"),
        LLMTimeoutError("nobody read", phase="idle", unread=True),
        GeneratorExit(),
        KeyboardInterrupt(),
    ],
)
def test_limits_requests_keys_content_and_callers_who_leave_never_feed_it(error: BaseException) -> None:
    assert verdict(error) is None
    assert verdict(None) is True


# --- every order of events --------------------------------------------------------------------------------------------


class BreakerMachine(RuleBasedStateMachine):
    """A breaker beside a model that keeps a list of all attempts."""

    POLICY = BreakerPolicy(failure_rate=0.4, window=10.0, min_calls=5, open_for=3.0, half_open_calls=3)
    STEP = 0.5  # the window's parts, exact in binary

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(self.POLICY, "m")
        self.now = 0.0
        self.state = CLOSED
        self.era = 0
        self.until = 0.0
        self.ends: list[tuple[int, bool]] = []  # part of the time, failed
        self.under_way: list[tuple[Permit, int]] = []
        self.let_through = 0  # of this half-open era, less those that gave their place back
        self.succeeded = 0

    def turn(self, state: BreakerState) -> None:
        self.state, self.era, self.let_through, self.succeeded = state, self.era + 1, 0, 0
        self.until = self.now + self.POLICY.open_for

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 2.75, 10.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if self.state is OPEN and self.now >= self.until:
            self.turn(HALF_OPEN)

    @rule(times=st.integers(1, 6))
    def call(self, times: int) -> None:
        for _ in range(times):
            refused = self.breaker.wait(self.now) > 0.0
            assert refused == (
                self.state is OPEN or (self.state is HALF_OPEN and self.let_through == self.POLICY.half_open_calls)
            )
            if not refused:
                self.under_way.append((self.breaker.permit(self.now), self.era))
                self.let_through += 1

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), good=st.sampled_from([True, False, False, None]))
    def an_attempt_ends(self, data: st.DataObject, good: bool | None) -> None:
        place = data.draw(st.integers(0, len(self.under_way) - 1))
        permit, era = self.under_way.pop(place)
        permit.good = good
        changed = permit.end(self.now)
        before = self.state
        if era == self.era:
            self.count(good)
        assert changed is (self.state if self.state is not before else None)

    def count(self, good: bool | None) -> None:
        if self.state is HALF_OPEN and good is None:
            self.let_through -= 1
        elif self.state is HALF_OPEN and good:
            self.succeeded += 1
            if self.succeeded == self.POLICY.half_open_calls:
                self.turn(CLOSED)
                self.ends.clear()
        elif self.state is HALF_OPEN:
            self.turn(OPEN)
        elif good is not None:
            self.ends.append((math.floor(self.now / self.STEP), not good))
            failures, attempts = self.in_window()
            if attempts >= self.POLICY.min_calls and failures >= self.POLICY.failure_rate * attempts:
                self.turn(OPEN)

    def in_window(self) -> tuple[int, int]:
        parts = self.POLICY.window / self.STEP
        inside = [failed for part, failed in self.ends if part > math.floor(self.now / self.STEP) - parts]
        return sum(inside), len(inside)

    @invariant()
    def it_is_as_the_model(self) -> None:
        assert self.breaker.state(self.now) is self.state
        if self.state is CLOSED:
            assert self.breaker.counts(self.now) == self.in_window()

    @invariant()
    def never_more_probes_than_stated(self) -> None:
        probes = sum(era == self.era for _, era in self.under_way)
        assert self.state is not HALF_OPEN or probes + self.succeeded <= self.POLICY.half_open_calls


TestEveryOrder = BreakerMachine.TestCase
TestEveryOrder.settings = settings(max_examples=settings().max_examples, stateful_step_count=50, deadline=None)
