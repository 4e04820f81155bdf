from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from llm.core.exceptions import LLMConnectionError, LLMInvalidRequestError, LLMServerError, LLMStreamInterruptedError
from llm.core.messages import ThinkingPart, ToolCall
from llm.core.protocols import Embedding, Provider, TokenCounting
from llm.core.texts import EmbeddingInput
from llm.core.types import LLMRequest, LLMResponse, StreamChunk, TokenUsage
from llm.testing import FakeClock, FakeProvider

HELLO = LLMRequest("hello, dear world", model="m")


async def test_it_is_a_provider() -> None:
    fake = FakeProvider()
    assert isinstance(fake, Provider)
    assert isinstance(fake, Embedding)
    assert isinstance(fake, TokenCounting)
    await fake.initialize()
    await fake.close()
    assert (fake.initialized, fake.closed) == (True, True)


async def test_it_echoes_by_default_and_counts_four_characters_a_token() -> None:
    fake = FakeProvider(name="x", key="fp")
    response = await fake.complete(HELLO)
    assert (response.content, response.model, response.provider, response.key) == ("hello, dear world", "m", "x", "fp")
    assert (response.usage, response.finish_reason) == (TokenUsage(5, 5), "stop")
    assert await fake.count_tokens(HELLO) == 5


async def test_max_tokens_cuts_the_answer() -> None:
    response = await FakeProvider().complete(LLMRequest("hello, dear world", max_tokens=2))
    assert (response.content, response.finish_reason, response.usage.output_tokens) == ("hello, d", "length", 2)


async def test_a_stream_gives_the_same_response_as_a_unary_call() -> None:
    answer = LLMResponse(
        "id-1",
        "some text that takes chunks",
        "m",
        usage=TokenUsage(3, 4),
        finish_reason="tool_calls",
        tool_calls=(ToolCall("c1", "look", '{"a": 1}'), ToolCall("c2", "look", "{}")),
        thinking=(ThinkingPart("hm", "sig"),),
    )
    fake = FakeProvider(lambda _: answer, chunk_size=5)
    stream = await fake.stream(HELLO)
    assert [str(chunk) async for chunk in stream][1:3] == ["some ", "text "]
    assert await stream.response() == await fake.complete(HELLO)


async def test_a_script_answers_in_order_raises_its_exceptions_and_says_when_it_is_over() -> None:
    fake = FakeProvider(["one", LLMServerError("down"), "two"])
    assert str(await fake.complete(HELLO)) == "one"
    with pytest.raises(LLMServerError):
        await fake.complete(HELLO)
    assert str(await (await fake.stream(HELLO)).response()) == "two"
    with pytest.raises(AssertionError, match="called 4 times and has 3 answers"):
        await fake.complete(HELLO)
    assert (fake.calls, fake.in_flight, fake.requests) == (4, 0, [HELLO] * 4)


async def test_a_stream_breaks_where_the_script_says() -> None:
    fake = FakeProvider([["Hel", "lo", LLMStreamInterruptedError("cut")]])
    got, stream = list[str](), await fake.stream(HELLO)
    with pytest.raises(LLMStreamInterruptedError) as caught:
        got.extend([str(chunk) async for chunk in stream])
    assert caught.value.partial == "Hello"
    assert (fake.open_streams, fake.in_flight) == (0, 0)


async def test_a_failure_before_the_first_chunk_is_the_calls() -> None:
    fake = FakeProvider([[LLMConnectionError("cut", sent=True)]])
    with pytest.raises(LLMConnectionError):
        await fake.stream(HELLO)
    assert (fake.open_streams, fake.in_flight) == (0, 0)


async def test_a_list_of_pieces_answers_unary_calls_too() -> None:
    response = await FakeProvider([["Hel", StreamChunk("lo", finish_reason="length")]]).complete(HELLO)
    assert (response.content, response.finish_reason) == ("Hello", "length")


async def test_a_stalled_stream_ends_when_it_is_left_and_wakes_its_reader() -> None:
    fake = FakeProvider([["Hel", ...]])
    stream = await fake.stream(HELLO)
    assert str(await anext(stream)) == "Hel"
    assert (fake.open_streams, fake.in_flight) == (1, 1)
    reader = asyncio.create_task(anext(stream))
    await FakeClock().advance(0)
    stream.interrupt(LLMServerError("enough"))
    with pytest.raises(LLMServerError, match="enough"):
        await reader
    assert (fake.open_streams, fake.in_flight) == (0, 0)


async def test_latency_and_interval_pass_on_its_clock() -> None:
    clock = FakeClock(auto=True)
    fake = FakeProvider([["a", "b"], "whole"], latency=2.0, interval=0.5, clock=clock)
    stream = await fake.stream(HELLO)
    assert clock.now() == 2.0
    assert str(await stream.response()) == "ab"
    assert clock.now() == 3.0  # finish and usage come in a chunk of their own
    await fake.complete(HELLO)
    assert clock.now() == 5.0
    assert clock.timers == 0


async def test_cancelled_while_it_answers_it_holds_nothing() -> None:
    clock = FakeClock()
    fake = FakeProvider(latency=10, clock=clock)
    tasks = [asyncio.create_task(call) for call in (fake.complete(HELLO), fake.stream(HELLO))]
    await clock.advance(1)
    assert (fake.in_flight, fake.most_in_flight) == (2, 2)
    for task in tasks:
        task.cancel()
    await clock.advance(0)
    assert (fake.in_flight, fake.open_streams, clock.timers) == (0, 0, 0)


def embedding(*texts: str, dimensions: int | None = None) -> LLMRequest:
    return LLMRequest((), model="e", embed=EmbeddingInput(texts, dimensions))


async def test_vectors_depend_on_the_text_alone() -> None:
    first = await FakeProvider().embed(embedding("a", "b", dimensions=4))
    again = await FakeProvider().embed(embedding("b", dimensions=4))
    assert first.embeddings[1] == again.embeddings[0] != first.embeddings[0]
    assert [len(vector) for vector in first.embeddings] == [4, 4]
    assert (first.model, first.usage) == ("e", TokenUsage(2))


async def test_vectors_take_their_turn_in_the_script() -> None:
    said = LLMResponse(embeddings=((0.5,),))
    fake = FakeProvider(["a text", said, LLMServerError("down")], name="fake", key="k")
    assert len((await fake.embed(embedding("a"))).embeddings[0]) == 8
    assert await fake.embed(embedding("a")) == replace(said, provider="fake", key="k")
    with pytest.raises(LLMServerError, match="down"):
        await fake.embed(embedding("a"))
    assert (fake.calls, fake.in_flight, fake.most_in_flight) == (3, 0, 1)


async def test_a_request_without_texts_has_no_vectors() -> None:
    with pytest.raises(LLMInvalidRequestError, match="embed is None"):
        await FakeProvider().embed(HELLO)


async def test_health_is_what_it_is_told() -> None:
    fake = FakeProvider()
    assert await fake.health_check()
    fake.healthy = False
    assert not await fake.health_check()
