"""How each attempt ended is told to the breaker once: unary and stream, whoever ended it."""

# ruff: noqa: ANN401 - helpers hand on what a test gives them
from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMManager, register_provider
from llm.core.exceptions import (
    LLMAuthenticationError,
    LLMCircuitOpenError,
    LLMConnectionError,
    LLMException,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMRateLimitError,
    LLMServerError,
    LLMTimeoutError,
)
from llm.testing import FakeClock, FakeProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from llm import LLMClient

TEXT = "a text of a good many chunks"


class Bench:
    """A manager with one key and a breaker that shows what it counted."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.provider = FakeProvider()
        self.manager: LLMManager

    async def open(
        self,
        answers: Any = None,
        *,
        latency: float = 1.0,
        breaker: dict[str, Any] | None = None,
        timeouts: dict[str, float] | None = None,
        **sections: Any,
    ) -> None:
        self.provider = FakeProvider(answers, latency=latency, interval=1.0, clock=self.clock)
        register_provider("fake", lambda _: self.provider)
        config = {
            "circuit_breaker": {"window": 1000.0, "open_for": 1000.0, **(breaker or {})},
            "global": {"timeouts": timeouts or {}},
            "providers": {"fake": {"api_keys": ["k1"], "models": ["m"]}},
            **sections,
        }
        self.manager = await LLMManager.open(config, clock=self.clock)

    @property
    def once(self) -> LLMClient:
        return self.manager.get_client(middleware=["rate_limit"])

    @property
    def breaker(self) -> dict[str, Any]:
        shown: dict[str, Any] = self.manager.get_status()["providers"]["fake"]["breakers"]["m"]
        return shown

    @property
    def counted(self) -> tuple[float, int]:
        """Share that failed, and attempts."""
        return self.breaker["failure_rate"], self.breaker["attempts"]

    async def run(self, work: Coroutine[Any, Any, Any], seconds: float = 60.0) -> Any:
        task = asyncio.get_running_loop().create_task(work)
        await self.clock.advance(seconds)
        if not task.done():
            task.cancel()
            await self.clock.advance(0.0)
        return task.result()

    async def ends(self, work: Coroutine[Any, Any, Any], seconds: float = 60.0) -> None:
        """Let it end, however it does."""
        with suppress(LLMException, asyncio.CancelledError):
            await self.run(work, seconds)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.manager.close(0.0)


async def ask(client: LLMClient, **options: Any) -> str:
    return str(await client.chat(TEXT, **options))


async def read(client: LLMClient, **options: Any) -> str:
    async with client.stream_complete(TEXT, **options) as stream:
        return "".join([str(chunk) async for chunk in stream])


CALLS = pytest.mark.parametrize("call", [ask, read])


@CALLS
async def test_an_answer_speaks_for_the_provider(bench: Bench, call: Any) -> None:
    await bench.open()
    assert await bench.run(call(bench.once)) == TEXT
    assert bench.counted == (0.0, 1)


@CALLS
@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (LLMOverloadedError("529", status=529), (1.0, 1)),
        (LLMServerError("500", status=500), (1.0, 1)),
        (LLMConnectionError("no route", sent=False), (1.0, 1)),
        (LLMTimeoutError("no connection", phase="connect", sent=False), (1.0, 1)),
        (LLMRateLimitError("429", status=429, retry_after=1.0), (0.0, 0)),
        (LLMInvalidRequestError("400", status=400), (0.0, 0)),
        (LLMInvalidRequestError("our own encoder"), (0.0, 0)),
        (LLMAuthenticationError("401", status=401), (0.0, 0)),
    ],
)
async def test_failures_of_the_provider_feed_its_breaker_and_limits_keys_and_requests_do_not(
    bench: Bench, call: Any, error: LLMException, counted: tuple[float, int]
) -> None:
    await bench.open([error])
    await bench.ends(call(bench.once))
    assert bench.counted == counted


@pytest.mark.parametrize(("call", "bound"), [(ask, "attempt"), (read, "first_token")])
async def test_an_attempt_that_takes_longer_than_its_bound_feeds_it(bench: Bench, call: Any, bound: str) -> None:
    await bench.open(timeouts={bound: 0.5})
    await bench.ends(call(bench.once))
    assert bench.counted == (1.0, 1)


@pytest.mark.parametrize("broken", [["a", "b", LLMConnectionError("cut", sent=True)], ["a", ...]])
async def test_a_stream_that_breaks_or_stalls_in_the_middle_feeds_it(bench: Bench, broken: list[Any]) -> None:
    await bench.open([broken], timeouts={"idle": 5.0})
    await bench.ends(read(bench.once))
    assert bench.counted == (1.0, 1)


@pytest.mark.parametrize("readers", [1, 2])
async def test_a_stall_of_a_stream_that_the_cache_keeps_feeds_it_once(bench: Bench, readers: int) -> None:
    await bench.open([["a", ...]], timeouts={"idle": 5.0}, cache={}, retry={"max_attempts": 1})
    calls = [asyncio.create_task(read(bench.manager.get_client())) for _ in range(readers)]
    await bench.run(asyncio.wait(calls))
    assert [type(call.exception()) for call in calls] == [LLMTimeoutError] * readers
    assert (bench.provider.calls, bench.counted) == (1, (1.0, 1))


async def leave(client: LLMClient) -> None:
    async with client.stream_complete(TEXT) as stream:
        await anext(stream)


async def test_a_stream_left_early_says_nothing(bench: Bench) -> None:
    await bench.open()
    await bench.ends(leave(bench.once))
    assert bench.counted == (0.0, 0)


@CALLS
@pytest.mark.parametrize("seconds", [0.0, 5.0])
async def test_a_cancelled_call_says_nothing(bench: Bench, call: Any, seconds: float) -> None:
    await bench.open(latency=10.0)
    await bench.ends(call(bench.once), seconds=seconds)
    assert bench.counted == (0.0, 0)


@CALLS
async def test_a_calls_own_deadline_says_nothing(bench: Bench, call: Any) -> None:
    await bench.open()
    await bench.ends(call(bench.once, timeout=0.5))
    await bench.ends(read(bench.once, timeout=1.5))
    assert bench.counted == (0.0, 0)


@CALLS
async def test_a_deadline_that_ends_an_attempt_which_is_slow_already_feeds_it(bench: Bench, call: Any) -> None:
    await bench.open(breaker={"slow_call": 0.4})
    await bench.ends(call(bench.once, timeout=0.5))
    assert bench.counted == (1.0, 1)


@pytest.mark.parametrize(("slow_call", "counted"), [(0.9, (1.0, 1)), (1.5, (0.0, 1))])
async def test_a_slow_answer_counts_as_failed_and_of_a_stream_the_time_to_its_first_chunk(
    bench: Bench, slow_call: float, counted: tuple[float, int]
) -> None:
    await bench.open(breaker={"slow_call": slow_call})
    assert await bench.run(read(bench.once)) == TEXT
    assert bench.counted == counted


@CALLS
async def test_retries_end_as_it_opens_and_the_call_that_opened_it_says_so(bench: Bench, call: Any) -> None:
    await bench.open([LLMServerError("down")] * 9, breaker={"min_calls": 2}, retry={"initial_delay": 0.0})
    with pytest.raises(LLMCircuitOpenError) as caught:
        await bench.run(call(bench.manager.get_client()))
    assert (bench.provider.calls, caught.value.attempts) == (2, 2)
    assert bench.breaker["state"] == "open"
    assert [entry["event"] for entry in bench.manager.get_status()["calls"][-1]["log"]][-2:] == [
        "circuit_open",
        "ended",
    ]


async def test_the_place_of_the_attempt_that_opens_it_goes_to_nobody(bench: Bench) -> None:
    key = {"api_keys": ["k1"], "models": ["m"], "rate_limits": {"concurrent_requests": 1}}
    await bench.open([LLMConnectionError("reset", sent=True)] * 9, breaker={"min_calls": 2}, providers={"fake": key})
    calls = [asyncio.create_task(ask(bench.once)) for _ in range(5)]
    await bench.run(asyncio.wait(calls))
    kinds = [type(call.exception()).__name__ for call in calls]
    assert kinds == ["LLMConnectionError"] * 2 + ["LLMCircuitOpenError"] * 3


async def test_a_long_stream_that_tries_whether_the_provider_serves_keeps_nobody_waiting(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = {"min_calls": 1, "half_open_calls": 1, "open_for": 5.0}
    await bench.open([LLMServerError("down"), ["a", "b", "c"], "there"], breaker=breaker)
    await bench.ends(ask(bench.once), 6.0)
    stream = bench.once.stream_complete(TEXT)
    with caplog.at_level("INFO", logger="llm.breaker"):
        await bench.run(stream.begin(), 1.0)
    assert await bench.run(ask(bench.once), 1.0) == "there"
    assert "fake/m serves again" in caplog.text
    assert (await bench.run(stream.response())).content == "abc"
    assert bench.breaker["state"] == "closed"


async def test_a_hit_never_meets_the_breaker(bench: Bench) -> None:
    await bench.open(["kept", *[LLMServerError("down")] * 9], breaker={"min_calls": 1, "failure_rate": 0.5}, cache={})
    client = bench.manager.get_client()
    await bench.run(client.chat("asked before"))
    await bench.ends(bench.once.chat("anything"))
    assert bench.breaker["state"] == "open"
    assert (await client.chat("asked before")).cached
    with pytest.raises(LLMCircuitOpenError):
        await client.chat("never asked")


async def test_without_its_section_there_is_no_breaker(bench: Bench) -> None:
    await bench.open([LLMServerError("down")] * 30, circuit_breaker=None)
    for _ in range(30):
        await bench.ends(ask(bench.once), seconds=1.0)
    assert bench.provider.calls == 30
    assert bench.manager.get_status()["providers"]["fake"]["breakers"] == {}
