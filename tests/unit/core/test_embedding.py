"""Calls for vectors: portions of what one request may hold, and a chain like that of any call."""

# ruff: noqa: ANN401 - options as they come
from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from llm import (
    EmbeddingResponse,
    LLMInvalidRequestError,
    LLMManager,
    LLMRateLimitError,
    LLMRequest,
    LLMResponse,
    LLMServerError,
    LLMTimeoutError,
    TokenUsage,
    register_provider,
)
from llm.core.embedding import joined, limits_of, portions_of
from llm.core.protocols import EmbeddingLimits
from llm.core.texts import EmbeddingInput
from llm.testing import FakeClock, FakeProvider
from llm.testing.echo import vector

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult


class Limited(FakeProvider):
    """A double whose requests hold two texts."""

    embedding_limits = EmbeddingLimits(texts=2)


class Bare:
    """A provider without vectors."""

    def __init__(self) -> None:
        fake = FakeProvider()
        self.initialize, self.close, self.health_check = fake.initialize, fake.close, fake.health_check
        self.complete, self.stream = fake.complete, fake.stream


async def opened(provider: Any, clock: FakeClock | None = None, **sections: Any) -> LLMManager:
    register_provider("vectors", lambda _: provider)
    section = {"models": ["e"], "api_keys": ["k1"], **sections.pop("vectors", {})}
    return await LLMManager.open({"providers": {"vectors": section}, **sections}, clock=clock or FakeClock())


# --- portions -----------------------------------------------------------------------------------------------------


def cut(texts: list[str], limits: EmbeddingLimits | None) -> list[int]:
    portions = portions_of(EmbeddingInput(texts, 3), limits)
    assert [text for portion in portions for text in portion.texts] == texts
    assert {portion.dimensions for portion in portions} == {3}
    return [len(portion.texts) for portion in portions]


@pytest.mark.parametrize(
    ("texts", "limits", "sizes"),
    [
        (["a"] * 5, None, [5]),
        (["a"] * 5, EmbeddingLimits(), [5]),
        (["a"] * 4, EmbeddingLimits(texts=2), [2, 2]),
        (["a"] * 5, EmbeddingLimits(texts=2), [2, 2, 1]),
        (["a"] * 2, EmbeddingLimits(texts=2), [2]),
        (["x" * 30] * 5, EmbeddingLimits(tokens=22), [2, 2, 1]),  # eleven each, more than any tokenizer makes of them
        (["a", "x" * 300, "a", "a"], EmbeddingLimits(tokens=20), [1, 1, 2]),
        (["x" * 300], EmbeddingLimits(texts=2, tokens=20), [1]),
        (["界" * 10] * 2, EmbeddingLimits(tokens=12), [1, 1]),
    ],
)
def test_texts_are_cut_where_a_request_is_full(texts: list[str], limits: EmbeddingLimits, sizes: list[int]) -> None:
    assert cut(texts, limits) == sizes


def test_a_provider_that_names_no_limit_gets_all_texts_at_once() -> None:
    assert limits_of(FakeProvider()) == EmbeddingLimits()
    assert limits_of(Limited()) == EmbeddingLimits(texts=2)
    assert limits_of(Bare()) is None


def answer(length: int, **facts: Any) -> LLMResponse:
    vectors = (tuple([0.5] * length),)
    return LLMResponse(model="m", provider="p", usage=TokenUsage(3), embeddings=vectors, **facts)


def test_answers_to_portions_are_one_answer() -> None:
    whole = joined([answer(2, cost=0.5, key="k1"), answer(2, cost=0.25, key="k2")])
    assert whole == EmbeddingResponse(((0.5, 0.5), (0.5, 0.5)), "m", "p", TokenUsage(6), 0.75, None)
    assert joined([answer(2, cost=0.5, key="k1"), answer(2, key="k1")]) == replace(whole, cost=None, key="k1")


def test_vectors_of_several_lengths_are_refused() -> None:
    with pytest.raises(LLMServerError, match="several lengths"):
        joined([answer(2), answer(3)])


# --- a call like any other ----------------------------------------------------------------------------------------


async def test_vectors_come_in_the_order_of_the_texts() -> None:
    async with await opened(FakeProvider()) as manager:
        response = await manager.get_client().embed(["b", "a"], dimensions=4)
        assert response.embeddings == (vector("b", 4), vector("a", 4))
        assert (response.model, response.provider, response.usage) == ("e", "vectors", TokenUsage(2))
        assert response.key == manager.get_status()["providers"]["vectors"]["keys"][0]["key"]


