"""`response_model` through a whole manager: read, asked once more, refused; whole and streamed alike."""

# ruff: noqa: ANN401 - options as they come

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, Field, field_validator

from llm import (
    LLMException,
    LLMInvalidRequestError,
    LLMManager,
    LLMResponse,
    LLMServerError,
    LLMStream,
    LLMTimeoutError,
    LLMValidationError,
    MessageRole,
    StreamChunk,
    TokenUsage,
    ToolCall,
    register_provider,
)
from llm.core.exceptions import LLMStreamInterruptedError
from llm.core.stream import as_stream
from llm.core.structured import shape_of
from llm.testing import FakeClock, FakeProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llm import LLMClient, LLMRequest
    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult


class City(BaseModel):
    name: str
    people: int = Field(ge=0)


class SameCity(BaseModel):
    """Another class of the same form, but for what it validates."""

    model_config = {"title": "City"}
    name: str
    people: int = Field(ge=0)

    @field_validator("name")
    @classmethod
    def northern(cls, name: str) -> str:
        if name != "Oslo":
            raise ValueError("it is not in the north")
        return name


SameCity.__doc__ = None

GOOD = '{"name": "Oslo", "people": 717710}'
OTHER = '{"name": "Rome", "people": 2746984}'
BAD = '{"name": "Oslo", "people": "many"}'
WORSE = '{"name": 7}'
OSLO = City(name="Oslo", people=717710)
WAYS = [pytest.param(False, id="whole"), pytest.param(True, id="stream")]


class Bench:
    """A manager on a fake clock over a scripted provider."""

    def __init__(
        self, answers: Any, *, sections: dict[str, Any] | None = None, auto: bool = False, **options: Any
    ) -> None:
        self.clock = FakeClock(auto=auto)
        self.provider = FakeProvider(answers, clock=self.clock, **options)
        self.config: dict[str, Any] = {
            "providers": {"scripted": {"models": ["m"], "api_keys": ["k"]}},
            "prices": {"m": {"input": 1_000_000, "output": 2_000_000}},
            **(sections or {}),
        }

    async def __aenter__(self) -> LLMClient:
        register_provider("scripted", lambda _: self.provider)
        self.manager = await LLMManager.open(self.config, clock=self.clock)
        return self.manager.get_client()

    async def __aexit__(self, *_: object) -> None:
        await self.manager.close()
        assert (self.provider.in_flight, self.provider.open_streams) == (0, 0)

    @property
    def metrics(self) -> dict[str, Any]:
        return dict(self.manager.get_status()["metrics"])

    def outcome(self) -> tuple[int, int, int, int]:
        counted = self.metrics
        return (
            counted["successful_requests"],
            counted["failed_requests"],
            counted["cancelled_requests"],
            self.manager.get_status()["pool"]["calls"],
        )


async def ask(client: LLMClient, *, stream: bool, text: str = "Which?", **options: Any) -> LLMResponse:
    options.setdefault("response_model", City)
    if stream:
        return await client.stream_complete(text, **options).response()
    return await client.complete(text, **options)


def said(text: str, **facts: Any) -> LLMResponse:
    given: dict[str, Any] = {"usage": TokenUsage(10, 5), "finish_reason": "stop", **facts}
    return LLMResponse(content=text, **given)


# --- an answer that fits, or does at the second time ------------------------------------------------------------------


@pytest.mark.parametrize("stream", WAYS)
async def test_an_answer_that_fits_has_its_instance(stream: bool) -> None:
    bench = Bench([said(GOOD)])
    async with bench as client:
        response = await ask(client, stream=stream)
        assert bench.outcome() == (1, 0, 0, 0)
    assert (response.parsed, response.content, response.cost) == (OSLO, GOOD, 20.0)


