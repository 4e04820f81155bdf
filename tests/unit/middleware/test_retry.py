"""The one owner of repetition: how often, after how long, and when not."""

# ruff: noqa: ANN401 - helpers hand on what a test gives them
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMManager, register_provider
from llm.core.call import Call
from llm.core.exceptions import (
    LLMAuthenticationError,
    LLMConnectionError,
    LLMException,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMQuotaExceededError,
    LLMRateLimitError,
    LLMServerError,
    LLMTimeoutError,
)
from llm.core.source import Replay
from llm.core.stream import LLMStream
from llm.core.types import LLMRequest, LLMResponse, StreamChunk, TokenUsage
from llm.limits.retry_budget import RetryBudget
from llm.middleware.retry import RetryMiddleware, RetryPolicy
from llm.testing import FakeClock, FakeProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm.core.stream import LLMResult


class NappingClock(FakeClock):
    """Moves on by itself when slept on, and remembers for how long."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._now += seconds


class Bench:
    """An upstream that fails by a list and then answers, unary or as a stream."""

    def __init__(self, *, stream: bool) -> None:
        self.stream = stream
        self.clock = NappingClock()
        self.sends = 0
        self.rest = 0.0
        self.dice: list[float] = []
        self.budget: RetryBudget | None = None

    async def run(
        self, errors: Sequence[BaseException], policy: RetryPolicy | None = None, *, deadline: float | None = None
    ) -> LLMResult:
        waiting = list(errors)

        async def upstream(_: LLMRequest) -> LLMResult:
            self.sends += 1
            if waiting:
                raise waiting.pop(0)
            if self.stream:
                return await LLMStream(Replay([StreamChunk("yes")])).begin()
            return LLMResponse("1", "yes", "m", "fake", TokenUsage(1, 1), "stop")

        layer = RetryMiddleware(
            policy,
            clock=self.clock,
            rest=lambda model: self.rest if model else 0.0,
            budget=self.budget,
            dice=lambda: self.dice.pop(0) if self.dice else 0.5,
        )
        self.call = Call(0.0, deadline=deadline)
        return await layer(LLMRequest("hello", model="m", stream=self.stream, call=self.call), upstream)

    async def fails(self, errors: Sequence[BaseException], policy: RetryPolicy | None = None, **options: Any) -> Any:
        with pytest.raises(type(errors[0])) as caught:
            await self.run(errors, policy, **options)
        return caught.value


@pytest.fixture(params=[False, True], ids=["unary", "stream"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(stream=request.param)


def no_rest(model: str) -> float:
    del model
    return 0.0


def down(**facts: Any) -> LLMServerError:
    return LLMServerError("down", **facts)


async def test_what_succeeds_is_sent_once_and_never_waits(bench: Bench) -> None:
    result = await bench.run([])
    assert isinstance(result, LLMStream) == bench.stream
    assert (bench.sends, bench.clock.slept) == (1, [])


@pytest.mark.parametrize("most", [1, 2, 5])
async def test_upstream_sees_exactly_the_configured_attempts_and_the_last_failure_is_told(
    bench: Bench, most: int
) -> None:
    errors = [LLMServerError(f"failure {i}") for i in range(9)]
    error = await bench.fails(errors, RetryPolicy(max_attempts=most))
    assert bench.sends == most
    assert error is errors[most - 1]


async def test_it_ends_with_the_first_success(bench: Bench) -> None:
    await bench.run([down(), LLMOverloadedError("full")])
    assert bench.sends == 3


async def test_waits_are_a_point_of_a_span_that_doubles_up_to_the_maximum(bench: Bench) -> None:
    bench.dice = [1.0, 1.0, 0.5, 0.0, 1.0, 0.25]
    await bench.run([down() for _ in range(6)], RetryPolicy(max_attempts=7, initial_delay=0.5, max_delay=3.0))
    assert bench.clock.slept == pytest.approx([0.5, 1.0, 1.0, 0.0, 3.0, 0.75])


async def test_retry_after_is_honoured_exactly(bench: Bench) -> None:
    await bench.run([down(retry_after=7.25), LLMOverloadedError("full", retry_after=0.0)])
    assert bench.clock.slept == [7.25, 0.0]


async def test_a_retry_after_above_the_most_ends_the_call(bench: Bench) -> None:
    policy = RetryPolicy(retry_after_max=10.0)
    await bench.run([down(retry_after=10.0)], policy)
    await bench.fails([down(retry_after=10.1)], policy)
    assert bench.sends == 3


async def test_a_refusal_waits_in_the_queue_not_here_and_does_not_count_as_an_attempt(bench: Bench) -> None:
    await bench.run([LLMRateLimitError("429", retry_after=5.0) for _ in range(9)], RetryPolicy(max_attempts=1))
    assert bench.sends == 10
    assert set(bench.clock.slept) == {0.0}


async def test_the_tenth_refusal_in_a_row_ends_the_call(bench: Bench) -> None:
    await bench.fails([LLMRateLimitError("429") for _ in range(20)])
    assert bench.sends == 10


async def test_another_failure_between_starts_the_row_anew(bench: Bench) -> None:
    refusals: list[LLMException] = [LLMRateLimitError("429") for _ in range(9)]
    await bench.run([*refusals, down(), *refusals])
    assert bench.sends == 20


@pytest.mark.parametrize(("rest", "sends"), [(10.0, 2), (10.1, 1), (math.inf, 1)])
async def test_a_refusal_ends_the_call_when_every_key_rests_longer_than_the_most(
    bench: Bench, rest: float, sends: int
) -> None:
    bench.rest = rest
    if sends == 1:
        await bench.fails([LLMRateLimitError("429")], RetryPolicy(retry_after_max=10.0))
    else:
        await bench.run([LLMRateLimitError("429")], RetryPolicy(retry_after_max=10.0))
    assert bench.sends == sends


@pytest.mark.parametrize("kind", [LLMAuthenticationError, LLMQuotaExceededError])
async def test_with_another_key_left_a_refused_key_costs_no_attempt_and_no_wait(
    bench: Bench, kind: Callable[..., LLMException]
) -> None:
    await bench.run([kind("no", retryable=True) for _ in range(6)], RetryPolicy(max_attempts=1))
    assert (bench.sends, set(bench.clock.slept)) == (7, {0.0})


@pytest.mark.parametrize(
    "error",
    [
        LLMInvalidRequestError("bad"),
        LLMAuthenticationError("last key"),
        LLMServerError("a bug", retryable=False),
        LLMRateLimitError("over budget", retryable=False),
        ValueError("foreign"),
    ],
)
async def test_what_cannot_succeed_is_sent_once(bench: Bench, error: BaseException) -> None:
    await bench.fails([error])
    assert bench.sends == 1
    bench.sends = 0
    with pytest.raises(type(error)):
        await bench.run([down(), error])
    assert bench.sends == 2


@pytest.mark.parametrize(
    ("error", "repeated"),
    [
        (LLMConnectionError("no route", sent=False), True),
        (LLMConnectionError("cut", sent=True), False),
        (LLMTimeoutError("no connection", phase="connect", sent=False, retryable=True), True),
        (LLMTimeoutError("no answer", phase="total", retryable=True), False),
        (LLMServerError("500"), False),
        (LLMOverloadedError("503"), True),
        (LLMRateLimitError("429"), True),
    ],
)
async def test_without_after_send_only_what_certainly_did_nothing_is_repeated(
    bench: Bench,
    error: LLMException,
    repeated: bool,
) -> None:
    policy = RetryPolicy(after_send=False)
    if repeated:
        await bench.run([error], policy)
    else:
        await bench.fails([error], policy)
    assert bench.sends == 1 + repeated
    bench.sends = 0
    await bench.run([error], RetryPolicy(after_send=True))
    assert bench.sends == 2


async def test_a_wait_beyond_the_deadline_is_not_begun(bench: Bench) -> None:
    await bench.fails([down(retry_after=10.0)], deadline=10.0)
    assert (bench.sends, bench.clock.slept) == (1, [])
    await bench.run([down(retry_after=9.9)], deadline=10.0)
    assert bench.sends == 3


async def test_a_call_that_was_answered_elsewhere_is_not_repeated(bench: Bench) -> None:
    async def upstream(_: LLMRequest) -> LLMResult:
        bench.sends += 1
        call.retryable = False
        raise down()

    call = Call(0.0)
    layer = RetryMiddleware(clock=bench.clock, rest=no_rest)
    with pytest.raises(LLMServerError):
        await layer(LLMRequest("hello", call=call), upstream)
    assert bench.sends == 1


async def test_a_request_without_a_call_is_repeated_too(bench: Bench) -> None:
    answers: list[LLMResult | LLMException] = [down(), LLMResponse("1", "yes", "m", "fake", TokenUsage(), "stop")]

    async def upstream(_: LLMRequest) -> LLMResult:
        answer = answers.pop(0)
        if isinstance(answer, LLMException):
            raise answer
        return answer

    assert str(await RetryMiddleware(clock=bench.clock, rest=no_rest)(LLMRequest("x"), upstream)) == "yes"


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
def test_a_call_that_succeeds_at_once_loads_no_tenacity(fresh_python: Callable[[str], str]) -> None:
    code = """
