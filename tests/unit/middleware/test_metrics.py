from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm.core.call import Call, Charge, Ticket
from llm.core.exceptions import LLMException, LLMRateLimitError, LLMServerError, LLMTimeoutError
from llm.core.measured import Measured
from llm.core.stream import LLMStream
from llm.core.types import LLMRequest, LLMResponse, TokenUsage
from llm.middleware.metrics import Metrics, MetricsMiddleware

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

    from _typeshed import TraceFunction

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


class Place:
    def give_back(self) -> None:
        """There is no queue."""

    def move(self) -> None:
        """There is no queue."""


def sent(call: Call, at: float = 0.0) -> Call:
    if call.ticket is None:
        call.ticketed(at, Ticket(Charge(), "gpt-4o-mini"))
    call.paid(at, Lease())
    call.sent(at)
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
    saved = {"tokens_saved": 0, "cost_saved": 0.0, "seconds_saved": 0.0}
    assert shown["cache"] == {"hits": 0, "misses": 0, "hit_ratio": 0.0, **saved}
    assert (shown["total_requests"], shown["cost"], shown["errors"]) == (0, 0.0, {})


def test_a_hit_saves_what_it_would_have_cost(clock: Clock) -> None:
    metrics = Metrics(cache_misses=lambda: 3)
    layer = MetricsMiddleware(metrics, clock, price=lambda model, usage: usage.total_tokens * 0.01)  # noqa: ARG005 - a `Price`
    hit = LLMResponse(
        model="gpt-4o-mini", usage=TokenUsage(10, 5), cached=True, cost=0.0, latency=0.5, original_latency=2.0
    )
    layer.call_ended(call_of(0), LLMRequest("Hello", model="gpt-4o-mini"), hit, None)
    shown = metrics.snapshot()
    saved = {"tokens_saved": 15, "cost_saved": pytest.approx(0.15), "seconds_saved": 1.5}
    assert shown["cache"] == {"hits": 1, "misses": 3, "hit_ratio": 0.25, **saved}
    assert (shown["cost"], shown["tokens"]["total"], shown["retries"]) == (0.0, 0, 0)
    assert shown["models"]["gpt-4o-mini"]["requests"] == 1
    (by_model,) = metrics.models().values()
    assert by_model["saved"] == {"tokens": 15, "cost": pytest.approx(0.15)}


def in_snapshot(metrics: Metrics) -> int:
    return int(metrics.snapshot()["total_requests"])


def of_model(metrics: Metrics) -> int:
    return int(metrics.models()["openai/m"]["calls"]["cached"])


def of_user(metrics: Metrics) -> int:
    return int(metrics.users()["ann"]["requests"])


def measured(metrics: Metrics) -> int:
    return metrics.measured().models[0].calls["cached"]


@pytest.mark.parametrize("hits", [in_snapshot, of_model, of_user, measured])
def test_whoever_reads_finds_every_hit(clock: Clock, hits: Callable[[Metrics], int]) -> None:
    metrics = Metrics()
    layer = MetricsMiddleware(metrics, clock, provider="openai")
    for count in range(1, 200):  # some of them are counted before anybody asks
        layer.call_ended(call_of(0, "ann"), LLMRequest("Hello", model="m"), LLMResponse(cached=True), None)
        if count in (1, 2, 199):
            assert hits(metrics) == count