@pytest.mark.parametrize("stream", WAYS)
async def test_one_that_does_not_is_asked_for_once_more_with_what_is_wrong(stream: bool) -> None:
    bench = Bench([said(BAD), said(GOOD, usage=TokenUsage(20, 7, 3, 1))])
    async with bench as client:
        response = await ask(client, stream=stream, max_tokens=50)
        counted = bench.metrics
        assert bench.outcome() == (1, 0, 0, 0)
    assert (response.parsed, response.content, response.attempts) == (OSLO, GOOD, 2)
    assert response.usage == TokenUsage(30, 12, 3, 1)
    assert response.cost == 54.0
    assert (counted["total_requests"], counted["retries"], counted["cost"]) == (1, 1, 54.0)
    assert counted["tokens"]["total"] == 42
    first, second = bench.provider.requests
    assert second.messages[:1] == first.messages
    assert [(turn.role, turn.text) for turn in second.messages[1:2]] == [(MessageRole.ASSISTANT, BAD)]
    assert "- people: Input should be a valid integer" in second.messages[2].text
    assert shape_of(City).text in second.messages[2].text
    assert (second.max_tokens, second.response_model, second.stream) == (50, City, False)
    assert first.call is second.call


@pytest.mark.parametrize("stream", WAYS)
async def test_one_that_never_fits_is_a_validation_error_by_field_and_one_failed_call(stream: bool) -> None:
    bench = Bench([said(BAD), said(WORSE)])
    async with bench as client:
        with pytest.raises(LLMValidationError) as failure:
            await ask(client, stream=stream)
        assert bench.outcome() == (0, 1, 0, 0)
        assert bench.metrics["errors"] == {"LLMValidationError": 1}
    error = failure.value
    assert error.problems == ("name: Input should be a valid string", "people: Field required")
    assert (error.partial, error.provider, error.model, error.attempts) == (WORSE, "scripted", "m", 2)
    assert "response_model City" in str(error)
    assert "people: Field required" in str(error)
    assert WORSE not in str(error)
    assert not error.retryable
    assert bench.provider.calls == 2


@pytest.mark.parametrize("stream", WAYS)
@pytest.mark.parametrize(
    ("answers", "tokens", "cost"),
    [
        pytest.param([said(BAD), said(WORSE, usage=TokenUsage(20, 7))], 42, 54.0, id="never fits"),
        pytest.param([said(BAD, finish_reason="length")], 15, 20.0, id="cut"),
        pytest.param([said(BAD), LLMServerError("down", retryable=False)], 15, 20.0, id="second fails"),
        pytest.param([said(BAD), asyncio.CancelledError()], 15, 20.0, id="second is cancelled"),
    ],
)
async def test_what_answers_took_that_did_not_do_counts_as_spent(
    answers: list[Any], tokens: int, cost: float, stream: bool
) -> None:
    bench = Bench(answers)
    async with bench as client:
        with pytest.raises((LLMException, asyncio.CancelledError)):
            await ask(client, stream=stream, user="alice")
        status = bench.manager.get_status()
    metrics, alice = status["metrics"], status["users"]["alice"]
    assert (metrics["tokens"]["total"], metrics["cost"], metrics["models"]["m"]["cost"]) == (tokens, cost, cost)
    assert (alice["requests"], alice["tokens"], alice["cost"]) == (1, tokens, cost)


@pytest.mark.parametrize("stream", WAYS)
async def test_what_the_cache_answered_took_nothing_where_the_second_answer_fails(stream: bool) -> None:
    bench = Bench([said(OTHER), said(BAD)], sections=CACHE)
    async with bench as client:
        await ask(client, stream=stream)
        with pytest.raises(LLMValidationError):
            await ask(client, stream=stream, response_model=SameCity)
        assert bench.metrics["cost"] == 40.0


async def test_with_log_content_the_error_shows_the_answer() -> None:
    async with Bench([said(BAD), said(WORSE)], sections={"global": {"log_content": True}}) as client:
        with pytest.raises(LLMValidationError, match=r"the answer was .*name.*7"):
            await ask(client, stream=False)


async def test_an_empty_answer_is_no_turn_of_the_second_question() -> None:
    bench = Bench([said(" "), said(GOOD)])
    async with bench as client:
        assert (await ask(client, stream=False)).parsed == OSLO
    assert [turn.role for turn in bench.provider.requests[1].messages] == [MessageRole.USER, MessageRole.USER]