import asyncio, sys
from llm import LLMManager, register_provider
from llm.testing import FakeProvider, FakeClock
from llm.core.exceptions import LLMServerError

async def main():
    provider = FakeProvider(["yes", LLMServerError("down"), "again"])
    register_provider("fake", lambda _: provider)
    config = {"retry": {"initial_delay": 0.001}, "providers": {"fake": {"api_keys": ["k1"], "models": ["m"]}}}
    async with LLMManager.open(config) as manager:
        await manager.get_client().chat("x")
        print("tenacity" in sys.modules)
        await manager.get_client().chat("x")
        print("tenacity" in sys.modules)

asyncio.run(main())
"""
    assert fresh_python(code).split() == ["False", "True"]


@pytest.mark.parametrize("stream", [False, True])
async def test_in_the_whole_chain_a_429_moves_to_the_next_key_at_once(stream: bool) -> None:
    clock = FakeClock()
    doubles = [FakeProvider([LLMRateLimitError("429", retry_after=20.0)]), FakeProvider("from the other")]
    made = iter(doubles)
    register_provider("fake", lambda _: next(made))
    config = {"retry": {"max_attempts": 1}, "providers": {"fake": {"api_keys": ["k1", "k2"], "models": ["m"]}}}
    manager = await LLMManager.open(config, clock=clock)
    client = manager.get_client()
    if stream:
        response = await client.stream_complete("x").response()
    else:
        response = await client.chat("x")
    assert (str(response), response.attempts, clock.now()) == ("from the other", 2, 0.0)
    assert manager.get_status()["metrics"]["retries"] == 1
    await manager.close()


# --- the budget -------------------------------------------------------------------------------------------------------


def spent() -> RetryBudget:
    budget = RetryBudget(0.5)
    while budget.withdraw(0.0):
        pass
    return budget


async def test_a_spent_budget_ends_the_call_with_its_own_error_which_says_so_and_so_does_the_log(bench: Bench) -> None:
    bench.budget = spent()
    own = LLMOverloadedError("the provider is full", status=503)
    error = await bench.fails([own])
    assert error is own
    assert bench.sends == 1
    why = "about 100 retries to 1 calls in the last 10 seconds are all that retry.budget (0.5) allows"
    assert str(error) == f"the provider is full; it was not sent again, since {why} (status 503)"
    assert [(entry.event, entry.detail) for entry in bench.call.log] == [("budget_spent", why)]


async def test_only_what_counts_as_an_attempt_is_taken_from_the_budget(bench: Bench) -> None:
    bench.budget = RetryBudget(0.5)
    other_key = LLMAuthenticationError("another key is left", retryable=True)
    await bench.run([LLMRateLimitError("429"), other_key, down(), LLMOverloadedError("503"), LLMRateLimitError("429")])
    assert bench.budget.snapshot(0.0)["retries"] == 2.0
    await bench.fails([LLMInvalidRequestError("bad")])
    await bench.fails([down()], RetryPolicy(max_attempts=1))
    shown = bench.budget.snapshot(0.0)
    assert (shown["calls"], shown["retries"]) == (3.0, 2.0)


async def test_a_429_waits_for_its_turn_also_when_the_budget_is_spent(bench: Bench) -> None:
    bench.budget = spent()
    await bench.run([LLMRateLimitError("429") for _ in range(3)])
    assert bench.sends == 4


async def test_a_request_without_a_call_is_held_to_the_budget_too(bench: Bench) -> None:
    async def upstream(_: LLMRequest) -> LLMResult:
        raise down()

    layer = RetryMiddleware(clock=bench.clock, rest=no_rest, budget=spent())
    with pytest.raises(LLMServerError, match="not sent again"):
        await layer(LLMRequest("x"), upstream)