async def test_a_call_for_vectors_is_counted_with_tokens_and_cost() -> None:
    prices = {"e": {"input": 2.0, "output": 100.0}}
    async with await opened(FakeProvider(), prices=prices) as manager:
        response = await manager.get_client(user="ann").embed(["four" * 10, "four"])
        metrics = manager.get_status()["metrics"]
        assert response.cost == pytest.approx(11 * 2e-6)
        assert metrics["models"]["e"]["tokens"]["input"] == metrics["tokens"]["total"] == 11
        assert metrics["cost"] == response.cost
        assert manager.get_status()["users"]["ann"]["requests"] == metrics["successful_requests"] == 1


async def test_more_texts_than_one_request_holds_are_several_calls_at_once() -> None:
    clock = FakeClock()
    fake = Limited(latency=1.0, clock=clock)
    async with await opened(fake, clock, vectors={"models": ["e", "f"]}) as manager:
        task = asyncio.create_task(manager.get_client().embed(["a", "b", "c", "d", "e"]))
        await clock.advance(1.0)
        assert task.result().embeddings == tuple(vector(text, 8) for text in "abcde")
        assert [request.embed and request.embed.texts for request in fake.requests] == [("a", "b"), ("c", "d"), ("e",)]
        assert len({request.model for request in fake.requests}) == 1
        assert manager.get_status()["metrics"]["total_requests"] == fake.most_in_flight == 3


async def test_when_one_of_several_calls_fails_the_error_says_which_texts_and_the_others_end() -> None:
    def fail(request: LLMRequest) -> str:
        if request.embed is not None and "c" in request.embed.texts:
            raise LLMInvalidRequestError("too long", status=400)
        return ""

    clock = FakeClock()
    fake = Limited(fail, clock=clock, latency=5.0)
    async with await opened(fake, clock) as manager:
        with pytest.raises(LLMInvalidRequestError, match=r"too long; it was for texts\[2:4\]") as failure:
            await manager.get_client().embed(["a", "b", "c", "d", "e"])
        assert (failure.value.status, failure.value.attempts, fake.in_flight) == (400, 1, 0)
        assert manager.get_status()["metrics"]["cancelled_requests"] == 2


async def test_leaving_an_embed_ends_all_of_its_calls() -> None:
    clock = FakeClock()
    fake = Limited(clock=clock, latency=5.0)
    async with await opened(fake, clock) as manager:
        task = asyncio.create_task(manager.get_client().embed(["a", "b", "c"]))
        await clock.advance(1.0)
        assert fake.in_flight == 2
        task.cancel()
        await clock.advance(0.0)
        assert task.cancelled()
        assert (fake.in_flight, manager.get_status()["metrics"]["cancelled_requests"]) == (0, 2)


async def test_a_failed_call_for_vectors_is_repeated() -> None:
    async with await opened(FakeProvider([LLMServerError("down"), "then"]), retry={"initial_delay": 0}) as manager:
        assert len((await manager.get_client().embed("a")).embeddings) == 1
        assert manager.get_status()["metrics"]["retries"] == 1


async def test_the_configured_timeout_ends_all_calls_of_one_embed() -> None:
    clock = FakeClock()
    fake = Limited(latency=100.0, clock=clock)
    async with await opened(fake, clock, **{"global": {"timeout": 2.0}}) as manager:
        task = asyncio.create_task(manager.get_client().embed(["a", "b", "c"]))
        await clock.advance(2.0)
        assert isinstance(task.exception(), LLMTimeoutError)
        assert fake.in_flight == 0


async def test_an_attempt_has_its_own_bound() -> None:
    clock = FakeClock()
    fake = FakeProvider(latency=100.0, clock=clock)
    sections = {"global": {"timeouts": {"attempt": 3}}, "retry": {"max_attempts": 1}}
    async with await opened(fake, clock, **sections) as manager:
        task = asyncio.create_task(manager.get_client().embed("a"))
        await clock.advance(3.0)
        with pytest.raises(LLMTimeoutError, match=r"timeouts\.attempt"):
            task.result()


