from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm.core.call import Call, Charge, Ticket
from llm.core.exceptions import LLMException, LLMRateLimitError, LLMServerError, LLMTimeoutError
from llm.core.stream import LLMStream
from llm.core.types import LLMRequest, LLMResponse, TokenUsage
from llm.middleware.metrics import Metrics, MetricsMiddleware

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llm.core.stream import LLMResult
    from llm.utils.clock import Clock

    Dispatch = Callable[[LLMRequest], Awaitable[LLMResult]]

KEY = "key-00000001"


class Lease:
    key = KEY

    def refund(self) -> None:
        """Nothing was taken."""

    def settle(self, used: Charge | None, most: Charge | None = None) -> None:
        """Nothing was taken."""


def sent(call: Call) -> Call:
    if call.ticket is None:
        call.ticketed(0.0, Ticket(Charge(), "gpt-4o-mini"))
    call.paid(0.0, Lease())
    call.sent(0.0)
    return call


def call_of(sends: int, user: str | None = None) -> Call:
    call = Call(0.0, user=user)
    call.sends = sends
    return call


OUTCOMES = st.one_of(
    st.builds(
        LLMResponse,
        model=st.sampled_from(["a", "b"]),
        usage=st.builds(TokenUsage, st.integers(0, 999), st.integers(0, 999), st.integers(0, 9)),
        cost=st.none() | st.floats(0, 1),
        latency=st.floats(0, 100),
        cached=st.booleans(),
    ),
    st.sampled_from(
        [
            LLMServerError("x"),
            LLMTimeoutError("x", phase="total"),
            ValueError("x"),
            asyncio.CancelledError(),
            GeneratorExit(),
        ]
    ),
)
CALLS = st.lists(st.tuples(OUTCOMES, st.integers(0, 4), st.sampled_from([None, "ann", "bob"])), max_size=60)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the clock stands still, for all examples alike
@given(calls=CALLS)
def test_all_sums_add_up_whatever_happens(calls: list[tuple[Any, int, str | None]], clock: Clock) -> None:
    metrics = Metrics()
    layer = MetricsMiddleware(metrics, clock)
    for outcome, sends, user in calls:
        response, error = (outcome, None) if isinstance(outcome, LLMResponse) else (None, outcome)
        layer.call_ended(call_of(sends, user), LLMRequest("Hello", model=None), response, error)
    shown = metrics.snapshot()

    answers = [outcome for outcome, _, _ in calls if isinstance(outcome, LLMResponse)]
    fresh = [answer for answer in answers if not answer.cached]
    cancelled = sum(isinstance(outcome, (asyncio.CancelledError, GeneratorExit)) for outcome, _, _ in calls)
    assert shown["total_requests"] == len(calls)
    assert shown["successful_requests"] == len(answers)
    assert shown["cancelled_requests"] == cancelled
    assert shown["failed_requests"] == len(calls) - len(answers) - cancelled == sum(shown["errors"].values())
    assert shown["retries"] == sum(max(0, sends - 1) for _, sends, _ in calls)
    spent = sum((answer.usage for answer in fresh), TokenUsage())
    assert shown["tokens"] == {
        "input": spent.input_tokens,
        "output": spent.output_tokens,
        "total": spent.total_tokens,
        "cached_input": spent.cached_input_tokens,
    }
    assert shown["cost"] == pytest.approx(sum(answer.cost or 0.0 for answer in fresh))
    assert shown["cache"]["hits"] == len(answers) - len(fresh)
    assert shown["cache"]["tokens_saved"] == sum(answer.usage.total_tokens for answer in answers if answer.cached)
    for name in ("input", "output", "total", "cached_input"):
        assert sum(model["tokens"][name] for model in shown["models"].values()) == shown["tokens"][name]
    users = metrics.users()
    assert sum(user["requests"] for user in users.values()) == sum(user is not None for _, _, user in calls)
    json.dumps(shown)


def test_before_the_first_call_every_figure_is_there() -> None:
    shown = Metrics().snapshot()
    assert set(shown["latency"]) == {"min", "max", "mean", "p50", "p95", "p99"}
    assert shown["cache"] == {"hits": 0, "misses": 0, "hit_ratio": 0.0, "tokens_saved": 0, "cost_saved": 0.0}
    assert (shown["total_requests"], shown["cost"], shown["errors"]) == (0, 0.0, {})