@pytest.mark.parametrize("stream", WAYS)
@pytest.mark.parametrize(
    "facts",
    [{"finish_reason": "content_filter"}, {"tool_calls": (ToolCall("a", "look", "{}"),)}],
    ids=["filter", "tool"],
)
async def test_a_refusal_or_a_tools_call_is_returned_without_an_instance(facts: dict[str, Any], stream: bool) -> None:
    bench = Bench([said("I cannot.", **facts), said(BAD), said("No.", **facts)])
    async with bench as client:
        for calls in (1, 3):
            response = await ask(client, stream=stream)
            assert response.parsed is None
            assert response.tool_calls == facts.get("tool_calls", ())
            assert response.finish_reason == facts.get("finish_reason", "stop")
            assert bench.provider.calls == calls
            assert response.usage == (TokenUsage(10, 5) if calls == 1 else TokenUsage(20, 10))


@pytest.mark.parametrize("stream", WAYS)
async def test_one_that_max_tokens_cut_is_an_error_and_not_asked_for_again(stream: bool) -> None:
    bench = Bench([said(BAD[:12], finish_reason="length"), said(GOOD, finish_reason="length")])
    async with bench as client:
        with pytest.raises(LLMValidationError, match="was cut before it fitted response_model City; give it more"):
            await ask(client, stream=stream)
        assert (await ask(client, stream=stream)).parsed == OSLO


async def test_a_second_question_that_fails_fails_the_call() -> None:
    bench = Bench([said(BAD), LLMServerError("down", retryable=False)])
    async with bench as client:
        with pytest.raises(LLMServerError, match="down"):
            await ask(client, stream=False)
        assert bench.outcome() == (0, 1, 0, 0)


async def test_the_second_question_has_retries_of_its_own() -> None:
    bench = Bench([LLMServerError("down"), said(BAD), LLMServerError("down"), said(GOOD)], auto=True)
    async with bench as client:
        response = await ask(client, stream=False)
        assert (response.parsed, response.attempts) == (OSLO, 4)
        assert bench.outcome() == (1, 0, 0, 0)


async def test_the_decision_log_says_what_was_wrong_with_the_first() -> None:
    bench = Bench([said(BAD), said(GOOD)])
    async with bench as client:
        await ask(client, stream=False)
    call = bench.provider.requests[0].call
    assert call is not None
    events = [entry.event for entry in call.log]
    assert events == [
        *("ticketed", "paid", "sent", "settled", "unfit", "closed"),
        *("ticketed", "paid", "sent", "settled", "ended"),
    ]  # fmt: skip
    assert call.log[4].detail.startswith("people: Input should be a valid integer")


@pytest.mark.parametrize("stream", WAYS)
async def test_a_chain_of_the_cache_alone_asks_again_too(stream: bool) -> None:
    bench = Bench([said(OTHER), said(GOOD)], sections=CACHE)
    async with bench:
        client = bench.manager.get_client(middleware=["cache"])
        await ask(client, stream=stream)
        assert (await ask(client, stream=stream, response_model=SameCity)).parsed.name == "Oslo"


async def test_a_cost_that_is_unknown_stays_so() -> None:
    bench = Bench([said(BAD), said(GOOD)])
    del bench.config["prices"]
    async with bench as client:
        assert (await ask(client, stream=False)).cost is None


async def test_a_layer_that_always_streams_serves_the_second_question_too() -> None:
    async def streaming(request: LLMRequest, call_next: CallNext) -> LLMResult:
        return as_stream(await call_next(request))

    bench = Bench([said(BAD), said(GOOD)])
    async with bench:
        client = bench.manager.get_client(middleware=["rate_limit", streaming])
        assert (await ask(client, stream=False)).parsed == OSLO


async def test_two_forms_at_once_and_a_class_without_one_are_refused_before_anything_is_sent() -> None:
    bench = Bench([])
    async with bench as client:
        with pytest.raises(LLMInvalidRequestError, match="response_format and response_model are both given"):
            await ask(client, stream=False, response_format="json_object")
        with pytest.raises(LLMInvalidRequestError, match="response_model is int"):
            await ask(client, stream=True, response_model=int)
    assert bench.provider.calls == 0


# --- the cache --------------------------------------------------------------------------------------------------------

CACHE: dict[str, Any] = {"cache": {}}


@pytest.mark.parametrize("second", WAYS)
@pytest.mark.parametrize("first", WAYS)
async def test_a_kept_answer_has_its_instance_too(first: bool, second: bool) -> None:
    bench = Bench([said(GOOD)], sections=CACHE)
    async with bench as client:
        await ask(client, stream=first)
        again = await ask(client, stream=second)
        assert (again.parsed, again.cached, again.cost) == (OSLO, True, 0.0)
        assert bench.provider.calls == 1