def test_a_price_that_fails_costs_no_reader_and_no_count(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    def price(_: str, __: TokenUsage) -> float:
        raise KeyError("m")

    metrics = Metrics()
    layer = MetricsMiddleware(metrics, clock, provider="openai", price=price)
    layer.call_ended(call_of(0, "ann"), LLMRequest("Hello", model="m"), LLMResponse(cached=True), None)

    shown = metrics.snapshot()

    assert (shown["total_requests"], shown["cache"]["hits"], shown["cache"]["cost_saved"]) == (1, 1, 0.0)
    assert [record.message for record in caplog.records] == [
        "the price of an answer of the cache failed; the call itself did not"
    ]


@pytest.mark.parametrize("line", range(12))
def test_who_asks_amid_a_count_as_a_signals_handler_does_harms_none(clock: Clock, line: int) -> None:
    metrics, lines = Metrics(), itertools.count()
    layer = MetricsMiddleware(metrics, clock)
    for _ in range(2):
        layer.call_ended(call_of(0), LLMRequest("Hello"), LLMResponse(cached=True), None)

    def ask_once(frame: FrameType, event: str, _: object) -> TraceFunction | None:
        if frame.f_code.co_name != "_settle":
            return None
        if event == "line" and next(lines) == line:
            metrics.snapshot()
        return ask_once

    before = sys.gettrace()
    sys.settrace(ask_once)
    try:
        metrics.snapshot()
    finally:
        sys.settrace(before)
    assert next(lines) > line
    assert metrics.snapshot()["cache"]["hits"] == 2


def test_an_answer_whose_tokens_are_no_numbers_costs_no_other_its_count(caplog: pytest.LogCaptureFixture) -> None:
    counted, unknown = Metrics(), TokenUsage(None, 7)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    usages = [*[TokenUsage(2, 3)] * 10, unknown, *[TokenUsage(2, 3)] * 189]  # more than are counted together
    for usage in usages:
        counted.attempted("fake", KEY, 0.5, usage)
        counted.answered(call_of(1, "ann"), "fake", "m", LLMResponse(model="m", usage=usage, latency=0.5))
    told = counted.snapshot()
    assert (told["total_requests"], told["successful_requests"]) == (200, 200)
    assert told["tokens"]["input"] == told["keys"][KEY]["tokens"]["input"] == 2 * 199
    assert told["keys"][KEY]["requests"] == counted.users()["ann"]["requests"] == 200
    assert [record.name for record in caplog.records] == ["llm.client"] * 2


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


def test_a_call_that_waited_in_vain_counts_under_its_model_and_how_long() -> None:
    metrics, call = Metrics(), Call(0.0)
    call.ticketed(0.0, Ticket(Charge(), "gpt-4o-mini"))
    call.queued(1.0, Place())
    call.ended(4.0, LLMTimeoutError("late", phase="pool"))
    metrics.called(call, "openai", "gpt-4o-mini", error=call.error)
    row = metrics.models()["openai/gpt-4o-mini"]
    assert row["calls"] == {"answered": 0, "cached": 0, "failed": 1, "cancelled": 0}
    assert row["errors"] == {"LLMTimeoutError": 1}
    assert row["queue_wait"]["max"] == 3.0


def test_who_need_not_wait_waits_no_time() -> None:
    metrics = Metrics()
    for _ in range(19):
        metrics.answered(call_of(1), "openai", "m", LLMResponse())
    waited = call_of(1)
    waited.waited, waited.queue_seconds = True, 8.0
    metrics.answered(waited, "openai", "m", LLMResponse())
    metrics.answered(call_of(0), "openai", "m", LLMResponse(cached=True))  # had no need of a key
    wait = metrics.models()["openai/m"]["queue_wait"]
    assert (wait["max"], wait["mean"]) == (8.0, 0.4)
    assert wait["p95"] < 0.001


def test_a_stream_tells_its_first_token_and_its_pace() -> None:
    metrics, call = Metrics(), sent(Call(0.0), at=2.0)
    call.answering(2.5)
    metrics.answered(call, "openai", "m", LLMResponse(usage=TokenUsage(10, 60), latency=4.5))
    row = metrics.models()["openai/m"]
    assert (row["first_token"]["max"], row["tokens_per_second"]) == (0.5, 30.0)
    [measures] = metrics.measured().models
    assert (measures.streamed_tokens, measures.streaming_seconds) == (60, 2.0)


def test_a_pace_is_told_only_of_streams_whose_tokens_and_time_are_known() -> None:
    metrics, call = Metrics(), sent(Call(0.0), at=2.0)
    metrics.answered(call, "openai", "m", LLMResponse(usage=TokenUsage(10, 60), latency=4.5))  # no stream
    call.answering(2.5)
    metrics.answered(call, "openai", "m", LLMResponse(latency=4.5))
    metrics.answered(call, "openai", "m", LLMResponse(usage=TokenUsage(10, 60), latency=2.5))
    metrics.called(call, "openai", "m", error=GeneratorExit())
    row = metrics.models()["openai/m"]
    assert (row["tokens_per_second"], row["first_token"]["min"]) == (0.0, 0.5)
    assert metrics.measured().models[0].first_token.total == 3


def test_a_model_of_two_providers_is_one_in_the_metrics_and_two_beside_them(clock: Clock) -> None:
    metrics = Metrics()
    for provider in ("openai", "azure"):
        layer = MetricsMiddleware(metrics, clock, provider=provider)
        layer.call_ended(call_of(2), LLMRequest("Hello", model="m"), LLMResponse(provider=provider, cost=1.0), None)
        metrics.attempted(provider, KEY, 1.0, TokenUsage(1, 2))
    shown = metrics.snapshot()
    assert [(name, row["requests"], row["cost"]) for name, row in shown["models"].items()] == [("m", 2, 2.0)]
    assert {name: row["retries"] for name, row in metrics.models().items()} == {"openai/m": 1, "azure/m": 1}
    assert [(name, row["requests"], row["tokens"]["total"]) for name, row in shown["keys"].items()] == [(KEY, 2, 6)]


def test_an_answer_counts_at_the_provider_that_gave_it(clock: Clock) -> None:
    metrics = Metrics()
    layer = MetricsMiddleware(metrics, clock, provider="openai")
    answer = LLMResponse(provider="anthropic", model="haiku", usage=TokenUsage(1, 1))
    layer.call_ended(call_of(1), LLMRequest("Hello", model="gpt-4o-mini"), answer, None)
    assert list(metrics.models()) == ["anthropic/haiku"]


def test_what_is_measured_are_the_counts_as_values() -> None:
    metrics = Metrics()
    metrics.answered(call_of(2), "openai", "m", LLMResponse(usage=TokenUsage(3, 4, 2), cost=0.5, latency=0.2))
    metrics.answered(call_of(0), "openai", "m", LLMResponse(cached=True, latency=0.1))
    metrics.called(call_of(0), "openai", "anything", error=LLMException("no"))
    metrics.attempted("openai", KEY, 0.2, TokenUsage())
    metrics.attempted_in_vain("openai", KEY, LLMServerError("no"))
    measured = metrics.measured()
    named, unnamed = measured.models
    assert (named.provider, named.model, named.retries, named.cost) == ("openai", "m", 1, 0.5)
    assert named.calls == {"answered": 1, "cached": 1, "failed": 0, "cancelled": 0}
    assert (named.usage, named.queue_wait.total) == (TokenUsage(3, 4, 2), 1)
    assert {name: spread.seconds for name, spread in named.durations.items()} == {"answered": 0.2, "cached": 0.1}
    assert (unnamed.model, unnamed.errors) == ("", {"LLMException": 1})
    [key] = measured.keys
    assert (key.provider, key.key, key.attempts, key.errors) == ("openai", KEY, 2, {"LLMServerError": 1})


def test_models_without_end_have_an_end_and_no_count_is_lost() -> None:
    metrics = Metrics()
    for number in range(1_100):
        metrics.called(call_of(1), "openai", f"model-{number}", error=LLMException("no"))
    rows = metrics.models()
    assert len(rows) == 1_001
    assert sum(row["calls"]["failed"] for row in rows.values()) == 1_100


async def test_without_a_call_there_is_no_attempt(dispatch: Dispatch, clock: Clock) -> None:
    metrics = Metrics()
    await MetricsMiddleware(metrics, clock)(LLMRequest("Hello"), dispatch)
    assert metrics.measured() == Measured()


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
def test_names_without_end_take_memory_with_an_end() -> None:
    metrics = Metrics()
    for number in range(10_500):
        metrics.called(call_of(0, f"user-{number}"), "openai", "", error=None)
    users = metrics.users()
    assert len(users) == 10_001
    assert sum(user["requests"] for user in users.values()) == 10_500


async def test_an_answered_attempt_counts_on_its_key(dispatch: Dispatch, clock: Clock) -> None:
    metrics = Metrics()
    request = LLMRequest("Hello", call=sent(Call(0.0), at=clock.now()))
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


async def test_an_answer_of_a_cache_behind_it_counts_on_no_key_though_the_call_was_sent_before(clock: Clock) -> None:
    metrics = Metrics()
    call = sent(Call(0.0))
    call.attempted(0.0)

    async def keeping(_: LLMRequest) -> LLMResult:
        return LLMResponse("hi", key=KEY, cached=True)

    await MetricsMiddleware(metrics, clock)(LLMRequest("Hello", call=call), keeping)
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


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
def test_loops_in_several_threads_lose_no_count(clock: Clock) -> None:
    metrics = Metrics()
    response = LLMResponse(usage=TokenUsage(1, 1), cost=1.0, latency=0.5)
    layer, hit = MetricsMiddleware(metrics, clock), LLMResponse(cached=True)

    def work() -> None:
        for _ in range(3000):
            metrics.answered(call_of(2, "ann"), "openai", "a", response)
            metrics.attempted("openai", KEY, 0.5, response.usage)
            layer.call_ended(call_of(0), LLMRequest("Hello", model="b"), hit, None)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shown = metrics.snapshot()
    assert (shown["total_requests"], shown["retries"], shown["cost"]) == (24_000, 12_000, 12_000.0)
    assert shown["cache"]["hits"] == 12_000
    assert shown["keys"][KEY]["tokens"]["total"] == 24_000