def test_a_hit_saves_what_it_would_have_cost(clock: Clock) -> None:
    metrics = Metrics(cache_misses=lambda: 3)
    layer = MetricsMiddleware(metrics, clock, price=lambda model, usage: usage.total_tokens * 0.01)  # noqa: ARG005 - a `Price`
    hit = LLMResponse(model="gpt-4o-mini", usage=TokenUsage(10, 5), cached=True, cost=0.0)
    layer.call_ended(call_of(0), LLMRequest("Hello", model="gpt-4o-mini"), hit, None)
    shown = metrics.snapshot()
    expected = {"hits": 1, "misses": 3, "hit_ratio": 0.25, "tokens_saved": 15, "cost_saved": pytest.approx(0.15)}
    assert shown["cache"] == expected
    assert (shown["cost"], shown["tokens"]["total"], shown["retries"]) == (0.0, 0, 0)
    assert shown["models"]["gpt-4o-mini"]["requests"] == 1


def test_a_model_of_unknown_price_has_no_cost() -> None:
    metrics = Metrics()
    metrics.answered(call_of(1), "openai", "mine", LLMResponse(cost=None))
    metrics.answered(call_of(1), "openai", "theirs", LLMResponse(cost=0.0))
    models = metrics.snapshot()["models"]
    assert [models[name]["cost"] for name in ("mine", "theirs")] == [None, 0.0]


def test_a_refused_call_makes_no_row_of_its_model() -> None:
    metrics = Metrics()
    metrics.called(call_of(0), "openai", "nobody-has-this", error=LLMException("no"))
    metrics.called(call_of(1), "openai", "gpt-4o-mini", error=LLMServerError("no"))
    assert list(metrics.snapshot()["models"]) == ["gpt-4o-mini"]


def test_names_without_end_take_memory_with_an_end() -> None:
    metrics = Metrics()
    for number in range(10_500):
        metrics.called(call_of(0, f"user-{number}"), "openai", "", error=None)
    users = metrics.users()
    assert len(users) == 10_001
    assert sum(user["requests"] for user in users.values()) == 10_500


async def test_an_answered_attempt_counts_on_its_key(dispatch: Dispatch, clock: Clock) -> None:
    metrics = Metrics()
    request = LLMRequest("Hello", call=sent(Call(0.0)))
    result = await MetricsMiddleware(metrics, clock)(request, dispatch)
    if isinstance(result, LLMStream):
        assert metrics.snapshot()["keys"] == {}
        await result.response()
    key = metrics.snapshot()["keys"][KEY]
    assert (key["requests"], key["errors"]) == (1, {})
    assert key["tokens"] == {"input": 10, "output": 5, "total": 15, "cached_input": 4}
    assert key["latency"]["max"] == 2.0


@pytest.mark.parametrize("error", [LLMServerError("no", key=KEY), asyncio.CancelledError(), LLMServerError("no")])
async def test_a_failed_attempt_counts_on_its_key_and_is_raised(error: BaseException, clock: Clock) -> None:
    metrics = Metrics()
    call = Call(0.0)

    async def failing(_: LLMRequest) -> LLMResult:
        sent(call).attempted(0.0)
        raise error

    with pytest.raises(type(error)):
        await MetricsMiddleware(metrics, clock)(LLMRequest("Hello", call=call), failing)
    key = metrics.snapshot()["keys"][KEY]
    assert (key["requests"], key["errors"]) == (1, {type(error).__name__: 1})


async def test_an_attempt_that_was_not_sent_counts_on_no_key(clock: Clock) -> None:
    metrics = Metrics()

    async def refusing(_: LLMRequest) -> LLMResult:
        raise LLMRateLimitError("full", key=KEY)

    with pytest.raises(LLMRateLimitError):
        await MetricsMiddleware(metrics, clock)(LLMRequest("Hello", call=Call(0.0)), refusing)
    assert metrics.snapshot()["keys"] == {}


@pytest.mark.parametrize("dispatch", ["stream"], indirect=True)
async def test_a_stream_that_is_left_counts_on_its_key(dispatch: Dispatch, clock: Clock) -> None:
    metrics = Metrics()
    call = Call(0.0)

    async def sending(request: LLMRequest) -> LLMResult:
        sent(call)
        return await dispatch(request)

    result = await MetricsMiddleware(metrics, clock)(LLMRequest("Hello", call=call), sending)
    assert isinstance(result, LLMStream)
    await result.aclose()
    assert metrics.snapshot()["keys"][KEY]["errors"] == {"GeneratorExit": 1}


def test_loops_in_several_threads_lose_no_count() -> None:
    metrics = Metrics()
    response = LLMResponse(usage=TokenUsage(1, 1), cost=1.0, latency=0.5)

    def work() -> None:
        for _ in range(3000):
            metrics.answered(call_of(2, "ann"), "openai", "a", response)
            metrics.attempted("openai", KEY, 0.5, response.usage, None)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shown = metrics.snapshot()
    assert (shown["total_requests"], shown["retries"], shown["cost"]) == (12_000, 12_000, 12_000.0)
    assert shown["keys"][KEY]["tokens"]["total"] == 24_000