@pytest.mark.parametrize("stream", WAYS)
async def test_what_did_not_fit_is_not_left_in_the_cache(stream: bool) -> None:
    bench = Bench([said(BAD), said(WORSE), said(GOOD)], sections=CACHE)
    async with bench as client:
        with pytest.raises(LLMValidationError):
            await ask(client, stream=stream)
        response = await ask(client, stream=stream)
        assert (response.parsed, response.cached) == (OSLO, False)
        assert bench.provider.calls == 3


@pytest.mark.parametrize("stream", WAYS)
async def test_a_kept_second_answer_costs_nothing_again(stream: bool) -> None:
    bench = Bench([said(BAD), said(GOOD), said(BAD)], sections=CACHE)
    async with bench as client:
        await ask(client, stream=stream)
        response = await ask(client, stream=stream)
        assert (response.parsed, response.cached, response.usage, response.cost) == (
            OSLO, False, TokenUsage(10, 5), 20.0,
        )  # fmt: skip


async def test_a_kept_answer_that_does_not_fit_another_class_of_the_same_form_is_taken_out() -> None:
    assert shape_of(City).text == shape_of(SameCity).text
    bench = Bench([said(OTHER), said(GOOD), said(OTHER)], sections=CACHE)
    async with bench as client:
        await ask(client, stream=False)
        response = await ask(client, stream=False, response_model=SameCity)
        assert (response.parsed, response.cached) == (SameCity(name="Oslo", people=717710), False)
        assert (response.usage, response.cost) == (TokenUsage(10, 5), 20.0)
        assert not (await ask(client, stream=False)).cached


@pytest.mark.parametrize("stream", WAYS)
async def test_followers_of_one_flight_each_read_their_own_and_share_the_second_question(stream: bool) -> None:
    bench = Bench([said(BAD), said(GOOD)], sections=CACHE, latency=1.0, auto=True)
    async with bench as client:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(client, stream=stream)) for _ in range(5)]
        assert [task.result().parsed for task in tasks] == [OSLO] * 5
        assert bench.provider.calls == 2
        assert bench.outcome() == (5, 0, 0, 0)


# --- time and leaving -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", WAYS)
async def test_both_questions_share_the_calls_deadline(stream: bool) -> None:
    bench = Bench([said(BAD), said(GOOD)], latency=3.0, auto=True)
    async with bench as client:
        start = bench.clock.now()
        with pytest.raises(LLMTimeoutError):
            await ask(client, stream=stream, timeout=5)
        assert bench.clock.now() - start == pytest.approx(5, abs=0.2)
        assert bench.outcome() == (0, 1, 0, 0)


@pytest.mark.parametrize("stream", WAYS)
async def test_cancelling_during_the_second_question_leaves_nothing(stream: bool) -> None:
    bench = Bench([said(BAD), said(GOOD)], latency=3.0, sections=CACHE)
    async with bench as client:
        task = asyncio.create_task(ask(client, stream=stream))
        await bench.clock.advance(4)
        assert bench.provider.calls == 2
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert bench.outcome() == (0, 0, 1, 0)
        assert bench.provider.in_flight == 0


async def test_leaving_a_stream_during_the_second_question_ends_it_for_its_reader_too() -> None:
    bench = Bench([said(BAD), said(GOOD)], latency=3.0)
    async with bench as client:
        stream = client.stream_complete("Which?", response_model=City)
        reader = asyncio.create_task(stream.response())
        await bench.clock.advance(4)
        await stream.aclose()
        await asyncio.wait([reader])
        assert isinstance(reader.exception(), LLMStreamInterruptedError)
        assert bench.outcome() == (0, 0, 1, 0)


async def test_leaving_a_stream_early_asks_nothing_more() -> None:
    bench = Bench([said(BAD)])
    async with bench as client:
        async with client.stream_complete("Which?", response_model=City) as stream:
            await anext(stream)
        assert bench.outcome() == (0, 0, 1, 0)
    assert bench.provider.calls == 1


async def test_a_stream_that_nobody_holds_any_more_closes() -> None:
    bench = Bench([["{", ...]])
    async with bench as client:
        stream = client.stream_complete("Which?", response_model=City)
        await anext(stream)
        del stream
        await bench.clock.advance(1)
        assert bench.outcome() == (0, 0, 1, 0)


