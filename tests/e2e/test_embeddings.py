"""Embeddings from the client to a mock of the vendor's server: limits, faults, keys, prices, both transports."""

# ruff: noqa: ANN401 - options as they come
from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.patience import until

from llm import (
    LLMConnectionError,
    LLMException,
    LLMInvalidRequestError,
    LLMManager,
    LLMRequest,
    LLMResponse,
    LLMServerError,
    TokenUsage,
)
from llm.testing import FakeClock, Fault, MockUpstream
from llm.testing.echo import vector

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from llm.testing.exchange import MockRequest

MODEL: Final = "text-embedding-3-small"
KEYS: Final = ("sk-vectors-one", "sk-vectors-two")
PER_MINUTE: Final = {"requests_per_minute": 60, "tokens_per_minute": 6_000}


def config(base_url: str, **sections: Any) -> dict[str, Any]:
    section = {"base_url": base_url, "api_keys": list(KEYS), "models": [MODEL], **sections.pop("openai", {})}
    return {"providers": {"openai": section}, **sections}


class Bench:
    """A manager on a fake clock, in front of a mock without a socket."""

    def __init__(self, **upstream: Any) -> None:
        self.clock = FakeClock(start=0.0)
        self.upstream = MockUpstream("openai", clock=self.clock, **upstream)

    async def open(self, **sections: Any) -> LLMManager:
        settings = config("http://upstream.test/v1", **sections)
        return await LLMManager.open(settings, transport=self.upstream.transport(), clock=self.clock)

    async def run(self, work: Coroutine[Any, Any, Any], within: float = 600.0) -> Any:
        task = asyncio.create_task(work)
        while not task.done() and self.clock.now() < within:
            await self.clock.advance(0.5)
        return task.result()


def most_in_a_minute(requests: list[MockRequest], key: str, unit: str) -> float:
    """Return the most that a key was charged in any minute."""
    charged = [(request.at, request.charge) for request in requests if request.key == key]
    sent = [(at, float(getattr(charge, unit))) for at, charge in charged if charge is not None]
    return max(sum(amount for at, amount in sent if start <= at < start + 60) for start, _ in sent)


async def test_600_texts_in_many_calls_over_two_keys_stay_inside_the_limits() -> None:
    bench = Bench(limits=dict.fromkeys(KEYS, PER_MINUTE), mode="sliding", service=0.3, network=(0.01, 0.05))
    texts = [f"text {number} ".ljust(40 + number % 7 * 40, "x") for number in range(600)]
    limits = {**PER_MINUTE, "algorithm": "sliding_window"}

    async def work(manager: LLMManager) -> None:
        async with asyncio.TaskGroup() as group:
            client = manager.get_client()
            tasks = [group.create_task(client.embed(texts[at : at + 4])) for at in range(0, 600, 4)]
        vectors = [made for task in tasks for made in task.result().embeddings]
        assert vectors == [vector(text, 8) for text in texts]

    async with await bench.open(openai={"rate_limits": limits}) as manager:
        await bench.run(work(manager))
        metrics = manager.get_status()["metrics"]
    requests = bench.upstream.requests
    assert {request.status for request in requests} == {200}
    for key in KEYS:
        assert most_in_a_minute(requests, key, "requests") <= PER_MINUTE["requests_per_minute"]
        assert most_in_a_minute(requests, key, "total_tokens") <= PER_MINUTE["tokens_per_minute"]
    assert metrics["successful_requests"] == len(requests) == 150
    tokens = sum(-(-len(text) // 4) for text in texts)
    assert metrics["tokens"] == {"input": tokens, "output": 0, "total": tokens, "cached_input": 0}
    assert bench.clock.now() < 150  # 24,000 tokens of 12,000 a minute, from two allowances that are whole at the start


async def test_more_texts_than_the_vendor_takes_go_in_several_requests_and_come_in_order() -> None:
    bench = Bench()
    texts = [f"{number}" for number in range(5_000)]
    async with await bench.open(openai={"rate_limits": {"requests_per_minute": 100}}) as manager:
        response = await bench.run(manager.get_client().embed(texts, dimensions=2))
        assert response.embeddings == tuple(vector(text, 2) for text in texts)
        assert sorted(len(request.body["input"]) for request in bench.upstream.requests) == [904, 2048, 2048]
        assert response.usage == TokenUsage(5_000)
        assert response.cost == pytest.approx(5_000 * 0.02e-6)


async def test_a_vector_costs_what_the_vendor_says() -> None:
    bench = Bench()
    async with await bench.open() as manager:
        response = await bench.run(manager.get_client().embed("x" * 4_000_000))
        assert response.cost == pytest.approx(0.02)
        assert manager.get_status()["metrics"]["models"][MODEL]["cost"] == response.cost


async def test_a_429_rests_the_key_and_the_other_answers() -> None:
    bench = Bench(faults=[Fault("rate_limit", at=1, retry_after=30)])
    async with await bench.open() as manager:
        assert len((await bench.run(manager.get_client().embed("a"))).embeddings) == 1
        assert [request.status for request in bench.upstream.requests] == [429, 200]
        assert len({request.key for request in bench.upstream.requests}) == 2
        assert bench.clock.now() < 5


async def test_a_refused_key_leaves_and_the_other_answers() -> None:
    bench = Bench(api_keys=KEYS[1:])
    async with await bench.open() as manager:
        for _ in range(3):
            await bench.run(manager.get_client().embed("a"))
        assert [request.status for request in bench.upstream.requests].count(401) == 1


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("reset_before", LLMConnectionError),
        ("reset_after", LLMConnectionError),
        ("truncated", LLMConnectionError),
        ("polite_cut", LLMServerError),
        ("garbage", LLMServerError),
        ("empty", LLMServerError),
        ("wrong_type", LLMServerError),
        ("html", LLMServerError),
        ("error_in_200", LLMException),
        ("server_error", LLMServerError),
        ("redirect", LLMInvalidRequestError),
        ("invalid", LLMInvalidRequestError),
    ],
)
async def test_broken_answers_are_their_own_exceptions_and_never_vectors(kind: str, error: type[Exception]) -> None:
    bench = Bench(faults=[Fault(kind, every=1)])
    async with await bench.open(retry={"max_attempts": 1}) as manager:
        with pytest.raises(error):
            await bench.run(manager.get_client().embed(["a", "b"]))
        assert manager.get_status()["metrics"]["failed_requests"] == 1