async def test_a_call_for_vectors_takes_its_texts_from_the_limits_and_nothing_else() -> None:
    clock = FakeClock()
    limits = {"tokens_per_minute": 100, "algorithm": "token_bucket"}
    async with await opened(FakeProvider(clock=clock), clock, vectors={"rate_limits": limits}) as manager:
        client = manager.get_client()
        await client.embed("x" * 400)  # 100 tokens: all there is
        asked = LLMRequest((), embed=EmbeddingInput("x" * 40))
        assert manager.explain(asked).wait_seconds == pytest.approx(6.0, abs=0.2)
        with pytest.raises(LLMRateLimitError, match="tokens_per_minute"):
            await client.embed("x" * 404)
        assert manager.get_status()["metrics"]["failed_requests"] == 1


async def test_the_same_texts_again_cost_nothing_and_others_are_asked() -> None:
    fake = FakeProvider()
    async with await opened(fake, cache={}, prices={"e": {"input": 2.0, "output": 0.0}}) as manager:
        client = manager.get_client()
        first = await client.embed(["a", "b"])
        again = await client.embed(["a", "b"])
        assert again == replace(first, cost=0.0, key=None)
        for texts, dimensions in ((["b", "a"], None), (["a", "b"], 4), (["a"], None), (["ab"], None)):
            await client.embed(texts, dimensions=dimensions)
        assert fake.calls == 5
        assert manager.get_status()["metrics"]["cache"]["hits"] == 1


async def test_identical_calls_in_flight_share_one_request() -> None:
    clock = FakeClock()
    fake = FakeProvider(latency=1.0, clock=clock)
    async with await opened(fake, clock, cache={}) as manager:
        tasks = [asyncio.create_task(manager.get_client().embed("a")) for _ in range(5)]
        await clock.advance(1.0)
        assert {task.result().embeddings for task in tasks} == {(vector("a", 8),)}
        assert fake.calls == 1


async def test_layers_of_ones_own_see_what_is_asked_and_may_change_it() -> None:
    async def plain(request: LLMRequest, call_next: CallNext) -> LLMResult:
        assert request.embed is not None
        texts = [text.lower() for text in request.embed.texts]
        return await call_next(replace(request, embed=EmbeddingInput(texts, 4)))

    async with await opened(FakeProvider()) as manager:
        response = await manager.get_client(middleware=[plain]).embed(["A", "b"])
        assert response.embeddings == (vector("a", 4), vector("b", 4))


async def test_a_request_for_vectors_is_answered_with_the_calls_facts() -> None:
    async with await opened(FakeProvider()) as manager:
        response = await manager.get_client().request(LLMRequest((), embed=EmbeddingInput(["a"])))
        assert (response.content, response.attempts, response.cached) == ("", 1, False)
        assert response.embeddings == (vector("a", 8),)
        assert "embeddings" not in repr(response)


@pytest.mark.parametrize("provider", [Bare, FakeProvider], ids=["no method", "no limits"])
async def test_a_provider_without_vectors_is_refused_before_anything_is_paid(provider: Callable[[], Any]) -> None:
    made = provider()
    made.embedding_limits = None
    limits = {"requests_per_minute": 1, "algorithm": "token_bucket"}
    async with await opened(made, vectors={"rate_limits": limits}) as manager:
        client = manager.get_client()
        for _ in range(2):
            with pytest.raises(LLMInvalidRequestError, match="'vectors' makes no embeddings; use a client") as failure:
                await client.embed("a")
            assert (failure.value.provider, failure.value.model, failure.value.attempts) == ("vectors", "e", 0)
        assert str(await client.chat("paid")) == "paid"


@pytest.mark.parametrize("vectors", [(), ((0.5,),), ((0.5,), (0.5, 0.5))], ids=["none", "too few", "of two lengths"])
async def test_an_answer_without_a_vector_for_each_text_is_a_failure(vectors: Any) -> None:
    fake = FakeProvider([LLMResponse(embeddings=vectors)])
    async with await opened(fake, retry={"max_attempts": 1}) as manager:
        with pytest.raises(LLMServerError, match="not 2 vectors of one length"):
            await manager.get_client().embed(["a", "b"])
        assert manager.get_status()["metrics"]["failed_requests"] == 1


async def test_a_layer_that_answers_in_words_is_a_failure() -> None:
    async def words(request: LLMRequest, call_next: CallNext) -> LLMResult:
        del request, call_next
        return LLMResponse(content="words")

    async with await opened(FakeProvider()) as manager:
        with pytest.raises(LLMServerError, match="not 1 vectors"):
            await manager.get_client(middleware=[words]).embed("a")