@pytest.mark.parametrize("error", [LLMServerError("broken"), LLMStreamInterruptedError("cut")])
async def test_a_stream_that_breaks_is_not_asked_again(error: LLMException) -> None:
    bench = Bench([["{", error]])
    async with bench as client:
        with pytest.raises(type(error)):
            await ask(client, stream=True)
        assert bench.outcome() == (0, 1, 0, 0)
    assert bench.provider.calls == 1


class Stalled:
    """A `ChunkSource` with data waiting that nobody reads."""

    id = model = ""
    closed = False

    async def __anext__(self) -> StreamChunk:
        return StreamChunk("{")

    def waiting(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True


async def test_a_stream_that_is_abandoned_ends_its_call_without_a_reader() -> None:
    source = Stalled()
    clock = FakeClock()

    async def abandoned(request: LLMRequest, call_next: CallNext) -> LLMResult:
        del request, call_next
        stream = LLMStream(source, provider="scripted")
        stream.watch(clock, idle=5, deadline=None)
        return await stream.begin()

    bench = Bench([])
    bench.clock = clock
    async with bench:
        stream = bench.manager.get_client(middleware=[abandoned]).stream_complete("Which?", response_model=City)
        assert str(await anext(stream)) == "{"
        await clock.advance(11)
        assert source.closed
        assert bench.manager.get_status()["pool"]["calls"] == 0
        with pytest.raises(LLMTimeoutError, match="was not read"):
            await anext(stream)


async def test_a_pause_of_the_reader_is_not_taken_for_abandoned_data() -> None:
    bench = Bench([said(GOOD)])
    async with bench as client:
        stream = client.stream_complete("Which?", response_model=City)
        await anext(stream)
        stream.watch(bench.clock, idle=1, deadline=None)
        await bench.clock.advance(3)
        assert (await stream.response()).parsed == OSLO


async def test_closing_the_manager_during_the_second_question_ends_it() -> None:
    bench = Bench([said(BAD), said(GOOD)], latency=30.0)
    async with bench as client:
        reader = asyncio.create_task(ask(client, stream=True))
        await bench.clock.advance(31)
        assert bench.provider.calls == 2
        closing = asyncio.create_task(bench.manager.close(drain=1))
        await bench.clock.advance(3)
        await closing
        await asyncio.wait([reader])
        assert "the manager was closed" in str(reader.exception())


# --- partial objects --------------------------------------------------------------------------------------------------


async def read(stream: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [partial async for partial in stream]


async def test_partial_objects_grow_and_end_with_the_whole() -> None:
    async with Bench([["Sure: ", '{"na', 'me": "Os', "", 'lo", "people"', ": 717", "710}", " "]]) as client:
        stream = client.stream_complete("Which?", response_model=City)
        assert await read(stream.partials()) == [
            {}, {"name": "Os"}, {"name": "Oslo"}, {"name": "Oslo", "people": 717710},
        ]  # fmt: skip
        assert (await stream.response()).parsed == OSLO
        assert await read(stream.partials()) == [{"name": "Oslo", "people": 717710}]


async def test_partial_objects_end_with_the_second_answer() -> None:
    async with Bench([said(BAD), said(OTHER)]) as client:
        stream = client.stream_complete("Which?", response_model=City)
        partials = await read(stream.partials())
        assert {"name": "Oslo", "people": "many"} in partials
        assert partials[-1] == {"name": "Rome", "people": 2746984}
        assert (await stream.response()).parsed == City(name="Rome", people=2746984)


async def test_a_reader_of_chunks_gets_the_first_answers_and_hears_of_the_second_at_the_end() -> None:
    async with Bench([said(BAD), said(WORSE)]) as client:
        stream = client.stream_complete("Which?", response_model=City)
        chunks = [str(await anext(stream)) for _ in range(6)]
        assert "".join(chunks) == BAD
        with pytest.raises(LLMValidationError):
            await anext(stream)


async def test_any_json_may_be_read_as_it_grows() -> None:
    async with Bench([['{"a": [1', ", 2]}"], ["no JSON"]]) as client:
        assert await read(client.stream_complete("x").partials()) == [{"a": []}, {"a": [1, 2]}]
        assert await read(client.stream_complete("x").partials()) == []