@pytest.mark.parametrize("vectors", [((0.5,),), ((0.5,), (0.5, 0.25)), ((0.5,), (float("nan"),)), ()])
async def test_a_server_that_sends_other_vectors_than_asked_for_is_asked_again(vectors: Any) -> None:
    said: list[LLMResponse | str] = [LLMResponse(embeddings=vectors), "then all of them"]

    def answer(_: LLMRequest) -> LLMResponse | str:
        return said.pop(0)

    bench = Bench(answer=answer)
    async with await bench.open(retry={"initial_delay": 0.1}) as manager:
        response = await bench.run(manager.get_client().embed(["a", "b"]))
        assert response.embeddings == (vector("a", 8), vector("b", 8))
        assert len(bench.upstream.requests) == 2


async def test_a_server_that_refuses_in_words_is_heard() -> None:
    def too_long(_: LLMRequest) -> Exception:
        return LLMInvalidRequestError("input[0] is too long", status=400)

    def broken(_: LLMRequest) -> Exception:
        return ValueError("broken")

    bench = Bench(answer=too_long)
    async with await bench.open() as manager:
        with pytest.raises(LLMInvalidRequestError, match="too long") as failure:
            await bench.run(manager.get_client().embed("a"))
        assert (failure.value.status, failure.value.attempts) == (400, 1)
    bench = Bench(answer=broken)
    async with await bench.open(retry={"max_attempts": 1}) as manager:
        with pytest.raises(LLMServerError, match="broken"):
            await bench.run(manager.get_client().embed("a"))


async def test_anthropic_has_no_vectors_and_says_what_to_use() -> None:
    upstream = MockUpstream("anthropic", clock=FakeClock())
    section = {"type": "anthropic", "base_url": "http://upstream.test", "api_keys": ["k"], "models": ["claude-test"]}
    async with LLMManager.open({"providers": {"claude": section}}, transport=upstream.transport()) as manager:
        with pytest.raises(LLMInvalidRequestError, match="'claude' makes no embeddings; use a client of one that does"):
            await manager.get_client().embed("a")
    assert upstream.requests == []


async def test_over_a_socket_a_cancelled_call_closes_upstream() -> None:
    async with MockUpstream("openai", service=60.0) as up, LLMManager.open(config(up.base_url)) as manager:
        task = asyncio.create_task(manager.get_client().embed("a"))
        await until(lambda: up.requests)
        task.cancel()
        await asyncio.wait([task])
        await until(lambda: up.requests[0].left)
        assert manager.get_status()["metrics"]["cancelled_requests"] == 1
        assert manager.get_status()["pool"]["calls"] == 0


async def test_over_a_socket_vectors_come_as_they_are_and_from_the_cache_alike() -> None:
    async with MockUpstream("openai") as up, LLMManager.open(config(up.base_url, cache={})) as manager:
        client = manager.get_client()
        first = await client.embed(["a", "b"], dimensions=1536)
        again = await client.embed(["a", "b"], dimensions=1536)
        assert first.embeddings == again.embeddings == (vector("a", 1536), vector("b", 1536))
        assert (len(up.requests), again.cost) == (1, 0.0)
        assert up.requests[0].body["encoding_format"] == "base64"


async def test_a_server_that_knows_no_base64_is_understood() -> None:
    class Plain:
        async def __call__(self, request: LLMRequest, call_next: Any) -> Any:
            return await call_next(replace(request, extra={"encoding_format": "float"}))

    bench = Bench()
    async with await bench.open() as manager:
        response = await bench.run(manager.get_client(middleware=[Plain()]).embed("a"))
        assert response.embeddings == (vector("a", 8),)
        assert bench.upstream.requests[0].body["encoding_format"] == "float"
