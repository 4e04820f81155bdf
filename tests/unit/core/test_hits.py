"""What the memory cache has at hand is given before the chain is asked, and is still a call like any other."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

from llm import CachePolicy, LLMManager, LLMPoolExhaustedError, LLMRateLimitError, LLMRequest, LLMTimeoutError
from llm.testing import FakeClock, MockUpstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llm import LLMClient, LLMResponse
    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult

MODEL = "gpt-4o-mini"
KINDS = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])


class Bench:
    """A manager with a cache, on a fake clock, in front of a mock without a socket."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.upstream = MockUpstream("openai", clock=self.clock)

    async def open(self, **sections: Any) -> LLMManager:  # noqa: ANN401 - sections as they come
        provider = {"base_url": "http://upstream.test/v1", "api_keys": ["sk-test-1"], "models": [MODEL]}
        config = {"providers": {"openai": provider}, "cache": {"backend": "memory"}, **sections}
        return await LLMManager.open(config, transport=self.upstream.transport(), clock=self.clock)

    @property
    def sent(self) -> int:
        return len(self.upstream.requests)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    async with bench.upstream:
        yield bench


async def kept(client: LLMClient, clock: FakeClock, text: str = "hello") -> str:
    """Ask once, so that the answer is in the cache."""
    answer = await client.complete(text)
    await clock.advance(0.0)
    return answer.content


async def ask(client: LLMClient, *, stream: bool) -> LLMResponse:
    if not stream:
        return await client.complete("hello")
    async with client.stream_complete("hello") as chunks:
        text = "".join([str(chunk) async for chunk in chunks])
        response = await chunks.response()
    assert response.content == text
    return response


@KINDS
async def test_a_hit_is_a_call_with_its_count_and_costs_nothing(bench: Bench, *, stream: bool) -> None:
    async with await bench.open() as manager:
        client = manager.get_client(user="alice")
        first = await kept(client, bench.clock)

        again = await ask(client, stream=stream)

        metrics, users = manager.get_status()["metrics"], manager.get_status()["users"]
    assert (again.content, again.cached, again.cost, again.attempts, again.key) == (first, True, 0.0, 0, None)
    assert (again.provider, again.model) == ("openai", MODEL)
    assert bench.sent == 1
    assert (metrics["total_requests"], metrics["successful_requests"]) == (2, 2)
    assert (metrics["cache"]["hits"], metrics["cache"]["misses"]) == (1, 1)
    assert users["alice"]["requests"] == 2


@KINDS
async def test_a_hit_is_given_to_a_user_whose_budget_is_used_up(bench: Bench, *, stream: bool) -> None:
    async with await bench.open(limits={"users": {"default": {"requests_per_day": 1}}}) as manager:
        client = manager.get_client(user="alice")
        first = await kept(client, bench.clock)

        assert (await ask(client, stream=stream)).content == first
        with pytest.raises(LLMRateLimitError):
            await client.complete("another question")


async def test_a_layer_that_stands_before_the_cache_sees_every_hit(bench: Bench) -> None:
    seen: list[LLMRequest] = []

    async def watch(request: LLMRequest, call_next: CallNext) -> LLMResult:
        seen.append(request)
        return await call_next(request)

    async with await bench.open() as manager:
        before = manager.get_client(middleware=["rate_limit", watch, "retry", "cache", "logging", "metrics"])
        await kept(before, bench.clock)
        assert (await before.complete("hello")).cached
        assert len(seen) == 2

        behind = manager.get_client(middleware=["rate_limit", "retry", "cache", watch])
        assert (await behind.complete("hello")).cached
        assert len(seen) == 2


@pytest.mark.parametrize(
    ("policy", "sent"),
    [(None, 1), (CachePolicy(), 1), (False, 2), (CachePolicy(refresh=True), 2), (CachePolicy(ttl=5.0), 2)],
)
async def test_a_calls_own_policy_holds(bench: Bench, policy: CachePolicy | bool | None, sent: int) -> None:
    async with await bench.open() as manager:
        client = manager.get_client()
        await kept(client, bench.clock)
        await bench.clock.advance(10.0)

        answer = await client.complete("hello", cache=policy)

    assert (bench.sent, answer.cached) == (sent, sent == 1)


async def test_an_entry_that_is_over_is_asked_for_again(bench: Bench) -> None:
    async with await bench.open(cache={"ttl": 5}) as manager:
        client = manager.get_client()
        await kept(client, bench.clock)
        assert (await client.complete("hello")).cached
        await bench.clock.advance(5.0)

        assert not (await client.complete("hello")).cached
    assert bench.sent == 2


@KINDS
async def test_a_manager_that_is_closing_gives_no_hits(bench: Bench, *, stream: bool) -> None:
    manager = await bench.open()
    client = manager.get_client()
    await kept(client, bench.clock)
    await manager.close()

    with pytest.raises(LLMPoolExhaustedError):
        await ask(client, stream=stream)


@KINDS
async def test_a_manager_that_waits_for_its_last_call_gives_no_hits(bench: Bench, *, stream: bool) -> None:
    manager = await bench.open()
    client = manager.get_client()
    await kept(client, bench.clock)
    async with client.stream_complete("hello") as last, asyncio.TaskGroup() as tasks:
        closing = tasks.create_task(manager.close())
        await bench.clock.advance(0.0)
        assert not closing.done()

        with pytest.raises(LLMPoolExhaustedError):  # the answer is still in memory
            await ask(client, stream=stream)

        assert (await last.response()).cached


async def test_a_streamed_hit_that_is_not_read_in_its_time_ends_and_runs_until_then(bench: Bench) -> None:
    async with await bench.open() as manager:
        client = manager.get_client()
        await kept(client, bench.clock)

        async with client.stream_complete("hello", timeout=5.0) as chunks:
            assert manager.get_status()["pool"]["calls"] == 1
            await bench.clock.advance(5.0)
            with pytest.raises(LLMTimeoutError):
                await chunks.response()
        assert manager.get_status()["pool"]["calls"] == 0


@KINDS
async def test_a_hit_leaves_nothing_for_the_collector(bench: Bench, *, stream: bool) -> None:
    async with await bench.open() as manager:
        client = manager.get_client()
        await kept(client, bench.clock)
        await ask(client, stream=stream)
        gc.collect()
        gc.disable()
        left: list[int] = []
        try:
            while len(left) < 3 and 0 not in left:  # what something else left is there once
                for _ in range(20):
                    await ask(client, stream=stream)
                left.append(gc.collect())
        finally:
            gc.enable()
        assert 0 in left


async def test_a_request_that_the_caller_keeps_is_not_touched(bench: Bench) -> None:
    request = LLMRequest("hello")
    async with await bench.open() as manager:
        client = manager.get_client()
        first, second = await client.request(request), await client.request(request)
        assert (first.cached, second.cached, request.model, request.call) == (False, True, None, None)
